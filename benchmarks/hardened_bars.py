"""Hold trackers that harden themselves against their bar: the worst case beside the best attack's undefended ASR.

    python -m benchmarks.hardened_bars runs/hardened

prints the table of docs/hardening.md. What lives here: the ratio and its bounds. What must not: an interval's formula
(`bench.stats.intervals`), nor which attack knows a defence (`bench.run.threat`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.results import Measure, Results
from bench.errors import UsageError
from bench.leaderboard.significance_tables import to_markdown
from bench.randomness import numpy_generator
from bench.run.folder import RunFolder
from bench.run.spec import Cell
from bench.stats.criteria import verdict
from bench.stats.intervals import Estimate, bootstrap_interval, difference_interval

WANTED = 1 / 3
"""Share of the best attack's undefended ASR that the worst case may be at most."""

LEAST = 1 / 2
"""The same, of what would be something at all."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """One defence of one tracker.

    Attributes:
        backbone: the tracker's.
        head: likewise.
        defense: canonical name.
        attack: the one that is strongest on the undefended tracker.
        undefended: its ASR there.
        worst: mean over identities of each one's highest ASR over the attacks, behind the defence.
        ratio: of the two, with its interval over identities.
        by_seed: the ratio of each seed alone: cloaks, surrogates' and tracker's trainings are other ones.
        lost: normal accuracy undefended less that behind the defence.
    """

    backbone: str
    head: str
    defense: str
    attack: str
    undefended: float
    worst: float
    ratio: Estimate
    by_seed: tuple[float, ...]
    lost: Estimate

    def row(self) -> dict[str, str]:
        """Return a line of the table."""
        assert self.ratio.value is not None
        assert self.lost.value is not None
        against = {bound: verdict(self.ratio.low, self.ratio.high, most=bound) for bound in (WANTED, LEAST)}
        return {
            "tracker": self.backbone,
            "head": self.head,
            "defence": self.defense,
            "best attack, undefended": f"{100 * self.undefended:.1f}",
            "worst case, defended": f"{100 * self.worst:.1f}",
            "ratio [95 %]": f"{self.ratio.value:.2f} {_ends(self.ratio, 2)}",
            "each seed": ", ".join(f"{one:.2f}" for one in self.by_seed),
            "≤ 1/3": against[WANTED],
            "≤ 1/2": against[LEAST],
            "accuracy lost, points [95 %]": f"{100 * self.lost.value:.1f} {_ends(self.lost, 1, 100)}",
        }


def _ends(estimate: Estimate, digits: int, times: float = 1) -> str:
    if estimate.low is None or estimate.high is None:
        return f"({estimate.reason})"
    return f"[{times * estimate.low:.{digits}f}, {times * estimate.high:.{digits}f}]"


def ratio_of(means: Floats) -> Floats:
    """Return the second of two means over the first, of …×2 means … ratios; NaN where the first is 0."""
    first, second = means[..., 0], means[..., 1]
    ratios: Floats = np.divide(second, first, out=np.full(np.shape(second), np.nan), where=first > 0)
    return ratios


def held(results: Results) -> Iterator[Held]:
    """Yield every defence of every tracker and head of a run, in its order.

    Raises:
        UsageError: a cell failed, or the run has no defence or attack.
    """
    attacks = [name for name in results.values("attack") if name != "none"]
    defenses = [name for name in results.values("defense") if name != "none"]
    if not attacks or not defenses:
        raise UsageError("the run has no attack or no defence; run results/hardened.toml.")
    for backbone in results.values("backbone"):
        for head in results.values("head"):
            for defense in defenses:
                yield _held(results, attacks, Cell("none", defense, backbone, head, 0))


def _held(results: Results, attacks: Sequence[str], place: Cell) -> Held:
    seeds = results.values("seed")
    natural = np.array([_rates(results, place._replace(attack=a, defense="none"), seeds) for a in attacks])
    behind = np.array([_rates(results, place._replace(attack=a), seeds) for a in attacks])
    best = int(natural.mean(axis=(1, 2)).argmax())
    columns = np.column_stack([natural[best].mean(axis=0), behind.mean(axis=1).max(axis=0)])
    before, after = (
        _rates(results, place._replace(defense=each), seeds, "normal_accuracy").mean(axis=0)
        for each in ("none", place.defense)
    )
    return Held(
        place.backbone,
        place.head,
        place.defense,
        attacks[best],
        undefended=float(columns[:, 0].mean()),
        worst=float(columns[:, 1].mean()),
        ratio=bootstrap_interval(columns, ratio_of, numpy_generator(0, "hardened bars")),
        by_seed=tuple(
            float(behind[:, at].max(axis=0).mean() / natural[best, at].mean()) for at in range(len(seeds))
        ),
        lost=difference_interval(before, after),
    )


def _rates(results: Results, point: Cell, seeds: Sequence[int], measure: Measure = "asr") -> Floats:
    """Return one of each identity's own rates, seeds × identities."""
    found = []
    for seed in seeds:
        cell = point._replace(seed=seed)
        (condition,) = results.facts_of(cell) or ("",)
        rates = results.rates_of(cell, condition, measure)
        if rates is None:
            raise UsageError(
                f"cell {cell} has no decisions; see `bench doctor` and its reason in cells.json."
            )
        found.append(rates.sort_index())
    return np.array([one.to_numpy(dtype=np.float64) for one in found])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Hold hardened trackers against their bar.")
    parser.add_argument("run", type=Path, help="folder of a run of results/hardened.toml")
    results = Results.of(RunFolder(parser.parse_args().run))
    print(to_markdown(pd.DataFrame([one.row() for one in held(results)])), end="")


if __name__ == "__main__":
    main()
