"""Where the sign-flip test calls equal rates different too often: near 0 or 1, with unlike spread between identities.

What lives here: the criterion, and the sentence of a table's caution. What must not: the test
(`bench.stats.significance`). `docs/statistics.md` has the simulation that the criterion comes from.

The test takes a difference to be as likely to have either sign. Where one cell's errors are spread evenly and the
other's belong to a few identities, equal means give many small differences of one sign and a few large ones of the
other; a run that happens to have none of these few sees differences of one sign only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bench.stats import rates as measures
from bench.stats.intervals import CONFIDENCE, Floats, wilson_interval

LEAST_TELLING = 10
"""Identities with an error, or near 1 with a success, from which the spread of a cell's rates is known well enough."""

_SAME = 1e-12  # rates closer than this are equal up to rounding


def unlike_spread(first: pd.Series[Any], second: pd.Series[Any]) -> str:
    """Return why a significant sign-flip test of two cells may be a false positive, or "".

    That is where fewer than `LEAST_TELLING` identities tell of the spread of one cell's rates, and with the widest
    spread there can be, all of an identity's probes alike, its mean could be the other's: the other's lies in
    Wilson's interval at as many trials as identities.

    Args:
        first: rates in [0, 1] indexed by identity.
        second: the same identities', in any order.

    Raises:
        DataError: the identities differ.
    """
    from scipy.special import stdtrit

    one, two = measures.paired(first, second).T
    n = len(one)
    if n < 2 or np.isnan(one).any() or np.isnan(two).any():
        return ""
    telling = [_telling(rates) for rates in (one, two)]
    few = int(np.argmin(telling))
    if telling[few] >= LEAST_TELLING:
        return ""
    own, other = float((one, two)[few].mean()), float((two, one)[few].mean())
    low, high = wilson_interval(own, n, float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)))
    if not low <= other <= high:
        return ""
    return (
        f"of the rate of {100 * own:.1f} % only {telling[few]} of {n} identities tell how it is spread between "
        f"identities, and with the widest spread it could be {100 * other:.1f} % too, so that this p may be a false "
        "positive"
    )


def _telling(rates: Floats) -> int:
    """Return how many identities have a hit, or a miss, whichever are fewer."""
    return int(min(np.count_nonzero(rates > _SAME), np.count_nonzero(rates < 1 - _SAME)))
