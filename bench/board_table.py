"""The short form of a leaderboard that people read: as texts, Markdown, LaTeX, and HTML that sorts and filters.

What lives here: which columns are shown and how a number is written. What must not: any number that is not in the
leaderboard. A number that is missing is NA, with its reason as a note under the table.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from bench.leaderboard import COLUMNS, to_csv

Row = Mapping[str, Any]

MISSING = "NA"
LONG = 45
"""Rows of a LaTeX table that fit a page; a longer one is a ``longtable``."""

READING = (
    "Ranks are of the defences against one attack: from 1 + those surely better to all - those surely worse; "
    "defences that share a letter cannot be told apart. Bold: none is surely better, and one is surely worse. "
    "Intervals are 95 % over people."
)
"""How to read the table, for captions."""


@dataclass(frozen=True)
class Shown:
    """One field of the table.

    Attributes:
        text: the value, `MISSING` where there is none.
        value: what it is sorted by; None: last.
        interval: its interval, or "".
        note: why it is missing, or "".
    """

    text: str
    value: float | str | None
    interval: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.interval}" if self.interval else self.text


@dataclass(frozen=True)
class ShortColumn:
    """A column of the short form.

    Attributes:
        key: its name in HTML and in the address, e.g. ``asr``.
        heading: what stands above it.
        meaning: one sentence.
        numeric: whether it is a number.
        show: row of the leaderboard → field.
    """

    key: str
    heading: str
    meaning: str
    numeric: bool
    show: Callable[[Row], Shown]


@dataclass(frozen=True)
class ShortTable:
    """The short form of a leaderboard.

    Attributes:
        columns: those shown; a name that is the same in every row of a column that may be left out is in `constant`.
        rows: one tuple of fields a row, in the leaderboard's order.
        best: for each row, whether no defence is surely better than its own, and one is surely worse.
        notes: the reasons of missing values, each once; their numbers begin with 1.
        constant: heading → the one value of a column left out for it.
        cautions: what must be known of the datasets, each once.
    """

    columns: tuple[ShortColumn, ...]
    rows: tuple[tuple[Shown, ...], ...]
    best: tuple[bool, ...]
    notes: tuple[str, ...]
    constant: Mapping[str, str]
    cautions: tuple[str, ...] = ()

    def number_of(self, note: str) -> int:
        """Return the number of a note."""
        return self.notes.index(note) + 1

    def left_out(self) -> str:
        """Return what is the same in every row, as a sentence, or ""."""
        said = "; ".join(f"{heading}: {value}" for heading, value in self.constant.items())
        return f"The same in every row: {said}." if said else ""

    def below(self) -> str:
        """Return the sentences that belong under the table, before its notes."""
        return " ".join(filter(None, [*self.cautions, READING, self.left_out()]))


def _there(value: Any) -> bool:
    return value is not None and not pd.isna(value) and value != ""


def _text(row: Row, name: str) -> str:
    value: Any = row.get(name)
    return str(value) if _there(value) else ""


def _named(name: str) -> Callable[[Row], Shown]:
    return lambda row: Shown(_text(row, name), _text(row, name))


def _number(value: Any) -> Shown:
    return Shown(str(value), float(value)) if _there(value) else Shown("", None)


def _why(row: Row, *reasons: str) -> str:
    """Return why a row lacks a number: the cell's failure, else the first reason that is given."""
    found = (_text(row, name) for name in ("reason", *reasons))
    return next(filter(None, found), "the leaderboard gives no reason")


def _measured(
    name: str, *reasons: str, factor: float = 1, decimals: int = 1, interval: bool = False
) -> Callable[[Row], Shown]:
    def show(row: Row) -> Shown:
        value: Any = row.get(name)
        if not _there(value):
            return Shown(MISSING, None, note=_why(row, *reasons))
        scaled = factor * float(value)
        low, high = _ends(row, name)
        if not (interval and _there(low) and _there(high)):
            return Shown(f"{scaled:.{decimals}f}", scaled)
        ends = (f"{factor * float(end):.{decimals}f}" for end in (low, high))
        return Shown(f"{scaled:.{decimals}f}", scaled, f"[{', '.join(ends)}]")

    return show


