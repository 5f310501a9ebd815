"""Test the intervals of means over cells: how often they hold the mean, on experiments whose truth is known.

What lives here: the model of a mean over k correlated cells, its grid of scenarios, the bar, and the table. What must
not: the interval under test (`bench.stats.intervals.rate_interval`).

    python -m benchmarks.simulation docs/statistics --part means
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.randomness import numpy_generator
from bench.stats.intervals import Draws, Floats, bootstrap_interval
from benchmarks.simulation import Ints, beta_quantile, probe_counts, rate_intervals

if TYPE_CHECKING:
    import pandas as pd

RATES = (0.005, 0.01, 0.03, 0.5, 0.97, 0.99, 0.995)
"""Means over the cells, in expectation."""

IDENTITIES = (20, 50, 158)
CELLS = (2, 8)
INTRACLASS = (0.15, 0.5)
"""Correlation between two probes of one identity in a cell."""

MIXES: Mapping[str, tuple[float, ...]] = {"alike": (1.0, 1.0), "unlike": (2.0, 0.0)}
"""Name → rates of the cells in turn, in means over the cells: all alike, or every second one without an error."""

PROBES = ("lfw", "uneven")
"""``lfw``: LFW's 3 to 10 an identity; ``uneven``: 1 for every second identity, 10 for the others."""

RUNS = 1000
BCA_RUNS = 200
"""Experiments in which the bootstrap is tried too: it takes most of the time."""

BELOW = 0.93
_CORRELATION = 0.7  # of the latents of an identity's rates in two cells
_SHARED = 0.5  # probes that have the same luck in every cell
_BATCH = 100  # experiments drawn at a time
_SHARING = 100  # experiments that share the bootstrap's draws
_RESAMPLES = 999


@dataclass(frozen=True)
class Scenario:
    """A mean over cells of the same identities and probes, in expectation.

    Attributes:
        n_identities: identities.
        cells: k.
        rate: mean over the cells.
        intraclass: correlation between two probes of one identity in a cell.
        mix: a key of `MIXES`.
        probes: one of `PROBES`.
    """

    n_identities: int
    cells: int
    rate: float
    intraclass: float
    mix: str
    probes: str

    @property
    def rates(self) -> Floats:
        """The cells' own rates; near 1 it is the misses that are dealt out."""
        mirrored = self.rate > 0.5
        share = 1 - self.rate if mirrored else self.rate
        found = np.resize(MIXES[self.mix], self.cells) * share
        return 1 - found if mirrored else found


@dataclass(frozen=True)
class Outcome:
    """What became of a scenario's experiments.

    Attributes:
        coverage: share in which the interval holds the mean.
        below: share in which the mean lies below it.
        above: share in which the mean lies above it.
        width: mean width of the interval.
        coverage_probes: coverage where the effective sample size may at most be the number of probes, each counted once
            whatever the number of cells.
        coverage_bca: coverage of the BCa bootstrap; no interval does not cover.
    """

    coverage: float
    below: float
    above: float
    width: float
    coverage_probes: float
    coverage_bca: float


def counts(kind: str, n: int) -> Ints:
    """Return the probes of n identities.

    Args:
        kind: one of `PROBES`.
        n: identities.
    """
    return probe_counts(n) if kind == "lfw" else np.resize(np.array([1, 10], dtype=np.int64), n)


def draw(scenario: Scenario, runs: int, rng: np.random.Generator) -> Floats:
    """Return runs×n rates: each identity's mean over the cells.

    An identity's true rates in the cells are Beta distributed by a Gaussian copula, as in `benchmarks.simulation`.
    Half of the probes are decided by one number in every cell, the others by one of each cell's own.
    """
    n, k = scenario.n_identities, scenario.cells
    probes = counts(scenario.probes, n)
    there = np.arange(probes.max()) < probes[:, None]
    common = rng.standard_normal((runs, n))
    luck = rng.random((runs, n, probes.max()))
    shared = rng.random((runs, n, probes.max())) < _SHARED
    total = np.zeros((runs, n))
    for rate in scenario.rates:
        latent = np.sqrt(_CORRELATION) * common + np.sqrt(1 - _CORRELATION) * rng.standard_normal((runs, n))
        true = np.full((runs, n), rate)
        if 0 < rate < 1:
            true = beta_quantile(latent, float(rate), scenario.intraclass)
        own = np.where(shared, luck, rng.random(luck.shape))
        total += ((own < true[..., None]) & there).sum(axis=2) / probes
    return total / k


