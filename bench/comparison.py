"""The recoveries of two defences against an attack, cell by cell, paired over the same people."""

from dataclasses import dataclass

import numpy as np

from bench import measures, methods, registry
from bench.answers import Answers, Point
from bench.errors import UsageError, unknown
from bench.randomness import numpy_generator
from bench.statistics import Estimate, bootstrap_interval


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
        difference: first − second, with its paired 95 % bootstrap interval over people.
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


def compare_defenses(answers: Answers, attack: str, first: str, second: str) -> list[RecoveryComparison]:
    """Return the comparison of two defences against an attack for each cell and condition of a run.

    The recoveries share their denominator, so their difference is
    (ASR second − ASR first) / (ASR undefended − baseline error), over the same people.

    Raises:
        UsageError: the run has no such attack or defence.
    """
    attack = _canonical(answers, "attack", attack)
    pair = (_canonical(answers, "defense", first), _canonical(answers, "defense", second))
    points = [p for p in answers.cells if (p.attack, p.defense) == (attack, pair[0])]
    return [_compare(answers, point, pair, name) for point in points for name in answers.conditions(point)]


def _canonical(answers: Answers, axis: str, text: str) -> str:
    """Return the name a table has for a method; as it is where the plugin is not installed here."""
    try:
        name = methods.canonical(registry.create(f"{axis}s", text))
    except UsageError:
        name = text
    if name not in answers.values(axis):
        raise unknown(f"{axis} of this run", name, answers.values(axis))
    return name


def _compare(answers: Answers, point: Point, defenses: tuple[str, str], condition: str) -> RecoveryComparison:
    place = (point.attack, point.backbone, point.head, point.seed, condition)
    asked = [("none", "none"), (point.attack, "none"), *((point.attack, name) for name in defenses)]
    people = [answers.people(point._replace(attack=a, defense=d), condition) for a, d in asked]
    lacking = [f"{a} × {d}" for (a, d), one in zip(asked, people, strict=True) if one is None]
    if lacking:
        nothing = Estimate.missing(f"no decisions of {', '.join(lacking)}")
        return RecoveryComparison(*place, nothing, nothing, nothing, nothing)
    baseline, undefended, first, second = (one["asr"] for one in people if one is not None)

    def stream(name: str) -> np.random.Generator:
        parts = (*defenses, point.backbone, point.head, str(point.seed), *filter(None, [condition]), name)
        return numpy_generator(answers.facts.spec.split_seed, "compare", point.attack, *parts)

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
    return RecoveryComparison(*place, gain, one, two, difference)
