"""Engines: where a run's artefacts are computed, when not in the run's own process. One file an engine."""
