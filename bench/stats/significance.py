"""Tests over identities: is one cell different from another, and is it not worse? (DESIGN 7).

What lives here: paired tests, corrections for many of them, Friedman's test, and what several seeds add, as
pure functions of per-identity rates. What must not: runs, cells, tables (their callers) and intervals
(`bench.stats.intervals`). `docs/statistics.md` has the formulas, the choices and the simulations behind them.

A p value that cannot be given is None with a reason, never 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bench.stats import rates as measures
from bench.stats.families import Differences, differences, families
from bench.stats.intervals import Estimate, Floats, cohens_h, difference_error, difference_interval

ALPHA = 0.05
"""Level of every test."""

LEAST_DIFFERING = 6
"""Fewest identities that must differ: with 5 the smallest two-sided p, 2/2⁵, is above `ALPHA`."""

LEAST_BLOCKS = 10
"""Fewest identities that must not be tied throughout for Friedman's χ² approximation (Demšar, 2006)."""

LEAST_RESAMPLES = 99_999
"""Fewest resamples of a sign-flip test that is reported."""

EXACT = 30
"""Most differing identities over whose signs a test counts instead of resampling."""

ENOUGH = 5000
"""Resamples beyond the observed value after which a test stops: p is then known to 1.4 % of itself."""

_NOT_A_NUMBER_EACH = (
    "a sign-flip test needs one finite number an identity and at least one resample, got shape {shape} and {resamples} "
    "resamples"
)
_NEVER = 1e-6  # chance of one resample beyond at which none is drawn
_FEW = 8  # tests up to which signed sums are looked up in tables instead of multiplied
_SLICES = 32  # of a batch, whose signs are numbers for a moment
_BATCH = 1 << 15  # sign vectors at a time; fixed, so that memory is bounded and the stream is the same
_SAME = 1e-12  # differences of rates smaller than this are none
_DIGITS = 12  # decimals, of the largest difference, in which differences are the same
_TIE = 1e-9  # sums that differ by less than this share of the largest are ties up to rounding

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class PairedDifference:
    """One cell against another over the same identities.

    Attributes:
        n_identities: identities compared.
        n_differing: those whose rates differ.
        first: mean rate of the first cell.
        second: of the second.
        difference: first − second with its 95 % interval.
        p: two-sided p value of the sign-flip test, None where it cannot be given.
        effect_h: Cohen's h of the two rates, positive where the first is higher.
        reason: why something is missing, else "".
    """

    n_identities: int
    n_differing: int
    first: float | None
    second: float | None
    difference: Estimate
    p: float | None
    effect_h: float | None
    reason: str


@dataclass(frozen=True)
class NonInferiority:
    """Is the first cell not worse than the second by more than a margin?

    Attributes:
        n_identities: identities compared.
        margin: what "worse by more than" means, in the unit of the rates.
        difference: first − second with its (1 − 2·alpha) interval.
        p: one-sided p value of the null hypothesis "worse by the margin or more".
        not_worse: whether p ≤ alpha; False is "not shown", not "worse". None where there is no p.
        reason: why p is missing, else "".
    """

    n_identities: int
    margin: float
    difference: Estimate
    p: float | None
    not_worse: bool | None
    reason: str


@dataclass(frozen=True)
class Friedman:
    """Do k methods differ at all? Identities are the blocks.

    Attributes:
        n_identities: n.
        n_differing: identities whose k rates are not all equal.
        statistic: Friedman's χ², corrected for ties; None where it cannot be given.
        p: its p value at k − 1 degrees of freedom.
        reason: why they are missing, else "".
    """

    n_identities: int
    n_differing: int
    statistic: float | None
    p: float | None
    reason: str


