"""Differences of two cells whose trained parts were trained under several seeds: identities and seeds are both samples.

What lives here: the two-way random-effects model of per-identity differences, its interval and its tests (DESIGN 7).
What must not: which cells have trained parts (`bench.analysis.training_seeds`). `docs/statistics.md` has the
simulation.

A claim about a method that learns is about its trainings, of which a run has seen a few. A test over identities alone
takes these few for all there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.stats import rates as measures
from bench.stats.intervals import CONFIDENCE, Estimate, cohens_h, difference_error
from bench.stats.significance import ALPHA, NonInferiority, PairedDifference

LEAST_SEEDS = 3
"""Fewest training seeds behind a claim about a trained part."""

_SAME = 1e-12  # differences of rates smaller than this are none

Rates = Sequence["pd.Series[Any]"]


@dataclass(frozen=True)
class SeedEffects:
    """The mean difference of two cells over identities and training seeds, with its standard error.

    Attributes:
        n_identities: n.
        n_seeds: k.
        first: mean rate of the first cell over both.
        second: of the second.
        differing: identities whose mean rates over the seeds differ.
        error: standard error of first − second.
        degrees: its degrees of freedom (Satterthwaite).
    """

    n_identities: int
    n_seeds: int
    first: float
    second: float
    differing: int
    error: float
    degrees: float

    @property
    def difference(self) -> float:
        """First minus second."""
        return self.first - self.second

    def interval(self, confidence: float = CONFIDENCE) -> Estimate:
        """Return the difference with its interval, within [−1, 1]."""
        from scipy.special import stdtrit

        half = float(stdtrit(self.degrees, (1 + confidence) / 2)) * self.error
        return Estimate(self.difference, max(-1.0, self.difference - half), min(1.0, self.difference + half))

    def p(self) -> float:
        """Return the two-sided p value of no difference, by Student's t."""
        from scipy.special import stdtr

        return min(1.0, 2 * float(stdtr(self.degrees, -abs(self.difference) / self.error)))


def seed_effects(first: Rates, second: Rates) -> SeedEffects:
    """Return the difference of two cells with identities and seeds as crossed random effects.

    With d of identity i under seed j = mean + identity i + seed j + residual, the mean has the variance

        v = v_identities + MS_seed / nk

    v_identities being that of the differences averaged over seeds (`bench.stats.intervals.difference_interval`). Both
    hold the residual's share, which is left in twice: it is small, and the mean square of a few seeds is too small
    more often than too large. Degrees of freedom by Satterthwaite (Biometrics Bulletin 2, 1946), from n − 1 and k − 1.

    Args:
        first: rates in [0, 1] indexed by identity, one series a seed, at least two.
        second: likewise, of the same identities and seeds in the same order.

    Raises:
        DataError: the identities differ.
        ValueError: fewer than two seeds or identities, or other numbers of seeds.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"a random seed needs two seeds of both cells, got {len(first)} and {len(second)}")
    columns = measures.paired(*first, *second)
    n, k = len(columns), len(first)
    if n < 2 or np.isnan(columns).any():
        raise ValueError(f"a random seed needs two identities with a rate under each, got {n}")
    one, two = columns[:, :k], columns[:, k:]
    means = one.mean(axis=1), two.mean(axis=1)
    identities = difference_error(*means) ** 2
    seeds = (
        float((one - two).mean(axis=0).var(ddof=1)) / k
    )  # MS_seed is n times the variance of the seeds' means
    variance = identities + seeds
    degrees = variance**2 / (identities**2 / (n - 1) + seeds**2 / (k - 1))
    return SeedEffects(
        n_identities=n,
        n_seeds=k,
        first=float(means[0].mean()),
        second=float(means[1].mean()),
        differing=int(np.count_nonzero(np.abs(means[0] - means[1]) > _SAME)),
        error=math.sqrt(variance),
        degrees=degrees,
    )


def paired_difference_over_seeds(first: Rates, second: Rates) -> PairedDifference:
    """Return how two cells differ over identities and training seeds.

    Args:
        first: rates in [0, 1] indexed by identity, one series a seed.
        second: likewise.

    Raises:
        DataError: the identities differ.
        ValueError: as `seed_effects`.
    """
    found = seed_effects(first, second)
    return PairedDifference(
        n_identities=found.n_identities,
        n_differing=found.differing,
        first=found.first,
        second=found.second,
        difference=found.interval(),
        p=found.p(),
        effect_h=cohens_h(found.first, found.second),
        reason="",
    )


def non_inferiority_over_seeds(
    first: Rates, second: Rates, margin: float, *, higher_is_better: bool = True, alpha: float = ALPHA
) -> NonInferiority:
    """Test whether the first cell is not worse than the second by more than a margin, over identities and seeds.

    Args:
        first: rates in [0, 1] indexed by identity, one series a seed.
        second: likewise.
        margin: in (0, 1].
        higher_is_better: False where the rate is an error.
        alpha: one-sided level.

    Raises:
        DataError: the identities differ.
        ValueError: the margin is not in (0, 1], or as `seed_effects`.
    """
    from scipy.special import stdtr

    if not 0 < margin <= 1:
        raise ValueError(f"a margin is in (0, 1], got {margin}")
    found = seed_effects(first, second)
    gain = found.difference * (1 if higher_is_better else -1)
    p = float(stdtr(found.degrees, -(gain + margin) / found.error))
    return NonInferiority(found.n_identities, margin, found.interval(1 - 2 * alpha), p, p <= alpha, "")
