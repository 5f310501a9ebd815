"""The summary table as Markdown; every text is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from bench.leaderboard.names import in_words
from bench.leaderboard.summary import MISSING, SummaryField, SummaryTable, short


def markdown(leaderboard: pd.DataFrame, labels: Mapping[str, str] | None = None) -> str:
    """Return the short form as a Markdown table with its notes; every text is escaped.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        labels: canonical name → what a method is called in the table.
    """
    table = short(in_words(leaderboard, labels))
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


def _markdown_field(field: SummaryField, table: SummaryTable, *, bold: bool) -> str:
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
