"""A report as data: sections of blocks, which each form writes in its own way.

Texts are plain; what stands between backticks is code. Nothing here is escaped: each form does that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import pandas as pd

from bench.figures import Drawing

T = TypeVar("T")


@dataclass(frozen=True)
class Paragraph:
    """Whole sentences.

    Attributes:
        text: the sentences.
        tone: ``lead`` for the headline, ``note`` for what explains, ``warning`` for what must not be overlooked.
    """

    text: str
    tone: Literal["", "lead", "note", "warning"] = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Commands or digests, as they are typed; one line each."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        meaning: a sentence, or "" where the heading says all.
        numeric: whether it is set flush right.
    """

    title: str
    meaning: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        caption: what it shows.
        columns: left to right.
        rows: one text a column.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class MatrixField:
    """A rate of a matrix.

    Attributes:
        text: in per cent, ``NA`` where there is none.
        rate: in [0, 1], by which it is shaded; None: not at all.
    """

    text: str
    rate: float | None


@dataclass(frozen=True)
class MatrixRow:
    """Rates of one thing, such as an attack, one a column."""

    name: str
    fields: tuple[MatrixField, ...]


@dataclass(frozen=True)
class Matrix:
    """Rates in rows and columns, shaded: attacks × defences as a rule.

    Attributes:
        caption: what it shows.
        columns: the headings, left to right.
        rows: the first is a reference, the others one an attack.
        corner: heading of the rows' names.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    corner: str = "Attack"


@dataclass(frozen=True)
class LeaderboardBlock:
    """The leaderboard, with the columns of `bench.leaderboard.columns.COLUMNS`.

    Attributes:
        rows: of the cells.
        names: canonical name of a method → the label it is shown under.
    """

    rows: pd.DataFrame
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        kind: its name in `bench.figures.KINDS`.
        drawing: what was drawn, with its title, caption and alternative text.
        photos: it shows identities.
    """

    kind: str
    drawing: Drawing
    photos: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when requested; in print and on paper always.

    Attributes:
        title: what is inside.
        blocks: shown when opened.
    """

    title: str
    blocks: tuple[Block, ...]


Block = Paragraph | Bullets | Facts | Code | Table | Matrix | LeaderboardBlock | Picture | Folded


@dataclass(frozen=True)
class Section:
    """A part of a report under one heading.

    Attributes:
        id: its anchor, unique in the report.
        title: its heading.
        blocks: in order.
        parts: sections of the next level, after the blocks.
        wide: it is set on broad pages where it is printed.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]
    parts: tuple[Section, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: its heading.
        subtitle: which run it is of.
        sections: in order, the summary first.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def walk(report: Report) -> Iterator[tuple[int, Section | Block]]:
    """Yield every section of a report, each followed by its blocks and parts, and every block by those inside it.

    Yields:
        The section's level, 0 for those of the report, and the section or block.
    """

    def of(blocks: tuple[Block, ...], level: int) -> Iterator[tuple[int, Section | Block]]:
        for block in blocks:
            yield level, block
            if isinstance(block, Folded):
                yield from of(block.blocks, level)

    def within(sections: tuple[Section, ...], level: int) -> Iterator[tuple[int, Section | Block]]:
        for section in sections:
            yield level, section
            yield from of(section.blocks, level)
            yield from within(section.parts, level + 1)

    return within(report.sections, 0)


def pictures(report: Report) -> Iterator[Picture]:
    """Yield every figure of a report, in order."""
    return (block for _, block in walk(report) if isinstance(block, Picture))


def code_spans(text: str) -> list[tuple[str, bool]]:
    """Return the pieces of a text, each with whether it stood between backticks."""
    return [(piece, bool(index % 2)) for index, piece in enumerate(re.split(r"`([^`]+)`", text))]


def with_texts(value: T, change: Callable[[str], str]) -> T:
    """Return a report, or a part of one, with every text changed; those drawn in figures and in the leaderboard too.

    Args:
        value: left as it is, but for what is drawn in figures: these have no copies and are changed in place.
        change: text → text.
    """
    return _changed(value, change)  # type: ignore[no-any-return]


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(item, change) for item in value)
    if isinstance(value, pd.DataFrame):
        return value.map(lambda field: change(field) if isinstance(field, str) else field)
    if isinstance(value, Drawing):
        return replace(
            value,
            **{name: change(getattr(value, name)) for name in ("title", "caption", "alt")},
            figure=_drawn(value, change),
        )
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{part.name: _changed(getattr(value, part.name), change) for part in fields(value)}
        )
    return value


def _drawn(drawing: Drawing, change: Callable[[str], str]) -> Any:
    from matplotlib.text import Text

    for text in drawing.figure.findobj(Text):
        assert isinstance(text, Text)
        if (wanted := change(text.get_text())) != text.get_text():
            text.set_text(wanted)
    return drawing.figure
