"""Thresholds from strangers: at what cosine a comparison of two people is still accepted, and how sure that is.

What lives here: the calibration that `bench models calibrate` and the protocols share, on embeddings. What
must not: who the strangers are (they are never evaluated people), and any reading of photos.

Cosines are rounded to float32 before anything is decided, as decisions store them: what is calibrated is
what is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.heads import unit

FAR_LEVELS = (0.1, 0.01, 0.001)
"""False-accept rates thresholds are calibrated for, unless others are asked for."""

LEAST_EXCEEDING = 100
"""Impostor pairs that must lie above a threshold before it is believed."""

RESAMPLES = 999
"""Bootstrap resamples of people."""

STEP = 1e-4
"""Thresholds are multiples of this."""

Floats = NDArray[np.float64]
Cosines = NDArray[np.float32]
Flags = NDArray[np.bool_]
Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and the rate at which it accepts strangers.

    Attributes:
        wanted: the false-accept rate asked for.
        threshold: accept when the cosine is at least this.
        rate: the rate measured on the pairs it was set on; never above `wanted`.
        low: lower end of that rate's 95 % interval (see `rate_interval_of_pairs`).
        high: upper end.
        pairs: pairs of people.
        people: the people.
    """

    wanted: float
    threshold: float
    rate: float
    low: float
    high: float
    pairs: int
    people: int


def cosines(first: Vectors, second: Vectors) -> Cosines:
    """Return the N×M cosines of N×D and M×D embeddings, rounded to float32.

    Raises:
        MethodError: an embedding is not finite.
    """
    return np.asarray(unit(first) @ unit(second).T, dtype=np.float32)


def pairs_of(people: int) -> int:
    """Return how many pairs `people` people make."""
    return people * (people - 1) // 2


def shortage(rate: float, people: int) -> str:
    """Say why a threshold for a false-accept rate cannot be set on so many people; "" where it can.

    Fewer than `LEAST_EXCEEDING` pairs would lie above it.

    Args:
        rate: the false-accept rate wanted, in (0, 1).
        people: people with one photo each.
    """
    pairs = pairs_of(people)
    if rate * pairs >= LEAST_EXCEEDING:
        return ""
    return (
        f"a threshold for a false-accept rate of {rate} needs {LEAST_EXCEEDING / rate:.0f} impostor pairs or "
        f"more; {people} people give {pairs}"
    )


def calibrate(
    enrolled: Vectors,
    presented: Vectors,
    rates: Sequence[float],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> tuple[OperatingPoint, ...]:
    """Return the operating point of each rate, on every photo of one person against that of every other.

    The two sides may have been treated differently (a defence purifies what is enrolled), so that a pair of
    people gives two comparisons, one each way round. Both count, and the pair counts once in `pairs`.

    Args:
        enrolled: n×D embeddings, one photo a person, as enrolled photos are treated.
        presented: n×D embeddings of the same people in the same order, as presented photos are treated.
        rates: false-accept rates in (0, 1), each with enough pairs (see `shortage`).
        rng: decides the bootstrap.
        resamples: bootstrap resamples of people.

    Raises:
        MethodError: an embedding is not finite.
        ValueError: the sides have different people, or there are too few for a rate.
    """
    people = len(enrolled)
    if people != len(presented):
        raise ValueError(f"{people} people are enrolled and {len(presented)} presented")
    for rate in rates:
        if lack := shortage(rate, people):
            raise ValueError(lack)
    table = cosines(enrolled, presented)
    thresholds = thresholds_at(table[_between_people(people)], rates)
    points = []
    for wanted, threshold in zip(rates, thresholds, strict=True):
        rate, low, high = rate_interval_of_pairs(table >= np.float64(threshold), rng, resamples)
        points.append(OperatingPoint(wanted, float(threshold), rate, low, high, pairs_of(people), people))
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
    """Return the share of accepted comparisons and its 95 % interval, by bootstrap over people.

    Comparisons share people, so people are drawn, not comparisons: n of the n people with replacement. With
    w(i) the times person i was drawn and a(i, j) whether i's photo is accepted for j's, a resample's rate is

        Σ w(i)·w(j)·a(i, j) / Σ w(i)·w(j),  both over i ≠ j;

    two draws of one person are not two people and make no pair. The interval has the 2.5 % and 97.5 %
    quantiles of the resamples' rates as its ends (percentile bootstrap; the vertex bootstrap of Snijders and
    Borgatti, Connections 22, 1999, without its pairs of a person with itself).

    Args:
        accepted: n×n; the diagonal does not count.
        rng: decides the draws.
        resamples: how many.

    Returns:
        (rate, low, high), in [0, 1].

    Raises:
        ValueError: fewer than two people.
    """
    people = len(accepted)
    if people < 2:
        raise ValueError(f"a rate of pairs needs 2 people or more, got {people}")
    between = accepted & _between_people(people)
    # float32 counts whole numbers exactly up to 2**24; a row of the product stays far below.
    table = between.astype(np.float32)
    weights = rng.multinomial(people, np.full(people, 1 / people), size=resamples).astype(np.float32)
    weights = weights[(weights > 0).sum(axis=1) > 1]
    hits = ((weights @ table) * weights).sum(axis=1, dtype=np.float64)
    wide = weights.astype(np.float64)
    rates = hits / (people**2 - (wide**2).sum(axis=1))
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(between.sum() / (people * (people - 1))), float(low), float(high)


def _between_people(people: int) -> Flags:
    return np.asarray(~np.eye(people, dtype=bool))
