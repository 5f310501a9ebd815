"""Slices of a run: methods that can be ranked because all else is the same (DESIGN 7).

A slice is one head and condition, and either the defences against one attack or the attacks under one
defence. Each person's rate is first averaged over the slice's backbones and seeds, so that a backbone is not
another person. Cells in which the attack knew the tracker's backbone are never averaged with the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bench.answers import Answers, Point
from bench.randomness import numpy_generator
from bench.rankings import Ranking, rank_methods
from bench.run_folder import CellResult
from bench.significance import mean_over

Axis = Literal["defense", "attack"]
Measure = Literal["asr", "normal_accuracy"]
EVERY = "(mean of all)"
"""Stands for the opponent of a slice that averages over every attack, or every defence, of the run."""


@dataclass(frozen=True)
class Slice:
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
        reason: why the slice cannot be ranked whatever its rates, or "".
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
        """Return the ranking of the slice's methods."""
        if self.reason:
            return Ranking((), reason=f"not ranked: {self.reason}")
        methods = map(str, sorted(self.rates.columns))
        stream = ("rank", self.axis, self.opponent, self.head, self.condition, self.access, *methods)
        rng = numpy_generator(split_seed, *stream)
        return rank_methods(self.rates, higher_is_better=self.higher_is_better, rng=rng)


def slices(answers: Answers, axis: Axis, measure: Measure = "asr") -> list[Slice]:
    """Return every slice of one axis, in the run's order; attack ``none`` is no opponent and is not ranked.

    Args:
        answers: of the run.
        axis: what is ranked.
        measure: by which rate.
    """
    return [
        found
        for head in answers.values("head")
        for condition in answers.ranked_conditions()
        if measure == "asr" or answers.recognises(condition)
        for access in _accesses(answers)
        for opponent in _opponents(answers, axis)
        if (found := _slice(answers, axis, opponent, head, condition, access, measure)) is not None
    ]


def rank_columns(answers: Answers, board: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the leaderboard's columns on ranks: each row's defence among all, against the row's attack."""
    places: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for one in slices(answers, "defense"):
        ranking = one.rank(answers.facts.spec.split_seed)
        ranked = {method.method: method for method in ranking.methods}
        for name in one.rates.columns:
            key = (one.opponent, name, one.head, one.condition, one.access)
            places[key] = _place(ranked.get(name), ranking.reason, len(one.rates.columns))
    rows = [
        places.get(
            key, {"ranking_reason": "a defence is ranked against an attack, where a lower rate is its gain"}
        )
        for key in _row_keys(board)
    ]
    names = ("rank_low", "rank_high", "tie_group", "ranking_reason")
    return {name: [row.get(name) for row in rows] for name in names}


def _row_keys(board: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    named = board.assign(access=board["access"].replace("", "black-box"))
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


def _accesses(answers: Answers) -> tuple[str, ...]:
    found = dict.fromkeys(access_of(cell) for point, cell in answers.cells.items() if point.attack != "none")
    return tuple(found)


def _opponents(answers: Answers, axis: Axis) -> tuple[str, ...]:
    if axis == "attack":
        return answers.values("defense")
    attacks = tuple(name for name in answers.values("attack") if name != "none")
    return (*attacks, EVERY) if len(attacks) > 1 else attacks


def _slice(
    answers: Answers, axis: Axis, opponent: str, head: str, condition: str, access: str, measure: Measure
) -> Slice | None:
    """Return one slice, None where the run has no such cells."""
    points = [
        point
        for point in _points(answers, axis, opponent, head)
        if access_of(answers.cells[point]) == access and not answers.not_applicable(point, condition)
    ]
    methods = tuple(dict.fromkeys(getattr(point, axis) for point in points))
    if not methods:
        return None
    shared = common_ground({name: [p for p in points if getattr(p, axis) == name] for name in methods}, axis)
    every = [point for found in shared.values() for point in found]
    reason = answers.dependence(every[0], condition) if every else f"no tracker meets all methods {access}"
    rates = {name: mean_rates(answers, found, condition, measure) for name, found in shared.items()}
    return Slice(
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


def common_ground(points: Mapping[str, Sequence[Point]], axis: str) -> dict[str, list[Point]]:
    """Return each method's cells on the backbones, opponents and seeds that every method has.

    Means over different trackers are no comparison: an attack that is white-box on the hard tracker would be
    ranked by the easy one.

    Args:
        points: method → its cells, all of one access.
        axis: the field of `Point` that names the method.
    """
    places = [{_place_of(point, axis) for point in found} for found in points.values()]
    shared = set.intersection(*places) if places else set()
    return {
        name: [point for point in found if _place_of(point, axis) in shared] for name, found in points.items()
    }


def _place_of(point: Point, axis: str) -> tuple[Any, ...]:
    """Return everything about a cell but the method that is compared."""
    return tuple(value for name, value in point._asdict().items() if name != axis)


def access_of(cell: CellResult) -> str:
    """Return which cells may be averaged together: an attack without surrogates knows no tracker."""
    return cell.threat.access or "black-box"


def _other(axis: Axis) -> Axis:
    return "attack" if axis == "defense" else "defense"


def _points(answers: Answers, axis: Axis, opponent: str, head: str) -> Iterator[Point]:
    for point in answers.cells:
        met = opponent in (EVERY, getattr(point, _other(axis)))
        if point.head == head and point.attack != "none" and met:
            yield point


def mean_rates(
    answers: Answers, points: Sequence[Point], condition: str, measure: Measure
) -> "pd.Series[float]":
    """Return each person's mean rate over some cells; empty where one of them has no decisions."""
    people = [answers.people(point, condition) for point in points]
    if not people or any(one is None for one in people):
        return pd.Series(dtype=float)
    return mean_over([one[measure] for one in people if one is not None])
