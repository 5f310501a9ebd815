"""Thresholds from impostors: at what cosine a comparison of two identities is still accepted, and how sure that is.

What lives here: the calibration that `bench models calibrate` and the protocols share, on embeddings. What
must not: who the impostors are (they are never evaluated identities), and any reading of photos.

Cosines are rounded to float32 before anything is decided, as decisions store them: what is calibrated is
what is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.protocols.heads import unit

FAR_LEVELS = (0.1, 0.01, 0.001)
"""False-accept rates thresholds are calibrated for, unless others are requested."""

LEAST_EXCEEDING = 100
"""Impostor pairs that must lie above a threshold before it is believed."""

RESAMPLES = 999
"""Bootstrap resamples of identities."""

STEP = 1e-4
"""Thresholds are multiples of this."""

Floats = NDArray[np.float64]
Cosines = NDArray[np.float32]
Flags = NDArray[np.bool_]
Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and the rate at which it accepts impostors.

    Attributes:
        wanted: the false-accept rate requested.
        threshold: accept when the cosine is at least this.
        rate: the rate measured on the pairs it was set on; never above `wanted`.
        low: lower end of that rate's 95 % interval (see `rate_interval_of_pairs`).
        high: upper end.
        pairs: pairs of identities.
        identities: the identities.
    """

    wanted: float
    threshold: float
    rate: float
    low: float
    high: float
    pairs: int
    identities: int


def cosines(first: Vectors, second: Vectors) -> Cosines:
    """Return the N×M cosines of N×D and M×D embeddings, rounded to float32.

    Raises:
        MethodError: an embedding is not finite.
    """
    return np.asarray(unit(first) @ unit(second).T, dtype=np.float32)


def pairs_of(identities: int) -> int:
    """Return how many pairs `identities` identities make."""
    return identities * (identities - 1) // 2


def shortage(rate: float, identities: int) -> str:
    """Say why a threshold for a false-accept rate cannot be set on so many identities; "" where it can.

    Fewer than `LEAST_EXCEEDING` pairs would lie above it.

    Args:
        rate: the false-accept rate wanted, in (0, 1).
        identities: identities with one photo each.
    """
    pairs = pairs_of(identities)
    if rate * pairs >= LEAST_EXCEEDING:
        return ""
    return (
        f"a threshold for a false-accept rate of {rate} needs {LEAST_EXCEEDING / rate:.0f} impostor pairs or "
        f"more; {identities} identities give {pairs}"
    )


def calibrate(
    enrolled: Vectors,
    presented: Vectors,
    rates: Sequence[float],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> tuple[OperatingPoint, ...]:
    """Return the operating point of each rate, on every photo of one identity against that of every other.

    The two sides may have been treated differently (a defence purifies what is enrolled), so that a pair of
    identities gives two comparisons, one each way round. Both count, and the pair counts once in `pairs`.

    Args:
        enrolled: n×D embeddings, one photo an identity, as enrolled photos are treated.
        presented: n×D embeddings of the same identities in the same order, as presented photos are treated.
        rates: false-accept rates in (0, 1), each with enough pairs (see `shortage`).
        rng: decides the bootstrap.
        resamples: bootstrap resamples of identities.

    Raises:
        MethodError: an embedding is not finite.
        ValueError: the sides have different identities, or there are too few for a rate.
    """
    identities = len(enrolled)
    if identities != len(presented):
        raise ValueError(f"{identities} identities are enrolled and {len(presented)} presented")
    for rate in rates:
        if lack := shortage(rate, identities):
            raise ValueError(lack)
    table = cosines(enrolled, presented)
    thresholds = thresholds_at(table[_between_identities(identities)], rates)
    points = []
    for wanted, threshold in zip(rates, thresholds, strict=True):
        rate, low, high = rate_interval_of_pairs(table >= np.float64(threshold), rng, resamples)
        points.append(
            OperatingPoint(wanted, float(threshold), rate, low, high, pairs_of(identities), identities)
        )
    return tuple(points)


def thresholds_at(scores: NDArray[np.floating[Any]], rates: Sequence[float]) -> Floats:
    """Return, per rate, the lowest threshold in steps of 1e-4 that accepts at most that share.

    Args:
        scores: of comparisons that should be refused, any shape, at least one.
        rates: shares in (0, 1).
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    # 1e-9: 0.01 · 500 is 5 comparisons, whatever floating point makes of it.
    allowed = np.floor(np.asarray(rates) * ordered.size + 1e-9).astype(np.int64)
    # The highest score that must be refused; the threshold lies above it.
    refused = ordered[ordered.size - 1 - allowed]
    return np.asarray((np.floor(refused / STEP) + 1) * STEP, dtype=np.float64).round(4)


def rate_interval_of_pairs(
    accepted: Flags, rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Return the share of accepted comparisons and its 95 % interval, by bootstrap over identities.

    Comparisons share identities, so identities are drawn, not comparisons: n of the n identities with replacement. With
    w(i) the times identity i was drawn and a(i, j) whether i's photo is accepted for j's, a resample's rate is

        Σ w(i)·w(j)·a(i, j) / Σ w(i)·w(j),  both over i ≠ j;

    two draws of one identity are not two identities and make no pair. The interval has the 2.5 % and 97.5 %
    quantiles of the resamples' rates as its ends (percentile bootstrap; the vertex bootstrap of Snijders and
    Borgatti, Connections 22, 1999, without its pairs of an identity with itself).

    Args:
        accepted: n×n; the diagonal does not count.
        rng: decides the draws.
        resamples: how many.

    Returns:
        (rate, low, high), in [0, 1].

    Raises:
        ValueError: fewer than two identities.
    """
    identities = len(accepted)
    if identities < 2:
        raise ValueError(f"a rate of pairs needs 2 identities or more, got {identities}")
    between = accepted & _between_identities(identities)
    # float32 counts whole numbers exactly up to 2**24; a row of the product stays far below.
    table = between.astype(np.float32)
    weights = rng.multinomial(identities, np.full(identities, 1 / identities), size=resamples).astype(
        np.float32
    )
    weights = weights[(weights > 0).sum(axis=1) > 1]
    hits = ((weights @ table) * weights).sum(axis=1, dtype=np.float64)
    wide = weights.astype(np.float64)
    rates = hits / (identities**2 - (wide**2).sum(axis=1))
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(between.sum() / (identities * (identities - 1))), float(low), float(high)


def _between_identities(identities: int) -> Flags:
    return np.asarray(~np.eye(identities, dtype=bool))
