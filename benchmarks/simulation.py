"""Test the tests: how often intervals cover and tests are wrong, on experiments whose truth is known.

What lives here: the model of an experiment (LFW's probe counts, correlated cells, shared rotations), the grid
of scenarios, the bar they are held to, and the table and figure of the outcome. What must not: the methods
under test; those are in `bench.stats` (intervals, significance, power). Some are repeated here for many
experiments at once; tests hold them to the originals.

    python -m benchmarks.simulation docs/statistics
    python -m benchmarks.simulation docs/statistics --worst-case
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.randomness import numpy_generator
from bench.stats.intervals import CONFIDENCE, Floats, bootstrap_interval
from bench.stats.power import minimum_detectable_difference, power_of
from bench.stats.significance import ALPHA, LEAST_DIFFERING, sign_flip_test

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Ints = NDArray[np.int64]

LFW_PROBES: Mapping[int, int] = {3: 31, 4: 31, 5: 11, 6: 3, 7: 8, 8: 5, 9: 7, 10: 62}
"""Probes an identity → how many of LFW's 158 identities have so many (protocol tracker, its defaults)."""

FOLDS = 10
RATES = (0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 0.95, 0.99)
IDENTITIES = (20, 50, 158)
SPREADS: Mapping[str, tuple[float, float]] = {
    "even": (0.15, 0.15),
    "clustered": (0.5, 0.5),
    "unequal": (0.6, 0.2),
}
"""Name → correlation between two probes of one identity, in the first and in the second cell."""

UNLIKE: Mapping[str, tuple[float, float]] = {
    "all or nothing": (0.95, 0.02),
    "far apart": (0.8, 0.05),
    "apart": (0.6, 0.05),
}
"""The same, of cells whose spreads differ more than those of the LFW run (`benchmarks.simulation_of_signs`)."""

RUNS = 4000
RESAMPLES = 999

_BELOW, _ABOVE = 0.93, 0.97  # coverage of a 95 % interval
_LEAST_FALSE, _MOST_FALSE = 0.03, 0.07  # false positives at 0.05
_POWER_OFF = 0.05
_LEAST_DIFFERING, _LEAST_RATE = 20, 0.05  # where the two-sided bar holds
_BCA_RUNS = 500  # the bootstrap is shown for comparison and takes most of the time
_SHARING = 50  # experiments tested under the same random signs
_BATCH = 500  # experiments drawn at a time


@dataclass(frozen=True)
class Scenario:
    """Two cells over the same identities, in expectation.

    An identity's true rate in a cell is Beta distributed with mean `rate` (or `other`) and the cell's intraclass
    correlation, by a Gaussian copula: of its latent variance `fold_share` is shared by the identities that are
    protected in the same rotation, and the two cells' latents are correlated. A share of the photos is
    decided by the same luck in both cells, as the same probes are asked in both.

    Attributes:
        n_identities: identities.
        rate: mean rate of the first cell.
        other: mean rate of the second.
        spread: a key of `SPREADS` or `UNLIKE`.
        correlation: of the latents of an identity's two rates.
        shared: share of probes with the same luck in both cells.
        fold_share: share of the latent variance that belongs to the rotation.
    """

    n_identities: int
    rate: float
    other: float
    spread: str
    correlation: float = 0.7
    shared: float = 0.5
    fold_share: float = 0.005

    @property
    def kind(self) -> Literal["null", "difference"]:
        """Whether the cells' mean rates are equal."""
        return "null" if self.rate == self.other else "difference"


@dataclass(frozen=True)
class Outcome:
    """What became of a scenario's experiments.

    Attributes:
        differing: mean number of identities whose two rates differ.
        rejected: share of experiments with p ≤ 0.05: false positives, or power.
        tested: share of experiments with a p value.
        predicted: power predicted by the noncentral t, None for a null scenario.
        coverage_rate: share in which the first cell's interval holds its rate.
        coverage_other: likewise of the second cell.
        coverage_difference: share in which the difference's interval holds the difference.
        coverage_bca: the same for the BCa bootstrap, None where it was not tried.
        false_not_worse: share in which a cell that is worse by the margin is called not worse by more than it,
            None for a null scenario.
    """

    differing: float
    rejected: float
    tested: float
    predicted: float | None
    coverage_rate: float
    coverage_other: float
    coverage_difference: float
    coverage_bca: float | None
    false_not_worse: float | None


