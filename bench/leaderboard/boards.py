"""A leaderboard as boards: for each task one of the defences and one of the attacks, the best first.

What lives here: which cells a method's place is made of, its mean and its worst case. What must not: the mean of a
run's decisions (`bench.leaderboard.means`), nor how a board is drawn (`bench.leaderboard.as_html`).

A task is what rows must share to be compared: benchmark, protocol, photos, split and number of identities
(`bench.analysis.comparability`), head and condition of the tracker, and what the attacks know of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from bench.analysis.claims import LACKING
from bench.analysis.comparison_groups import Axis
from bench.analysis.results import Measure
from bench.leaderboard import adaptation, means
from bench.leaderboard.adaptation import Adaptation
from bench.leaderboard.columns import KEY
from bench.leaderboard.merge import Merged, UnionResults
from bench.leaderboard.names import NONE
from bench.leaderboard.summary import is_there
from bench.leaderboard.worst_case import is_bound
from bench.run.spec import Cell
from bench.stats.intervals import Estimate

_OTHER: Mapping[Axis, Axis] = {"defense": "attack", "attack": "defense"}

_NO_COMMON = "every attack is adapted to one of the defences, so that none is a common measure"


@dataclass(frozen=True)
class WorstCase:
    """What is worst for a method: of a defence its worst case, where that is highest; of an attack its worst cell.

    Attributes:
        asr: in [0, 1]: of a defence each identity's highest ASR over the attacks, then the mean over identities, or the
            highest ASR of a cell (`of_cell`); of an attack the lowest ASR of a cell.
        low: lower end of its 95 % interval over identities, None where there is none.
        high: upper end.
        opponent: the attack that is strongest against the defence, or the defence the attack met.
        backbone: the tracker's.
        adapted: whether that attack is adapted to this very defence (``exact``) or to a part of it (``partial``); None
            where to neither.
        bound: the worst case may be worse still: cells failed or are not there, no attack was made against the
            defence, or its attacks are of several tables without decisions.
        knows: of a defence, whether an attack was made against it: ``exact``, ``partial`` or ``none``; else "".
        of_cell: it is a single cell's ASR.
    """

    asr: float
    low: float | None
    high: float | None
    opponent: str
    backbone: str
    adapted: Adaptation | None
    bound: bool
    knows: str = ""
    of_cell: bool = True


@dataclass(frozen=True)
class Standing:
    """One method's place.

    Attributes:
        method: canonical name.
        mean: ASR, over the identities and `places` of the board.
        worst: the worst case of a defence, the worst cell of an attack; None where none has a rate.
        accuracy: normal accuracy, the mean over the same cells as `mean`.
        undefended: of an attack, its mean ASR without a defence; None for defences.
        psnr: of an attack, PSNR of its cloaks in dB, mean over trackers; None for defences, or where not measured.
        measured: places of the board that have a rate.
        failed: places whose cell failed.
        absent: places in which it was not run; with any it stands below those that were run in all.
    """

    method: str
    mean: Estimate
    worst: WorstCase | None
    accuracy: Estimate
    undefended: float | None
    psnr: float | None
    measured: int
    failed: int
    absent: int

    @property
    def comparable(self) -> bool:
        """Whether its mean is over the same cells as the others'."""
        return self.absent == 0


@dataclass(frozen=True)
class Board:
    """The methods of one axis under one task, the best mean first.

    Attributes:
        axis: what stands on it.
        standings: in order; those that were not run in every place, then those without a mean, come last.
        places: cells a method's mean is over: opponents × trackers × seeds.
        opponents: attacks, or defences, the means are over.
        left_out: attacks no mean is over, as each was made against one of the defences, or a part of one.
        exact: whether intervals of means are over identities; else they are the mean of the cells' own, as the
            table they come from has no decisions.
    """

    axis: Axis
    standings: tuple[Standing, ...]
    places: int
    opponents: tuple[str, ...]
    left_out: tuple[str, ...]
    exact: bool


@dataclass(frozen=True)
class Task:
    """What is compared, and by which boards.

    Attributes:
        dataset: canonical.
        protocol: canonical.
        head: the tracker's.
        condition: of the protocol; empty where it has one.
        access: ``black-box`` or ``white-box``.
        identities: how many are evaluated.
        backbones: the trackers'.
        runs: whose rows are on it.
        boards: that of the defences, where there is one besides ``none``, and that of the attacks.
    """

    dataset: str
    protocol: str
    head: str
    condition: str
    access: str
    identities: int
    backbones: tuple[str, ...]
    runs: tuple[str, ...]
    boards: tuple[Board, ...]


