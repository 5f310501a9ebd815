"""Who is protected less: rates by group of identities, beside those of everybody else.

Groups are what a file of the user's says and nothing else: no face is ever looked at to find one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.results import Measure, Results
from bench.data.two_columns import read_two_columns
from bench.errors import DataError
from bench.randomness import numpy_generator
from bench.run.spec import Cell
from bench.stats.power import ALPHA
from bench.stats.significance import holm
from bench.stats.unpaired import detectable, unpaired

FEW = 20
"""Identities of a group below which its rates say so."""

COLUMNS: Mapping[str, str] = {
    "attack": "canonical name",
    "defense": "canonical name",
    "backbone": "the tracker's",
    "head": "the tracker's",
    "condition": "the protocol's condition; empty where it has only one",
    "seed": "of the run",
    "measure": "asr: share of probes not recognised while protected; normal_accuracy: share recognised while not",
    "group": "as the file says",
    "n_identities": "identities of the group that have this rate",
    "rate": "mean over them",
    "rate_low": "lower end of its 95 % interval over identities",
    "rate_high": "upper end",
    "others": "mean over the identities of all other groups",
    "n_others": "these identities",
    "difference": "rate - others",
    "difference_low": "lower end of its 95 % interval (square-and-add of both intervals)",
    "difference_high": "upper end",
    "p": "labels of group and others dealt anew, Welch's t",
    "p_holm": "after Holm over all rows of the table, those of other seeds too",
    "minimum_detectable_difference": "in this comparison at 80 % power, at the level of Holm's first step; empty where "
    "not even 1 would be found, or where nothing varies within the groups",
    "caution": f"few-identities: fewer than {FEW} in the group or among the others",
    "reason": "why there is no test",
}
"""Columns of the table."""


def read_groups(path: Path) -> dict[str, str]:
    """Return identity id → group, as a CSV of the columns ``identity`` and ``group`` says.

    Raises:
        DataError: it cannot be read, has other columns, an empty field, one identity in two groups, or one group only.
    """
    groups = read_two_columns(path, "groups", ("identity", "group"))
    if len(set(groups.values())) < 2:
        raise DataError(f"groups '{path}' name {len(set(groups.values()))} group; a comparison needs two.")
    return groups


def table(results: Results, groups: Mapping[str, str]) -> pd.DataFrame:
    """Return the rates of every group in every cell beside those of all other groups.

    Args:
        results: of a run.
        groups: identity id → group; identities without one are left out.

    Raises:
        DataError: a group has an identity that the run does not evaluate, or none that it does.
    """
    _check(results, groups)
    rows = [row for point in results.cells for row in _of_cell(results, point, groups)]
    tested = {number: row["p"] for number, row in enumerate(rows)}
    corrected, count = holm(tested), max(1, sum(p is not None for p in tested.values()))
    for number, row in enumerate(rows):
        one, two = row.pop("rates")
        row["p_holm"] = corrected[number]
        row["minimum_detectable_difference"] = None if row["reason"] else detectable(one, two, ALPHA / count)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sentences(found: pd.DataFrame) -> list[str]:
    """Return what a reader is to know: who differs, how much could have been seen, which groups are small."""
    said = []
    for row in found[found["p_holm"] <= ALPHA].to_dict("records"):
        more = "higher" if row["difference"] > 0 else "lower"
        what = "ASR" if row["measure"] == "asr" else "normal accuracy"
        said.append(
            f"{row['group']}: {what} of {row['attack']} x {row['defense']} on {row['backbone']}{_where(row, found)} is "
            f"{100 * abs(row['difference']):.1f} points {more} than of the others (p {row['p_holm']:.2g} after Holm)."
        )
    least = found["minimum_detectable_difference"].dropna().astype(float)
    if len(least):
        said.append(
            f"Where none is shown there may be one: at 80 % power {100 * least.median():.1f} points are detected "
            f"in the median, {100 * least.min():.1f} to {100 * least.max():.1f}."
        )
    small = found.loc[found["n_identities"] < FEW, "group"]
    if len(small):
        said.append(
            f"Fewer than {FEW} identities: {', '.join(sorted({*small}))}. Their rates are those of few people."
        )
    reasons = sorted(
        reason for reason in {*found["reason"]} - {""} if not reason.startswith("the same comparison")
    )
    said += [f"Without a test: {reason}." for reason in reasons]
    return said


def _where(row: Mapping[Any, Any], found: pd.DataFrame) -> str:
    """Return what else tells a row from others of the table: head, condition, seed."""
    several = [axis for axis in ("head", "condition", "seed") if len({*found[axis]}) > 1]
    return f" ({', '.join(f'{axis} {row[axis]}' for axis in several)})" if several else ""


def left_out(results: Results, groups: Mapping[str, str]) -> int:
    """Return how many evaluated identities have no group."""
    return len(_evaluated(results) - groups.keys())


def _evaluated(results: Results) -> set[str]:
    found: set[str] = set()
    for point in results.cells:
        for condition in results.conditions(point):
            rates = results.rates_of(point, condition, "asr")
            if rates is not None:
                found |= {*map(str, rates.index)}
    return found


def _check(results: Results, groups: Mapping[str, str]) -> None:
    evaluated = _evaluated(results)
    if not evaluated:
        raise DataError("this run decided nothing, so that nobody has a rate; its leaderboard says why.")
    strange = sorted(groups.keys() - evaluated)
    if strange:
        some = ", ".join(sorted(evaluated)[:3])
        raise DataError(
            f"{len(strange)} of {len(groups)} identities in the groups are not evaluated in this run, first "
            f"'{strange[0]}'. The run's are called as {some}; take the others out of the file."
        )


def _of_cell(results: Results, point: Cell, groups: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for condition in results.conditions(point):
        measured = results.measured(point, condition)
        if measured is None:
            continue
        probes = pd.Series(measured.own.n_probes, index=measured.own.names)
        for measure in ("asr", "normal_accuracy"):
            rates = results.rates_of(point, condition, measure)
            if rates is not None and rates.notna().any():
                yield from _of_rates(results, point, condition, measure, rates.dropna(), probes, groups)


def _of_rates(
    results: Results,
    point: Cell,
    condition: str,
    measure: Measure,
    rates: pd.Series[float],
    probes: pd.Series[int],
    groups: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    label = pd.Series([groups.get(str(name)) for name in rates.index], index=rates.index, dtype=object)
    dependence = results.dependence(point, condition)
    names = sorted({*label.dropna()})
    for group in names:
        one, two = rates[label == group], rates[label.notna() & (label != group)]
        counts = int(probes[one.index].sum()), int(probes[two.index].sum())
        rng = numpy_generator(
            results.facts.spec.split_seed, "groups", *map(str, point), condition, measure, group
        )
        found = unpaired(one, two, counts, rng)
        again = f"the same comparison as that of {names[0]}" if len(names) == 2 and group == names[1] else ""
        reason = dependence or found.reason or again
        yield {
            **{name: getattr(point, name) for name in ("attack", "defense", "backbone", "head", "seed")},
            "condition": condition,
            "measure": measure,
            "group": group,
            "n_identities": len(one),
            "rate": found.first.value,
            "rate_low": None if dependence else found.first.low,
            "rate_high": None if dependence else found.first.high,
            "others": found.second.value,
            "n_others": len(two),
            "difference": found.difference.value,
            "difference_low": None if dependence else found.difference.low,
            "difference_high": None if dependence else found.difference.high,
            "p": None if reason else found.p,
            "caution": "few-identities" if min(len(one), len(two)) < FEW else "",
            "reason": reason,
            "rates": (one, two),
        }