def probe_counts(n: int) -> Ints:
    """Return the probes of n identities, spread evenly over LFW's distribution.

    Args:
        n: identities; 158 gives LFW's own.
    """
    everyone = np.repeat(list(LFW_PROBES), list(LFW_PROBES.values()))
    return np.asarray(everyone[((np.arange(n) + 0.5) * len(everyone) / n).astype(int)], dtype=np.int64)


def draw(scenario: Scenario, runs: int, rng: np.random.Generator) -> tuple[Floats, Floats, Ints]:
    """Return the observed rates of experiments.

    Args:
        scenario: the truth.
        runs: experiments.
        rng: decides everything.

    Returns:
        runs×n rates of the first cell, of the second, and runs×n probes.
    """
    n = scenario.n_identities
    probes = rng.permuted(np.broadcast_to(probe_counts(n), (runs, n)), axis=1)
    common, one, two = (_latent(scenario, runs, rng) for _ in range(3))
    mix = scenario.correlation
    true = [
        beta_quantile(np.sqrt(mix) * common + np.sqrt(1 - mix) * own, mean, intraclass)
        for own, mean, intraclass in zip(
            (one, two), (scenario.rate, scenario.other), {**SPREADS, **UNLIKE}[scenario.spread], strict=True
        )
    ]
    # Photos with the same luck hit in the cell of the lower rate only if they hit in the other.
    same = rng.binomial(probes, scenario.shared)
    low, high = np.minimum(*true), np.maximum(*true)
    both = rng.binomial(same, low)
    more = rng.binomial(same - both, (high - low) / np.maximum(1 - low, 1e-12))
    hits = [
        both + more * (mine > other) + rng.binomial(probes - same, mine)
        for mine, other in (true, reversed(true))
    ]
    return hits[0] / probes, hits[1] / probes, probes


def run(
    scenario: Scenario,
    *,
    runs: int = RUNS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    bca: bool = False,
) -> tuple[Outcome, float]:
    """Return the outcome of a scenario and the standard deviation of its differences.

    Args:
        scenario: the truth.
        runs: experiments.
        resamples: of each sign-flip test and bootstrap; fewer than in a run, where time counts less.
        seed: decides everything.
        bca: whether to try the BCa bootstrap too.
    """
    rng = numpy_generator(seed, "simulation", repr(scenario))
    first, second, probes = (
        np.concatenate(parts)
        for parts in zip(
            *(draw(scenario, min(_BATCH, runs - at), rng) for at in range(0, runs, _BATCH)), strict=True
        )
    )
    differences = first - second
    differing = np.count_nonzero(np.abs(differences) > 1e-12, axis=1)
    p = sign_flip_tests(differences, rng, resamples)
    truth = scenario.rate - scenario.other
    totals = probes.sum(axis=1)
    sd = float(differences.std())
    outcome = Outcome(
        differing=float(differing.mean()),
        rejected=float((p <= ALPHA).mean()),
        tested=float(np.isfinite(p).mean()),
        predicted=power_of(truth, sd, scenario.n_identities) if truth and sd else None,
        coverage_rate=_covered(*rate_intervals(first, totals), scenario.rate),
        coverage_other=_covered(*rate_intervals(second, totals), scenario.other),
        coverage_difference=_covered(*difference_intervals(first, second), truth),
        coverage_bca=_covered(*_bca(differences[:_BCA_RUNS], rng, resamples), truth) if bca else None,
        false_not_worse=_false_not_worse(first, second, truth) if truth else None,
    )
    return outcome, sd


