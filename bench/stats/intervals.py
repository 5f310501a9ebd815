"""Intervals and effect sizes over identities (DESIGN 7).

What lives here: pure functions of per-identity numbers. What must not: decisions, cells and methods
(`bench.stats.rates`).

The unit is the identity: photos of one identity are not independent. A number that cannot be given is None
with a reason, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
"""Coverage of every interval."""

RESAMPLES = 9999
"""Bootstrap resamples of an interval."""

_KEPT_DRAWS = 1 << 26  # draws whose counts are kept, a byte each
_KEPT_FLOATS = 1 << 21  # draws whose counts are kept as they are multiplied, eight bytes each
_BATCH = 1024  # resamples drawn at a time; fixed, so that memory is bounded and the stream is the same
_SAME = 1e-12  # rates of identities closer than this are equal up to rounding
_PRIOR = 1.0  # identities' worth of a cautious guess at a variance; docs/statistics.md says why


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: None where it cannot be given.
        low: lower end of the interval, None where there is none.
        high: upper end.
        reason: why value or interval is missing, else "".
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"an interval has two ends, got {self.low} and {self.high}")
        if (self.value is None or self.low is None) and not self.reason:
            raise ValueError("a missing number needs a reason")

    @classmethod
    def missing(cls, reason: str) -> Estimate:
        """Return the estimate that is not available, with its reason."""
        return cls(None, None, None, reason)


def effective_sample_size(rates: ArrayLike, n_probes: int, sizes: ArrayLike | None = None) -> float:
    """Return how many independent probes the macro mean is worth (Korn and Graubard, 1998).

    n_eff = p(1 − p) / v with p the mean of the identities' rates and v the variance of that mean. v is s²/n, s²
    the variance between identities, drawn towards its largest possible value p(1 − p)/n as if one more
    identity had shown it:  v = (k·s²/n + p(1 − p)/n) / (k + 1), with k the number of identities that tell of
    it (those with a hit or those with a miss, whichever are fewer). Where a handful of identities have all the
    errors, s² alone is too small too often. Bounded to [n identities, n probes], and n identities where p is
    0 or 1 or the rates are equal.

    Of groups of unlike size m the mean is p = Σ m·rate / Σ m, its variance that of a ratio,
    n/(n − 1) · Σ m²(rate − p)² / (Σ m)² (Cochran, 1977, eq. 6.13), and n becomes (Σ m)² / Σ m² (Kish, 1965).

    Args:
        rates: the n identities' own rates in [0, 1]; or those of n groups of identities.
        n_probes: probes in all, at least n; of a mean over cells, the answers of all cells.
        sizes: identities behind each rate, > 0; None for one each.
    """
    values = _rates(rates, n_probes)
    weights = None if sizes is None else _sizes(values, sizes)
    n, p = _distinct(values, weights), _mean(values, weights)
    if len(values) < 2 or np.ptp(values) <= _SAME:
        return n
    telling = int(min(np.count_nonzero(values > _SAME), np.count_nonzero(values < 1 - _SAME)))
    variance = _shrunk(_variance_of_mean(values, weights), telling, p * (1 - p) / n)
    return min(max(p * (1 - p) / variance, n), float(n_probes))


def rate_interval(
    rates: ArrayLike, n_probes: int, confidence: float = CONFIDENCE, sizes: ArrayLike | None = None
) -> Estimate:
    """Return the mean of identities' rates with its interval.

    >>> rate = rate_interval([1.0, 0.5, 0.0, 1.0, 0.75], n_probes=20)
    >>> rate.value, round(rate.low, 3), round(rate.high, 3)
    (0.65, 0.199, 0.933)
    >>> rate_interval([0.25], n_probes=4).reason
    'one identity has no interval'

    Wilson's score interval at `effective_sample_size`, with Student's t at n − 1 degrees in place of z:
    what is known about the spread between identities comes from n of them. A mean over cells has the same interval:
    its rates are each identity's mean over the cells, so that cells that share photos are not taken for more
    identities.

    Args:
        rates: the n identities' own rates in [0, 1]; or those of n groups of identities.
        n_probes: probes in all, at least n; of a mean over cells, the answers of all cells.
        confidence: coverage.
        sizes: identities behind each rate, > 0, where identities of a group are not independent; None for one each.

    Returns:
        an estimate within [0, 1]; without interval for one identity or one group, missing for none.

    Raises:
        ValueError: a rate is not in [0, 1], there are fewer probes than rates, or a size is not above 0.
    """
    from scipy.special import stdtrit

    values = _rates(rates, n_probes)
    n = len(values)
    if n == 0:
        return Estimate.missing("no identities")
    p = _mean(values, None if sizes is None else _sizes(values, sizes))
    if n == 1:
        return Estimate(p, reason=f"one {'identity' if sizes is None else 'group'} has no interval")
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    low, high = wilson_interval(p, effective_sample_size(values, n_probes, sizes), quantile)
    return Estimate(p, low, high)


def wilson_interval(p: float, n: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's score interval (1927) for rate `p` of `n` trials, both in [0, 1].

    >>> low, high = wilson_interval(0.0, 10, quantile=1.96)
    >>> low, round(high, 3)
    (0.0, 0.278)

    Args:
        p: the rate.
        n: number of trials, not necessarily whole.
        quantile: of the reference distribution, e.g. 1.96.
    """
    weight = quantile**2 / n
    centre = (p + weight / 2) / (1 + weight)
    half = quantile / (1 + weight) * math.sqrt(p * (1 - p) / n + weight / (4 * n))
    # At p = 0 or 1 the near end is p exactly; rounding must not move it.
    low = 0.0 if p == 0 else max(0.0, centre - half)
    high = 1.0 if p == 1 else min(1.0, centre + half)
    return low, high


