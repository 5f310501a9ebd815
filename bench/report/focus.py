"""Which of a run's many comparisons the key results are about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.analysis.comparison_groups import EVERY, Axis, ComparisonGroup
from bench.analysis.results import Results
from bench.leaderboard.erasure import POSTED
from bench.leaderboard.view import RunView
from bench.plugins import syntax
from bench.report.wording import records
from bench.stats.rankings import Ranking

FIRST_REQUESTED: Mapping[str, str] = {
    "verification": "dodging, FAR 1 %",
    "identification": "rank 1",
    "scenarios": "cloaked gallery, clean query",
    "robustness": "no channel",
    "erasure": POSTED,
}
"""Protocol → the condition the key results are about, where the run has it; else the first that is ranked."""

Key = tuple[str, str, str]
"""Head, condition and access."""

Row = Mapping[str, Any]
"""Column → value, None where it is empty."""


@dataclass(frozen=True)
class Focus:
    """The comparison that the key results are about.

    Attributes:
        key: head, condition and access.
        against: the attack the defences meet, or `EVERY`.
        rows: (attack or `EVERY`, defence) → its row of `bench.leaderboard.means.COLUMNS` under this key.
        groups: every comparison group of the run with its ranking.
        pairs: every tested pair, with the columns of `bench.leaderboard.significance_tables.PAIRS`.
    """

    key: Key
    against: str
    rows: Mapping[tuple[str, str], Row]
    groups: Sequence[tuple[ComparisonGroup, Ranking]] = field(repr=False)
    pairs: pd.DataFrame = field(repr=False)

    @property
    def defenses(self) -> tuple[str, ...]:
        """Return the defences that meet `against`, ``none`` among them where the run has it."""
        return tuple(defense for against, defense in self.rows if against == self.against)

    @property
    def attacks(self) -> tuple[str, ...]:
        """Return the single attacks under this key."""
        return tuple(dict.fromkeys(against for against, _ in self.rows if against != EVERY))

    @property
    def any_row(self) -> Row:
        """Return one of the rows of `against`, for what all have in common."""
        return self.rows[self.against, self.defenses[0]]

    def ranking(self, axis: Axis, opponent: str) -> Ranking:
        """Return a ranking under this key; an empty one with its reason where the run has none."""
        for one, ranking in self.groups:
            if (one.axis, one.opponent, key_of(one)) == (axis, opponent, self.key):
                return ranking
        return Ranking((), reason="not ranked: the run has no such cells")

    def pair(self, axis: Axis, opponent: str, one: str, other: str) -> Row | None:
        """Return the tested pair of two methods under this key, in either order; None where there is none."""
        table = of_group(self.pairs, axis, opponent, self.key)
        same = table[table["first"].isin((one, other)) & table["second"].isin((one, other))]
        return next(iter(records(same)), None)


def key_of(one: ComparisonGroup) -> Key:
    """Return head, condition and access of a comparison group."""
    return one.head, one.condition, one.access


def of_group(table: pd.DataFrame, axis: Axis, opponent: str, key: Key) -> pd.DataFrame:
    """Return the rows of a table of rankings or pairs that belong to one comparison group."""
    wanted = dict(
        zip(("ranked", "against", "head", "condition", "access"), (axis, opponent, *key), strict=True)
    )
    return table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def order(ranking: Ranking) -> list[str]:
    """Return a ranking's methods, the best first."""
    return [one.method for one in ranking.methods]


def apart(ranking: Ranking, one: str, other: str) -> bool:
    """Say whether two methods are significantly different."""
    test = ranking.pairs.get((one, other)) or ranking.pairs.get((other, one))
    return test is not None and test.significant


def helps(ranking: Ranking, defense: str) -> bool:
    """Say whether a defence has a significantly lower rate than no defence."""
    methods = order(ranking)
    ranked = defense in methods and "none" in methods
    return ranked and methods.index(defense) < methods.index("none") and apart(ranking, defense, "none")


def real(results: Results, axis: Axis) -> tuple[str, ...]:
    """Return the methods of one axis of the run but ``none``."""
    return tuple(name for name in results.values(axis) if name != "none")


def protocol_of(view: RunView) -> str:
    """Return the name of the run's protocol, without its parameters."""
    return syntax.parse(view.facts.spec.protocol).name


def choose_focus(view: RunView) -> Focus | None:
    """Return the comparison that the key results are about; None where no attack has a rate.

    The run's first head; the protocol's own question (`FIRST_REQUESTED`); black-box before white-box, as a tracker's
    backbone is seldom known; the mean of all attacks before a single one.
    """
    results = view.results
    if not real(results, "attack"):
        return None
    known = view.means[view.means["asr"].notna()]
    if known.empty:
        return None
    wanted = {
        "head": results.values("head"),
        "condition": (FIRST_REQUESTED.get(protocol_of(view), ""), *results.ranked_conditions()),
        "access": ("black-box", "white-box"),
        "against": (EVERY, *real(results, "attack")),
    }
    chosen: dict[str, str] = {}
    for column, preferred in wanted.items():
        there = set(known[column])
        chosen[column] = next((one for one in preferred if one in there), min(there))
        known = known[known[column] == chosen[column]]
    key = (chosen["head"], chosen["condition"], chosen["access"])
    rows = {
        (str(row["against"]), str(row["defense"])): row
        for row in records(view.means)
        if (row["head"], row["condition"], row["access"]) == key
    }
    return Focus(key, chosen["against"], rows, view.ranked, view.pairs)
