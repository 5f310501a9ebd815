"""The leaderboard as HTML: boards of methods, and the cells below them as a table that sorts and filters."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.leaderboard.adaptation import COLUMNS as ADAPTATION
from bench.leaderboard.adaptation import MARKS, NOT_ADAPTED, adaptation
from bench.leaderboard.adaptation import explained as explained_adaptation
from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.boards import Board, Standing, Task, WorstCase
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.names import NONE, NOTHING, explained, in_words, short_names
from bench.leaderboard.summary import MISSING, SummaryTable, is_there, short
from bench.leaderboard.worst_case import LACKING, READING

if TYPE_CHECKING:
    from jinja2 import Environment


def _template(name: str) -> str:
    return (resources.files("bench.leaderboard") / "templates" / name).read_text(encoding="utf-8")


CSS = _template("leaderboard.css")
"""Style of the HTML table; colours are the variables --bg, --fg, --muted, --line, --accent and --mark."""

JS = _template("leaderboard.js")
"""Script of the HTML table: finds every ``.board`` of the page by itself, once the page is read."""

FILTERS: Mapping[str, str] = {
    "attack": "Attack",
    "defense": "Defence",
    "backbone": "Backbone",
    "head": "Head",
    "access": "Access",
    "attack_seen_by_defense": "Attack seen",
    "attack_adapts_to_defense": "Adapted",
    "identity_overlap": "Overlap",
    "dataset": "Dataset",
    "protocol": "Protocol",
    "condition": "Condition",
    "status": "Status",
}
"""Column of the leaderboard → label of its filter; the last four are shown where their rows differ."""

_FILTERS_IF_SEVERAL = frozenset({"dataset", "protocol", "condition", "status"})


_FIRST = ("attack", "defense", "worst", "asr")
"""Columns that stand before all others: what a phone shows of the table."""


def html(
    leaderboard: pd.DataFrame, table_id: str = "leaderboard", labels: Mapping[str, str] | None = None
) -> str:
    """Return the leaderboard's cells as a fragment of HTML; `CSS` and `JS` style it and let it sort and filter.

    Without the script it is a plain table. Every text is escaped.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        table_id: its id, unique in the page; begins with a letter, then letters, digits, - and _.
        labels: canonical name → what a method is called here; the CSV keeps the canonical ones.

    Raises:
        ValueError: the id is none.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", table_id):
        raise ValueError(f"an id begins with a letter, then letters, digits, - and _, got {table_id!r}")
    spoken = in_words(leaderboard, labels)
    table = _asr_first(short(spoken))
    fields = list(csv.reader(io.StringIO(to_csv(leaderboard), newline="")))
    shown = {
        key: label
        for key, label in FILTERS.items()
        if key not in _FILTERS_IF_SEVERAL or _several(leaderboard, key)
    }
    filters = {key: _filter_values(spoken, key) for key in shown}
    places = {
        text: place for place, text in enumerate(dict.fromkeys(field for row in fields[1:] for field in row))
    }
    full = {
        "columns": [
            [name, COLUMNS.get(name, ""), bool(pd.api.types.is_numeric_dtype(leaderboard[name]))]
            for name in leaderboard.columns
        ],
        # Most texts are in many rows.
        "texts": list(places),
        "rows": [[places[field] for field in row] for row in fields[1:]],
    }
    template = environment().get_template("leaderboard.html.j2")
    text = template.render(
        id=table_id,
        table=table,
        filters=[(key, shown[key], list(dict.fromkeys(values))) for key, values in filters.items()],
        of_row=[{key: values[i] for key, values in filters.items()} for i in range(len(table.rows))],
        full=full,
        missing=MISSING,
    )
    return str(text)


def _asr_first(table: SummaryTable) -> SummaryTable:
    """Return a table with the columns of `_FIRST` before the others."""
    keys = [column.key for column in table.columns]
    order = [keys.index(key) for key in _FIRST] + [at for at, key in enumerate(keys) if key not in _FIRST]
    return replace(
        table,
        columns=tuple(table.columns[at] for at in order),
        rows=tuple(tuple(row[at] for at in order) for row in table.rows),
    )


def _filter_values(leaderboard: pd.DataFrame, key: str) -> list[str]:
    """Return the text each row is filtered by; an attack on a part of a defence has one of its own."""
    if key != ADAPTATION["exact"]:
        return [_filter_value(value) for value in leaderboard[key]]
    return [adaptation(row) or NOT_ADAPTED for row in leaderboard.to_dict("records")]