class Draws:
    """n identities drawn n at a time with replacement, R times: the same draws for every statistic of a table.

    Args:
        n: identities.
        rng: decides the draws.
        resamples: R.
    """

    def __init__(self, n: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> None:
        self.n = n
        self.resamples = resamples
        self._rng = rng
        self._state = rng.bit_generator.state
        self._kept: list[NDArray[np.uint8] | Floats] = []

    def means(self, columns: ArrayLike) -> Floats:
        """Return the means of n×m `columns` over the identities of each draw, R×m.

        Raises:
            ValueError: another number of identities.
        """
        values = np.asarray(columns, dtype=np.float64)
        if len(values) != self.n:
            raise ValueError(f"draws of {self.n} identities, columns of {len(values)}")
        # Few columns by many draws: that way round the product takes a third of the time.
        return np.concatenate([values.T @ counts for counts in self._counts()], axis=1).T / self.n

    def _counts(self) -> Iterator[Floats]:
        """Yield how often each identity is drawn, n×R in batches; kept where that is little, else drawn again."""
        if self._kept:
            yield from (kept.astype(np.float64, copy=False) for kept in self._kept)
            return
        self._rng.bit_generator.state = self._state
        kept: list[NDArray[np.uint8] | Floats] = []
        for start in range(0, self.resamples, _BATCH):
            size = min(_BATCH, self.resamples - start)
            drawn = self._rng.integers(self.n, size=(size, self.n)) + self.n * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * self.n).reshape(size, self.n).T
            exact = np.ascontiguousarray(counts, dtype=np.float64)
            if self.resamples * self.n <= _KEPT_FLOATS:
                kept.append(exact)
            elif self.resamples * self.n <= _KEPT_DRAWS:
                kept.append(np.minimum(counts, 255).astype(np.uint8))  # nobody is drawn so often
            yield exact
        self._kept = kept


