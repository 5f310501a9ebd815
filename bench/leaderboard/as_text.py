"""Tables for a terminal: one line a row, names whole, as much of the rest as its width takes.

What lives here: which columns there is room for, and the sentences that say the rest. What must not: drawing (the
command line does that), and any number that is not in the table given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import pandas as pd

from bench.leaderboard.summary import (
    MISSING,
    Row,
    SummaryField,
    by_attack,
    measured,
    named,
    references_last,
    worst_case,
)

Says = Literal["key", "more", "always"]

GAP = 2
"""Blanks between two columns."""


@dataclass(frozen=True)
class TextColumn:
    """A column as it could be shown.

    Attributes:
        name: what it is called in a sentence.
        heading: what stands above it, of one line or two.
        fields: one a row.
        numeric: whether it is of numbers.
        says: ``key``: one of what tells rows apart, left out where they agree; ``more``: left out where there is no
            room; ``always``: stays.
        unit: behind its value in a sentence, e.g. `` dB``.
        ends: how near its intervals come to being shown: those of 1 go last, of 0 never are.
    """

    name: str
    heading: str
    fields: tuple[SummaryField, ...]
    numeric: bool = False
    says: Says = "more"
    unit: str = ""
    ends: int = 0

    def common(self) -> str:
        """Return the one value of all rows that have one, with its unit; "" where they differ or none has."""
        values = {str(field) for field in self.fields} - {"", MISSING}
        return f"{values.pop()}{self.unit}" if len(values) == 1 else ""

    def is_empty(self) -> bool:
        """Say whether no row has a value."""
        return all(field.text in ("", MISSING) for field in self.fields)

    def without_intervals(self, above: int = 0) -> "TextColumn":
        """Return the column with its intervals only where `ends` is positive and at most `above`."""
        if 0 < self.ends <= above:
            return self
        return replace(self, fields=tuple(replace(field, interval="") for field in self.fields), ends=0)

    def title(self) -> str:
        """Return the heading, with what the intervals are where there are some."""
        return self.heading + (" [95 %]" if any(field.interval for field in self.fields) else "")

    def width(self) -> int:
        """Return the characters that its longest line takes."""
        return max(map(len, (*self.title().split("\n"), *map(str, self.fields))))


@dataclass(frozen=True)
class TextTable:
    """What is shown of a table.

    Attributes:
        columns: those shown.
        same: sentences' parts, ``name value`` for each column that is left out as its rows agree.
        no_room: names of the columns left out for want of room.
        intervals: whether some interval was left out for want of room.
    """

    columns: tuple[TextColumn, ...]
    same: tuple[str, ...] = ()
    no_room: tuple[str, ...] = ()
    intervals: bool = False

    def width(self) -> int:
        """Return the characters that a line takes."""
        return sum(column.width() for column in self.columns) + GAP * max(len(self.columns) - 1, 0)


def fit(columns: Sequence[TextColumn], width: int | None) -> TextTable:
    """Return what is shown of a table: the fullest form that has room for one line a row.

    Columns without any value go, and those that would tell rows apart where all rows agree. Then go, until the rest has
    room: intervals, the least needed first; further columns in which all rows agree; the last of the others. What
    tells rows apart is never left out, so that a table can be too wide all the same.

    Args:
        columns: all there are, those least needed last.
        width: characters; None: no matter how many.
    """
    *others, last = _forms(columns)
    return next((table for table in others if width is None or table.width() <= width), last)


def _forms(columns: Sequence[TextColumn]) -> Iterator[TextTable]:
    """Yield the forms of a table, the fullest first."""
    there = [column for column in columns if column.says == "always" or not column.is_empty()]
    constant = [column for column in there if column.says == "key" and column.common()]
    rest = [column for column in there if column not in constant]
    same = tuple(f"{column.name} {column.common()}" for column in constant)
    agreeing = [column for column in rest if column.says == "more" and column.common()]
    agreed = (*same, *(f"{column.name} {column.common()}" for column in agreeing))
    fewer = [column for column in rest if column not in agreeing]
    most = max((column.ends for column in columns), default=0)
    yield TextTable(tuple(rest), same)
    for ends in range(most - 1, 0, -1):
        yield _table(rest, same, ends)
        yield _table(fewer, agreed, ends)
    yield _table(rest, same, 0)
    yield _table(fewer, agreed, 0)
    extras = [column for column in reversed(fewer) if column.says == "more"]
    for gone in accumulate([column] for column in extras):
        kept = [column for column in fewer if column not in gone]
        yield replace(_table(kept, agreed, 0), no_room=tuple(column.name for column in gone[::-1]))


def _table(columns: Sequence[TextColumn], same: tuple[str, ...], ends: int) -> TextTable:
    shown = tuple(column.without_intervals(ends) for column in columns)
    return TextTable(shown, same, intervals=shown != tuple(columns))


def texts(values: Iterable[str]) -> tuple[SummaryField, ...]:
    """Return the fields of a column of texts."""
    return tuple(SummaryField(str(value), str(value)) for value in values)


def of_leaderboard(leaderboard: pd.DataFrame) -> tuple[TextColumn, ...]:
    """Return the columns of a leaderboard that a terminal can show, the attacks before the rows without one.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
    """
    ordered = by_attack(references_last(leaderboard)).to_dict("records")
    rows: list[Row] = [{str(name): value for name, value in row.items()} for row in ordered]

    def fields(show: Callable[[Row], SummaryField]) -> tuple[SummaryField, ...]:
        return tuple(replace(show(row), note="") for row in rows)

    def key(name: str, says: Says = "key") -> TextColumn:
        return TextColumn(name, name, fields(named(name)), says=says)

    def rate(name: str, of: str, heading: str, *, says: Says = "more", ends: int = 0) -> TextColumn:
        show = measured(of, factor=100, interval=ends > 0)
        return TextColumn(name, heading, fields(show), numeric=True, says=says, unit=" %", ends=ends)

    worst = fields(worst_case)
    return (
        key("attack", "always"),
        key("defense", "always"),
        *map(key, ("backbone", "head", "condition", "seed")),
        TextColumn(
            "worst case",
            "worst\ncase %",
            worst,
            numeric=True,
            # A run without an attack has none.
            says="always" if any(one.value is not None for one in worst) else "more",
            unit=" %",
            ends=1,
        ),
        rate("ASR", "asr", "ASR %", says="always", ends=1),
        rate("ASR without cloak", "defended_baseline_error", "without\ncloak %"),
        rate("normal accuracy", "normal_accuracy", "normal\nacc. %", ends=2),
        rate("recovery", "recovery", "recov-\nery %"),
        TextColumn("cloak PSNR", "PSNR\ndB", fields(measured("cloak_psnr")), numeric=True, unit=" dB"),
        TextColumn("cloak LPIPS", "LPIPS", fields(measured("cloak_lpips", decimals=3)), numeric=True),
        key("access"),
        key("status"),
    )
