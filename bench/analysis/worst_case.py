"""The worst case of each defence of a run: over which attacks it is, and who of them knows the defence (DESIGN 6).

What lives here: which cells go into it, and its columns of the leaderboard. What must not: the maximum itself and its
interval (`bench.stats.worst_case`).

A worst case is of a defence on one tracker with one head, under one condition, and of attacks of one access: who knew
the tracker's backbone is never among those who did not. Its set of attacks is fixed: all that any defence met there, so
that a defence without one of them says so. Attack ``none`` is no attack. Seeds are averaged per identity first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from bench.analysis.comparison_groups import ComparisonGroup, access_of, mean_rates
from bench.analysis.results import Results
from bench.run.spec import Cell
from bench.stats.significance import mean_over
from bench.stats.worst_case import WorstCase, worst_case

COLUMNS = (
    *("asr_worst", "asr_worst_low", "asr_worst_high", "asr_worst_reason"),
    *("worst_over", "worst_of", "worst_attack", "worst_attack_asr", "worst_knows"),
)

STRONGEST = "(each identity's strongest)"
"""Stands for the opponent of a comparison group of defences that is ranked by the worst case."""

EXACT, PARTIAL, NONE = "exact", "partial", "none"
"""Values of `worst_knows`."""

NOBODY_KNOWS = (
    "no attack was made against this defence: whoever knows it may do better, and this is no worst case"
)
KNOWN_IN_PART = (
    "no attack was made against this very defence, only against a part of it or a whole that shares one: whoever knows "
    "it exactly may do better, and this is no worst case"
)

_NAMED = 2  # attacks without a rate that are named with their reason

Place = tuple[str, str, str, str]
"""Backbone, head, condition and access."""


@dataclass(frozen=True)
class Meeting:
    """A cell in which a defence met an attack.

    Attributes:
        point: the cell.
        access: black-box or white-box.
        exact: the attack was made against this very defence.
        in_part: it was made against a part of it, or a whole that shares one.
        reason: why the cell failed, or "".
    """

    point: Cell
    access: str
    exact: bool
    in_part: bool
    reason: str = ""

    @classmethod
    def all_of(cls, results: Results) -> "list[Meeting]":
        """Return those of a run, in its order."""
        return [
            cls(
                point,
                access_of(cell),
                cell.threat.attack_adapts_to_defense,
                cell.threat.attack_adapts_in_part,
                cell.reason,
            )
            for point, cell in results.cells.items()
            if point.attack != "none"
        ]


def worst_columns(results: Results, leaderboard: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of `COLUMNS` for the rows of a leaderboard; rows of attack ``none`` have their defence's.

    Args:
        results: of the run, or of several that share identities and photos.
        leaderboard: with the columns that name a row and those of its threat model.
    """
    named = leaderboard.assign(access=leaderboard["access"].replace("", "black-box"))
    columns = [*Cell._fields, "condition", "access", "attack_adapts_to_defense", "attack_adapts_in_part"]
    met: dict[Place, dict[str, list[Meeting]]] = {}
    keys: list[tuple[str, Place]] = []
    reasons = leaderboard["reason"].fillna("").astype(str)
    for row, reason in zip(named[columns].itertuples(index=False, name=None), reasons, strict=True):
        attack, defense, backbone, head, seed, condition, access, exact, in_part = row
        place = (backbone, head, condition, access)
        keys.append((defense, place))
        if attack != "none":
            point = Cell(attack, defense, backbone, head, int(seed))
            own = met.setdefault(place, {}).setdefault(defense, [])
            own.append(Meeting(point, access, bool(exact), bool(in_part), reason))
    found: dict[tuple[str, Place], dict[str, Any]] = {}
    for place, by_defense in met.items():
        attacks = attacks_of(results, [one for own in by_defense.values() for one in own], place[2])
        for defense, own in by_defense.items():
            found[defense, place] = columns_of(results, attacks, own, place[2])
    rows = [
        found[key] if key in found else _missing(0, 0, f"no {key[1][3]} attack was run on this tracker")
        for key in keys
    ]
    return {name: [row[name] for row in rows] for name in COLUMNS}


