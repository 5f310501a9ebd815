"""The worst case of a defence: its ASR where each identity has the attack that hides it best (DESIGN 6).

What lives here: pure functions of per-identity rates. What must not: which cells and attacks those are of
(`bench.analysis.worst_case`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.stats.intervals import Estimate, rate_interval
from bench.stats.rates import NEVER_PROTECTED, Rates, paired


@dataclass(frozen=True)
class WorstCase:
    """A defence's ASR under the strongest of several attacks.

    Attributes:
        asr: each identity's highest rate over the attacks, then the mean over identities. Of rates from few probes
            it lies above what it estimates: the highest of several is the luckiest too.
        attack: the one whose own ASR is highest, the first of those that share it; "" where there is no rate.
        attack_asr: its ASR. It lies below `asr`: one attack for all is not the best for each.
    """

    asr: Estimate
    attack: str = ""
    attack_asr: float | None = None

    @classmethod
    def missing(cls, reason: str) -> WorstCase:
        """Return the worst case that is not available, with its reason."""
        return cls(Estimate.missing(reason))


def worst_case(rates: Mapping[str, Rates[Any]], probes: Rates[Any], dependence: str = "") -> WorstCase:
    """Return the worst case over attacks, taken per identity.

    >>> import pandas as pd
    >>> fog, mist = pd.Series({"a": 1.0, "b": 0.0}), pd.Series({"a": 0.5, "b": 0.75})
    >>> found = worst_case({"fog": fog, "mist": mist}, pd.Series({"a": 4, "b": 4}))
    >>> found.asr.value, found.attack, found.attack_asr
    (0.875, 'mist', 0.625)

    The interval is that of any rate (`rate_interval`), of the identities' highest rates: it is about the mean of
    those, and knows nothing of the bias of a maximum.

    Args:
        rates: attack → ASR of each identity in [0, 1] by id, averaged over seeds; NaN where it is never protected.
        probes: probes of each identity by id.
        dependence: why the identities are not independent, so that there is no interval; or "".

    Returns:
        the worst case; missing without an attack, or where no identity has a rate under each.

    Raises:
        DataError: the attacks have different identities.
    """
    if not rates:
        return WorstCase.missing("no attack has a rate")
    *columns, counts = paired(*rates.values(), probes).T
    each = np.column_stack(columns)
    known = ~np.isnan(each).any(axis=1)
    if not known.any():
        return WorstCase.missing(NEVER_PROTECTED)
    means = each[known].mean(axis=0)
    strongest = int(means.argmax())
    highest = each[known].max(axis=1)
    found = rate_interval(highest, int(counts[known].sum()))
    if dependence:
        found = Estimate(found.value, reason=dependence)
    return WorstCase(found, list(rates)[strongest], float(means[strongest]))
