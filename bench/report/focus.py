"""Which of a run's many comparisons the main finding is about, and what its tests say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.analysis.comparison_groups import EVERY, Axis, ComparisonGroup
from bench.analysis.results import Results
from bench.leaderboard.erasure import POSTED
from bench.leaderboard.view import RunView
from bench.plugins import syntax
from bench.report.wording import p_value, percent
from bench.stats.rankings import PairTest, Ranking

FIRST_REQUESTED: Mapping[str, str] = {
    "verification": "dodging, FAR 1 %",
    "identification": "rank 1",
    "scenarios": "cloaked gallery, clean query",
    "robustness": "no channel",
    "erasure": POSTED,
}
"""Protocol → the condition the main finding is about, where the run has it; else the first that is ranked."""

Key = tuple[str, str, str]
"""Head, condition and access."""


@dataclass(frozen=True)
class Focus:
    """The comparison that the main finding is about.

    Attributes:
        key: head, condition and access.
        against: the attack the defences meet, or `EVERY`.
        rows: defence → its row of `bench.leaderboard.means.COLUMNS`.
        attacks: attack → its row under the same key and defence ``none``.
        found: every slice of the run with its ranking.
    """

    key: Key
    against: str
    rows: Mapping[str, Mapping[str, Any]]
    attacks: Mapping[str, Mapping[str, Any]]
    found: Sequence[tuple[ComparisonGroup, Ranking]] = field(repr=False)

    @property
    def any_row(self) -> Mapping[str, Any]:
        """Return one of the rows, for what all have in common."""
        return next(iter(self.rows.values()))

    def ranking(self, axis: Axis, opponent: str) -> Ranking:
        """Return a ranking under the same key; an empty one with its reason where the run has none."""
        for one, ranking in self.found:
            if one.axis == axis and one.opponent == opponent and key_of(one) == self.key:
                return ranking
        return Ranking((), reason="not ranked: the run has no such cells")

    def comparison_groups(self, axis: Axis) -> list[tuple[ComparisonGroup, Ranking]]:
        """Return all slices of one axis."""
        return [(one, ranking) for one, ranking in self.found if one.axis == axis]

    def asr(self, defense: str) -> str:
        """Return a defence's ASR with its interval, as text."""
        return rate(self.rows[defense])


def key_of(one: ComparisonGroup) -> Key:
    """Return head, condition and access of a slice."""
    return one.head, one.condition, one.access


def rate(row: Mapping[str, Any]) -> str:
    """Return the ASR of a row of `bench.leaderboard.means.COLUMNS` with its interval, as text."""
    return percent(row["asr"], row["asr_low"], row["asr_high"])


def real(results: Results, axis: Axis) -> tuple[str, ...]:
    """Return the methods of one axis of the run but ``none``."""
    return tuple(name for name in results.values(axis) if name != "none")


def choose_focus(view: RunView) -> Focus | None:
    """Return the comparison that the main finding is about; None where no attack has a rate.

    The run's first head; the protocol's own question (`FIRST_REQUESTED`); black-box before white-box, as a tracker's
    backbone is seldom known; the mean of all attacks before a single one.
    """
    results = view.results
    if not real(results, "attack"):
        return None
    rows = view.means
    rows = rows.astype(object).where(rows.notna(), None)
    known = rows[[value is not None for value in rows["asr"]]]
    if known.empty:
        return None
    requested = FIRST_REQUESTED.get(syntax.parse(view.facts.spec.protocol).name, "")
    wanted = {
        "head": results.values("head"),
        "condition": (requested, *results.ranked_conditions()),
        "access": ("black-box", "white-box"),
        "against": (EVERY, *real(results, "attack")),
    }
    chosen = {}
    for column, order in wanted.items():
        there = set(known[column])
        chosen[column] = next((one for one in order if one in there), min(there))
        known = known[known[column] == chosen[column]]
    same = rows[
        (rows[["head", "condition", "access"]] == known.iloc[0][["head", "condition", "access"]]).all(axis=1)
    ]
    return Focus(
        key=(chosen["head"], chosen["condition"], chosen["access"]),
        against=chosen["against"],
        rows=_by(same[same["against"] == chosen["against"]], "defense"),
        attacks=_by(same[(same["defense"] == "none") & (same["against"] != EVERY)], "against"),
        found=view.ranked,
    )


def _by(rows: pd.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    return {str(row[column]): {str(k): v for k, v in row.items()} for row in rows.to_dict("records")}


# -- what tests say -----------------------------------------------------------------------------------------


def order(ranking: Ranking) -> list[str]:
    """Return a ranking's methods, the best first."""
    return [one.method for one in ranking.methods]


def test_of(ranking: Ranking, one: str, other: str) -> PairTest | None:
    """Return the test of two methods, None where there is none."""
    return ranking.pairs.get((one, other)) or ranking.pairs.get((other, one))


def apart(ranking: Ranking, one: str, other: str) -> bool:
    """Say whether two methods are significantly different."""
    test = test_of(ranking, one, other)
    return test is not None and test.significant


def helps(ranking: Ranking, defense: str) -> bool:
    """Say whether a defence is significantly different from none, with the lower rate."""
    names = order(ranking)
    ranked = defense in names and "none" in names
    return ranked and names.index(defense) < names.index("none") and apart(ranking, defense, "none")


def told(ranking: Ranking, one: str, other: str) -> str:
    """Say in a few words what the test of two methods found."""
    test = test_of(ranking, one, other)
    if test is None or test.p_holm is None:
        reason = ranking.reason or (test.found.reason if test is not None else "")
        return f"not tested: {reason}" if reason else "not tested"
    verdict = "significantly different" if test.significant else "not significantly different"
    return f"{verdict}, {p_value(test.p_holm)} after Holm"
