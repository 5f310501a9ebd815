"""Many pairs of cells at once: which identities they share, and how they differ, without a p value.

The numbers are those of `bench.stats.intervals`, to the last bit; a thousand pairs cost a few passes over one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.stats import rates as measures
from bench.stats.intervals import CONFIDENCE, Floats, difference_error_rows

Pair = tuple["pd.Series[Any]", "pd.Series[Any]"]


@dataclass(frozen=True)
class Family:
    """Pairs of cells of equally many identities, one row a pair.

    Attributes:
        places: where each pair stands among those given.
        first: m×n rates, sorted by identity.
        second: m×n rates of the same identities.
    """

    places: tuple[int, ...]
    first: Floats
    second: Floats

    @property
    def lacking(self) -> NDArray[np.intp]:
        """Return of each pair how many identities have no rate in one of its cells."""
        found: NDArray[np.intp] = (np.isnan(self.first) | np.isnan(self.second)).sum(axis=1)
        return found


@dataclass(frozen=True)
class Differences:
    """How the pairs of a family differ, one number a pair.

    Attributes:
        differing: identities whose rates differ.
        first: mean rate of the first cells.
        second: of the second.
        value: first − second.
        low: lower end of the interval of `bench.stats.intervals.difference_interval`; NaN for one identity.
        high: upper end.
    """

    differing: list[int]
    first: list[float]
    second: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


def families(pairs: Sequence[Pair]) -> list[Family]:
    """Return pairs by their number of identities, the fewest first.

    Args:
        pairs: of rates indexed by identity, each the same identities in any order.

    Raises:
        DataError: the identities of a pair differ.
    """
    columns = _aligned(pairs)
    sizes: dict[int, list[int]] = {}
    for place, (one, _) in enumerate(columns):
        sizes.setdefault(len(one), []).append(place)
    return [
        Family(
            tuple(places),
            np.stack([columns[place][0] for place in places]),
            np.stack([columns[place][1] for place in places]),
        )
        for _, places in sorted(sizes.items())
    ]


def _aligned(pairs: Sequence[Pair]) -> list[tuple[Floats, Floats]]:
    """Return each pair's rates in the order of identities; cells that share an index are read once."""
    distinct = {id(one): one for pair in pairs for one in pair}
    index = next(iter(distinct.values())).index if distinct else None
    alike = index is not None and index.is_monotonic_increasing
    if alike and all(one.index is index or one.index.equals(index) for one in distinct.values()):
        values = {key: one.to_numpy(dtype=np.float64) for key, one in distinct.items()}
        return [(values[id(first)], values[id(second)]) for first, second in pairs]
    found = (measures.paired(first, second) for first, second in pairs)
    return [(columns[:, 0], columns[:, 1]) for columns in found]


def differences(first: Floats, second: Floats, same: float, confidence: float = CONFIDENCE) -> Differences:
    """Return how pairs of cells differ.

    Args:
        first: m×n rates in [0, 1], n > 0.
        second: m×n rates of the same identities.
        same: differences up to this are none.
        confidence: coverage of the interval.

    Raises:
        ValueError: a rate is not in [0, 1].
    """
    from scipy.special import stdtrit

    if not ((first >= 0) & (first <= 1) & (second >= 0) & (second <= 1)).all():
        raise ValueError("every rate must be in [0, 1]")
    n = first.shape[1]
    # Along the last axis of contiguous rows NumPy adds in the order in which it adds a vector.
    between = np.ascontiguousarray(first - second)
    value = between.mean(axis=1)
    half = np.full(len(value), math.nan)
    if n > 1:
        half = float(stdtrit(n - 1, (1 + confidence) / 2)) * difference_error_rows(first, second)
    return Differences(
        differing=np.count_nonzero(np.abs(between) > same, axis=1).tolist(),
        first=first.mean(axis=1).tolist(),
        second=second.mean(axis=1).tolist(),
        value=value.tolist(),
        low=np.maximum(-1.0, value - half).tolist(),
        high=np.minimum(1.0, value + half).tolist(),
    )
