"""Each row of a leaderboard against its reference: is the difference more than chance?

A row is compared with the same row under defence ``none``; a row of defence ``none``, with attack ``none``
(DESIGN 7). All rows of one dataset, protocol and head, with their conditions and backbones, are one family.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench import measures
from bench.answers import Answers, Point
from bench.power import minimum_detectable_difference
from bench.randomness import numpy_generator
from bench.significance import PairedDifference, holm, paired_difference, resamples_for
from bench.statistics import Estimate

COLUMNS = ("p", "p_holm", "p_holm_reason", "effect_h", "effect_h_reason", "mdd")
REFERENCE = "the row is the reference itself"


def reference_tests(answers: Answers, board: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of `COLUMNS` for the rows of a leaderboard.

    Args:
        answers: of the run.
        board: with the columns that name a row, and `condition`.
    """
    keys = list(_keys(board))
    family = {
        head: sum(point.head == head and reference_of(point) is not None for point, _ in keys)
        for head in answers.values("head")
    }
    found = {key: _compare(answers, *key, family[key[0].head]) for key in keys}
    corrected: dict[tuple[Point, str], float | None] = {}
    for head in family:
        corrected |= holm({key: one.p for key, (one, _) in found.items() if key[0].head == head})
    rows = [_columns(*found[key], corrected[key]) for key in keys]
    return {name: [row[name] for row in rows] for name in COLUMNS}


def reference_of(point: Point) -> Point | None:
    """Return what a cell is compared with, None for the cell none × none."""
    if point.defense != "none":
        return point._replace(defense="none")
    return point._replace(attack="none") if point.attack != "none" else None


def _keys(board: pd.DataFrame) -> Iterator[tuple[Point, str]]:
    for row in board[[*Point._fields, "condition"]].itertuples(index=False):
        yield Point(*row[:-1]), row[-1]


def _compare(
    answers: Answers, point: Point, condition: str, family: int
) -> tuple[PairedDifference, float | None]:
    """Return a row against its reference, and the smallest difference that would have been found."""
    reference = reference_of(point)
    if reference is None:
        return _nothing(REFERENCE), None
    own, other = answers.people(point, condition), answers.people(reference, condition)
    if own is None:
        return _nothing("no decisions"), None
    if other is None:
        return _nothing(f"reference cell {reference.attack} x {reference.defense} is not there"), None
    stream = ("reference", *map(str, point), *filter(None, [condition]))
    rng = numpy_generator(answers.facts.spec.split_seed, *stream)
    found = paired_difference(own["asr"], other["asr"], rng=rng, resamples=resamples_for(max(family, 1)))
    return found, None if found.p is None else detectable(own["asr"], other["asr"])


def detectable(first: "pd.Series[float]", second: "pd.Series[float]") -> float:
    """Return the smallest difference a comparison of two cells would have shown with power .8.

    By the spread of the differences that were found, so it tells of this pair of cells.
    """
    one, two = measures.paired(first, second).T
    return minimum_detectable_difference(float((one - two).std(ddof=1)), len(one))


def _nothing(reason: str) -> PairedDifference:
    return PairedDifference(0, 0, None, None, Estimate.missing(reason), None, None, reason)


def _columns(one: PairedDifference, mdd: float | None, p_holm: float | None) -> dict[str, Any]:
    return {
        "p": one.p,
        "p_holm": p_holm,
        "p_holm_reason": one.reason if one.p is None else "",
        "effect_h": one.effect_h,
        "effect_h_reason": one.reason if one.effect_h is None else "",
        "mdd": mdd,
    }