@dataclass(frozen=True)
class SeedVariance:
    """Spread between seeds apart from that between identities (two-way random effects, one rate a pair).

    Attributes:
        n_identities: n.
        n_seeds: k.
        mean: grand mean of the rates.
        seed_means: standard deviation of the k runs' mean rates: what another seed would change in a table.
        seeds: standard deviation of the seeds' own effect, with what identities add to `seed_means` taken out.
        identities: standard deviation between identities, with what seeds add taken out.
        residual: what is neither: an identity's chance under one seed.
        reason: why the deviations are missing, else "".
    """

    n_identities: int
    n_seeds: int
    mean: float | None
    seed_means: float | None
    seeds: float | None
    identities: float | None
    residual: float | None
    reason: str


def resamples_for(family_size: int, alpha: float = ALPHA) -> int:
    """Return how many resamples each test of a family needs: max(99,999, ⌈40·m/α⌉).

    Holm's smallest threshold is α/m; 40 resamples are then expected at or beyond it, so that chance in the
    resampling moves a p value there by about a sixth of itself.

    Args:
        family_size: m ≥ 1, the number of tests corrected together.
        alpha: level of the family, in (0, 1).

    Raises:
        ValueError: an argument is out of its range.
    """
    if family_size < 1 or not 0 < alpha < 1:
        raise ValueError(f"a family has at least one test and a level in (0, 1): {family_size}, {alpha}")
    return max(LEAST_RESAMPLES, math.ceil(40 * family_size / alpha))


def sign_flip_test(
    differences: ArrayLike, rng: np.random.Generator, resamples: int = LEAST_RESAMPLES
) -> float:
    """Return the two-sided p value of the studentised paired sign-flip test; see `sign_flip_tests`.

    Args:
        differences: one number an identity; zeros say nothing and are left out, n counts the others.
        rng: decides the signs; not used where all are counted.
        resamples: R.

    Returns:
        p in (0, 1]; 1 where no identity differs.

    Raises:
        ValueError: differences are not one finite number an identity, or R < 1.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(_NOT_A_NUMBER_EACH.format(shape=values.shape, resamples=resamples))
    return float(sign_flip_tests(values[:, None], rng, resamples)[0])


def sign_flip_tests(
    differences: ArrayLike, rng: np.random.Generator, resamples: int = LEAST_RESAMPLES
) -> Floats:
    """Return the two-sided p values of a family of studentised paired sign-flip tests.

    Under the null hypothesis a difference is as likely to have either sign. With t the one-sample t statistic
    and t* that of the differences under random signs, p = (1 + #{|t*| ≥ |t|}) / (1 + R). Signs leave Σd² as it is, so
    |t| = |Σd| / √((n·Σd² − (Σd)²)/(n − 1)) grows with |Σd| alone: comparing sums is comparing t statistics.

    Three ways give that number with less work; n counts the differences of a test that are not 0. Up to `EXACT` of
    them (up to log₂ R where R is less than `LEAST_RESAMPLES`) p is the share over all 2ⁿ signs, counted over the sums
    of two halves. A test stops where `ENOUGH` resamples lie beyond, with p = `ENOUGH` / (resamples so far) (Besag and
    Clifford, Biometrika 78, 1991). And none is drawn where 2·exp(−(Σd)²/2Σd²), which bounds the share beyond
    (Hoeffding, 1963), makes one such among R less likely than `_NEVER`. All tests are asked with the same signs.

    Args:
        differences: n×m, one row an identity, one column a test.
        rng: decides the signs.
        resamples: R.

    Returns:
        m p values in (0, 1]; 1 where no identity differs.

    Raises:
        ValueError: a difference is not finite, or R < 1.
    """
    values = np.array(differences, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all() or resamples < 1:
        raise ValueError(_NOT_A_NUMBER_EACH.format(shape=values.shape, resamples=resamples))
    values[np.abs(values) <= _SAME] = 0
    values = values[values.any(axis=1)]
    differing = (values != 0).sum(axis=0)
    observed = np.abs(values.sum(axis=0)) - _TIE * np.abs(values).sum(axis=0)
    exact = differing <= EXACT if resamples >= LEAST_RESAMPLES else 2.0**differing <= resamples
    found = np.full(values.shape[1], 1 / (1 + resamples))
    found[exact] = _counted(values[:, exact], observed[exact])
    with np.errstate(divide="ignore", invalid="ignore"):
        least = 2 * np.exp(-(np.maximum(observed, 0) ** 2) / (2 * (values**2).sum(axis=0)))
    drawn = np.flatnonzero(~exact & (least * resamples > _NEVER))
    found[drawn] = _resampled(values[:, drawn], observed[drawn], rng, resamples)
    return found


def _counted(values: Floats, observed: Floats) -> Floats:
    """Return of each column the share of all sign vectors with |Σ| ≥ observed.

    Rates are fractions of few probes, so that many columns have the same differences but for order and signs: what
    sums those can have is found once.
    """
    largest = np.abs(values).max(axis=0, initial=_SAME)
    sizes = np.sort((np.abs(values) / largest).round(_DIGITS), axis=0)
    distinct, inverse = np.unique(sizes, axis=1, return_inverse=True)
    found = np.empty(len(observed))
    for place, group in enumerate(_members(inverse.ravel())):
        found[group] = _shares_beyond(distinct[:, place], observed[group] / largest[group])
    return found


def _members(labels: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the places of label 0, 1 and so on; each is there."""
    if not len(labels):
        return []
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])


