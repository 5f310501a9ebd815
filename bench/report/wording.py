"""Numbers and lists as they stand in a sentence."""

from collections.abc import Sequence
from typing import Any

import pandas as pd


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``no cells``, ``1 cell``, ``1,069 photos``.

    Args:
        number: at least 0.
        one: the noun for one.
        many: the noun for others; default: `one` with an s.
    """
    if not number:
        return f"no {many or one + 's'}"
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listing(items: Sequence[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``; "" for none."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def is_missing(value: Any) -> bool:
    """Say whether a cell of a table is empty: None or NaN."""
    return value is None or bool(pd.isna(value))


def percent(value: Any, low: Any = None, high: Any = None, digits: int = 1) -> str:
    """Return a rate in [0, 1] in per cent, with its interval where there is one; ``NA`` where it is empty.

    Args:
        value: the rate.
        low: lower end of its interval.
        high: upper end.
        digits: decimals, where there is no interval.
    """
    if is_missing(value):
        return "NA"
    if is_missing(low) or is_missing(high):
        return f"{100 * value:.{digits}f} %"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def points(value: Any, digits: int = 1) -> str:
    """Return a difference of rates without its sign: ``0.3 points``, ``1.0 point``; ``NA`` where it is empty."""
    if is_missing(value):
        return "NA"
    text = f"{100 * abs(value):.{digits}f}"
    return f"{text} point" if float(text) == 1 else f"{text} points"


def agreeing_digits(before: float, after: float, most: int = 4) -> int:
    """Return the fewest decimals of per cent with which two rates and their difference, each rounded, add up.

    They are more than one where one would show other rates as equal, or a difference that the two rates do not have.
    """
    for digits in range(1, most + 1):
        one, other, change = (round(100 * value, digits) for value in (before, after, after - before))
        if round(other - one, digits) == change and (change != 0 or before == after):
            return digits
    return most


def p_value(value: Any) -> str:
    """Return ``p = 0.012``, ``p < 0.001`` or ``no p value``."""
    if is_missing(value):
        return "no p value"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop, and no second one."""
    text = text.strip()
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""


def quoted(name: str) -> str:
    """Return a method's or parameter's name as it is marked in a sentence."""
    return f"`{name}`"


def few(names: Sequence[str], one: str, many: str = "", most: int = 3) -> str:
    """Return names as a list, or their number with a noun (as `count`) where there are more than `most`."""
    return count(len(names), one, many) if len(names) > most else listing([quoted(name) for name in names])