def bootstrap_means(columns: ArrayLike, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Return the means of `columns` over identities drawn with replacement.

    Args:
        columns: n×m, one row an identity; whole rows are drawn, so that columns stay paired.
        rng: decides the draws.
        resamples: R.

    Returns:
        R×m.
    """
    return Draws(len(np.asarray(columns)), rng, resamples).means(columns)


def bootstrap_interval(
    columns: ArrayLike,
    statistic: Callable[[Floats], Floats],
    rng: np.random.Generator | Draws,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return a function of means over identities with its BCa bootstrap interval (Efron, 1987).

    For ratios, which have no formula here. Not for a rate or a mean of rates (`rate_interval`), which it covers far
    too seldom near 0 and 1, nor for a difference of two (`difference_interval`); docs/statistics.md has the figures.

    Args:
        columns: n×m, one row an identity.
        statistic: maps …×m means to … values, e.g. ``lambda m: m[..., 0] - m[..., 1]``.
        rng: decides the resamples; or the draws, which other statistics of the same identities share.
        resamples: how many, where they are not drawn yet.
        confidence: coverage.

    Returns:
        an estimate; without interval where fewer than two identities, equal identities or a resample for
        which `statistic` is not finite leave none; missing where the value itself is not finite.
    """
    values = np.asarray(columns, dtype=np.float64)
    n = len(values)
    if n == 0:
        return Estimate.missing("no identities")
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(values.mean(axis=0)))
        if not math.isfinite(value):
            return Estimate.missing("not finite")
        if n == 1:
            return Estimate(value, reason="one identity has no interval")
        draws = rng if isinstance(rng, Draws) else Draws(n, rng, resamples)
        replicates = statistic(draws.means(values))
        without_one = statistic((values.sum(axis=0) - values) / (n - 1))
    if not (np.isfinite(replicates).all() and np.isfinite(without_one).all()):
        return Estimate(value, reason="not finite in some resamples, so no bootstrap interval")
    if np.ptp(replicates) <= _SAME:
        return Estimate(value, reason="no variation between identities, so no bootstrap interval")
    ends = np.quantile(replicates, _bca_levels(value, replicates, without_one, confidence))
    return Estimate(value, float(ends[0]), float(ends[1]))


