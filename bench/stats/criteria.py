"""Whether a number meets what was asked of it: the interval says so, never the point estimate alone.

What lives here: the three answers, of an interval and a bound. What must not: which bounds there are (their callers).
"""

from __future__ import annotations

import math
from typing import Literal

Verdict = Literal["met", "short", "open"]


def verdict(
    low: float | None, high: float | None, *, least: float | None = None, most: float | None = None
) -> Verdict:
    """Return ``met`` where all of the interval is on the right side, ``short`` where none of it is, else ``open``.

    >>> verdict(0.679, 0.718, least=0.6984), verdict(0.054, 0.075, most=0.01), verdict(0.005, 0.013, most=0.02)
    ('open', 'short', 'met')

    An amount that does not vary (parameters, a count) has itself for both ends.

    Args:
        low: lower end of the interval; None where there is no interval, which leaves the bound open.
        high: upper end.
        least: what is asked at least; the bound itself meets it.
        most: what is asked at most.

    Raises:
        ValueError: not exactly one bound, or the ends are in the wrong order.
    """
    if (least is None) == (most is None):
        raise ValueError(f"a criterion has one bound, got least={least} and most={most}")
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "open"
    if low > high:
        raise ValueError(f"the lower end {low} is above the upper end {high}")
    if most is not None:
        return "met" if high <= most else "short" if low > most else "open"
    assert least is not None
    return "met" if low >= least else "short" if high < least else "open"
