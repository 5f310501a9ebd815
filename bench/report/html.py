"""A report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import resources

from jinja2 import Environment
from markupsafe import Markup

from bench.leaderboard import as_html
from bench.report import svg
from bench.report.document import Block, LeaderboardBlock, Report, Table, code_spans, pictures

LARGEST = 5_000_000
"""Bytes of a report; figures become pixels, then small, before it is larger."""

UNBROKEN = 16
"""Characters of a text in a table that stands on one line."""

_LIMITS = (svg.LARGEST, 150_000, 0)


def to_html(report: Report) -> str:
    """Return a report as an HTML page of its own.

    It loads nothing: its policy forbids that, and the only script that may run is the one inside, named by its digest.
    """
    page = ""
    for limit in _LIMITS:
        page = _page(report, limit)
        if len(page.encode()) <= LARGEST:
            break
    return page


def _page(report: Report, largest: int) -> str:
    shown = {
        # Photos are pixels already: making them pixels once more would gain nothing.
        one.kind: svg.inline(
            one.drawing, f"picture-{one.kind}", LARGEST if one.photos and largest else largest
        )
        for one in pictures(report)
    }
    script = f"{as_html.JS}\n{_file('report.js')}"
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            shown=shown,
            css=f"{as_html.CSS}\n{_file('report.css')}",
            script=script,
            script_digest=as_html.script_digest(script),
        )
    )


@cache
def _environment() -> Environment:
    made = as_html.environment("bench.report").overlay(keep_trailing_newline=True)
    made.filters["inline"] = inline
    made.filters["cell"] = cell
    made.filters["kind"] = _kind
    made.filters["leaderboard"] = _leaderboard
    made.filters["short"] = short
    made.filters["shade"] = shade
    return made


def _file(name: str) -> str:
    return (resources.files("bench.report") / "templates" / name).read_text(encoding="utf-8")


def inline(text: str) -> Markup:
    """Return a text escaped, with what stands between backticks as code."""
    return _pieces(text, lambda piece: piece)


def cell(text: str) -> Markup:
    """Return a text as `inline` does, that may be broken between the parameters of a method."""
    return _pieces(text, lambda piece: Markup("<wbr>").join(re.split(r"(?<=[,|+])(?=[^\s\d])", piece)))


def _pieces(text: str, shown: Callable[[str], str]) -> Markup:
    code = Markup("<code>{}</code>")
    return Markup().join(
        code.format(shown(piece)) if is_code else shown(piece) for piece, is_code in code_spans(text)
    )


def short(table: Table) -> list[bool]:
    """Say of each column of a table whether its texts are so short that none of them is broken."""
    return [
        max((len(row[index]) for row in table.rows), default=0) <= UNBROKEN
        for index in range(len(table.columns))
    ]


def shade(rate: float | None) -> str:
    """Return the class that shades a rate in [0, 1]: ``heat-0`` to ``heat-4``, "" where there is none."""
    return "" if rate is None else f"heat-{min(int(5 * rate), 4)}"


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _leaderboard(block: LeaderboardBlock) -> str:
    return as_html.html(block.rows, "leaderboard-table", block.names)
