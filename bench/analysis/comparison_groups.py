"""Comparison groups of a run: methods that can be ranked because all else is the same (DESIGN 7).

A comparison group is one head and condition, and either the defences against one attack or the attacks under one
defence. Each identity's rate is first averaged over the group's backbones and seeds, so that a backbone is not
another identity. Cells in which the attack knew the tracker's backbone are never averaged with the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bench.analysis.results import Measure, Results
from bench.randomness import numpy_generator
from bench.run.folder import CellResult
from bench.run.spec import Cell
from bench.stats.rankings import Ranking, rank_methods
from bench.stats.significance import mean_over

Axis = Literal["defense", "attack"]
EVERY = "(mean of all)"
"""Stands for the opponent of a comparison group that averages over every attack, or every defence, of the run."""


@dataclass(frozen=True)
class ComparisonGroup:
    """Methods of one axis against one opponent.

    Attributes:
        axis: what is ranked.
        opponent: the attack the defences meet, or the defence the attacks meet; `EVERY` for the mean of all.
        head: the tracker's head.
        condition: of the protocol; empty where it has one.
        access: black-box or white-box; an attack without surrogates is black-box.
        backbones: over which rates are averaged: those every method has under this access.
        opponents: likewise.
        rates: identities × methods: mean rate over backbones, seeds and opponents; empty column: a cell lacks.
        measure: which rate.
        reason: why the comparison group cannot be ranked whatever its rates, or "".
    """

    axis: Axis
    opponent: str
    head: str
    condition: str
    access: str
    backbones: tuple[str, ...]
    opponents: tuple[str, ...]
    rates: pd.DataFrame
    measure: Measure = "asr"
    reason: str = ""

    @property
    def higher_is_better(self) -> bool:
        """Attacks want a high error; defences want a low one, and a high accuracy."""
        return (self.axis == "attack") == (self.measure == "asr")

    def rank(self, split_seed: int) -> Ranking:
        """Return the ranking of the group's methods."""
        if self.reason:
            return Ranking((), reason=f"not ranked: {self.reason}")
        methods = map(str, sorted(self.rates.columns))
        stream = ("rank", self.axis, self.opponent, self.head, self.condition, self.access, *methods)
        rng = numpy_generator(split_seed, *stream)
        return rank_methods(self.rates, higher_is_better=self.higher_is_better, rng=rng)


def comparison_groups(results: Results, axis: Axis, measure: Measure = "asr") -> list[ComparisonGroup]:
    """Return every comparison group of one axis, in the run's order; attack ``none`` is no opponent and is not ranked.

    Args:
        results: of the run.
        axis: what is ranked.
        measure: by which rate.
    """
    key = ("comparison_groups", axis, measure)
    if key not in results.derived:
        results.derived[key] = _groups(results, axis, measure)
    return list(results.derived[key])


def _groups(results: Results, axis: Axis, measure: Measure) -> list[ComparisonGroup]:
    return [
        found
        for head in results.values("head")
        for condition in results.ranked_conditions()
        if measure == "asr" or results.recognises(condition)
        for access in _accesses(results)
        for opponent in _opponents(results, axis)
        if (found := _comparison_group(results, axis, opponent, head, condition, access, measure)) is not None
    ]


def ranked(results: Results, axis: Axis) -> list[tuple[ComparisonGroup, Ranking]]:
    """Return every comparison group of one axis, ranked by ASR; each is ranked once, whoever asks."""
    key = ("ranked", axis)
    if key not in results.derived:
        seed = results.facts.spec.split_seed
        results.derived[key] = [(one, one.rank(seed)) for one in comparison_groups(results, axis)]
    return list(results.derived[key])


