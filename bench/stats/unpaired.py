"""Two sets of identities that share nobody: how far their mean rates are apart, and whether that is chance.

The cells of a run share their identities and are compared identity by identity (`bench.stats.significance`); groups of
people are not. What lives here: the interval, the test and the detectable difference of two means of such sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.stats.intervals import Estimate, rate_interval
from bench.stats.power import ALPHA, POWER, least_that_reaches, power_of_t

LEAST = 6
"""Identities in each set for a test: with fewer, labels can be dealt in too few ways."""

RESAMPLES = 9_999
_BATCH = 1_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Unpaired:
    """How two sets of identities differ.

    Attributes:
        first: mean rate of the first set with its interval.
        second: of the second.
        difference: first − second with its interval.
        p: see `label_test`; None with `reason`.
        reason: why there is no test.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    p: float | None
    reason: str = ""


def unpaired(
    first: ArrayLike, second: ArrayLike, probes: tuple[int, int], rng: np.random.Generator
) -> Unpaired:
    """Return how two sets of identities differ in their mean rate.

    Args:
        first: each identity's own rate in [0, 1].
        second: those of the other set.
        probes: of either set, in all.
        rng: deals the labels of the test.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    mean, other = (
        rate_interval(each, count) if len(each) else Estimate.missing("no identity has this rate")
        for each, count in zip((one, two), probes, strict=True)
    )
    reason = ""
    if min(len(one), len(two)) < LEAST:
        reason = f"{len(one)} and {len(two)} identities; a test needs at least {LEAST} of each"
    elif np.ptp(np.concatenate([one, two])) == 0:
        reason = "every identity has the same rate"
    p = None if reason else label_test(one, two, rng)
    return Unpaired(mean, other, difference_of(mean, other), p, reason)


def difference_of(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two independent rates, its interval from theirs.

    Square-and-add (Newcombe, Statistics in Medicine 1998, method 10; Zou and Donner, 2008): unlike one with standard
    errors it holds near 0 and 1.

    >>> found = difference_of(Estimate(0.5, 0.4, 0.6), Estimate(0.2, 0.1, 0.35))
    >>> [round(each, 3) for each in (found.low, found.value, found.high)]
    [0.12, 0.3, 0.441]
    """
    if first.value is None or second.value is None:
        return Estimate.missing(first.reason or second.reason)
    value = first.value - second.value
    if None in (first.low, first.high, second.low, second.high):
        return Estimate(value, reason=first.reason or second.reason)
    assert first.low is not None and first.high is not None  # noqa: PT018
    assert second.low is not None and second.high is not None  # noqa: PT018
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above))


def label_test(first: Floats, second: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> float:
    """Return the two-sided p value of the difference of two means, by dealing the identities' labels anew.

    The statistic is Welch's t, which makes the test hold asymptotically where the sets differ in spread and size too
    (Janssen, Statistics & Probability Letters 1997). 1 where all rates are the same.

    Args:
        first: rates of one set, at least two.
        second: of the other.
        rng: deals.
        resamples: deals.
    """
    pooled, n = np.concatenate([first, second]), len(first)
    observed = abs(float(_welch(pooled[None, :], n)[0]))
    if not observed:
        return 1.0
    beyond = 0
    for start in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - start)
        dealt = rng.permuted(np.broadcast_to(pooled, (size, len(pooled))), axis=1)
        beyond += int((np.abs(_welch(dealt, n)) >= observed * (1 - 1e-12)).sum())
    return (1 + beyond) / (1 + resamples)


def _welch(rows: Floats, n: int) -> Floats:
    """Return Welch's t of each row, whose first n values are one set; ±∞ where nothing varies but the means differ."""
    one, two = rows[:, :n], rows[:, n:]
    gap = one.mean(axis=1) - two.mean(axis=1)
    error = np.sqrt(one.var(axis=1, ddof=1) / n + two.var(axis=1, ddof=1) / two.shape[1])
    gap = np.where(np.abs(gap) < 1e-12, 0.0, gap)
    nothing_varies = np.where(gap == 0, 0.0, np.copysign(np.inf, gap))
    found: Floats = np.divide(gap, error, out=nothing_varies, where=error > 1e-12)
    return found


def detectable(
    first: ArrayLike, second: ArrayLike, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """Return the smallest difference of two such means that Welch's t test finds with the given power.

    None where that is above 1, which no two rates differ by, and where nothing varies within either set.

    Args:
        first: rates of one set, at least two.
        second: of the other.
        alpha: two-sided level.
        power: chance to find it, in (alpha, 1).
    """
    parts = [
        (float(np.var(each, ddof=1)) / len(each), len(each)) for each in map(np.asarray, (first, second))
    ]
    squared = sum(part for part, _ in parts)
    if squared < 1e-24:
        return None
    freedom = squared**2 / sum(part**2 / (n - 1) for part, n in parts)
    shift = least_that_reaches(power, lambda each: power_of_t(each, freedom, alpha))
    least = shift * math.sqrt(squared)
    return least if least <= 1 else None
