"""A finished run as figures, reports and leaderboards see it: read once, asked many times."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench import leaderboard, means, significance_tables
from bench.answers import Answers
from bench.rankings import Ranking
from bench.run_folder import RunFacts, RunFolder
from bench.slices import Slice


@dataclass
class RunView:
    """A run's folder with what is made of it, each computed when it is first asked for.

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
        _ = view.answers
        return view

    @property
    def facts(self) -> RunFacts:
        """Return what was asked."""
        return self.answers.facts

    @cached_property
    def answers(self) -> Answers:
        """Return the decisions of every cell.

        Raises:
            DataError: not a finished run's folder.
        """
        return Answers.of(self.folder)

    @cached_property
    def board(self) -> pd.DataFrame:
        """Return the leaderboard, with the columns of `bench.leaderboard.COLUMNS`."""
        return leaderboard.build(self.folder)

    @cached_property
    def means(self) -> pd.DataFrame:
        """Return the means over trackers, with the columns of `bench.means.COLUMNS`; empty without an attack."""
        return means.table(means.means(self.answers) if set(self.answers.values("attack")) - {"none"} else [])

    @cached_property
    def ranked(self) -> list[tuple[Slice, Ranking]]:
        """Return every slice of the run with its ranking (`bench.significance_tables.ranked_slices`)."""
        return significance_tables.ranked_slices(self.answers)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Return every tested pair of methods, with the columns of `bench.significance_tables.PAIRS`."""
        return significance_tables.pairs(self.ranked)
