"""Protocols: how a tracker is trained and tested, and what it answers.

Here: `bench.contracts.Protocol` plugins and the tracker's heads. Not here: rates and intervals
(`bench.stats.rates`, `bench.stats.intervals`), which are views over the decisions.
"""