def sign_flip_tests(differences: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Return `bench.stats.significance.sign_flip_test` of each row, NaN where fewer than `LEAST_DIFFERING` differ.

    Rows whose sign vectors are not all enumerated share random signs in small batches.

    Args:
        differences: runs×n.
        rng: decides the signs.
        resamples: of each.
    """
    n = differences.shape[1]
    differing = np.count_nonzero(np.abs(differences) > 1e-12, axis=1)
    p = np.full(len(differences), np.nan)
    exact = (differing >= LEAST_DIFFERING) & (2.0**differing <= resamples)
    for row in np.flatnonzero(exact):
        p[row] = sign_flip_test(differences[row], rng, resamples)
    others = np.flatnonzero(2.0**differing > resamples)
    for start in range(0, len(others), _SHARING):
        rows = others[start : start + _SHARING]
        signs = 2.0 * rng.integers(0, 2, size=(n, resamples), dtype=np.int8) - 1
        observed = np.abs(differences[rows].sum(axis=1)) - 1e-9
        beyond = np.abs(differences[rows] @ signs) >= observed[:, None]
        p[rows] = (1 + np.count_nonzero(beyond, axis=1)) / (1 + resamples)
    return p


def rate_intervals(rates: Floats, probes: Ints) -> tuple[Floats, Floats]:
    """Return the ends of `bench.stats.intervals.rate_interval` of each row, all at once.

    Args:
        rates: runs×n.
        probes: each run's number of probes.
    """
    from scipy.special import stdtrit

    n = rates.shape[1]
    p, largest = rates.mean(axis=1), (rates.mean(axis=1) * (1 - rates.mean(axis=1))) / n
    telling = np.minimum((rates > 1e-12).sum(axis=1), (rates < 1 - 1e-12).sum(axis=1))
    variance = (telling * rates.var(axis=1, ddof=1) / n + largest) / (telling + 1)
    varied = np.ptp(rates, axis=1) > 1e-12
    size = np.clip(p * (1 - p) / np.where(varied, variance, 1.0), n, probes)
    size[~varied] = n
    weight = stdtrit(n - 1, 0.975) ** 2 / size
    centre = (p + weight / 2) / (1 + weight)
    half = np.sqrt(weight * (p * (1 - p) + weight / 4)) / (1 + weight)
    return np.where(p == 0, 0, np.maximum(0, centre - half)), np.where(
        p == 1, 1, np.minimum(1, centre + half)
    )


def difference_intervals(
    first: Floats, second: Floats, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Return the ends of `bench.stats.intervals.difference_interval` of each row, all at once.

    Args:
        first: runs×n.
        second: runs×n.
        confidence: coverage.
    """
    from scipy.special import stdtrit

    n = first.shape[1]
    differences = first - second
    p, q = ((n * rates.mean(axis=1) + 1) / (n + 2) for rates in (first, second))
    differing = np.count_nonzero(np.abs(differences) > 1e-12, axis=1)
    likely = (p * (1 - p) + q * (1 - q)) / (2 * n)
    variance = (differing * differences.var(axis=1, ddof=1) / n + likely) / (differing + 1)
    half = stdtrit(n - 1, (1 + confidence) / 2) * np.sqrt(variance)
    middle = differences.mean(axis=1)
    return np.maximum(-1, middle - half), np.minimum(1, middle + half)


def simulate(
    *,
    runs: int = RUNS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    identities: Iterable[int] = IDENTITIES,
    rates: Iterable[float] = RATES,
    spreads: Iterable[str] = tuple(SPREADS),
    advance: Callable[[int], None] = lambda _n: None,
) -> pd.DataFrame:
    """Return a table of all scenarios, two a grid point: equal means, and the smallest detectable difference.

    Args:
        runs: experiments a scenario.
        resamples: of each sign-flip test.
        seed: decides everything.
        identities: numbers of identities.
        rates: mean rates of the first cell.
        spreads: keys of `SPREADS`.
        advance: called with the number of scenarios finished.

    Returns:
        the fields of `Scenario` and `Outcome`, with ``kind``; ``within``: whether the two-sided bar holds
        here; ``missed``: what misses its bar, else "".
    """
    import pandas as pd

    rows = []
    for n in identities:
        for spread in spreads:
            for rate in rates:
                null = Scenario(n, rate, rate, spread)
                outcome, sd = run(null, runs=runs, resamples=resamples, seed=seed)
                rows.append(_row(null, outcome))
                other = replace(null, other=_detectable(rate, sd, n))
                bca = spread == "clustered" and n <= 50
                rows.append(_row(other, run(other, runs=runs, resamples=resamples, seed=seed, bca=bca)[0]))
                advance(2)
    return pd.DataFrame(rows)


def is_within(scenario: Scenario, differing: float) -> bool:
    """Return whether the two-sided bar holds: 20 identities differ and both rates lie between 5 and 95 %.

    Args:
        scenario: the truth.
        differing: mean number of identities whose rates differ.
    """
    rates = (scenario.rate, scenario.other)
    return differing >= _LEAST_DIFFERING and min(rates) >= _LEAST_RATE and max(rates) <= 1 - _LEAST_RATE


def missed(scenario: Scenario, outcome: Outcome) -> list[str]:
    """Return which figures of an outcome miss their bar.

    Within (`is_within`), false positives at 0.05 are 3–7 %, intervals cover 93–97 % and power is as predicted
    within 5 points; elsewhere false positives are 7 % at most and intervals cover at least 93 %.
    """
    within = is_within(scenario, outcome.differing)
    found = [
        name
        for name in ("coverage_rate", "coverage_other", "coverage_difference")
        if getattr(outcome, name) < _BELOW or (within and getattr(outcome, name) > _ABOVE)
    ]
    if scenario.kind == "null":
        if outcome.rejected > _MOST_FALSE or (within and outcome.rejected < _LEAST_FALSE):
            found.append("false positives")
    elif within and outcome.predicted is not None and abs(outcome.rejected - outcome.predicted) > _POWER_OFF:
        found.append("power")
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the least and greatest of each figure, within the two-sided bar and elsewhere, as text.

    Args:
        table: see `simulate`.
    """
    import pandas as pd

    null, other = table[table["kind"] == "null"], table[table["kind"] == "difference"]
    figures: dict[str, pd.Series[float]] = {
        "false positives at 0.05": null["rejected"],
        "coverage of a rate": pd.concat([table["coverage_rate"], table["coverage_other"]]),
        "coverage of a difference": table["coverage_difference"],
        "coverage of a difference, BCa": other["coverage_bca"].dropna(),
        "power minus prediction": other["rejected"] - other["predicted"],
        "worse by the margin, called not worse": other["false_not_worse"],
    }
    return pd.DataFrame(
        [
            {
                "figure, per cent": name,
                "20 differ, 5–95 %": _range(values[table["within"].reindex(values.index)]),
                "elsewhere": _range(values[~table["within"].reindex(values.index)]),
            }
            for name, values in figures.items()
        ]
    )


def markdown(table: pd.DataFrame) -> str:
    """Return a data frame of text as a Markdown table."""
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def figure(table: pd.DataFrame) -> bytes:
    """Return a PNG of false positives, coverage and power by scenario, with their bars shaded.

    Args:
        table: see `simulate`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    null, other = table[table["kind"] == "null"], table[table["kind"] == "difference"]
    rates = table.melt(
        id_vars=["n_identities", "spread", "rate", "within"], value_vars=["coverage_rate"], value_name="y"
    )
    panels = (
        ("false positives at 0.05", null.assign(y=null["rejected"]), (_LEAST_FALSE, _MOST_FALSE)),
        ("power − prediction", other.assign(y=other["rejected"] - other["predicted"]), (-0.05, 0.05)),
        ("coverage of a rate", rates, (_BELOW, _ABOVE)),
        (
            "coverage of a difference",
            table.assign(y=table["coverage_difference"]),
            (_BELOW, _ABOVE),
        ),
    )
    with rc_context({"font.size": 8}):
        sheet = Figure(figsize=(7.5, 5.5), layout="constrained")
        for axes, (title, rows, bar) in zip(sheet.subplots(2, 2).flat, panels, strict=True):
            _panel(axes, title, rows, bar)
        sheet.axes[0].legend(
            fontsize=6, title="identities (open: outside the two-sided bar)", title_fontsize=6
        )
        file = io.BytesIO()
        sheet.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _panel(axes: Axes, title: str, rows: pd.DataFrame, bar: tuple[float, float]) -> None:
    axes.axhspan(*bar, color="0.9")
    for n, colour in zip(IDENTITIES, ("tab:orange", "tab:green", "tab:blue"), strict=True):
        mine = rows[rows["n_identities"] == n]
        for within in (True, False):
            some = mine[mine["within"] == within]
            axes.scatter(
                some["rate"] + (n - 80) / 8000,  # side by side
                some["y"],
                s=9,
                facecolors=colour if within else "none",
                edgecolors=colour,
                linewidths=0.7,
                label=str(n) if within == bool(mine["within"].any()) else None,
            )
    axes.set(title=title, xlabel="mean rate of the first cell")


# -- the worst case over attacks -----------------------------------------------------------------------------


@dataclass(frozen=True)
class WorstScenario:
    """Several attacks on one defence, in expectation.

    An identity's true rates are Beta distributed as in `Scenario`, the attacks' latents correlated in pairs. Probes
    have their luck in each attack alone, which is the hardest case for a maximum.

    Attributes:
        attacks: how many.
        rate: mean rate of the strongest.
        others: mean rate of the others.
        n_identities: identities.
        intraclass: correlation between two probes of one identity under one attack.
        correlation: of the latents of an identity's rates under two attacks.
        fold_share: share of the latent variance that belongs to the rotation.
    """

    attacks: int
    rate: float
    others: float
    n_identities: int = 158
    intraclass: float = 0.3
    correlation: float = 0.7
    fold_share: float = 0.005


def draw_attacks(scenario: WorstScenario, runs: int, rng: np.random.Generator) -> tuple[Floats, Floats, Ints]:
    """Return the rates of experiments with several attacks.

    Args:
        scenario: the truth.
        runs: experiments.
        rng: decides everything.

    Returns:
        attacks×runs×n true rates, as many observed ones, and runs×n probes.
    """
    n, mix = scenario.n_identities, scenario.correlation
    probes = rng.permuted(np.broadcast_to(probe_counts(n), (runs, n)), axis=1)
    common = _latent(scenario, runs, rng)
    means = [scenario.rate, *[scenario.others] * (scenario.attacks - 1)]
    true = np.stack(
        [
            beta_quantile(
                np.sqrt(mix) * common + np.sqrt(1 - mix) * _latent(scenario, runs, rng),
                mean,
                scenario.intraclass,
            )
            for mean in means
        ]
    )
    return true, rng.binomial(probes, true) / probes, probes


WORST_SCENARIOS = tuple(
    WorstScenario(attacks, rate, others)
    for attacks in (1, 2, 6)
    for rate, others in ((0.1, 0.1), (0.5, 0.5), (0.5, 0.1), (0.9, 0.3))
    if attacks > 1 or rate == others
)
"""Attacks alike, and one that is much stronger than the others; a single attack for comparison."""


def worst_case_bias(
    runs: int = RUNS, seed: int = 0, scenarios: Iterable[WorstScenario] = WORST_SCENARIOS
) -> pd.DataFrame:
    """Return how far the worst case over attacks lies from the truth, taken per identity and by one attack for all.

    Args:
        runs: experiments a scenario.
        seed: decides everything.
        scenarios: the truths.

    Returns:
        the fields that tell scenarios apart, in per cent: ``truth``, the mean over identities of each one's highest
        true rate; ``per identity``, the mean of `asr_worst`; ``one attack``, that of the strongest attack's own ASR;
        their biases; and ``coverage`` of the truth by the interval of `asr_worst`.
    """
    import pandas as pd

    return pd.DataFrame([_worst_row(one, runs, seed) for one in scenarios])


def _worst_row(scenario: WorstScenario, runs: int, seed: int) -> dict[str, Any]:
    rng = numpy_generator(seed, "worst case", repr(scenario))
    true, observed, probes = draw_attacks(scenario, runs, rng)
    truth = float(true.max(axis=0).mean())
    highest = observed.max(axis=0)
    one = float(observed.mean(axis=2).max(axis=0).mean())
    low, high = rate_intervals(highest, probes.sum(axis=1))
    percents = {
        "truth": truth,
        "per identity": float(highest.mean()),
        "bias": float(highest.mean()) - truth,
        "one attack": one,
        "bias of one": one - truth,
        "coverage": _covered(low, high, truth),
    }
    return {
        "attacks": scenario.attacks,
        "strongest": f"{100 * scenario.rate:.0f}",
        "others": f"{100 * scenario.others:.0f}",
        **{name: f"{100 * value:.1f}" for name, value in percents.items()},
    }


def _latent(scenario: Scenario | WorstScenario, runs: int, rng: np.random.Generator) -> Floats:
    """Return runs×n standard normal numbers, correlated among the identities of one rotation."""
    n, share = scenario.n_identities, scenario.fold_share
    rotation = rng.standard_normal((runs, FOLDS))[:, np.arange(n) % FOLDS]
    mixed: Floats = np.sqrt(share) * rotation + np.sqrt(1 - share) * rng.standard_normal((runs, n))
    return mixed


def beta_quantile(latent: Floats, mean: float, intraclass: float) -> Floats:
    """Map standard normal numbers to Beta numbers of a mean and intraclass correlation 1/(a + b + 1)."""
    from scipy.special import betaincinv, ndtr

    grid = np.linspace(-6, 6, 4001)  # exact quantiles are slow; between them a line is near enough
    size = 1 / intraclass - 1
    return np.interp(latent, grid, betaincinv(mean * size, (1 - mean) * size, ndtr(grid)))


def _detectable(rate: float, sd: float, n: int) -> float:
    """Return the second cell's rate that is just detectable, on the side of one half where there is room."""
    reach = min(minimum_detectable_difference(sd, n), 0.45)
    return round(rate + reach if rate < 0.5 else rate - reach, 4)


def _covered(low: Floats, high: Floats, truth: float) -> float:
    """Return the share of intervals that hold the truth; no interval (NaN) does not."""
    return float(((low <= truth) & (truth <= high)).mean())


def _bca(differences: Floats, rng: np.random.Generator, resamples: int) -> tuple[Floats, Floats]:
    found = [
        bootstrap_interval(row[:, None], lambda mean: mean[..., 0], rng, resamples=resamples)
        for row in differences
    ]
    ends = np.array([(one.low, one.high) for one in found], dtype=np.float64)  # None becomes NaN
    return ends[:, 0], ends[:, 1]


def _false_not_worse(first: Floats, second: Floats, truth: float) -> float:
    """Return how often the cell that is worse by |truth| has a 90 % interval on the better side of it."""
    low, high = difference_intervals(first, second, 1 - 2 * ALPHA)
    return float((low > truth if truth < 0 else high < truth).mean())


def _row(scenario: Scenario, outcome: Outcome) -> dict[str, Any]:
    return {
        "kind": scenario.kind,
        **vars(scenario),
        "within": is_within(scenario, outcome.differing),
        **{k: v if v is None else round(v, 4) for k, v in vars(outcome).items()},
        "missed": ", ".join(missed(scenario, outcome)),
    }


def _range(values: pd.Series[float]) -> str:
    if not len(values):
        return "–"
    return f"{100 * values.min():.1f} to {100 * values.max():.1f}"


@dataclass(frozen=True)
class Part:
    """One of the simulations.

    Attributes:
        name: of its files.
        size: scenarios.
        runs: experiments a scenario.
        simulate: takes ``runs``, ``seed`` and ``advance``, returns the table.
        summary: of the table.
        figure: of the table, None where there is none.
    """

    name: str
    size: int
    runs: int
    simulate: Callable[..., pd.DataFrame]
    summary: Callable[[pd.DataFrame], pd.DataFrame]
    figure: Callable[[pd.DataFrame], bytes] | None = None


def parts() -> dict[str, Part]:
    """Return the simulations by name: two cells, means over cells, unlike spread near 0, random seeds."""
    from benchmarks import simulation_of_means as means
    from benchmarks import simulation_of_seeds as seeds
    from benchmarks import simulation_of_signs as signs

    grid = 2 * len(IDENTITIES) * len(SPREADS) * len(RATES)
    return {
        "cells": Part("simulation", grid, RUNS, simulate, summary, figure),
        "means": Part("means", means.size(), means.RUNS, means.simulate, means.summary),
        "signs": Part("signs", len(signs.scenarios()), signs.RUNS, signs.simulate, signs.summary),
        "seeds": Part("seeds", len(seeds.scenarios()), seeds.RUNS, seeds.simulate, seeds.summary),
    }


def main() -> None:
    """Write the simulations' tables, summaries and figure to a folder."""
    from rich.progress import Progress

    known = parts()
    parser = argparse.ArgumentParser(description="Test the tests: simulate experiments whose truth is known.")
    parser.add_argument("folder", type=Path, help="where the .csv, .md and .png files are written")
    parser.add_argument("--part", choices=known, action="append", help="only this one; may be repeated")
    parser.add_argument("--runs", type=int, help="experiments a scenario")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument(
        "--worst-case", action="store_true", help="only the bias of the worst case: worst_case.csv and .md"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.worst_case:
        worst = worst_case_bias(given.runs or RUNS, given.seed)
        worst.to_csv(given.folder / "worst_case.csv", index=False)
        (given.folder / "worst_case.md").write_text(markdown(worst), encoding="utf-8")
        print(markdown(worst), end="")
        return
    for part in (known[name] for name in given.part or known):
        with Progress() as progress:
            bar = progress.add_task(part.name, total=part.size)

            def advance(n: int, progress: Progress = progress, bar: Any = bar) -> None:
                progress.advance(bar, n)

            table = part.simulate(runs=given.runs or part.runs, seed=given.seed, advance=advance)
        _write(given.folder, part, table)


def _write(folder: Path, part: Part, table: pd.DataFrame) -> None:
    table.to_csv(folder / f"{part.name}.csv", index=False)
    text = markdown(part.summary(table))
    (folder / f"{part.name}.md").write_text(text, encoding="utf-8")
    if part.figure is not None:
        (folder / f"{part.name}.png").write_bytes(part.figure(table))
    print(text, end="")
    print(f"{(table['missed'] != '').sum()} of {len(table)} scenarios miss a bar.")


if __name__ == "__main__":
    main()