def tasks(merged: Merged) -> list[Task]:
    """Return the tasks of a leaderboard with their boards, in the order of its rows.

    Conditions under which nothing is ranked (what a protocol restores) have none, nor have rows without an attack.
    """
    rows = _prepared(merged)
    names = ["_ground", "dataset", "protocol", "head", "condition", "_access"]
    found = []
    for (ground, *_), own in rows.groupby(names, sort=False, dropna=False):
        if own[["restored_psnr", "restored_unchanged"]].notna().any(axis=None):
            continue
        boards = tuple(_boards(own, _decided(merged, str(ground))))
        if boards:
            found.append(_task(own, boards))
    return found


def _prepared(merged: Merged) -> pd.DataFrame:
    """Return the rows with an attack that was asked something, with the ground they stand on."""
    rows = merged.leaderboard
    unasked = (rows["status"] == "ok") & rows["asr"].isna() & (rows["condition_reason"] != "")
    rows = rows[(rows["attack"] != NONE) & ~unasked]
    if rows.empty:
        return rows.assign(_ground="", _access="")
    grounds = _grounds(merged)
    ground = [
        grounds.get(run) or ranked or run
        for run, ranked in zip(rows["run"].astype(str), rows["ranked_over"].astype(str), strict=True)
    ]
    rows = rows.assign(_ground=ground, _access=rows["access"].replace("", "black-box"))
    # Runs that disagree about a cell (--keep-both) are no common ground.
    disputed = rows.duplicated(["_ground", *KEY], keep=False).groupby(rows["_ground"]).transform("any")
    return rows.assign(
        _ground=rows["_ground"].where(~disputed, rows["_ground"] + " " + rows["run"].astype(str))
    )


def _grounds(merged: Merged) -> dict[str, str]:
    """Return run → what its rows may be compared with, "" where only the run itself is known."""
    return {
        run: source.comparable
        for source in merged.sources
        for run in source.leaderboard["run"].astype(str).unique()
    }


def _decided(merged: Merged, ground: str) -> UnionResults | None:
    """Return the decisions of the runs of one ground whose folders are there, None where none is."""
    folders = [source for source in merged.sources if source.folder is not None]
    own = [
        source.results
        for source in folders
        if ground in (source.comparable, source.results.facts.run)
        or ground == f"{source.comparable} {source.results.facts.run}"
    ]
    return UnionResults.over(own) if own else None


def _task(rows: pd.DataFrame, boards: tuple[Board, ...]) -> Task:
    first = rows.iloc[0]
    dataset, protocol, head, condition, access = (
        str(first[name]) for name in ("dataset", "protocol", "head", "condition", "_access")
    )
    return Task(
        dataset=dataset,
        protocol=protocol,
        head=head,
        condition=condition,
        access=access,
        identities=int(rows["n_identities"].max()) if rows["n_identities"].notna().any() else 0,
        backbones=tuple(rows["backbone"].unique()),
        runs=tuple(rows["run"].unique()),
        boards=boards,
    )


# -- one board ----------------------------------------------------------------------------------------------------


def _boards(rows: pd.DataFrame, results: UnionResults | None) -> Iterator[Board]:
    if set(rows["defense"]) - {NONE}:
        adapts = [kind is not None for kind in adaptation.column(rows)]
        adapting = set(rows.loc[adapts, "attack"])
        opponents = [name for name in rows["attack"].unique() if name not in adapting]
        yield _board(rows, "defense", opponents, sorted(adapting), results)
    defenses = list(rows["defense"].unique())
    yield _board(rows, "attack", [name for name in defenses if name != NONE] or defenses, (), results)


def _board(
    rows: pd.DataFrame,
    axis: Axis,
    opponents: Sequence[str],
    left_out: Sequence[str],
    results: UnionResults | None,
) -> Board:
    counted = rows[rows[_OTHER[axis]].isin(opponents)]
    places = len(counted[[_OTHER[axis], "backbone", "seed"]].drop_duplicates())
    exact = results is not None and all(point in results.cells for point in _points(counted))
    standings = [
        _standing(name, rows, counted[counted[axis] == name], axis, places, results if exact else None)
        for name in rows[axis].unique()
    ]
    return Board(
        axis=axis,
        standings=tuple(sorted(standings, key=lambda one: _order(one, axis))),
        places=places,
        opponents=tuple(opponents),
        left_out=tuple(left_out),
        exact=exact,
    )


def _order(one: Standing, axis: Axis) -> tuple[Any, ...]:
    sign = 1 if axis == "defense" else -1
    mean = one.mean.value
    worst = one.worst.asr if one.worst is not None else 0.0
    return mean is None, not one.comparable, sign * (mean or 0.0), sign * worst, one.method


