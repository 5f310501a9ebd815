"""A report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import re
from functools import cache
from hashlib import sha256
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench import board_table
from bench.report import svg
from bench.report.document import Block, Board, Report, pictures

LARGEST = 5_000_000
"""Bytes of a report; figures become pixels, then small, before it is larger."""

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
    script = f"{board_table.JS}\n{_file('report.js')}"
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            shown=shown,
            css=f"{board_table.CSS}\n{_file('report.css')}",
            script=script,
            script_digest=base64.b64encode(sha256(script.encode()).digest()).decode(),
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["inline"] = inline
    made.filters["kind"] = _kind
    made.filters["board"] = _board
    return made


def _file(name: str) -> str:
    return (resources.files("bench.report") / "templates" / name).read_text(encoding="utf-8")


def inline(text: str) -> Markup:
    """Return a text escaped, with what stands between backticks as code."""
    pieces = re.split(r"`([^`]+)`", text)
    code = Markup("<code>{}</code>")
    return Markup().join(code.format(piece) if i % 2 else piece for i, piece in enumerate(pieces))


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _board(block: Board) -> str:
    return board_table.html(block.rows)