@dataclass(frozen=True)
class _Ground:
    """The attacks of one access, and their cells on the trackers that all of them meet."""

    head: str
    condition: str
    access: str
    attacks: tuple[str, ...]
    backbones: tuple[str, ...]
    meetings: Mapping[str, list[Meeting]]

    @classmethod
    def of(cls, results: Results, head: str, condition: str, access: str) -> "_Ground":
        every = [one for one in Meeting.all_of(results) if one.point.head == head and one.access == access]
        attacks = attacks_of(results, every, condition)
        met = [{one.point.backbone for one in every if one.point.attack == name} for name in attacks]
        shared = set.intersection(*met) if met else set()
        there = [one for one in every if one.point.backbone in shared and one.point.attack in attacks]
        return cls(
            head,
            condition,
            access,
            attacks,
            tuple(name for name in results.values("backbone") if name in shared),
            {
                defense: [one for one in there if one.point.defense == defense]
                for defense in results.values("defense")
            },
        )


def over_trackers(results: Results, head: str, condition: str, access: str) -> dict[str, dict[str, Any]]:
    """Return defence → a row of `COLUMNS` over the trackers that all attacks meet.

    Each identity's rates are averaged over them, and over seeds, before its highest is taken.

    Args:
        results: of a run.
        head: the trackers'.
        condition: of the protocol.
        access: of the attacks.
    """
    ground = _Ground.of(results, head, condition, access)
    if not ground.backbones:
        lacking = _missing(0, len(ground.attacks), f"no tracker meets all attacks {access}")
        return dict.fromkeys(ground.meetings, lacking)
    return {
        defense: columns_of(results, ground.attacks, own, condition)
        for defense, own in ground.meetings.items()
    }


def worst_groups(results: Results) -> list[ComparisonGroup]:
    """Return the defences of a run by their worst case, one group a head, condition and access with several attacks.

    A group is ranked only where an attack was made against each of its defences: one that nobody attacked would look
    the best.
    """
    accesses = dict.fromkeys(one.access for one in Meeting.all_of(results))
    places = product(results.values("head"), results.ranked_conditions(), accesses)
    grounds = [_Ground.of(results, *place) for place in places]
    return [_group(results, one) for one in grounds if len(one.attacks) > 1 and one.backbones]


def _group(results: Results, ground: _Ground) -> ComparisonGroup:
    highest = {
        defense: pd.DataFrame(
            {name: _mean_under(results, name, own, ground.condition) for name in ground.attacks}
        ).max(axis=1, skipna=False)
        for defense, own in ground.meetings.items()
    }
    unattacked = [name for name, own in ground.meetings.items() if name != "none" and _knows(own) != EXACT]
    reasons = (
        *(results.dependence(one.point, ground.condition) for own in ground.meetings.values() for one in own),
        f"no attack was made against these very defences: {', '.join(unattacked)}" if unattacked else "",
    )
    return ComparisonGroup(
        axis="defense",
        opponent=STRONGEST,
        head=ground.head,
        condition=ground.condition,
        access=ground.access,
        backbones=ground.backbones,
        opponents=ground.attacks,
        rates=pd.DataFrame(highest).sort_index(),
        reason=next(filter(None, reasons), ""),
    )


def _mean_under(
    results: Results, attack: str, meetings: Iterable[Meeting], condition: str
) -> "pd.Series[float]":
    points = [one.point for one in meetings if one.point.attack == attack]
    return mean_rates(results, points, condition, "asr")


def attacks_of(results: Results, meetings: Iterable[Meeting], condition: str) -> tuple[str, ...]:
    """Return the attacks of some cells that are asked something under a condition, in order."""
    asked: dict[str, bool] = {}
    for one in meetings:
        unasked = bool(results.not_applicable(one.point, condition))
        asked[one.point.attack] = asked.get(one.point.attack, True) and not unasked
    return tuple(name for name, is_asked in asked.items() if is_asked)


