"""Pieces of Markdown that pages made from the code share."""

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; an empty one is an empty text."""
    lines = ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]) + "\n"


def cell(value: object) -> str:
    """Return a value as the content of a table's cell: one line, bars escaped."""
    return " ".join(str(value).split()).replace("|", "\\|")


def code(value: object) -> str:
    """Return a value as inline code, nothing where it is empty."""
    text = str(value)
    if not text:
        return ""
    fence = "``" if "`" in text else "`"
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def prose(text: str) -> str:
    """Return a docstring's text as Markdown: double backticks single, no markup by accident.

    Paragraphs stay; indented blocks become code as they are.
    """
    text = re.sub(r"``([^`\n]+)``", r"`\1`", text)
    pieces = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        piece if i % 2 else re.sub(r"([<*_\[\]])", r"\\\1", piece) for i, piece in enumerate(pieces)
    )


def fenced(text: str, language: str = "text") -> str:
    """Return a block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"