def _several(leaderboard: pd.DataFrame, key: str) -> bool:
    return len({_filter_value(value) for value in leaderboard[key]}) > 1


def _filter_value(value: Any) -> str:
    """Return the text a row is filtered by; a row without is found under a word of its own."""
    if value is True or value is False:
        return "yes" if value else "no"
    return str(value) if is_there(value) else "(none)"


# -- boards -------------------------------------------------------------------------------------------------------

_UNDEFENDED = "No defence %"

_HEADINGS: Mapping[str, tuple[str, ...]] = {
    "defense": ("Defence", "Worst case %", "Mean ASR %", "Normal accuracy %"),
    "attack": ("Attack", "Mean ASR %", "Worst case %", _UNDEFENDED, "PSNR dB"),
}

_TITLES: Mapping[str, str] = {
    "defense": "Defences, lowest mean ASR first",
    "attack": "Attacks, highest ASR first",
}


@dataclass(frozen=True)
class _Figure:
    """A number of a board.

    Attributes:
        text: as it is written.
        interval: its interval, or "".
        note: what stands below it, or "".
    """

    text: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class _BoardRow:
    """A method's row: its short name, its canonical one, its numbers, and whether it does nothing."""

    name: str
    method: str
    figures: tuple[_Figure, ...]
    reference: bool


@dataclass(frozen=True)
class _BoardTable:
    title: str
    headings: tuple[str, ...]
    rows: tuple[_BoardRow, ...]
    below: str


def boards(found: Sequence[Task], labels: Mapping[str, str] | None = None) -> str:
    """Return the boards of every task as a fragment of HTML, the best first; `CSS` styles it.

    Of a protocol with several conditions the first is shown, the others are folded. Every text is escaped.

    Args:
        found: of `bench.leaderboard.boards.tasks`.
        labels: canonical name → what a method is called here.
    """
    groups: dict[tuple[str, ...], list[Task]] = {}
    for task in found:
        groups.setdefault((task.dataset, task.protocol, *task.runs), []).append(task)
    shown = []
    for own in groups.values():
        first = [task for task in own if task.condition == own[0].condition]
        rest = [task for task in own if task.condition != own[0].condition]
        shown.append(
            ([_task(task, labels or {}) for task in first], [_task(task, labels or {}) for task in rest])
        )
    return str(environment().get_template("boards.html.j2").render(groups=shown))


def _task(task: Task, labels: Mapping[str, str]) -> dict[str, Any]:
    names = {
        axis: short_names(
            list(dict.fromkeys(name for board in task.boards for name in _methods(board, axis))),
            {**labels, NONE: NOTHING[axis]},
        )
        for axis in NOTHING
    }
    parts = [task.dataset, task.protocol, f"head {task.head}", task.condition]
    parts += [task.access] if task.access != "black-box" else []
    trackers = ", ".join(labels.get(name, name) for name in task.backbones)
    return {
        "title": " · ".join(filter(None, parts)),
        "about": f"{task.identities} identities; {_number(len(task.backbones), 'tracker')}: {trackers}; "
        f"{task.access} attacks; {_number(len(task.runs), 'run')}: {', '.join(task.runs)}.",
        "boards": [_board(board, names) for board in task.boards],
        "notes": " ".join(filter(None, _task_notes(task, names))),
    }


def _methods(board: Board, axis: str) -> Iterator[str]:
    if board.axis == axis:
        yield from (one.method for one in board.standings)
    else:
        yield from (*board.opponents, *board.left_out, NONE)
        yield from (one.worst.opponent for one in board.standings if one.worst is not None)


def _board(board: Board, names: Mapping[str, Mapping[str, str]]) -> _BoardTable:
    other = "attack" if board.axis == "defense" else "defense"
    incomplete = any(one.failed or not one.comparable for one in board.standings)
    rows = tuple(
        _BoardRow(
            names[board.axis][one.method],
            one.method,
            (
                *_figures(one, board, names[other]),
                *([_Figure(_cells(one, board))] if incomplete else []),
            ),
            one.method == NONE,
        )
        for one in board.standings
    )
    headings = _HEADINGS[board.axis] + (("Cells",) if incomplete else ())
    if board.opponents == (NONE,):
        headings = tuple(heading for heading in headings if heading != _UNDEFENDED)
    return _BoardTable(
        _TITLES[board.axis],
        headings,
        rows,
        " ".join(filter(None, _below(board, names[other], names[board.axis]))),
    )


