"""Slices of a run: methods that can be ranked because all else is the same (DESIGN 7).

A slice is one head and condition, and either the defences against one attack or the attacks under one
defence. Each person's rate is first averaged over the slice's backbones and seeds, so that a backbone is not
another person. Cells in which the attack knew the tracker's backbone are never averaged with the others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bench.answers import Answers, Point
from bench.randomness import numpy_generator
from bench.rankings import Ranking, rank_methods
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
        access: black-box or white-box; empty where no attack has surrogates.
        backbones: over which rates are averaged.
        rates: identities × methods: mean rate over backbones, seeds and opponents; empty column: a cell lacks.
        measure: which rate.
    """

    axis: Axis
    opponent: str
    head: str
    condition: str
    access: str
    backbones: tuple[str, ...]
    rates: pd.DataFrame
    measure: Measure = "asr"

    @property
    def higher_is_better(self) -> bool:
        """Attacks want a high error; defences want a low one, and a high accuracy."""
        return (self.axis == "attack") == (self.measure == "asr")

    def rank(self, split_seed: int) -> Ranking:
        """Return the ranking of the slice's methods."""
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
        for condition in answers.conditions()
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
        places.get(key, {"ranking_reason": "a defence is ranked against an attack"})
        for key in board[["attack", "defense", "head", "condition", "access"]].itertuples(
            index=False, name=None
        )
    ]
    names = ("rank_low", "rank_high", "tie_group", "ranking_reason")
    return {name: [row.get(name) for row in rows] for name in names}


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
    found = dict.fromkeys(
        cell.threat.access for point, cell in answers.cells.items() if point.attack != "none"
    )
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
        if answers.cells[point].threat.access == access
    ]
    methods = tuple(dict.fromkeys(getattr(point, axis) for point in points))
    if not methods:
        return None
    columns = {
        name: _mean(answers, [p for p in points if getattr(p, axis) == name], condition, measure)
        for name in methods
    }
    rates = pd.DataFrame(columns).sort_index()
    backbones = tuple(dict.fromkeys(point.backbone for point in points))
    return Slice(axis, opponent, head, condition, access, backbones, rates, measure)


def _points(answers: Answers, axis: Axis, opponent: str, head: str) -> Iterator[Point]:
    other = "attack" if axis == "defense" else "defense"
    for point in answers.cells:
        met = opponent in (EVERY, getattr(point, other))
        if point.head == head and point.attack != "none" and met:
            yield point


def _mean(answers: Answers, points: list[Point], condition: str, measure: Measure) -> "pd.Series[float]":
    """Return each person's mean rate over some cells; empty where one of them has no decisions."""
    people = [answers.people(point, condition) for point in points]
    if any(one is None for one in people):
        return pd.Series(dtype=float)
    return mean_over([one[measure] for one in people if one is not None])
