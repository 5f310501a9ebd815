"""Numbers, names and rows of tables as they stand in a report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

NAMED = 6
"""Names that a list shows; of the others it gives the number."""


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``0 cells``, ``1 cell``, ``1,069 photos``; `many` where an s is not enough."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def names(items: Sequence[str]) -> str:
    """Return methods' names as code, ``none`` where there is none, the first `NAMED` where there are more."""
    shown = ", ".join(f"`{item}`" for item in items[:NAMED])
    return f"{shown}, … ({len(items)} in all)" if len(items) > NAMED else shown or "none"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows, each column → value, None where it is empty."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def matching(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Return the rows of a table that have the given values in the columns named."""
    there = np.ones(len(table), dtype=bool)
    for name, value in values.items():
        there &= (table[name] == value).to_numpy(dtype=bool, na_value=False)
    return table[there]


def percent(value: Any, low: Any = None, high: Any = None) -> str:
    """Return a rate in [0, 1] in per cent, with its interval where there is one; ``NA`` where it is empty."""
    if pd.isna(value):
        return "NA"
    ends = "" if pd.isna(low) or pd.isna(high) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f} %{ends}"


def difference(value: Any, low: Any = None, high: Any = None) -> str:
    """Return a difference of rates in signed percentage points, with its interval; ``NA`` where it is empty."""
    if pd.isna(value):
        return "NA"
    ends = "" if pd.isna(low) or pd.isna(high) else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * value:+.1f}{ends}"


def points(value: Any) -> str:
    """Return the size of a difference in percentage points, ``NA`` where it is empty."""
    return "NA" if pd.isna(value) else f"{100 * value:.1f}"


def p_text(value: Any) -> str:
    """Return a p value for a table, ``NA`` where there is none."""
    if pd.isna(value):
        return "NA"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop, and no second one."""
    text = text.strip()
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
