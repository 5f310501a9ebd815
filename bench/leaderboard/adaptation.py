"""Whether an attack was made against the very defence it meets, or only against a part of it: the words and the marks.

"Adapted to this defence" means this very composition (DESIGN 6); sharing a part is `partial`. The two are never one
mark: an attack on one member says nothing of what an attack on the whole would do. Every table, figure and report
takes its words from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pandas as pd

Adaptation = Literal["exact", "partial"]

COLUMNS: Mapping[Adaptation, str] = {
    "exact": "attack_adapts_to_defense",
    "partial": "attack_adapts_in_part",
}
"""The leaderboard's columns that say so."""

MARKS: Mapping[Adaptation, str] = {"exact": "‡", "partial": "§"}
"""Marks of a rate."""

WORDS: Mapping[Adaptation, str] = {
    "exact": "adapted to this very defence",
    "partial": "adapted to a part of this defence, or to a whole that shares one",
}
"""What a rate is marked for."""

NOT_ADAPTED = "no"
"""What a table says of an attack that knows nothing of the defence."""


def adaptation(row: Any) -> Adaptation | None:
    """Return whether the attack of a row is adapted to its defence, None where it is not.

    Args:
        row: a row of the leaderboard as a mapping, or a `bench.run.threat.CellThreat`. A row that says both, as no
            version writes, is exact.
    """
    found = (kind for kind, column in COLUMNS.items() if _says(row, column))
    return next(found, None)


def in_a_word(row: Any) -> str:
    """Return ``exact``, ``partial`` or `NOT_ADAPTED`, with ``(recipe)`` where the attack has no weights of the defence.

    Args:
        row: as for `adaptation`.
    """
    kind = adaptation(row)
    if kind is None:
        return NOT_ADAPTED
    return f"{kind} (recipe)" if _value(row, "attack_knows") == "recipe" else kind


def short(kind: Adaptation, *, recipe: bool = False) -> str:
    """Return the mark of a row where there is little room.

    Args:
        kind: exact or partial.
        recipe: whether the attack knows how trackers are hardened and not the weights.
    """
    return f"adapted ({kind}{'; recipe' if recipe else ''})"


def in_short(row: Any) -> str:
    """Return `short` of a row, "" where its attack is not adapted to its defence."""
    kind = adaptation(row)
    return "" if kind is None else short(kind, recipe=_value(row, "attack_knows") == "recipe")


def column(rows: pd.DataFrame) -> list[Adaptation | None]:
    """Return `adaptation` of every row of a leaderboard."""
    return [adaptation(row) for row in rows[list(COLUMNS.values())].to_dict("records")]


def explained(kinds: Iterable[Adaptation | None]) -> str:
    """Return the sentence that explains the marks of some rates, "" for none."""
    there = set(kinds)
    return " ".join(f"{MARKS[kind]}: the attack is {WORDS[kind]}." for kind in COLUMNS if kind in there)


def _says(row: Any, name: str) -> bool:
    return str(_value(row, name)) == "True"  # a table may hold texts where a column has gaps


def _value(row: Any, name: str) -> Any:
    return row.get(name) if isinstance(row, Mapping) else getattr(row, name)
