"""The summary table as HTML that sorts and filters."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.leaderboard.as_csv import to_csv
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.summary import MISSING, is_there, short

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
    "attack_adapts_to_defense": "Adaptive",
    "identity_overlap": "Overlap",
    "dataset": "Dataset",
    "protocol": "Protocol",
    "condition": "Condition",
    "status": "Status",
}
"""Column of the leaderboard → label of its filter; the last four are shown where their rows differ."""

_FILTERS_IF_SEVERAL = frozenset({"dataset", "protocol", "condition", "status"})


def html(leaderboard: pd.DataFrame, table_id: str = "leaderboard") -> str:
    """Return the leaderboard as a fragment of HTML; `CSS` and `JS` style it and let it sort and filter.

    Without the script it is a plain table. Every text is escaped.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        table_id: its id, unique in the page; begins with a letter, then letters, digits, - and _.

    Raises:
        ValueError: the id is none.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", table_id):
        raise ValueError(f"an id begins with a letter, then letters, digits, - and _, got {table_id!r}")
    table = short(leaderboard)
    fields = list(csv.reader(io.StringIO(to_csv(leaderboard), newline="")))
    shown = {
        key: label
        for key, label in FILTERS.items()
        if key not in _FILTERS_IF_SEVERAL or _several(leaderboard, key)
    }
    filters = {key: [_filter_value(value) for value in leaderboard[key]] for key in shown}
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


def _several(leaderboard: pd.DataFrame, key: str) -> bool:
    return len({_filter_value(value) for value in leaderboard[key]}) > 1


def _filter_value(value: Any) -> str:
    """Return the text a row is filtered by; a row without is found under a word of its own."""
    if value is True or value is False:
        return "yes" if value else "no"
    return str(value) if is_there(value) else "(none)"


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
    """Return a text, escaped, that may go on in a new line after a comma."""
    from markupsafe import Markup, escape

    return Markup(",<wbr>").join(escape(part) for part in text.split(","))
