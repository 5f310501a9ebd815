"""Power: which difference could a run show, and how many identities would show a wanted one? (DESIGN 7).

What lives here: the paired t test's power as pure functions of the spread between identities. What must not:
runs and printing (`bench.cli.power`). The test that is reported is the sign-flip test; the simulations in
`docs/statistics.md` show that its power is the t test's within a few points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from pydantic import Field, model_validator

from bench.contracts import Frozen

ALPHA = 0.05
"""Two-sided level."""

POWER = 0.8
"""Chance to find a difference that is there."""


class Assumptions(Frozen):
    """What decides how much two cells' rates of one identity differ by chance.

    The defaults are near the middle of what the attacked cells of the committed LFW run show.
    """

    rate: float = Field(0.3, ge=0, le=1, description="mean rate of the first cell")
    difference: float = Field(0.0, ge=-1, le=1, description="second cell's rate minus the first's")
    probes: float = Field(
        5.35, ge=1, description="probes per identity; the harmonic mean where they vary (LFW: 5.35)"
    )
    intraclass: float = Field(
        0.3, ge=0, le=1, description="correlation between two probes of one identity within a cell"
    )
    correlation: float = Field(
        0.5, gt=-1, lt=1, description="correlation between an identity's rates in the two cells"
    )

    @model_validator(mode="after")
    def _rates(self) -> Assumptions:
        if not 0 <= self.rate + self.difference <= 1:
            raise ValueError(f"rate {self.rate} and difference {self.difference} leave [0, 1]")
        return self

    def sd_of_differences(self) -> float:
        """Return the standard deviation over identities of the difference of their two rates.

        Var(rate) = p(1 − p)·(ρ + (1 − ρ)/m), m probes with intraclass correlation ρ;
        Var(difference) = v₁ + v₂ − 2r√(v₁v₂).
        """
        one, two = (self._sd(p) for p in (self.rate, self.rate + self.difference))
        return math.sqrt(max(one**2 + two**2 - 2 * self.correlation * one * two, 0.0))

    def _sd(self, p: float) -> float:
        return math.sqrt(p * (1 - p) * (self.intraclass + (1 - self.intraclass) / self.probes))


def power_of(difference: float, sd: float, n: int, alpha: float = ALPHA) -> float:
    """Return the chance that the paired t test finds a difference, by the noncentral t distribution.

    Args:
        difference: of mean rates.
        sd: standard deviation of the identities' differences, > 0.
        n: identities, at least 2.
        alpha: two-sided level.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(sd, n, alpha)
    return _power(abs(difference) / sd, n, alpha)


def minimum_detectable_difference(sd: float, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest difference of mean rates that is found with the given power.

    >>> round(minimum_detectable_difference(sd=0.3, n=50), 3)
    0.121

    Args:
        sd: standard deviation of the identities' differences; 0 gives 0.
        n: identities, at least 2.
        alpha: two-sided level.
        power: chance to find it, in (alpha, 1).

    Raises:
        ValueError: an argument is out of its range.
    """
    if sd == 0:
        return 0.0
    _check(sd, n, alpha, power)
    return sd * _detectable_effect(n, alpha, power)


@lru_cache(maxsize=4096)  # a table asks for one number of identities and one level, row after row
def _detectable_effect(n: int, alpha: float, power: float) -> float:
    return least_that_reaches(power, lambda effect: _power(effect, n, alpha))


def least_that_reaches(power: float, of: Callable[[float], float]) -> float:
    """Return the least number from 0 on whose power is as wanted, to 1e-12 of it or so.

    By bisection: every leaderboard asks for one such number, and SciPy's root finders take a quarter of a second to
    import.

    Args:
        power: wanted, in (`of(0)`, 1).
        of: gives the power, and rises.
    """
    low, high = 0.0, 1.0
    while of(high) < power:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) < power else (low, middle)
    return high


def identities_needed(difference: float, sd: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """Return the least number of identities, at least 2, with which a difference is found.

    >>> identities_needed(0.1, sd=0.3)
    73

    Args:
        difference: of mean rates, not 0.
        sd: standard deviation of the identities' differences, > 0.
        alpha: two-sided level.
        power: chance to find it, in (alpha, 1).

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(sd, 2, alpha, power)
    if difference == 0:
        raise ValueError("no number of identities shows a difference of 0")
    low, high = 1, 2
    while power_of(difference, sd, high, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:  # power_of(high) is enough, of low is not
        middle = (low + high) // 2
        if power_of(difference, sd, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _check(sd: float, n: int, alpha: float, power: float = POWER) -> None:
    if not (sd > 0 and n >= 2 and 0 < alpha < power < 1):
        raise ValueError(
            "power needs sd > 0, at least 2 identities and 0 < alpha < power < 1, got "
            f"sd={sd}, n={n}, alpha={alpha}, power={power}"
        )


def _power(effect: float, n: int, alpha: float) -> float:
    """Return the power for `effect` = difference / sd."""
    return power_of_t(effect * math.sqrt(n), n - 1, alpha)


def power_of_t(shift: float, freedom: float, alpha: float) -> float:
    """Return the power of a two-sided t test: P(|T| > t), T noncentral t.

    Args:
        shift: difference over its standard error, ≥ 0.
        freedom: degrees of freedom, > 0.
        alpha: two-sided level.
    """
    from scipy.special import nctdtr, stdtrit

    bound = float(stdtrit(freedom, 1 - alpha / 2))
    wrong_side = float(nctdtr(freedom, shift, -bound))
    # Far from the null SciPy gives NaN for this tail, which is below 1e-16 there.
    return 1 - float(nctdtr(freedom, shift, bound)) + (0.0 if math.isnan(wrong_side) else wrong_side)