def difference_interval(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Return mean(first) − mean(second) of paired rates with its interval.

    >>> difference = difference_interval([0.9, 0.8, 1.0, 0.7], [0.4, 0.5, 0.2, 0.6])
    >>> round(difference.value, 3), round(difference.low, 3), round(difference.high, 3)
    (0.425, -0.116, 0.966)

    Student's t at n − 1 degrees on the identities' differences. Their variance is drawn towards that of cells
    whose probes all agree within an identity and whose rates correlate by one half, as if one more identity had
    shown it (see `effective_sample_size`), so that there is an interval, and a wide enough one, where nobody
    or hardly anybody differs.

    Args:
        first: rates of n identities in [0, 1].
        second: rates of the same identities in the same order.
        confidence: coverage.

    Returns:
        an estimate within [−1, 1]; without interval for one identity, missing for none.

    Raises:
        ValueError: the lengths differ or a rate is not in [0, 1].
    """
    from scipy.special import stdtrit

    one, two = (_rates(rates, np.size(rates)) for rates in _same_length(first, second))
    n = len(one)
    if n == 0:
        return Estimate.missing("no identities")
    value = float((one - two).mean())
    if n == 1:
        return Estimate(value, reason="one identity has no interval")
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * difference_error(one, two)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half))


def difference_error(first: Floats, second: Floats) -> float:
    """Return the standard error of the mean difference of paired rates, as in `difference_interval`.

    Args:
        first: rates of n > 1 identities in [0, 1].
        second: rates of the same identities.
    """
    return float(difference_error_rows(first[None], second[None])[0])


def difference_error_rows(first: Floats, second: Floats) -> Floats:
    """Return `difference_error` of many pairs.

    Args:
        first: m×n rates of n > 1 identities in [0, 1], one row a pair.
        second: m×n rates of the same identities.
    """
    n = first.shape[1]
    differences = np.ascontiguousarray(first - second)
    # One success and one failure more (Laplace): the bound must not vanish where every rate is 0 or 1.
    p, q = ((n * np.ascontiguousarray(rates).mean(axis=1) + 1) / (n + 2) for rates in (first, second))
    likely = (p * (1 - p) + q * (1 - q)) / 2 / n
    differing = np.count_nonzero(np.abs(differences) > _SAME, axis=1)
    found: Floats = np.sqrt(_shrunk(differences.var(axis=1, ddof=1) / n, differing, likely))
    return found


def cohens_h(first: float, second: float) -> float:
    """Return Cohen's effect size h = 2·asin√first − 2·asin√second of two rates, in [−π, π].

    >>> round(cohens_h(0.75, 0.25), 3)
    1.047

    Raises:
        ValueError: a rate is not in [0, 1].
    """
    for rate in (first, second):
        if not 0 <= rate <= 1:
            raise ValueError(f"rate {rate} is not in [0, 1]")
    return 2 * math.asin(math.sqrt(first)) - 2 * math.asin(math.sqrt(second))


@overload
def _shrunk(variance: float, telling: int, prior: float) -> float: ...
@overload
def _shrunk(variance: Floats, telling: NDArray[np.intp], prior: Floats) -> Floats: ...
def _shrunk(variance: Any, telling: Any, prior: Any) -> Any:
    """Return `variance`, known from `telling` identities, with `_PRIOR` more that show the variance `prior`."""
    return (telling * variance + _PRIOR * prior) / (telling + _PRIOR)


def _bca_levels(value: float, replicates: Floats, without_one: Floats, confidence: float) -> Floats:
    """Return the two quantile levels of the BCa interval (Efron 1987, eq. 2.3 and 6.6)."""
    from scipy.special import ndtr, ndtri

    # A replicate equal to the value counts half below: rates are discrete and such ties are common. They
    # are ties up to rounding only, as resampled means sum in another order.
    near = np.abs(replicates - value) <= _SAME
    below = np.mean((replicates < value) & ~near) + np.mean(near) / 2
    levels: Floats = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    influence = without_one.mean() - without_one
    spread = float((influence**2).sum())
    if not 0 < below < 1 or spread <= _SAME**2:
        return levels  # the percentile interval: no correction can be estimated
    bias = ndtri(below)
    acceleration = float((influence**3).sum()) / (6 * spread**1.5)
    shifted = bias + ndtri(levels)
    corrected: Floats = ndtr(bias + shifted / (1 - acceleration * shifted))
    return corrected


def _rates(rates: ArrayLike, n_probes: int) -> Floats:
    values: Floats = np.asarray(rates, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"rates must be one number an identity, got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("every rate must be in [0, 1]")
    if n_probes < len(values):
        raise ValueError(f"{n_probes} probes for {len(values)} identities; each has at least one")
    return values


def _sizes(values: Floats, sizes: ArrayLike) -> Floats:
    counts: Floats = np.asarray(sizes, dtype=np.float64)
    if counts.shape != values.shape or not (counts > 0).all():
        raise ValueError(f"every one of {len(values)} rates needs a size above 0, got {counts.tolist()}")
    return counts


def _mean(values: Floats, sizes: Floats | None) -> float:
    return float(values.mean() if sizes is None else sizes @ values / sizes.sum())


def _distinct(values: Floats, sizes: Floats | None) -> float:
    """Return how many groups of one size these are worth: (Σ m)² / Σ m² (Kish, 1965)."""
    return float(len(values) if sizes is None else sizes.sum() ** 2 / (sizes @ sizes))


def _variance_of_mean(values: Floats, sizes: Floats | None) -> float:
    """Return s²/n, or of groups of unlike size the variance of their ratio (Cochran, 1977, eq. 6.13)."""
    n = len(values)
    if sizes is None:
        return float(values.var(ddof=1)) / n
    spread = sizes * (values - _mean(values, sizes)) / sizes.sum()
    return float(spread @ spread) * n / (n - 1)


def _same_length(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"paired rates need the same identities, got {len(one)} and {len(two)}")
    return one, two