def _ends(row: Row, name: str) -> tuple[Any, Any]:
    return row.get(f"{name}_low"), row.get(f"{name}_high")


def _rank(row: Row) -> Shown:
    low, high = _ends(row, "rank")
    if not (_there(low) and _there(high)):
        return Shown(MISSING, None, note=_why(row, "ranking_reason"))
    ranks = f"{int(low)}" if low == high else f"{int(low)}–{int(high)}"
    letters = _text(row, "tie_group")
    # The middle orders ranges that begin alike.
    return Shown(f"{ranks} {letters}".rstrip(), float(low) + float(high) / 1000)


_LETTERS: Mapping[str, str] = {
    "black-box": "B",
    "white-box": "W",
    "seen": "S",
    "seen (other parameters)": "s",
    "adaptive": "A",
    "tracker trained defence": "T",
    "overlap": "O",
    "overlap unknown": "?",
}
"""Mark of a threat model → its letter in narrow tables."""


def threat_marks(row: Row) -> tuple[str, ...]:
    """Return what a reader must know of a row's threat model, a few words each."""
    access, seen, overlap = (
        _text(row, name) for name in ("access", "attack_seen_by_defense", "identity_overlap")
    )
    marks = (
        access,
        {"seen": "seen", "seen-with-other-parameters": "seen (other parameters)"}.get(seen, ""),
        "adaptive" if row.get("attack_adapts_to_defense") else "",
        "tracker trained defence" if row.get("extractor_is_tracker") else "",
        {"yes": "overlap", "unknown": "overlap unknown"}.get(overlap, ""),
    )
    return tuple(filter(None, marks))


def _threat(row: Row) -> Shown:
    text = ", ".join(threat_marks(row))
    return Shown(text, text)


def _warnings(row: Row) -> Shown:
    text = _text(row, "warnings")
    count = len(text.split("; ")) if text else 0
    return Shown(str(count), float(count))


_PERCENT = 100

SHORT: tuple[ShortColumn, ...] = (
    ShortColumn("rank", "Rank", "Rank of the defence against this attack, with tie letters", True, _rank),
    ShortColumn("dataset", "Dataset", COLUMNS["dataset"], False, _named("dataset")),
    ShortColumn("protocol", "Protocol", COLUMNS["protocol"], False, _named("protocol")),
    ShortColumn("attack", "Attack", COLUMNS["attack"], False, _named("attack")),
    ShortColumn("defense", "Defence", COLUMNS["defense"], False, _named("defense")),
    ShortColumn("backbone", "Backbone", COLUMNS["backbone"], False, _named("backbone")),
    ShortColumn("head", "Head", COLUMNS["head"], False, _named("head")),
    ShortColumn("condition", "Condition", COLUMNS["condition"], False, _named("condition")),
    ShortColumn("seed", "Seed", COLUMNS["seed"], True, lambda row: _number(row.get("seed"))),
    ShortColumn(
        "asr",
        "ASR %",
        COLUMNS["asr"],
        True,
        _measured("asr", "asr_reason", "condition_reason", factor=_PERCENT, interval=True),
    ),
    ShortColumn(
        "baseline",
        "Baseline error %",
        COLUMNS["baseline_error"],
        True,
        _measured("baseline_error", "baseline_reason", "condition_reason", factor=_PERCENT),
    ),
    ShortColumn(
        "accuracy",
        "Normal accuracy %",
        COLUMNS["normal_accuracy"],
        True,
        _measured(
            "normal_accuracy", "normal_accuracy_reason", "condition_reason", factor=_PERCENT, interval=True
        ),
    ),
    ShortColumn(
        "recovery",
        "Recovery %",
        COLUMNS["recovery"],
        True,
        _measured("recovery", "recovery_reason", "condition_reason", factor=_PERCENT, interval=True),
    ),
    ShortColumn("psnr", "PSNR dB", COLUMNS["cloak_psnr"], True, _measured("cloak_psnr", "cloak_reason")),
    ShortColumn(
        "ssim", "SSIM", COLUMNS["cloak_ssim"], True, _measured("cloak_ssim", "cloak_reason", decimals=3)
    ),
    ShortColumn(
        "lpips",
        "LPIPS",
        COLUMNS["cloak_lpips"],
        True,
        _measured("cloak_lpips", "cloak_reason", "lpips_reason", decimals=3),
    ),
    ShortColumn(
        "threat",
        "Threat",
        "access; seen: the defence was trained on this attack; adaptive: the attack knows the defence; "
        "overlap: an evaluated person trained a part",
        False,
        _threat,
    ),
    ShortColumn(
        "warnings", "Warnings", "how many doubts the harness has about the row's numbers", True, _warnings
    ),
)
"""Every column of the short form, in order."""