def run(scenario: Scenario, *, runs: int = RUNS, bca_runs: int = BCA_RUNS, seed: int = 0) -> Outcome:
    """Return the outcome of a scenario.

    Args:
        scenario: the truth.
        runs: experiments.
        bca_runs: of these, in how many the bootstrap is tried.
        seed: decides everything.
    """
    rng = numpy_generator(seed, "simulation of means", repr(scenario))
    rates = np.concatenate([draw(scenario, min(_BATCH, runs - at), rng) for at in range(0, runs, _BATCH)])
    rates = np.clip(rates, 0.0, 1.0)  # sums of thirds may be above 1 by rounding
    probes = int(counts(scenario.probes, scenario.n_identities).sum())
    low, high = rate_intervals(rates, np.full(runs, probes * scenario.cells))
    truth = float(scenario.rates.mean())
    return Outcome(
        coverage=float(((low <= truth) & (truth <= high)).mean()),
        below=float((truth < low).mean()),
        above=float((truth > high).mean()),
        width=float((high - low).mean()),
        coverage_probes=_covered(*rate_intervals(rates, np.full(runs, probes)), truth),
        coverage_bca=_covered(*_bca(rates[:bca_runs], rng), truth),
    )


def simulate(
    *,
    runs: int = RUNS,
    bca_runs: int = BCA_RUNS,
    seed: int = 0,
    identities: Iterable[int] = IDENTITIES,
    cells: Iterable[int] = CELLS,
    rates: Iterable[float] = RATES,
    advance: Callable[[int], None] = lambda _n: None,
) -> pd.DataFrame:
    """Return the fields of `Scenario` and `Outcome` of all scenarios, and ``missed`` where the bar is missed.

    The bar: intervals cover at least 93 %.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for n in identities:
        for k in cells:
            for scenario in _grid(n, k, rates):
                outcome = run(scenario, runs=runs, bca_runs=bca_runs, seed=seed)
                figures = {name: round(value, 4) for name, value in vars(outcome).items()}
                missed = "coverage" if outcome.coverage < BELOW else ""
                rows.append({**vars(scenario), **figures, "missed": missed})
                advance(1)
    return pd.DataFrame(rows)


def size() -> int:
    """Return the number of scenarios of the whole grid."""
    return len(IDENTITIES) * len(CELLS) * len(RATES) * len(INTRACLASS) * len(MIXES) * len(PROBES)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the least and the mean coverage by the mean over cells, in per cent, as text."""
    import pandas as pd

    rows = []
    for name, chosen in (
        ("0.5 to 3 %", table["rate"] <= 0.03),
        ("50 %", table["rate"] == 0.5),
        ("97 to 99.5 %", table["rate"] >= 0.97),
    ):
        own = table[chosen]
        if len(own):
            columns = {
                "this interval": "coverage",
                "at most the probes": "coverage_probes",
                "BCa": "coverage_bca",
            }
            rows.append({"mean": name} | {title: _range(own[column]) for title, column in columns.items()})
    return pd.DataFrame(rows)


def _grid(n: int, k: int, rates: Iterable[float]) -> Iterable[Scenario]:
    for rate in rates:
        for intraclass in INTRACLASS:
            for mix in MIXES:
                for probes in PROBES:
                    yield Scenario(n, k, rate, intraclass, mix, probes)


def _bca(rates: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    ends = []
    for start in range(0, len(rates), _SHARING):
        draws = Draws(rates.shape[1], np.random.default_rng(rng.integers(2**32)), _RESAMPLES)
        found = (
            bootstrap_interval(row[:, None], lambda mean: mean[..., 0], draws)
            for row in rates[start : start + _SHARING]
        )
        ends += [(one.low, one.high) for one in found]
    array = np.array(ends, dtype=np.float64)  # None becomes NaN
    return array[:, 0], array[:, 1]


def _covered(low: Floats, high: Floats, truth: float) -> float:
    """Return the share of intervals that hold the truth; no interval (NaN) does not."""
    return float(((low <= truth) & (truth <= high)).mean())


def _range(values: pd.Series[float]) -> str:
    return f"{100 * values.min():.1f} to {100 * values.max():.1f}"