def _standing(
    name: str,
    rows: pd.DataFrame,
    counted: pd.DataFrame,
    axis: Axis,
    places: int,
    results: UnionResults | None,
) -> Standing:
    # A table of an earlier version has no worst cases; then all methods of the board stand by cells.
    per_identity = axis == "defense" and bool(rows.loc[rows["asr"].notna(), "asr_worst"].notna().all())
    own = rows[rows[axis] == name]
    undefended = own[own["defense"] == NONE] if axis == "attack" else own.iloc[:0]
    faced = own if axis == "defense" else own[own["defense"].isin(counted["defense"])]
    return Standing(
        method=name,
        mean=_mean(counted, "asr", results),
        worst=_worst(faced, axis, incomplete=len(counted) < places, per_identity=per_identity),
        accuracy=_mean(counted, "normal_accuracy", results),
        undefended=_plain(undefended, "asr"),
        psnr=_plain(own.drop_duplicates(["backbone", "seed"]), "cloak_psnr") if axis == "attack" else None,
        measured=int(counted["asr"].notna().sum()),
        failed=int((counted["status"] != "ok").sum()),
        absent=places - len(counted),
    )


def _plain(rows: pd.DataFrame, column: str) -> float | None:
    """Return the mean of a column, None where a row lacks it."""
    return None if rows.empty or rows[column].isna().any() else float(rows[column].mean())


def _mean(rows: pd.DataFrame, measure: Measure, results: UnionResults | None) -> Estimate:
    """Return a rate over identities and cells, from decisions where they are there, else from the cells' rates."""
    if rows.empty:
        return Estimate.missing(_NO_COMMON)
    if rows[measure].isna().any():
        reasons = rows.loc[rows[measure].isna(), ["reason", f"{measure}_reason"]].astype(str)
        return Estimate.missing(next(filter(None, reasons.to_numpy().flat), LACKING))
    if results is not None:
        points, condition = _points(rows), str(rows["condition"].iloc[0])
        return means.estimate(results, points, condition, measure, results.dependence(points[0], condition))
    value, low, high = (
        float(rows[name].mean(skipna=False)) for name in (measure, f"{measure}_low", f"{measure}_high")
    )
    if math.isnan(low) or math.isnan(high):
        return Estimate(value, reason="a cell has no interval")
    return Estimate(value, low, high)


def _points(rows: pd.DataFrame) -> list[Cell]:
    return [Cell(*map(cast("Any", _native), row)) for row in rows[list(Cell._fields)].itertuples(index=False)]


def _native(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _worst(rows: pd.DataFrame, axis: Axis, *, incomplete: bool, per_identity: bool) -> WorstCase | None:
    known = rows[rows["asr"].notna()]
    if known.empty:
        return None
    if per_identity:
        return _worst_of_defense(rows, known, incomplete=incomplete)
    worst = known.iloc[int(known["asr"].argmax() if axis == "defense" else known["asr"].argmin())]
    return WorstCase(
        asr=float(worst["asr"]),
        low=_end(worst["asr_low"]),
        high=_end(worst["asr_high"]),
        opponent=str(worst[_OTHER[axis]]),
        backbone=str(worst["backbone"]),
        adapted=adaptation.adaptation(worst.to_dict()),
        bound=incomplete or len(known) < len(rows),
    )


def _worst_of_defense(rows: pd.DataFrame, known: pd.DataFrame, *, incomplete: bool) -> WorstCase:
    """Return the worst case on the tracker where it is highest."""
    worst = known.iloc[int(known["asr_worst"].argmax())]
    attack, backbone, knows = (str(worst[name]) for name in ("worst_attack", "backbone", "worst_knows"))
    strongest = known[(known["attack"] == attack) & (known["backbone"] == backbone)]
    # Rows of several runs that are not ranked together: each worst case is over the attacks of its own.
    apart = len(known["run"].unique()) > 1 and bool((known["ranked_over"] == "").any())
    over, of = (int(worst[name]) for name in ("worst_over", "worst_of"))
    return WorstCase(
        asr=float(worst["asr_worst"]),
        low=_end(worst["asr_worst_low"]),
        high=_end(worst["asr_worst_high"]),
        opponent=attack,
        backbone=backbone,
        adapted=next(filter(None, adaptation.column(strongest)), None),
        bound=incomplete or apart or len(known) < len(rows) or is_bound(over, of, knows),
        knows=knows,
        of_cell=False,
    )


def _end(value: Any) -> float | None:
    return float(value) if is_there(value) else None