_IF_SEVERAL = frozenset({"dataset", "protocol", "condition", "seed"})
"""Columns shown only where their rows differ."""


def short(board: pd.DataFrame) -> ShortTable:
    """Return the short form of a leaderboard.

    Args:
        board: with the columns of `bench.leaderboard.COLUMNS`.
    """
    records = [{str(name): value for name, value in row.items()} for row in board.to_dict("records")]
    fields = {column.key: [column.show(row) for row in records] for column in SHORT}
    columns, constant = [], {}
    for column in SHORT:
        values = {field.text for field in fields[column.key]}
        if column.key not in _IF_SEVERAL or len(values) > 1:
            columns.append(column)
        elif any(values):
            constant[column.heading] = values.pop()
    rows = tuple(tuple(fields[column.key][i] for column in columns) for i in range(len(records)))
    notes = tuple(dict.fromkeys(field.note for row in rows for field in row if field.note))
    cautions = dict.fromkeys(
        f"{_text(row, 'dataset')}: {note.rstrip('.')}."
        for row in records
        if (note := _text(row, "dataset_note"))
    )
    return ShortTable(tuple(columns), rows, _best(records), notes, constant, tuple(cautions))


def _best(records: Sequence[Row]) -> tuple[bool, ...]:
    """Say of each row whether its defence is among those that none is surely better than, and beats one."""
    scope = ("dataset", "protocol", "attack", "head", "condition", "access")
    own = [_ranking(row) for row in records]
    slices = [(run, *(_text(row, name) for name in scope)) for run, row in zip(own, records, strict=True)]
    ranks = [row["rank_low"] if _there(row.get("rank_low")) else None for row in records]
    told_apart = {key for key, rank in zip(slices, ranks, strict=True) if rank is not None and rank > 1}
    return tuple(rank == 1 and key in told_apart for key, rank in zip(slices, ranks, strict=True))


def _ranking(row: Row) -> str:
    """Return a name of the ranking a row is in, where several rank the same slice."""
    said = _text(row, "ranking_reason").partition(":")[0]
    if said.startswith("ranked over runs"):
        return said
    return _text(row, "run") if "within its run" in said else ""


def display(board: pd.DataFrame) -> pd.DataFrame:
    """Return the short form as texts, one row a row, one column a heading; empty values are `MISSING`.

    Args:
        board: with the columns of `bench.leaderboard.COLUMNS`.
    """
    table = short(board)
    headings = [column.heading for column in table.columns]
    return pd.DataFrame([[str(field) for field in row] for row in table.rows], columns=headings, dtype=object)


def notes(board: pd.DataFrame) -> list[str]:
    """Return why values of the short form are missing, each reason once."""
    return list(short(board).notes)


def markdown(board: pd.DataFrame) -> str:
    """Return the short form as a Markdown table with its notes; every text is escaped.

    Args:
        board: with the columns of `bench.leaderboard.COLUMNS`.
    """
    table = short(board)
    lines = [
        _markdown_line([column.heading for column in table.columns]),
        _markdown_line(["---:" if column.numeric else "---" for column in table.columns], escape=False),
    ]
    for row, best in zip(table.rows, table.best, strict=True):
        fields = [
            _markdown_field(field, table, bold=best and column.key in ("rank", "asr"))
            for column, field in zip(table.columns, row, strict=True)
        ]
        lines.append(_markdown_line(fields, escape=False))
    listed = [f"{number}. {markdown_text(note)}" for number, note in enumerate(table.notes, start=1)]
    parts = ["\n".join(lines), markdown_text(table.below())]
    if listed:
        parts.append(f"{MISSING}, by number:")
        parts.append("\n".join(listed))
    return "\n\n".join(parts) + "\n"