def columns_of(
    results: Results, attacks: Sequence[str], meetings: Sequence[Meeting], condition: str
) -> dict[str, Any]:
    """Return a row of `COLUMNS`: the worst case of one defence.

    Args:
        results: of the run.
        attacks: the fixed set.
        meetings: the cells of the defence that are averaged per identity for each attack: seeds, and trackers where
            the worst case is over several.
        condition: of the protocol.
    """
    if results.is_undefended(condition):
        return _missing(0, len(attacks), "no defence acts under this condition")
    own = {name: [one for one in meetings if one.point.attack == name] for name in attacks}
    lacking = {name: why for name, found in own.items() if (why := _lacks(results, found, condition))}
    known = {name: found for name, found in own.items() if name not in lacking}
    if not known:
        why = _listed(lacking) if lacking else "no attack is asked anything under this condition"
        return _missing(0, len(attacks), why)
    worst = _worst(results, known, condition)
    # Without a defence there is nothing to know.
    defended = any(one.point.defense != "none" for one in meetings)
    knows = _knows([one for found in known.values() for one in found]) if defended else ""
    short = f"{len(known)} of {len(attacks)} attacks have a rate, so at least this: {_listed(lacking)}"
    what = {PARTIAL: KNOWN_IN_PART, NONE: NOBODY_KNOWS}.get(knows, "")
    said = (worst.asr.reason, short if lacking else "", what if worst.asr.value is not None else "")
    return {
        "asr_worst": worst.asr.value,
        "asr_worst_low": worst.asr.low,
        "asr_worst_high": worst.asr.high,
        "asr_worst_reason": "; ".join(filter(None, said)),
        "worst_over": len(known),
        "worst_of": len(attacks),
        "worst_attack": worst.attack,
        "worst_attack_asr": worst.attack_asr,
        "worst_knows": knows if worst.asr.value is not None else "",
    }


def _missing(over: int, of: int, reason: str) -> dict[str, Any]:
    empty: dict[str, Any] = {**dict.fromkeys(COLUMNS), "worst_attack": "", "worst_knows": ""}
    return empty | {"asr_worst_reason": reason, "worst_over": over, "worst_of": of}


def _lacks(results: Results, meetings: Sequence[Meeting], condition: str) -> str:
    """Return why an attack has no rate against a defence, "" where it has."""
    if not meetings:
        return "not run against it"
    failed = [one for one in meetings if results.measured(one.point, condition) is None]
    return (failed[0].reason or "the cell has no decisions") if failed else ""


def _listed(lacking: Mapping[str, str]) -> str:
    shown = [f"{name}: {why}" for name, why in list(lacking.items())[:_NAMED]]
    more = len(lacking) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])


def _knows(meetings: Iterable[Meeting]) -> str:
    marks = [(one.exact, one.in_part) for one in meetings]
    if any(exact for exact, _ in marks):
        return EXACT
    return PARTIAL if any(in_part for _, in_part in marks) else NONE


def _worst(results: Results, known: Mapping[str, Sequence[Meeting]], condition: str) -> WorstCase:
    points = [one.point for found in known.values() for one in found]
    first = results.measured(points[0], condition)
    assert first is not None  # as all of `known` have decisions
    if len(points) == 1:  # its own rate, with its own interval
        asr = first.summary.asr
        return WorstCase(asr) if asr.value is None else WorstCase(asr, points[0].attack, asr.value)
    rates: dict[str, list[pd.Series[float]]] = {name: [] for name in known}
    for point in points:
        own = results.rates_of(point, condition, "asr")
        if own is None or not own.index.equals(first.own.names):
            return WorstCase.missing("the attacks have different identities")
        rates[point.attack].append(own)
    dependence = next(filter(None, (results.dependence(point, condition) for point in points)), "")
    probes = pd.Series(first.own.n_probes, index=first.own.names)
    return worst_case({name: mean_over(found) for name, found in rates.items()}, probes, dependence)
