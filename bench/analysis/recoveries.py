"""The recoveries of two defences against an attack, cell by cell, paired over the same identities."""

from dataclasses import dataclass

import numpy as np

from bench.analysis.results import Point, Results
from bench.errors import UsageError, unknown
from bench.plugins import factory
from bench.plugins import factory as plugins_factory
from bench.randomness import numpy_generator
from bench.stats import rates
from bench.stats.intervals import Estimate, bootstrap_interval


@dataclass(frozen=True)
class RecoveryComparison:
    """Two defences against one attack on one tracker.

    Attributes:
        attack: the attack.
        backbone: the tracker's backbone.
        head: its head.
        seed: seed of the methods.
        condition: of the protocol; empty where it has one.
        gain: ASR undefended − baseline error: what there is to recover, with its 95 % interval.
        first: recovery of the first defence.
        second: recovery of the second.
        difference: first − second, with its paired 95 % bootstrap interval over identities.
    """

    attack: str
    backbone: str
    head: str
    seed: int
    condition: str
    gain: Estimate
    first: Estimate
    second: Estimate
    difference: Estimate


def compare_defenses(results: Results, attack: str, first: str, second: str) -> list[RecoveryComparison]:
    """Return the comparison of two defences against an attack for each cell and condition of a run.

    The recoveries share their denominator, so their difference is
    (ASR second − ASR first) / (ASR undefended − baseline error), over the same identities.

    Raises:
        UsageError: the run has no such attack or defence.
    """
    attack = _canonical(results, "attack", attack)
    pair = (_canonical(results, "defense", first), _canonical(results, "defense", second))
    points = [p for p in results.cells if (p.attack, p.defense) == (attack, pair[0])]
    return [_compare(results, point, pair, name) for point in points for name in results.conditions(point)]


def _canonical(results: Results, axis: str, text: str) -> str:
    """Return the name a table has for a method; as it is where the plugin is not installed here."""
    try:
        name = factory.canonical(plugins_factory.create(f"{axis}s", text))
    except UsageError:
        name = text
    if name not in results.values(axis):
        raise unknown(f"{axis} of this run", name, results.values(axis))
    return name


def _compare(results: Results, point: Point, defenses: tuple[str, str], condition: str) -> RecoveryComparison:
    place = (point.attack, point.backbone, point.head, point.seed, condition)
    requested = [("none", "none"), (point.attack, "none"), *((point.attack, name) for name in defenses)]
    identities = [results.identities(point._replace(attack=a, defense=d), condition) for a, d in requested]
    lacking = [f"{a} × {d}" for (a, d), one in zip(requested, identities, strict=True) if one is None]
    if lacking:
        nothing = Estimate.missing(f"no decisions of {', '.join(lacking)}")
        return RecoveryComparison(*place, nothing, nothing, nothing, nothing)
    baseline, undefended, first, second = (one["asr"] for one in identities if one is not None)

    def stream(name: str) -> np.random.Generator:
        parts = (*defenses, point.backbone, point.head, str(point.seed), *filter(None, [condition]), name)
        return numpy_generator(results.facts.spec.split_seed, "compare", point.attack, *parts)

    gain = bootstrap_interval(
        rates.paired(undefended, baseline), lambda mean: mean[..., 0] - mean[..., 1], stream("gain")
    )
    one = rates.recovery(undefended, first, baseline, stream("first"))
    two = rates.recovery(undefended, second, baseline, stream("second"))
    if one.value is None or two.value is None:
        difference = Estimate.missing(one.reason or two.reason)
    else:
        difference = bootstrap_interval(
            rates.paired(first, second, undefended, baseline),
            lambda mean: (mean[..., 1] - mean[..., 0]) / (mean[..., 2] - mean[..., 3]),
            stream("difference"),
        )
    return RecoveryComparison(*place, gain, one, two, difference)