def _markdown_line(fields: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(markdown_text(field) if escape else field for field in fields) + " |"


def _markdown_field(field: Shown, table: ShortTable, *, bold: bool) -> str:
    if field.note:
        return f"{MISSING} ({table.number_of(field.note)})"
    text = markdown_text(field.text)
    text = f"**{text}**" if bold and text else text
    return f"{text} {markdown_text(field.interval)}" if field.interval else text


def markdown_text(text: str) -> str:
    """Return a text as one line of Markdown in which nothing is markup, a link or HTML."""
    line = " ".join(text.split())
    # An address that a renderer would make a link is broken by an escaped colon.
    return re.sub(r"([\\`*_{}\[\]<>|#~$&!]|:(?=//)|@|(?<=www)\.)", r"\\\1", line)


def latex(board: pd.DataFrame) -> str:
    """Return the short form for a paper: needs the package ``booktabs``, and ``longtable`` beyond `LONG` rows.

    Rows stand by attack. Columns whose rows are all alike are in the notes; the marks of threat are letters. Every
    text is escaped.

    Args:
        board: with the columns of `bench.leaderboard.COLUMNS`.
    """
    table = _without_constants(short(_by_attack(board)), _LETTERS)
    heads = " & ".join(rf"\textbf{{{latex_text(column.heading)}}}" for column in table.columns) + r" \\"
    body = list(_latex_rows(table))
    form = "@{}" + "".join("r" if column.numeric else "l" for column in table.columns) + "@{}"
    below = _latex_notes(table)
    if len(table.rows) > LONG:
        opening = [rf"\begin{{longtable}}{{{form}}}", r"\toprule", heads, r"\midrule", r"\endhead"]
        closing = [r"\bottomrule", r"\end{longtable}"]
    else:
        opening = [rf"\begin{{tabular}}{{{form}}}", r"\toprule", heads, r"\midrule"]
        closing = [r"\bottomrule", r"\end{tabular}"]
    start = [
        "% needs \\usepackage{booktabs,longtable}",
        r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
    ]
    return "\n".join([*start, *opening, *body, *closing, r"\par\smallskip", *below, r"\endgroup", ""])


def references_last(board: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of attacks first, those without one after them: what a reader came for stands on top.

    Args:
        board: with the columns of `bench.leaderboard.COLUMNS`.
    """
    return board.sort_values("attack", key=lambda column: column == "none", kind="stable", ignore_index=True)


def _by_attack(board: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by attack, the attacks and the rows of each in the order they had."""
    first = {attack: place for place, attack in enumerate(dict.fromkeys(board["attack"]))}
    return board.sort_values("attack", key=lambda column: column.map(first), kind="stable")


def _lettered(field: Shown, letters: Mapping[str, str]) -> Shown:
    return Shown(" ".join(letters.get(mark, mark) for mark in field.text.split(", ") if mark), field.value)


def _without_constants(table: ShortTable, letters: Mapping[str, str]) -> ShortTable:
    """Leave out columns whose rows are all alike, as papers do, and say what they held; shorten threats to letters."""
    keep, constant = [], dict(table.constant)
    for index, column in enumerate(table.columns):
        fields = {(str(row[index]), row[index].note) for row in table.rows}
        if len(fields) != 1:
            keep.append(index)
            continue
        text, note = fields.pop()
        constant[column.heading] = f"{text} ({note})" if note else text or "none"
    if not keep:  # a table of one row keeps its columns
        return table
    columns = tuple(table.columns[index] for index in keep)
    rows = tuple(
        tuple(
            _lettered(row[index], letters) if table.columns[index].key == "threat" else row[index]
            for index in keep
        )
        for row in table.rows
    )
    notes_left = tuple(dict.fromkeys(field.note for row in rows for field in row if field.note))
    return replace(table, columns=columns, rows=rows, notes=notes_left, constant=constant)


def _latex_rows(table: ShortTable) -> Iterator[str]:
    before: str | None = None
    attack = next((i for i, column in enumerate(table.columns) if column.key == "attack"), None)
    for row, best in zip(table.rows, table.best, strict=True):
        group = row[attack].text if attack is not None else None
        if before is not None and group != before:
            yield r"\midrule"
        before = group
        fields = [
            _latex_field(field, table, bold=best and column.key in ("rank", "asr"))
            for column, field in zip(table.columns, row, strict=True)
        ]
        yield " & ".join(fields) + r" \\"


def _latex_field(field: Shown, table: ShortTable, *, bold: bool) -> str:
    if field.note:
        return rf"{MISSING}\textsuperscript{{{table.number_of(field.note)}}}"
    text = latex_text(field.text)
    text = rf"\textbf{{{text}}}" if bold and text else text
    return f"{text} {field.interval}" if field.interval else text or "{}"


def _latex_notes(table: ShortTable) -> list[str]:
    marks = "; ".join(f"{letter}: {mark}" for mark, letter in _LETTERS.items())
    threat = f"Threat: {marks}." if any(column.key == "threat" for column in table.columns) else ""
    said = [latex_text(text) for text in (table.below(), threat) if text]
    listed = [
        rf"\textsuperscript{{{number}}}~{latex_text(note.rstrip('.'))}."
        for number, note in enumerate(table.notes, start=1)
    ]
    return [*said, *listed]


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"{\char34}",
    "–": r"\textendash{}",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "−": r"$-$",
    "→": r"$\rightarrow$",
    "α": r"$\alpha$",
    "ε": r"$\varepsilon$",
    "σ": r"$\sigma$",
    **{char: "\\" + char for char in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """Return a text as LaTeX that prints it, on one line; a character no LaTeX engine is sure to have is its code."""
    line = re.sub("-(?=-)", "-{}", "".join(_latex_char(char) for char in " ".join(text.split())))
    # \\ at the end of the row before would take these for its own.
    return "{}" + line if line.startswith(("[", "*")) else line


def _latex_char(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    # Letters of Latin-1 are known to every engine; the rest depends on fonts.
    if (char.isascii() and char.isprintable()) or "À" <= char <= "ÿ":
        return char
    return f"(U+{ord(char):04X})"


def _template(name: str) -> str:
    return (resources.files("bench") / "templates" / name).read_text(encoding="utf-8")


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
    "attack_adapts_to_defense": "Adaptive",
    "identity_overlap": "Overlap",
    "dataset": "Dataset",
    "protocol": "Protocol",
    "condition": "Condition",
    "status": "Status",
}
"""Column of the leaderboard → label of its filter; the last four are shown where their rows differ."""

_FILTERS_IF_SEVERAL = frozenset({"dataset", "protocol", "condition", "status"})


def html(board: pd.DataFrame, table_id: str = "leaderboard") -> str:
    """Return the leaderboard as a fragment of HTML; `CSS` and `JS` style it and let it sort and filter.

    Without the script it is a plain table. Every text is escaped.

    Args:
        board: with the columns of `bench.leaderboard.COLUMNS`.
        table_id: its id, unique in the page; begins with a letter, then letters, digits, - and _.

    Raises:
        ValueError: the id is none.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", table_id):
        raise ValueError(f"an id begins with a letter, then letters, digits, - and _, got {table_id!r}")
    table = short(board)
    fields = list(csv.reader(io.StringIO(to_csv(board), newline="")))
    shown = {
        key: label for key, label in FILTERS.items() if key not in _FILTERS_IF_SEVERAL or _several(board, key)
    }
    filters = {key: [_filter_value(value) for value in board[key]] for key in shown}
    places = {
        text: place for place, text in enumerate(dict.fromkeys(field for row in fields[1:] for field in row))
    }
    full = {
        "columns": [
            [name, COLUMNS.get(name, ""), bool(pd.api.types.is_numeric_dtype(board[name]))]
            for name in board.columns
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


def _several(board: pd.DataFrame, key: str) -> bool:
    return len({_filter_value(value) for value in board[key]}) > 1


def _filter_value(value: Any) -> str:
    """Return the text a row is filtered by; a row without is found under a word of its own."""
    if value is True or value is False:
        return "yes" if value else "no"
    return str(value) if _there(value) else "(none)"


@cache
def environment() -> Any:
    """Return the environment of the templates; every value is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["breakable"] = _breakable
    return found


def _breakable(text: str) -> Any:
    """Return a text, escaped, that may go on in a new line after a comma."""
    from markupsafe import Markup, escape

    return Markup(",<wbr>").join(escape(part) for part in text.split(","))
