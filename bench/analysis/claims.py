"""Is A better than B? One claim with its evidence, over the same identities (DESIGN 7).

For two attacks, two defences or two trackers of one run, or for two runs. Each identity's rates are averaged
over everything else the run holds (backbones, opponents, seeds), so that the identities are the sample; cells in
which the attack knew the tracker are never averaged with the others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from bench.analysis.comparison_groups import access_of, common_ground, mean_rates
from bench.analysis.reference_tests import detectable
from bench.analysis.results import Measure, Results
from bench.analysis.training_seeds import TrainingSeeds, training_seeds
from bench.errors import UsageError, unknown
from bench.plugins import factory
from bench.randomness import numpy_generator
from bench.run.spec import Cell
from bench.run.trained import Axis
from bench.stats import rates as measures
from bench.stats.intervals import Estimate, bootstrap_interval
from bench.stats.random_seeds import non_inferiority_over_seeds, paired_difference_over_seeds
from bench.stats.significance import (
    ALPHA,
    NonInferiority,
    PairedDifference,
    holm,
    non_inferiority,
    paired_difference,
    resamples_for,
)
from bench.stats.unlike_spread import unlike_spread

Kind = Literal["attack", "defense", "backbone", "run"]
IDENTITIES = "identities"
GROUPS = "groups of identities that were compared with the same photos"
LACKING = "a cell failed or is not there"
KINDS: tuple[Literal["attack", "defense", "backbone"], ...] = ("attack", "defense", "backbone")
MARGIN = 0.01
"""Normal accuracy is not worse where it is shown to lose less than this: one percentage point."""


@dataclass(frozen=True)
class Claim:
    """A against B, under one head, condition and access.

    Attributes:
        kind: what A and B are.
        first: A.
        second: B.
        head: the tracker's head.
        condition: of the protocol; empty where it has one.
        access: black-box, white-box or empty.
        attacks: attacks averaged over.
        defenses: likewise.
        backbones: likewise.
        asr: A − B in attack success rate.
        accuracy: A − B in normal accuracy.
        not_worse: whether A's normal accuracy is shown to be within `MARGIN` of B's.
        minimum_detectable_difference: in ASR, at 80 % power and the level 0.05 of a single comparison.
        p: of the difference in ASR, after Holm over the claims made together; None where there is none.
        tests: claims made together that have a p value.
        unit: what the test is over: identities, or groups of them where identities are not independent.
        trained: trainings behind the methods that are compared, where these have trained parts.
        over_seeds: whether the training seed is a random effect of the tests, beside the identities.
        caution: what the p value is to be read with, or "".
    """

    kind: Kind
    first: str
    second: str
    head: str
    condition: str
    access: str
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    backbones: tuple[str, ...]
    asr: PairedDifference
    accuracy: PairedDifference
    not_worse: NonInferiority
    minimum_detectable_difference: float | None
    p: float | None = None
    tests: int = 1
    unit: str = IDENTITIES
    trained: TrainingSeeds = field(default_factory=lambda: TrainingSeeds({}))
    over_seeds: bool = False
    caution: str = ""

    @property
    def verdict(self) -> Literal["better", "worse", "different", "not significantly different", "no test"]:
        """The verdict on A: an attack is better with a higher ASR, a defence or tracker with a lower.

        Two runs are different or not; neither is better for that.
        """
        if self.p is None or self.asr.first is None or self.asr.second is None:
            return "no test"
        if self.p > ALPHA:
            return "not significantly different"
        if self.kind == "run":
            return "different"
        higher = self.asr.first > self.asr.second
        return "better" if higher == (self.kind == "attack") else "worse"

    def sentence(self) -> str:
        """Return the claim in one sentence with its evidence."""
        asr, where = self.asr, self._where()
        if self.verdict == "no test":
            untested = f"{self.first} and {self.second} {where}: no test, as {asr.reason}"
            return "; ".join(filter(None, (untested, self.trained.caution()))) + "."
        verdict = {
            "better": f"{self.first} is better than {self.second}",
            "worse": f"{self.first} is worse than {self.second}",
            "different": f"ASR of {self.first} and {self.second} differs",
            "not significantly different": f"{self.first} and {self.second} are not significantly different",
        }[self.verdict]
        found = (
            f"ASR {_percent(asr.first)} against {_percent(asr.second)} %, difference "
            f"{_points(asr.difference)} (p {_p(self.p)}{self._correction()}, {self._test()} over {asr.n_identities} "
            f"{self.unit}, of which {asr.n_differing} differ{self._seeds()}; Cohen's h {asr.effect_h:.2f}; minimum "
            f"detectable difference {_percent(self.minimum_detectable_difference)} points at 80 % power)"
        )
        return (
            "; ".join(filter(None, (f"{verdict} {where}: {found}", self._accuracy(), *self._cautions())))
            + "."
        )

    def _test(self) -> str:
        return "t test" if self.over_seeds else "sign-flip test"

    def _seeds(self) -> str:
        if not self.over_seeds:
            return ""
        return f", and {self.trained.fewest} training seeds, both random effects"

    def _cautions(self) -> tuple[str, ...]:
        return self.trained.caution(), self.caution

    def _correction(self) -> str:
        return f" after Holm over {self.tests} comparisons" if self.tests > 1 else ""

    def _where(self) -> str:
        """Return what the claim is over, A's and B's own axis left out."""
        over = {
            "against": () if self.kind == "attack" else self.attacks,
            "under": () if self.kind == "defense" else self.defenses,
            "on": () if self.kind == "backbone" else self.backbones,
        }
        parts = [f"{word} {_several(names)}" for word, names in over.items() if names]
        access = f", {self.access}" if self.access else ""
        return " ".join(parts) + f" (head {self.head}{access}{self.condition and ', ' + self.condition})"

    def _accuracy(self) -> str:
        one = self.accuracy
        if one.first is None:
            return f"normal accuracy cannot be compared, as {one.reason}"
        shown = {True: "shown to be", False: "not shown to be", None: "no test whether it is"}
        return (
            f"normal accuracy {_percent(one.first)} against {_percent(one.second)} %, difference "
            f"{_points(one.difference)}, {shown[self.not_worse.not_worse]} at most {100 * MARGIN:.0f} point lower"
            + (f" (p {_p(self.not_worse.p)})" if self.not_worse.p is not None else "")
        )


def compare_methods(
    results: Results,
    first: str,
    second: str,
    *,
    kind: str | None = None,
    attack: str | None = None,
    defense: str | None = None,
    backbone: str | None = None,
) -> list[Claim]:
    """Return the claims about two methods of a run, one a head, condition and access.

    Args:
        results: of the run.
        first: A, any text for it.
        second: B.
        kind: one of `KINDS` where the names leave a choice.
        attack: only against this attack, instead of the mean of all.
        defense: only under this defence; by default attacks and trackers are compared without one.
        backbone: only on this tracker.

    Raises:
        UsageError: the run has no such method, or the two are not of one kind.
    """
    chosen = _kind(results, first, second, kind)
    one, two = (name_in_run(chosen, text, results) for text in (first, second))
    if one == two:
        raise UsageError(f"'{first}' and '{second}' are both {one}; name two different ones.")
    if chosen == "attack" and "none" in (one, two):
        raise UsageError("attack none is the reference of every row (`p_holm`); name two attacks that cloak.")
    only = {"attack": attack, "defense": defense, "backbone": backbone}
    if chosen in ("attack", "backbone") and defense is None:
        only["defense"] = "none"
    wanted = {axis: name_in_run(axis, text, results) for axis, text in only.items() if text is not None}
    wanted.pop(chosen, None)
    return _corrected(
        _claim(results, chosen, found, condition, access)
        for access, found in _by_access(results, chosen, (one, two), wanted)
        for condition in results.ranked_conditions()
    )


def compare_runs(first: Results, second: Results, names: tuple[str, str]) -> list[Claim]:
    """Return the claims about two runs over the cells both have, one a head, condition and access.

    Args:
        first: A's results; comparable with B's (`bench.analysis.comparability`).
        second: B's.
        names: what to call them.

    Raises:
        UsageError: they have no cell with an attack in common.
    """
    common = [point for point in first.cells if point in second.cells and point.attack != "none"]
    if not common:
        raise UsageError(
            f"{names[0]} and {names[1]} have no cell with an attack in common: attacks "
            f"{', '.join(first.values('attack'))} and {', '.join(second.values('attack'))}."
        )
    groups: dict[tuple[str, str], list[Cell]] = {}
    for point in common:
        groups.setdefault((point.head, access_of(first.cells[point])), []).append(point)
    conditions = [name for name in first.ranked_conditions() if name in second.conditions()]
    return _corrected(
        _evidence("run", names, (first, points), (second, points), condition, access)
        for (_, access), points in groups.items()
        for condition in conditions
    )


def _kind(
    results: Results, first: str, second: str, kind: str | None
) -> Literal["attack", "defense", "backbone"]:
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    fitting = [
        axis
        for axis in KINDS
        if (kind is None or axis == kind)
        and all(_resolved(axis, text) in results.values(axis) for text in (first, second))
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"'{first}' and '{second}' may be {' or '.join(fitting)}; name it with --kind.")
    have = "; ".join(f"{axis}s {', '.join(results.values(axis))}" for axis in KINDS)
    raise UsageError(
        f"'{first}' and '{second}' are not two attacks, defences or backbones of this run: {have}."
    )


def _resolved(axis: str, text: str) -> str:
    """Return the name a table has for a method; as it is where the plugin is not installed here."""
    try:
        return factory.canonical(factory.create(f"{axis}s", text))
    except UsageError:
        return text


def name_in_run(axis: str, text: str, results: Results) -> str:
    """Return the name that a run's tables have for a method.

    Args:
        axis: attack, defense or backbone.
        text: any text for it.
        results: of the run.

    Raises:
        UsageError: the run has no such method.
    """
    name = _resolved(axis, text)
    if name not in results.values(axis):
        raise unknown(f"{axis} of this run", name, results.values(axis))
    return name


def _by_access(
    results: Results, kind: str, pair: tuple[str, str], wanted: dict[str, str]
) -> Iterator[tuple[str, dict[str, list[Cell]]]]:
    """Yield the cells of A and of B for each head and access, on what both meet."""
    groups: dict[tuple[str, str], dict[str, list[Cell]]] = {}
    for point, cell in results.cells.items():
        if point.attack == "none" or getattr(point, kind) not in pair:
            continue
        if all(getattr(point, axis) == name for axis, name in wanted.items()):
            found = groups.setdefault((point.head, access_of(cell)), {name: [] for name in pair})
            found[getattr(point, kind)].append(point)
    for (_, access), found in groups.items():
        yield access, found


def _claim(results: Results, kind: Kind, found: dict[str, list[Cell]], condition: str, access: str) -> Claim:
    requested = {
        name: [point for point in points if not results.not_applicable(point, condition)]
        for name, points in found.items()
    }
    shared = common_ground(requested, kind)
    first, second = found
    reason = ""
    if not shared[first]:
        met = "; ".join(f"{name} on {_places(points)}" for name, points in requested.items())
        reason = f"no cell is {access} for both ({met})"
    return _evidence(
        kind, (first, second), (results, shared[first]), (results, shared[second]), condition, access, reason
    )


def _places(points: Sequence[Cell]) -> str:
    return ", ".join(dict.fromkeys(point.backbone for point in points)) or "nothing"


def _evidence(
    kind: Kind,
    names: tuple[str, str],
    ours: tuple[Results, list[Cell]],
    theirs: tuple[Results, list[Cell]],
    condition: str,
    access: str,
    reason: str = "",
) -> Claim:
    results, points = ours
    every = [*points, *theirs[1]]
    head = every[0].head if every else ""
    sides = [(side, point) for side, points_of in (ours, theirs) for point in points_of]
    groups, dependent = _groups(sides, condition)
    reason = reason or dependent
    rng = numpy_generator(
        results.facts.spec.split_seed, "claim", kind, *names, *filter(None, (head, condition, access))
    )
    trained = _trained(kind, ours, theirs)
    untested = reason or (
        "" if results.recognises(condition) else "this condition has no decisions without a cloak"
    )
    sides_rates = {
        measure: [_rates(side, condition, measure, groups) for side in (ours, theirs)]
        for measure in ("asr", "normal_accuracy")
    }
    over_seeds = trained.enough and not reason and all(one.seeds for one in sides_rates["asr"])
    asr, accuracy = sides_rates["asr"], sides_rates["normal_accuracy"]
    found = _difference(asr, rng, reason, over_seeds=over_seeds)
    tested = found.p is not None
    return Claim(
        kind=kind,
        first=names[0],
        second=names[1],
        head=head,
        condition=condition,
        access=access,
        attacks=tuple(dict.fromkeys(point.attack for point in every)),
        defenses=tuple(dict.fromkeys(point.defense for point in every)),
        backbones=tuple(dict.fromkeys(point.backbone for point in every)),
        asr=found,
        accuracy=_difference(accuracy, rng, untested, over_seeds=over_seeds),
        not_worse=_not_worse(accuracy, untested, over_seeds=over_seeds),
        minimum_detectable_difference=detectable(asr[0].mean, asr[1].mean) if tested else None,
        unit=IDENTITIES if groups is None else GROUPS,
        trained=trained,
        over_seeds=over_seeds,
        caution=_caution(asr, found, over_seeds=over_seeds),
    )


@dataclass(frozen=True)
class _Rates:
    """One side's rates of each identity: averaged over its cells, and so under each seed.

    Attributes:
        mean: over all cells.
        seeds: one series a seed, in order of the seeds; empty where a cell has no decisions.
    """

    mean: "pd.Series[float]"
    seeds: "tuple[pd.Series[float], ...]"


def _rates(
    side: tuple[Results, list[Cell]], condition: str, measure: Measure, groups: "pd.Series[int] | None"
) -> _Rates:
    results, points = side
    of_seed: dict[int, list[Cell]] = {}
    for point in points:
        of_seed.setdefault(point.seed, []).append(point)

    def mean(chosen: list[Cell]) -> "pd.Series[float]":
        found = mean_rates(results, chosen, condition, measure)
        # Accuracy is of normal identities, which no target makes dependent.
        if groups is None or measure != "asr":
            return found
        return found.groupby(groups.reindex(found.index)).mean()

    seeds = tuple(mean(of_seed[seed]) for seed in sorted(of_seed))
    return _Rates(mean(points), seeds if all(len(one) for one in seeds) else ())


def _trained(
    kind: Kind, ours: tuple[Results, list[Cell]], theirs: tuple[Results, list[Cell]]
) -> TrainingSeeds:
    """Return the trainings behind the methods a claim is about; of two runs these are all methods of their cells."""
    axes: Mapping[Kind, tuple[Axis, ...]] = {
        "attack": ("attack",),
        "defense": ("defense",),
        "run": ("attack", "defense"),
    }
    counts: dict[str, int] = {}
    for results, points in (ours, theirs):
        for name, count in training_seeds(results, points, axes.get(kind, ())).counts.items():
            counts[name] = min(count, counts.get(name, count))
    return TrainingSeeds(counts)


def _caution(asr: Sequence[_Rates], found: PairedDifference, *, over_seeds: bool) -> str:
    if over_seeds or found.p is None or found.p > ALPHA:
        return ""
    return unlike_spread(asr[0].mean, asr[1].mean)


def _groups(sides: Sequence[tuple[Results, Cell]], condition: str) -> "tuple[pd.Series[int] | None, str]":
    """Return identity → group where identities share the photos they were compared with, and why there is no test.

    Where both sides share them in the same way, groups are independent though identities are not, and the test is
    over groups, each with the mean of its identities. Where they do not, neither is.
    """
    reasons = [results.dependence(point, condition) for results, point in sides]
    if not any(reasons):
        return None, ""
    sides_measured = [results.measured(point, condition) for results, point in sides]
    found = [one for one in sides_measured if one is not None]
    labels = [pd.Series(pd.factorize(one.groups)[0], index=one.own.names) for one in found]
    if any(not one.equals(labels[0]) for one in labels[1:]):
        return None, next(filter(None, reasons))
    return labels[0], ""


def _difference(
    rates: Sequence[_Rates], rng: np.random.Generator, reason: str, *, over_seeds: bool
) -> PairedDifference:
    reason = reason or ("" if all(len(one.mean) for one in rates) else LACKING)
    if reason:
        return PairedDifference(0, 0, None, None, Estimate.missing(reason), None, None, reason)
    first, second = rates
    found = paired_difference(first.mean, second.mean, rng=rng, resamples=resamples_for(1))
    # Where too few identities differ for a test, seeds do not make one.
    if not over_seeds or found.p is None:
        return found
    return paired_difference_over_seeds(first.seeds, second.seeds)


def _not_worse(rates: Sequence[_Rates], reason: str, *, over_seeds: bool) -> NonInferiority:
    reason = reason or ("" if all(len(one.mean) for one in rates) else LACKING)
    if reason:
        return NonInferiority(0, MARGIN, Estimate.missing(reason), None, None, reason)
    first, second = rates
    found = non_inferiority(first.mean, second.mean, MARGIN)
    if not over_seeds or found.p is None:
        return found
    return non_inferiority_over_seeds(first.seeds, second.seeds, MARGIN)


def _corrected(claims: Iterable[Claim]) -> list[Claim]:
    """Return claims with their p values corrected over all of them."""
    found = list(claims)
    corrected = holm({place: claim.asr.p for place, claim in enumerate(found)})
    tests = sum(p is not None for p in corrected.values())
    return [replace(claim, p=corrected[place], tests=tests) for place, claim in enumerate(found)]


def _several(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names)} (mean of {len(names)})"


def _percent(value: float | None) -> str:
    return "NA" if value is None else f"{100 * value:.1f}"


def _points(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"NA ({estimate.reason})"
    text = f"{100 * estimate.value:+.1f} points"
    if estimate.low is None or estimate.high is None:
        return f"{text}, no interval ({estimate.reason})"
    return f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _p(value: float | None) -> str:
    if value is None:
        return "NA"
    return "< 0.0001" if value < 0.0001 else f"= {value:.4f}"


# -- recoveries ----------------------------------------------------------------------------------------


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
    attack = name_in_run("attack", attack, results)
    pair = (name_in_run("defense", first, results), name_in_run("defense", second, results))
    points = [p for p in results.cells if (p.attack, p.defense) == (attack, pair[0])]
    return [_compare(results, point, pair, name) for point in points for name in results.conditions(point)]


def _compare(results: Results, point: Cell, defenses: tuple[str, str], condition: str) -> RecoveryComparison:
    place = (point.attack, point.backbone, point.head, point.seed, condition)
    requested = [("none", "none"), (point.attack, "none"), *((point.attack, name) for name in defenses)]
    rates = [results.rates_of(point._replace(attack=a, defense=d), condition, "asr") for a, d in requested]
    lacking = [f"{a} × {d}" for (a, d), one in zip(requested, rates, strict=True) if one is None]
    if lacking:
        nothing = Estimate.missing(f"no decisions of {', '.join(lacking)}")
        return RecoveryComparison(*place, nothing, nothing, nothing, nothing)
    baseline, undefended, first, second = (one for one in rates if one is not None)

    def stream(name: str) -> np.random.Generator:
        parts = (*defenses, point.backbone, point.head, str(point.seed), *filter(None, [condition]), name)
        return numpy_generator(results.facts.spec.split_seed, "compare", point.attack, *parts)

    gain = measures.gain_of(undefended, baseline)
    one = measures.recovery(undefended, first, baseline, stream("first"), gain)
    two = measures.recovery(undefended, second, baseline, stream("second"), gain)
    if one.value is None or two.value is None:
        difference = Estimate.missing(one.reason or two.reason)
    else:
        difference = bootstrap_interval(
            measures.paired(first, second, undefended, baseline),
            lambda mean: (mean[..., 1] - mean[..., 0]) / (mean[..., 2] - mean[..., 3]),
            stream("difference"),
        )
    return RecoveryComparison(*place, gain, one, two, difference)
