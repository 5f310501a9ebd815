"""Each row of a leaderboard against its reference: is the difference significant?

A row is compared with the same row under defence ``none``; a row of defence ``none``, with attack ``none``
(DESIGN 7). Rates are averaged over seeds first, identity by identity, so rows that differ in the seed alone share one
test. All tests of one dataset, protocol and head, with their conditions and backbones, are one family.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.analysis.results import Results
from bench.randomness import numpy_generator
from bench.run.spec import Cell
from bench.stats import rates as measures
from bench.stats.intervals import Estimate
from bench.stats.power import minimum_detectable_difference
from bench.stats.significance import (
    ALPHA,
    PairedDifference,
    holm,
    mean_over,
    paired_differences,
    resamples_for,
)

COLUMNS = ("p", "p_holm", "p_holm_reason", "effect_h", "effect_h_reason", "minimum_detectable_difference")
REFERENCE = "the row is the reference itself"

Key = tuple[str, str, str, str, str]
"""Attack, defence, backbone, head and condition: a row without its seed."""


@dataclass(frozen=True)
class _Test:
    """A row against its reference; the spread of the differences where there is a test."""

    found: PairedDifference
    rates: "tuple[pd.Series[float], pd.Series[float]] | None" = None


def reference_tests(results: Results, leaderboard: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of `COLUMNS` for the rows of a leaderboard.

    Args:
        results: of the run.
        leaderboard: with the columns that name a row, and `condition`.
    """
    keys = list(_keys(leaderboard))
    requested = [key for key in dict.fromkeys(keys) if reference_of(_point(key, 0)) is not None]
    family = {head: sum(key[3] == head for key in requested) for head in results.values("head")}
    seeds = _seeds(results)
    tests = {key: _to_compare(results, key, seeds.get(_point(key, 0), [])) for key in dict.fromkeys(keys)}
    for head, size in family.items():
        tests |= _compared(results, head, {k: one for k, one in tests.items() if k[3] == head}, size)
    corrected: dict[Key, float | None] = {}
    for head in family:
        corrected |= holm({key: test.found.p for key, test in tests.items() if key[3] == head})
    count = {head: sum(p is not None for key, p in corrected.items() if key[3] == head) for head in family}
    columns = {key: _columns(tests[key], corrected[key], count[key[3]]) for key in tests}
    return {name: [columns[key][name] for key in keys] for name in COLUMNS}


def _seeds(results: Results) -> dict[Cell, list[int]]:
    """Return every cell's seeds by the cell with seed 0."""
    if "seeds" not in results.derived:
        seeds: dict[Cell, list[int]] = {}
        for point in results.cells:
            seeds.setdefault(point._replace(seed=0), []).append(point.seed)
        results.derived["seeds"] = seeds
    found: dict[Cell, list[int]] = results.derived["seeds"]
    return found


def reference_of(point: Cell) -> Cell | None:
    """Return what a cell is compared with, None for the cell none × none."""
    if point.defense != "none":
        return point._replace(defense="none")
    return point._replace(attack="none") if point.attack != "none" else None


def rates_compared(
    results: Results, point: Cell, condition: str
) -> "tuple[pd.Series[float], pd.Series[float]] | None":
    """Return a row's rates and its reference's, averaged over the run's seeds; None where they are not tested.

    Args:
        results: of the run.
        point: a cell of the row, whatever its seed.
        condition: of the protocol.
    """
    own = point._replace(seed=0)
    seeds = _seeds(results).get(own, [])
    key: Key = (own.attack, own.defense, own.backbone, own.head, condition)
    return _to_compare(results, key, seeds).rates


def detectable(first: "pd.Series[float]", second: "pd.Series[float]", tests: int = 1) -> float:
    """Return the minimum detectable difference of two cells at 80 % power.

    It follows from the standard deviation of the observed differences, so it is of this pair of cells.

    Args:
        first: rates indexed by identity.
        second: the same identities'.
        tests: comparisons it is corrected for; the level is 0.05 divided by them, which Holm's first step needs.
    """
    one, two = measures.paired(first, second).T
    return minimum_detectable_difference(
        float((one - two).std(ddof=1)), len(one), alpha=ALPHA / max(tests, 1)
    )


def _keys(leaderboard: pd.DataFrame) -> Iterator[Key]:
    names = ["attack", "defense", "backbone", "head", "condition"]
    yield from leaderboard[names].itertuples(index=False, name=None)


def _point(key: Key, seed: int) -> Cell:
    return Cell(*key[:4], seed)


def _to_compare(results: Results, key: Key, seeds: Sequence[int]) -> _Test:
    """Return a row's rates and its reference's, not compared yet, or why there is nothing to compare."""
    condition, first = key[4], _point(key, 0)
    reference = reference_of(first)
    if reference is None:
        return _nothing(REFERENCE)
    if key[1] != "none" and results.is_undefended(condition):
        return _nothing("no defence acts under this condition")
    own = [first._replace(seed=seed) for seed in seeds]
    others = [reference._replace(seed=seed) for seed in seeds]
    for points in (own, others):
        if reason := _lacking(results, points, condition):
            return _nothing(reason)
    if reason := results.dependence(own[0], condition):
        return _nothing(reason)
    rates = _mean(results, own, condition), _mean(results, others, condition)
    return replace(_nothing("not compared"), rates=rates)


def _compared(results: Results, head: str, tests: dict[Key, _Test], family: int) -> dict[Key, _Test]:
    """Return the tests of one head's rows, which are a family and share their random signs."""
    rng = numpy_generator(results.facts.spec.split_seed, "reference", head)
    asked = {key: one.rates for key, one in tests.items() if one.rates is not None}
    found = paired_differences(list(asked.values()), rng=rng, resamples=resamples_for(max(family, 1)))
    done = {key: replace(tests[key], found=one) for key, one in zip(asked, found, strict=True)}
    return {**tests, **done}


def _lacking(results: Results, points: Sequence[Cell], condition: str) -> str:
    for point in points:
        if results.measured(point, condition) is None:
            why = results.not_applicable(point, condition) or "the cell failed or is not there"
            return f"{point.attack} x {point.defense} has no decisions: {why}"
    return ""


def _mean(results: Results, points: Sequence[Cell], condition: str) -> "pd.Series[float]":
    rates = (results.rates_of(point, condition, "asr") for point in points)
    return mean_over([one for one in rates if one is not None])


def _nothing(reason: str) -> _Test:
    return _Test(PairedDifference(0, 0, None, None, Estimate.missing(reason), None, None, reason))


def _columns(test: _Test, p_holm: float | None, tests: int) -> dict[str, Any]:
    one = test.found
    tested = one.p is not None and test.rates is not None
    return {
        "p": one.p,
        "p_holm": p_holm,
        "p_holm_reason": one.reason if one.p is None else "",
        "effect_h": one.effect_h,
        "effect_h_reason": one.reason if one.effect_h is None else "",
        "minimum_detectable_difference": detectable(*test.rates, tests)
        if tested and test.rates is not None
        else None,
    }
