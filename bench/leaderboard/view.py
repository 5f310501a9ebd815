"""A finished run as figures, reports and leaderboards see it: read once, used many times."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench.analysis.comparison_groups import ComparisonGroup
from bench.analysis.results import Results
from bench.leaderboard import means, significance_tables
from bench.leaderboard.table import of_results
from bench.run.folder import RunFacts, RunFolder
from bench.stats.rankings import Ranking


@dataclass
class RunView:
    """A run's folder with what is made of it, each computed when it is first requested.

    Attributes:
        folder: the run's folder.
    """

    folder: RunFolder

    @classmethod
    def of(cls, path: Path) -> "RunView":
        """Return the view of a finished run.

        Raises:
            DataError: not a finished run's folder.
        """
        view = cls(RunFolder(path))
        _ = view.results
        return view

    @property
    def facts(self) -> RunFacts:
        """Return what was requested."""
        return self.results.facts

    @cached_property
    def results(self) -> Results:
        """Return the decisions of every cell.

        Raises:
            DataError: not a finished run's folder.
        """
        return Results.of(self.folder)

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """Return the leaderboard, with the columns of `bench.leaderboard.columns.COLUMNS`."""
        return of_results(self.results)

    @cached_property
    def means(self) -> pd.DataFrame:
        """Return the means over trackers, with the columns of `means.COLUMNS`; empty without an attack."""
        cloaked = set(self.results.values("attack")) - {"none"}
        return means.table(means.means(self.results, kept=self.accuracy_kept) if cloaked else [])

    @cached_property
    def accuracy_kept(self) -> pd.DataFrame:
        """Return whether each defence keeps normal accuracy (`significance_tables.accuracy_kept`)."""
        return significance_tables.accuracy_kept(self.results)

    @cached_property
    def ranked(self) -> list[tuple[ComparisonGroup, Ranking]]:
        """Return every comparison group of the run, ranked (`significance_tables.ranked_groups`)."""
        return significance_tables.ranked_groups(self.results)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Return every tested pair of methods, with the columns of `bench.leaderboard.significance_tables.PAIRS`."""
        return significance_tables.pairs(self.ranked)
