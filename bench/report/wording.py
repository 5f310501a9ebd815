"""Numbers and names as they stand in a report."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

NAMED = 6
"""Names that a list shows; of the others it gives the number."""


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``0 cells``, ``1 cell``, ``1,069 photos``.

    Args:
        number: at least 0.
        one: the noun for one.
        many: the noun for others; default: `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def names(items: Sequence[str], most: int = NAMED) -> str:
    """Return methods' names as code, ``none`` where there is none, the first `most` where there are more."""
    shown = ", ".join(f"`{item}`" for item in items[:most])
    return f"{shown}, … ({len(items)} in all)" if len(items) > most else shown or "none"


def is_missing(value: Any) -> bool:
    """Say whether a cell of a table is empty: None or NaN."""
    return value is None or bool(pd.isna(value))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows, each column → value, None where it is empty."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def percent(value: Any, low: Any = None, high: Any = None) -> str:
    """Return a rate in [0, 1] in per cent, with its interval where there is one; ``NA`` where it is empty.

    Args:
        value: the rate.
        low: lower end of its interval.
        high: upper end.
    """
    if is_missing(value):
        return "NA"
    if is_missing(low) or is_missing(high):
        return f"{100 * value:.1f} %"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def difference(value: Any, low: Any = None, high: Any = None) -> str:
    """Return a difference of rates in signed percentage points, with its interval; ``NA`` where it is empty."""
    if is_missing(value):
        return "NA"
    if is_missing(low) or is_missing(high):
        return f"{100 * value:+.1f}"
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def points(value: Any) -> str:
    """Return the size of a difference in percentage points, ``NA`` where it is empty."""
    return "NA" if is_missing(value) else f"{100 * value:.1f}"


def p_text(value: Any) -> str:
    """Return a p value for a table, ``NA`` where there is none."""
    if is_missing(value):
        return "NA"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop, and no second one."""
    text = text.strip()
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
