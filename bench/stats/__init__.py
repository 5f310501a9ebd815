"""Frames in, numbers out: intervals, tests, rankings, power; no file is read here."""