def _shares_beyond(sizes: Floats, observed: Floats) -> list[float]:
    """Return the share of all sign vectors with |Σ| ≥ observed: each sum is one of a half and one of the other.

    Args:
        sizes: of the differences; zeros do not count.
        observed: what sums are compared with.
    """
    found, counts = np.unique(sizes[sizes > 0], return_counts=True)
    (one, ways), (two, others) = (_signed_sums(found[k::2], counts[k::2]) for k in (0, 1))
    order = np.argsort(two)
    two, below = two[order], np.concatenate([[0], np.cumsum(others[order])])
    half = 2.0 ** (counts.sum() - 1)  # signs come in pairs: as many sums lie below −observed
    return [
        1.0 if each <= 0 else int(ways @ (below[-1] - below[np.searchsorted(two, each - one)])) / half
        for each in observed.tolist()
    ]


def _signed_sums(sizes: Floats, counts: NDArray[np.intp]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the sums that differences can have under signs, and the number of sign vectors that give each."""
    sums, ways = np.zeros(1), np.ones(1, dtype=np.int64)
    for size, count in zip(sizes, counts, strict=True):
        steps = size * np.arange(-count, count + 1, 2)
        sums = np.add.outer(sums, steps).ravel()
        ways = np.multiply.outer(ways, _binomials(int(count))).ravel()
    return sums, ways


@cache
def _binomials(n: int) -> NDArray[np.int64]:
    return np.array([math.comb(n, k) for k in range(n + 1)], dtype=np.int64)


def _resampled(values: Floats, observed: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Return p values by random signs, the same for all columns."""
    found = np.empty(len(observed))
    active = np.arange(len(observed))
    beyond = np.zeros(len(observed), dtype=np.int64)
    for start in range(0, resamples, _BATCH):
        if not len(active):
            return found
        size = min(_BATCH, resamples - start)
        codes = rng.integers(0, 256, size=(size, -(-len(values) // 8)), dtype=np.uint8)
        hits = np.abs(_sums(values[:, active], codes)) >= observed[active]
        total = beyond[active] + np.count_nonzero(hits, axis=0)
        for place in np.flatnonzero(total >= ENOUGH):
            at = np.flatnonzero(hits[:, place])[ENOUGH - 1 - beyond[active[place]]]
            found[active[place]] = ENOUGH / (start + at + 1)
        beyond[active] = total
        active = active[total < ENOUGH]
    found[active] = (1 + beyond[active]) / (1 + resamples)
    return found


def _sums(values: Floats, codes: NDArray[np.uint8]) -> Floats:
    """Return the sums of n×m differences under signs, a bit each: size×m."""
    if values.shape[1] > _FEW:
        return np.concatenate([_signs(part, len(values)) @ values for part in np.array_split(codes, _SLICES)])
    sums = np.zeros((len(codes), values.shape[1]))
    for column in range(values.shape[1]):
        for table, code in zip(_byte_tables(values[:, column]), codes.T, strict=True):
            sums[:, column] += table[code]
    return sums


def paired_difference(
    first: pd.Series[Any],
    second: pd.Series[Any],
    *,
    rng: np.random.Generator,
    resamples: int = LEAST_RESAMPLES,
) -> PairedDifference:
    """Return how two cells differ over the same identities.

    Args:
        first: rates in [0, 1] indexed by identity; averaged over seeds or backbones first, where the claim
            is over them (`mean_over`).
        second: the same identities', in any order.
        rng: decides the signs.
        resamples: see `resamples_for`.

    Returns:
        the difference, its test and effect size. p is None with a reason where fewer than `LEAST_DIFFERING`
        identities differ, everything where an identity has no rate in one of the cells.

    Raises:
        DataError: the identities differ.
    """
    return paired_differences([(first, second)], rng=rng, resamples=resamples)[0]


def paired_differences(
    pairs: Sequence[tuple[pd.Series[Any], pd.Series[Any]]],
    *,
    rng: np.random.Generator,
    resamples: int = LEAST_RESAMPLES,
) -> list[PairedDifference]:
    """Return how the cells of each pair differ (`paired_difference`); pairs of as many identities share their signs.

    Args:
        pairs: of rates.
        rng: decides the signs.
        resamples: see `resamples_for`.

    Raises:
        DataError: the identities of a pair differ.
    """
    found: list[PairedDifference] = [_without_rates(0, 0)] * len(pairs)
    for family in families(pairs):
        n, lacking = family.first.shape[1], family.lacking
        known = np.flatnonzero(lacking == 0) if n else np.empty(0, dtype=np.intp)
        for row in np.setdiff1d(np.arange(len(family.places)), known):
            found[family.places[row]] = _without_rates(n, int(lacking[row]))
        made = _compared(family.first[known], family.second[known], rng, resamples) if len(known) else []
        for row, one in zip(known, made, strict=True):
            found[family.places[row]] = one
    return found


def _without_rates(identities: int, lacking: int) -> PairedDifference:
    reason = f"{lacking} of {identities} identities have no rate" if lacking else "no identities"
    return PairedDifference(identities, 0, None, None, Estimate.missing(reason), None, None, reason)


def _compared(
    first: Floats, second: Floats, rng: np.random.Generator, resamples: int
) -> list[PairedDifference]:
    """Return how cells differ that have a rate of every identity, one row a pair."""
    n, described = first.shape[1], differences(first, second, _SAME)
    reasons = [_too_few(differing, n) for differing in described.differing]
    tested = [row for row, reason in enumerate(reasons) if not reason]
    p: dict[int, float] = {}
    if tested:
        columns = np.ascontiguousarray((first[tested] - second[tested]).T)
        p = dict(zip(tested, sign_flip_tests(columns, rng, resamples).tolist(), strict=True))
    return [
        PairedDifference(
            n_identities=n,
            n_differing=described.differing[row],
            first=described.first[row],
            second=described.second[row],
            difference=_interval(described, row, n),
            p=p.get(row),
            effect_h=cohens_h(_within(described.first[row]), _within(described.second[row])),
            reason=reason,
        )
        for row, reason in enumerate(reasons)
    ]


def _interval(found: Differences, row: int, identities: int) -> Estimate:
    if identities == 1:
        return Estimate(found.value[row], reason="one identity has no interval")
    return Estimate(found.value[row], found.low[row], found.high[row])


def _within(rate: float) -> float:
    return min(max(rate, 0.0), 1.0)


def non_inferiority(
    first: pd.Series[Any],
    second: pd.Series[Any],
    margin: float,
    *,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
) -> NonInferiority:
    """Test whether the first cell is not worse than the second by more than a margin.

    One-sided t test of "first − second ≤ −margin" (≥ margin where lower is better) with the standard error of
    `bench.stats.intervals.difference_interval`: it is rejected exactly where the (1 − 2·alpha) interval of the
    difference lies on the better side of the margin. A sign-flip test would need differences that are
    symmetric about the margin, which rates that mostly agree never are.

    Args:
        first: rates in [0, 1] indexed by identity.
        second: the same identities', in any order.
        margin: > 0, e.g. 0.05 for five percentage points.
        higher_is_better: False where the rate is an error.
        alpha: one-sided level.

    Raises:
        DataError: the identities differ.
        ValueError: the margin is not in (0, 1].
    """
    from scipy.stats import t

    if not 0 < margin <= 1:
        raise ValueError(f"a margin is in (0, 1], got {margin}")
    one, two = measures.paired(first, second).T
    n = len(one)
    lacking = int((np.isnan(one) | np.isnan(two)).sum())
    reason = ""
    if lacking:
        reason = f"{lacking} of {n} identities have no rate"
    elif n < LEAST_DIFFERING:
        reason = f"{n} identities; a test needs at least {LEAST_DIFFERING}"
    if reason:
        return NonInferiority(n, margin, Estimate.missing(reason), None, None, reason)
    gain = float((one - two).mean()) * (1 if higher_is_better else -1)
    p = float(t.sf((gain + margin) / difference_error(one, two), n - 1))
    return NonInferiority(n, margin, difference_interval(one, two, 1 - 2 * alpha), p, p <= alpha, "")


def holm(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Return p values corrected for their number by Holm (1979): no false positive but with chance alpha.

    Args:
        p_values: the family; None stays None and does not count.
    """
    return _corrected(p_values, _holm)


def benjamini_hochberg(p_values: Mapping[Key, float | None]) -> dict[Key, float | None]:
    """Return p values corrected by Benjamini and Hochberg (1995): the share of false ones among those marked.

    Args:
        p_values: the family; None stays None and does not count.
    """
    from scipy.stats import false_discovery_control

    return _corrected(p_values, false_discovery_control)


def friedman(columns: ArrayLike) -> Friedman:
    """Test whether k methods differ at all (Friedman, 1937), corrected for ties.

    Args:
        columns: n identities × k methods, k ≥ 3.

    Returns:
        the test; None with a reason where fewer than `LEAST_BLOCKS` identities tell the methods apart.

    Raises:
        ValueError: fewer than three methods, or a number is missing.
    """
    from scipy.special import chdtrc  # scipy.stats takes a second to import

    values = np.asarray(columns, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 3 or not np.isfinite(values).all():
        raise ValueError(f"Friedman's test needs finite numbers of at least 3 methods, got {values.shape}")
    # Ranks take equal rates to be equal; rates that sum in another order are equal up to rounding.
    values = values.round(12)
    differing = int((np.ptp(values, axis=1) > 0).sum()) if len(values) else 0
    if differing < LEAST_BLOCKS:
        reason = (
            f"{differing} of {len(values)} identities tell the methods apart; "
            f"Friedman's test needs {LEAST_BLOCKS}"
        )
        return Friedman(len(values), differing, None, None, reason)
    ranks = pd.DataFrame(values).rank(axis=1).to_numpy()
    n, k = values.shape
    between = float(((ranks.sum(axis=0) - n * (k + 1) / 2) ** 2).sum())
    # With ties the ranks vary less than those of 1 … k (Conover, 1999).
    statistic = (k - 1) * between / float((ranks**2).sum() - n * k * (k + 1) ** 2 / 4)
    return Friedman(n, differing, statistic, float(chdtrc(k - 1, statistic)), "")


def mean_over(rates: Sequence[pd.Series[Any]]) -> pd.Series[float]:
    """Return each identity's mean rate over seeds (or backbones): one number an identity, whatever was repeated.

    Args:
        rates: one series an item, all of the same identities in any order.

    Raises:
        DataError: the identities differ.
        ValueError: no series.
    """
    if not rates:
        raise ValueError("a mean needs at least one series of rates")
    ordered = rates[0] if rates[0].index.is_monotonic_increasing else rates[0].sort_index()
    if len(rates) == 1:
        return ordered if ordered.dtype == np.float64 else ordered.astype(np.float64)
    index = ordered.index
    return pd.Series(measures.paired(*rates).mean(axis=1), index=index, name=rates[0].name)


def seed_variance(rates: Sequence[pd.Series[Any]]) -> SeedVariance:
    """Return how much seeds vary, apart from identities.

    With x of identity i under seed j = mean + identity i + seed j + residual, the method-of-moments estimates
    of a two-way analysis of variance without replication: σ²_seed = (MS_seed − MS_residual)/n,
    σ²_identity = (MS_identity − MS_residual)/k, negative ones set to 0.

    Args:
        rates: one series a seed, all of the same identities.

    Raises:
        DataError: the identities differ.
        ValueError: no series.
    """
    if not rates:
        raise ValueError("a variance between seeds needs rates")
    values = measures.paired(*rates)
    n, k = values.shape
    if not n or np.isnan(values).any():
        return _no_seed_variance(n, k, None, "an identity has no rate" if n else "no identities")
    mean = float(values.mean())
    if k < 2 or n < 2:
        lacking = f"{k} seed" if k < 2 else "1 identity"
        return _no_seed_variance(n, k, mean, f"{lacking}; a variance needs 2")
    by_seed, by_identity = values.mean(axis=0), values.mean(axis=1)
    rest = values - by_seed - by_identity[:, None] + mean
    residual = float((rest**2).sum()) / ((n - 1) * (k - 1))
    between = float(by_seed.var(ddof=1)), float(by_identity.var(ddof=1))
    return SeedVariance(
        n_identities=n,
        n_seeds=k,
        mean=mean,
        seed_means=math.sqrt(between[0]),
        seeds=math.sqrt(max(between[0] - residual / n, 0.0)),
        identities=math.sqrt(max(between[1] - residual / k, 0.0)),
        residual=math.sqrt(residual),
        reason="",
    )


def _no_seed_variance(n: int, k: int, mean: float | None, reason: str) -> SeedVariance:
    return SeedVariance(n, k, mean, None, None, None, None, reason)


def _signs(codes: NDArray[np.uint8], count: int) -> Floats:
    bits = np.unpackbits(codes, axis=1, count=count, bitorder="little")
    return 2 * bits.astype(np.float64) - 1


def _byte_tables(values: Floats) -> list[Floats]:
    """Return for each eight differences their 256 signed sums: a random byte is eight random signs."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    padded = np.zeros(-(-len(values) // 8) * 8)
    padded[: len(values)] = values
    return [(2 * bits - 1) @ eight for eight in padded.reshape(-1, 8)]


def _too_few(differing: int, identities: int) -> str:
    if differing >= LEAST_DIFFERING:
        return ""
    return f"{differing} of {identities} identities differ; a test needs at least {LEAST_DIFFERING}"


def _corrected(
    p_values: Mapping[Key, float | None], correct: Callable[[Floats], Floats]
) -> dict[Key, float | None]:
    known = {key: p for key, p in p_values.items() if p is not None}
    if not known:
        return dict.fromkeys(p_values)
    corrected = correct(np.array(list(known.values())))
    adjusted = dict(zip(known, map(float, corrected), strict=True))
    return {key: adjusted.get(key) for key in p_values}


def _holm(p_values: Floats) -> Floats:
    """Return min(1, max over the smaller ones of (m − i + 1)·p(i)), with p(1) ≤ p(2) ≤ … (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected
