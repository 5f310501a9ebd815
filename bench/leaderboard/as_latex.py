"""The summary table for a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd

from bench.leaderboard.adaptation import short as adapted
from bench.leaderboard.names import in_words
from bench.leaderboard.summary import MISSING, SummaryField, SummaryTable, by_attack, short

LONG = 45
"""Rows of a LaTeX table that fit a page; a longer one is a ``longtable``."""

_LETTERS: Mapping[str, str] = {
    "black-box": "B",
    "white-box": "W",
    "seen": "S",
    "seen (other parameters)": "s",
    adapted("exact"): "A",
    adapted("exact", recipe=True): "R",
    adapted("partial"): "a",
    adapted("partial", recipe=True): "r",
    "tracker trained defence": "T",
    "overlap": "O",
    "overlap unknown": "?",
    "later tracker": "L",
}
"""Mark of a threat model → its letter in narrow tables."""


def latex(leaderboard: pd.DataFrame, labels: Mapping[str, str] | None = None) -> str:
    """Return the short form for a paper: needs the package ``booktabs``, and ``longtable`` beyond `LONG` rows.

    Rows stand by attack. Columns whose rows are all alike are in the notes; the marks of threat are letters. Every
    text is escaped.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        labels: canonical name → what a method is called in the table.
    """
    table = _without_constants(short(in_words(by_attack(leaderboard), labels)), _LETTERS)
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


def _lettered(field: SummaryField, letters: Mapping[str, str]) -> SummaryField:
    return SummaryField(
        " ".join(letters.get(mark, mark) for mark in field.text.split(", ") if mark), field.value
    )


def _without_constants(table: SummaryTable, letters: Mapping[str, str]) -> SummaryTable:
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


def _latex_rows(table: SummaryTable) -> Iterator[str]:
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


def _latex_field(field: SummaryField, table: SummaryTable, *, bold: bool) -> str:
    if field.note:
        return rf"{MISSING}\textsuperscript{{{table.number_of(field.note)}}}"
    text = latex_text(field.text)
    text = rf"\textbf{{{text}}}" if bold and text else text
    return f"{text} {field.interval}" if field.interval else text or "{}"


def _latex_notes(table: SummaryTable) -> list[str]:
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
