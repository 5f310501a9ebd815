"""Test the sign-flip test near 0 and 1 where one cell's errors are spread otherwise than the other's, and its caution.

What lives here: the scenarios in which equal means are called different too often, how often the caution of a table
is there then, and how often it is there for differences that are true. What must not: the test
(`bench.stats.significance`) and the criterion (`bench.stats.unlike_spread`), which is repeated here for many
experiments at once; a test holds it to the original.

    python -m benchmarks.simulation docs/statistics --part signs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.randomness import numpy_generator
from bench.stats.intervals import CONFIDENCE, Floats
from bench.stats.significance import ALPHA
from bench.stats.unlike_spread import LEAST_TELLING
from benchmarks.simulation import UNLIKE, Scenario, draw, sign_flip_tests

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.simulation import Ints

RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9, 0.95, 0.99)
IDENTITIES = (20, 50, 158)
SPREADS = (*UNLIKE, "unequal", "clustered")
DEFENDED = ((0.7, 0.02), (0.3, 0.02), (0.3, 0.1), (0.1, 0.02))
"""Mean rates of two cells that do differ, as those of an attack without and with a defence."""

RUNS = 2000
RESAMPLES = 499
MOST_FALSE = 0.07
_BATCH = 500


@dataclass(frozen=True)
class Outcome:
    """What became of a scenario's experiments.

    Attributes:
        rejected: share of experiments with p ≤ 0.05: false positives, or power.
        cautioned: share of experiments with p ≤ 0.05 and the caution.
        unwarned: share of experiments with p ≤ 0.05 and without it.
    """

    rejected: float
    cautioned: float
    unwarned: float


def is_cautioned(first: Floats, second: Floats, least: int = LEAST_TELLING) -> Floats:
    """Return of each row whether `bench.stats.unlike_spread.unlike_spread` says something.

    Args:
        first: runs×n rates.
        second: runs×n rates of the same identities.
        least: identities that must tell of the spread.
    """
    from scipy.special import stdtrit

    n = first.shape[1]
    telling = np.stack([_telling(rates) for rates in (first, second)])
    means = np.stack([rates.mean(axis=1) for rates in (first, second)])
    few = np.argmin(telling, axis=0)
    rows = np.arange(len(few))
    own, other = means[few, rows], means[1 - few, rows]
    weight = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) ** 2 / n
    centre = (own + weight / 2) / (1 + weight)
    half = np.sqrt(weight * (own * (1 - own) + weight / 4)) / (1 + weight)
    within = (centre - half <= other + 1e-12) & (other - 1e-12 <= centre + half)
    found: Floats = (telling.min(axis=0) < least) & within
    return found


def run(
    scenario: Scenario,
    *,
    runs: int = RUNS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    least: int = LEAST_TELLING,
) -> Outcome:
    """Return the outcome of a scenario.

    Args:
        scenario: the truth.
        runs: experiments.
        resamples: of each test.
        seed: decides everything.
        least: identities that must tell of the spread.
    """
    rng = numpy_generator(seed, "simulation of signs", repr(scenario))
    parts = [draw(scenario, min(_BATCH, runs - at), rng)[:2] for at in range(0, runs, _BATCH)]
    first, second = (np.concatenate(side) for side in zip(*parts, strict=True))
    rejected = sign_flip_tests(first - second, rng, resamples) <= ALPHA
    cautioned = is_cautioned(first, second, least)
    return Outcome(
        rejected=float(rejected.mean()),
        cautioned=float((rejected & cautioned).mean()),
        unwarned=float((rejected & ~cautioned).mean()),
    )


def scenarios(
    identities: Iterable[int] = IDENTITIES, rates: Iterable[float] = RATES, spreads: Iterable[str] = SPREADS
) -> list[Scenario]:
    """Return the grid: equal means in every spread, and true differences where the spreads are most unlike."""
    chosen, names = list(rates), list(spreads)
    equal = [Scenario(n, rate, rate, spread) for n in identities for spread in names for rate in chosen]
    differ = [Scenario(n, *pair, spread) for n in identities for spread in names for pair in DEFENDED]
    return equal + differ


def simulate(
    grid: Iterable[Scenario] = (),
    *,
    runs: int = RUNS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _n: None,
) -> pd.DataFrame:
    """Return the fields of `Scenario` and `Outcome`, and ``missed`` where the bar is missed.

    The bar: of equal means at most 7 % are called different without the caution.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for scenario in grid or scenarios():
        outcome = run(scenario, runs=runs, resamples=resamples, seed=seed)
        figures = {name: round(value, 4) for name, value in vars(outcome).items()}
        missed = "false positives" if scenario.kind == "null" and outcome.unwarned > MOST_FALSE else ""
        rows.append({"kind": scenario.kind, **vars(scenario), **figures, "missed": missed})
        advance(1)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return by mean rate how often equal means are called different, with and without the caution, as text."""
    import pandas as pd

    null, other = table[table["kind"] == "null"], table[table["kind"] == "difference"]
    near = (null["rate"] <= 0.02) | (null["rate"] >= 0.98)
    middle = null["rate"].between(0.3, 0.7)
    rows = []
    for name, own in (
        ("equal means, up to 2 % or from 98 %", null[near]),
        ("equal means, 5 to 10 % or 90 to 95 %", null[~near & ~middle]),
        ("equal means, 30 to 50 %", null[middle]),
        ("70 against 2 %, 30 against 2 %", other[other["rate"] - other["other"] > 0.25]),
        ("30 against 10 %, 10 against 2 %", other[other["rate"] - other["other"] < 0.25]),
    ):
        if len(own):
            columns = {"p ≤ 0.05": "rejected", "of these with caution": "cautioned", "without": "unwarned"}
            rows.append(
                {"per cent": name} | {title: _range(own[column]) for title, column in columns.items()}
            )
    return pd.DataFrame(rows)


def _telling(rates: Floats) -> Ints:
    hits, misses = (rates > 1e-12).sum(axis=1), (rates < 1 - 1e-12).sum(axis=1)
    return np.minimum(hits, misses)


def _range(values: pd.Series[float]) -> str:
    return f"{100 * values.min():.1f} to {100 * values.max():.1f}"