def _figures(one: Standing, board: Board, opponents: Mapping[str, str]) -> Iterator[_Figure]:
    figures = (
        _percent(one.mean.value, one.mean.low, one.mean.high),
        _worst(one.worst, board, opponents),
    )
    yield from reversed(figures) if board.axis == "defense" else figures
    if board.axis == "defense":
        yield _percent(one.accuracy.value, one.accuracy.low, one.accuracy.high)
    else:
        if board.opponents != (NONE,):  # else it is the mean
            yield _percent(one.undefended)
        yield _Figure(MISSING if one.psnr is None else f"{one.psnr:.1f}")


def _percent(value: float | None, low: float | None = None, high: float | None = None) -> _Figure:
    if value is None:
        return _Figure(MISSING)
    ends = "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
    return _Figure(f"{100 * value:.1f}", ends)


def _worst(worst: WorstCase | None, board: Board, opponents: Mapping[str, str]) -> _Figure:
    if worst is None:
        return _Figure(MISSING)
    found = _percent(worst.asr, worst.low, worst.high)
    bound = ("≥ " if board.axis == "defense" else "≤ ") if worst.bound else ""
    mark = f" {MARKS[worst.adapted]}" if worst.adapted else ""
    opponent = [f"{opponents[worst.opponent]}{mark}"] if len(opponents) > 1 else []
    return replace(found, text=bound + found.text, note=", ".join([*opponent, worst.backbone]))


def _cells(one: Standing, board: Board) -> str:
    counts = {
        "failed": one.failed,
        "not run": one.absent,
        "without a rate": board.places - one.measured - one.failed - one.absent,
    }
    why = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{one.measured} of {board.places}" + (f": {why}" if why else "")


def _below(board: Board, opponents: Mapping[str, str], own: Mapping[str, str]) -> Iterator[str]:
    """Yield the sentences that belong under a board."""
    if board.axis == "defense":
        yield from _of_worst_cases(board, own)
    noun = "attack" if board.axis == "defense" else "defence"
    over = ", ".join(opponents[name] for name in board.opponents)
    yield (
        f"Means are over {_number(board.places, 'cell')} a row: {_number(len(board.opponents), noun)} ({over}) on "
        "every tracker."
    )
    failed = sum(one.failed for one in board.standings)
    every = board.places * len(board.standings)
    yield (
        f"{failed} of {_number(every, 'cell')} failed; they stay in the count, and a row with one has no mean."
        if failed
        else "No cell failed."
    )
    if not all(one.comparable for one in board.standings):
        yield "Rows that were not run in every cell stand below the others: their means are over other cells."
    if board.left_out:
        names = ", ".join(opponents[name] for name in board.left_out)
        yield (
            f"In no mean, as adapted to one of the defences or a part of one, but in the worst case: {names}."
        )
    yield explained_adaptation(one.worst.adapted for one in board.standings if one.worst is not None)


def _of_worst_cases(board: Board, own: Mapping[str, str]) -> Iterator[str]:
    """Yield what the worst cases of a board of defences are, and which of them are none."""
    found = {one.method: one.worst for one in board.standings if one.worst is not None}
    if any(worst.of_cell for worst in found.values()):
        yield (
            "Worst cases are the highest ASR of a cell, as a table here has none per identity; below them stand the "
            "attack and the tracker."
        )
        return
    yield f"{READING} It is on the tracker where that is highest; below it stand the strongest attack and that tracker."
    for knows, words in LACKING.items():
        names = [own[name] for name, worst in found.items() if worst.knows == knows]
        if names:
            yield f"{words}{', '.join(names)}."


def _task_notes(task: Task, names: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the sentences that belong under the boards of a task."""
    yield "Intervals are 95 % over identities."
    if not all(board.exact for board in task.boards):
        yield (
            "Those of means are the mean of the cells' own, as tables hold no decisions: not too narrow, whatever "
            "cells have in common."
        )
    for own in names.values():
        yield explained([name for name in own if name != NONE], own, "In full,")


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def script_digest(script: str) -> str:
    """Return the SHA-256 of a script as a content security policy names it."""
    return base64.b64encode(sha256(script.encode()).digest()).decode()


@cache
def environment(package: str = "bench.leaderboard") -> Environment:
    """Return the environment of a package's templates; every value is escaped, and an unknown one is an error.

    Args:
        package: whose folder ``templates`` is read.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["breakable"] = _breakable
    return found


def _breakable(text: str) -> Any:
    """Return a text, escaped, that may go on in a new line between the parts of a method's name."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[,:=|])(?=[^\s\d])", text))