def rank_columns(results: Results, leaderboard: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the leaderboard's columns on ranks: each row's defence among all, against the row's attack."""
    places: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for one, ranking in ranked(results, "defense"):
        methods = {method.method: method for method in ranking.methods}
        for name in one.rates.columns:
            key = (one.opponent, name, one.head, one.condition, one.access)
            places[key] = _place(methods.get(name), ranking.reason, len(one.rates.columns))
    rows = [
        places.get(
            key, {"ranking_reason": "a defence is ranked against an attack, where a lower rate is its gain"}
        )
        for key in _row_keys(leaderboard)
    ]
    names = ("rank_low", "rank_high", "tie_group", "ranking_reason")
    return {name: [row.get(name) for row in rows] for name in names}


def _row_keys(leaderboard: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    named = leaderboard.assign(access=leaderboard["access"].replace("", "black-box"))
    yield from named[["attack", "defense", "head", "condition", "access"]].itertuples(index=False, name=None)


def _place(ranked: Any, reason: str, methods: int) -> dict[str, Any]:
    if ranked is None:
        return {"ranking_reason": reason}
    if methods == 1:
        return {"ranking_reason": "one defence is no ranking"}
    return {
        "rank_low": ranked.rank_low,
        "rank_high": ranked.rank_high,
        "tie_group": ranked.tie_group,
        "ranking_reason": reason,
    }


def _accesses(results: Results) -> tuple[str, ...]:
    found = dict.fromkeys(access_of(cell) for point, cell in results.cells.items() if point.attack != "none")
    return tuple(found)


def _opponents(results: Results, axis: Axis) -> tuple[str, ...]:
    if axis == "attack":
        return results.values("defense")
    attacks = tuple(name for name in results.values("attack") if name != "none")
    return (*attacks, EVERY) if len(attacks) > 1 else attacks


def _comparison_group(
    results: Results, axis: Axis, opponent: str, head: str, condition: str, access: str, measure: Measure
) -> ComparisonGroup | None:
    """Return one comparison group, None where the run has no such cells."""
    points = [
        point
        for point in _points(results, axis, opponent, head)
        if access_of(results.cells[point]) == access and not results.not_applicable(point, condition)
    ]
    methods = tuple(dict.fromkeys(getattr(point, axis) for point in points))
    if not methods:
        return None
    shared = common_ground({name: [p for p in points if getattr(p, axis) == name] for name in methods}, axis)
    every = [point for found in shared.values() for point in found]
    reason = results.dependence(every[0], condition) if every else f"no tracker meets all methods {access}"
    rates = {name: mean_rates(results, found, condition, measure) for name, found in shared.items()}
    return ComparisonGroup(
        axis=axis,
        opponent=opponent,
        head=head,
        condition=condition,
        access=access,
        backbones=tuple(dict.fromkeys(point.backbone for point in every)),
        opponents=tuple(dict.fromkeys(getattr(point, _other(axis)) for point in every)),
        rates=pd.DataFrame(rates).sort_index(),
        measure=measure,
        reason=reason,
    )


def common_ground(points: Mapping[str, Sequence[Cell]], axis: str) -> dict[str, list[Cell]]:
    """Return each method's cells on the backbones, opponents and seeds that every method has.

    Means over different trackers are no comparison: an attack that is white-box on the hard tracker would be
    ranked by the easy one.

    Args:
        points: method → its cells, all of one access.
        axis: the field of `Cell` that names the method.
    """
    places = [{_place_of(point, axis) for point in found} for found in points.values()]
    shared = set.intersection(*places) if places else set()
    return {
        name: [point for point in found if _place_of(point, axis) in shared] for name, found in points.items()
    }


def _place_of(point: Cell, axis: str) -> tuple[Any, ...]:
    """Return everything about a cell but the method that is compared."""
    return tuple(value for name, value in point._asdict().items() if name != axis)


def access_of(cell: CellResult) -> str:
    """Return which cells may be averaged together: an attack without surrogates knows no tracker."""
    return cell.threat.access or "black-box"


def _other(axis: Axis) -> Axis:
    return "attack" if axis == "defense" else "defense"


def _points(results: Results, axis: Axis, opponent: str, head: str) -> Iterator[Cell]:
    for point in results.cells:
        met = opponent in (EVERY, getattr(point, _other(axis)))
        if point.head == head and point.attack != "none" and met:
            yield point


def mean_rates(
    results: Results, points: Sequence[Cell], condition: str, measure: Measure
) -> "pd.Series[float]":
    """Return each identity's mean rate over some cells; empty where one of them has no decisions."""
    rates = [results.rates_of(point, condition, measure) for point in points]
    if not rates or any(one is None for one in rates):
        return pd.Series(dtype=float)
    return mean_over([one for one in rates if one is not None])
