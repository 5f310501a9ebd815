"""Is one defence better than another against an attack? Paired over the same people, cell by cell."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench import decisions, measures, methods, registry
from bench.errors import UsageError, unknown
from bench.randomness import numpy_generator
from bench.run_folder import CellResult, RunFolder
from bench.statistics import Estimate, bootstrap_interval


@dataclass(frozen=True)
class RecoveryComparison:
    """Two defences against one attack on one tracker.

    Attributes:
        backbone: the tracker's backbone.
        head: its head.
        seed: seed of the methods.
        gain: ASR undefended − baseline error: what there is to recover, with its 95 % interval.
        first: recovery of the first defence.
        second: recovery of the second.
        difference: first − second, with its paired 95 % bootstrap interval over people.
    """

    backbone: str
    head: str
    seed: int
    gain: Estimate
    first: Estimate
    second: Estimate
    difference: Estimate


def compare_defenses(folder: RunFolder, attack: str, first: str, second: str) -> list[RecoveryComparison]:
    """Return the comparison of two defences against an attack for each backbone, head and seed of a run.

    The recoveries share their denominator, so their difference is
    (ASR second − ASR first) / (ASR undefended − baseline error), over the same people.

    Raises:
        UsageError: the run has no such attack or defence.
        DataError: not a run's folder.
    """
    attack, first, second = (
        _canonical(kind, text)
        for kind, text in (("attacks", attack), ("defenses", first), ("defenses", second))
    )
    cells = {(c.attack, c.defense, c.backbone, c.head, c.seed): c for c in folder.cells()}
    for kind, name, known in (
        ("attack", attack, {key[0] for key in cells}),
        ("defence", first, {key[1] for key in cells}),
        ("defence", second, {key[1] for key in cells}),
    ):
        if name not in known:
            raise unknown(f"{kind} of this run", name, known)
    points = sorted({key[2:] for key in cells if key[:2] == (attack, first)})
    seed = folder.facts().spec.split_seed
    return [_compare(folder, cells, attack, (first, second), point, seed) for point in points]


def _canonical(kind: str, text: str) -> str:
    """Return the name a table has for a method; as it is where the plugin is not installed here."""
    try:
        return methods.canonical(registry.create(kind, text))
    except UsageError:
        return text


def _compare(
    folder: RunFolder,
    cells: dict[tuple[str, str, str, str, int], CellResult],
    attack: str,
    defenses: tuple[str, str],
    point: tuple[str, str, int],
    split_seed: int,
) -> RecoveryComparison:
    asked = [("none", "none"), (attack, "none"), (attack, defenses[0]), (attack, defenses[1])]
    wanted = [cells[(a, d, *point)] for a, d in asked]
    failed = [
        f"{cell.attack} × {cell.defense} failed: {cell.reason}" for cell in wanted if not cell.decisions
    ]
    if failed:
        nothing = Estimate.missing("; ".join(failed))
        return RecoveryComparison(*point, nothing, nothing, nothing, nothing)
    baseline, undefended, first, second = (_error(folder, cell) for cell in wanted)

    def stream(name: str) -> np.random.Generator:
        return numpy_generator(split_seed, "compare", attack, *defenses, *map(str, point), name)

    gain = bootstrap_interval(
        measures.paired(undefended, baseline), lambda mean: mean[..., 0] - mean[..., 1], stream("gain")
    )
    one = measures.recovery(undefended, first, baseline, stream("first"))
    two = measures.recovery(undefended, second, baseline, stream("second"))
    if one.value is None or two.value is None:
        difference = Estimate.missing(one.reason or two.reason)
    else:
        difference = bootstrap_interval(
            measures.paired(first, second, undefended, baseline),
            lambda mean: (mean[..., 1] - mean[..., 0]) / (mean[..., 2] - mean[..., 3]),
            stream("difference"),
        )
    return RecoveryComparison(*point, gain, one, two, difference)


def _error(folder: RunFolder, cell: CellResult) -> "pd.Series[float]":
    asr: pd.Series[float] = measures.per_identity(decisions.read(folder.path / cell.decisions).rows)["asr"]
    return asr
