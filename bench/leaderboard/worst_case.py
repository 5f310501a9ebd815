"""What a reader must know of the worst cases of a table, in words.

What lives here: sentences made of the table's columns. What must not: the numbers (`bench.analysis.worst_case`).
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.analysis.worst_case import NONE, PARTIAL

READING = (
    "Worst case: each identity's highest ASR over the attacks, then the mean over identities; ≥: it may be higher "
    "still."
)
"""How to read the number, for captions."""

LACKING: Mapping[str, str] = {
    NONE: "No attack was made against these defences; whoever knows one may do better, so that theirs is no worst "
    "case: ",
    PARTIAL: "Attacks were made against a part of these defences alone, or a whole that shares one; whoever knows one "
    "exactly may do better, so that theirs is no worst case: ",
}
"""Value of `worst_knows` → what is said of the defences that have it."""

_FEWER = "Worst cases over fewer attacks than the table has, as cells failed or were not run: "


def is_bound(over: int | None, of: int | None, knows: str) -> bool:
    """Return whether a worst case may be higher still: an attack has no rate, or none was made against the defence.

    Args:
        over: attacks with a rate, None where that is not known.
        of: attacks there are, likewise.
        knows: ``exact``, ``partial`` or ``none``; "" where there is nothing to know.
    """
    fewer = over is not None and of is not None and over < of
    return fewer or knows in (NONE, PARTIAL)


def sentences(leaderboard: pd.DataFrame, quote: str = "") -> list[str]:
    """Return which defences' worst cases are none, a sentence a reason; none of a table that has no worst case.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        quote: before and after a name.
    """
    rows = leaderboard[leaderboard["asr_worst"].notna()]
    fewer = (rows["worst_over"] < rows["worst_of"]).fillna(value=False).astype(bool)
    marks = {words: rows["worst_knows"] == knows for knows, words in LACKING.items()} | {_FEWER: fewer}
    return [
        f"{words}{', '.join(named)}."
        for words, marked in marks.items()
        if (named := _named(rows["defense"].tolist(), marked.tolist(), quote))
    ]


def _named(defenses: Sequence[str], marked: Sequence[bool], quote: str) -> list[str]:
    """Return the defences with a marked row, and in how many rows where not in all."""
    found = []
    for name in dict.fromkeys(defenses):
        own = [mark for one, mark in zip(defenses, marked, strict=True) if one == name]
        if any(own):
            part = "" if all(own) else f" (in {sum(own)} of {len(own)} rows)"
            found.append(f"{quote}{name}{quote}{part}")
    return found
