"""How entries of the public table stand: who was submitted against whom, and what maintainers say of an entry.

An entry's worst case is over the attacks of its own run. Anyone may submit a run with a stronger attack against it:
where both runs are of the same photos, identities and protocol, the entry's worst case is at least what the other run
has for the same defence on the same tracker. Per-identity rates of both would give more, and a table has none, so that
the number is a lower bound and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from bench.errors import UsageError

PLACE = ("dataset", "protocol", "defense", "backbone", "head", "condition", "access")
"""What rows of one worst case share; rows of attack none have no access, and stand for black-box."""

_TAKEN = ("asr_worst", "asr_worst_low", "asr_worst_high", "worst_attack", "worst_attack_asr", "worst_knows")

Place = tuple[str, ...]
Places = Mapping[Place, "pd.Series[Any]"]


class Entry(Protocol):
    """What is read here of a source of a merged table (`bench.leaderboard.merge.Source`)."""

    @property
    def name(self) -> str:
        """The file or folder."""

    @property
    def leaderboard(self) -> pd.DataFrame:
        """Its rows."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What a submission says of itself."""

    @property
    def comparable(self) -> str:
        """A digest of what two must share."""


def with_standing(leaderboard: pd.DataFrame, sources: Sequence[Entry]) -> pd.DataFrame:
    """Return a merged table in which stronger attacks have lowered entries, with what is to be said of each.

    A run that maintainers call unreliable lowers nobody. Rows of runs without a record keep the footnote they have.

    Args:
        leaderboard: of all sources.
        sources: what it is made of.
    """
    by_run = {run_of(source): source for source in sources if source.record}
    said: dict[str, list[str]] = {run: list(_marks(source.record)) for run, source in by_run.items()}
    challengers: dict[str, list[str]] = {}
    for run, source in by_run.items():
        if against := str(source.record.get("against", "")):
            reason = _no_challenge(by_run.get(against), source)
            said[run].append(
                f"submitted against entry {against}" + (f", lowers nobody: {reason}" if reason else "")
            )
            if not reason:
                challengers.setdefault(against, []).append(run)
    found = leaderboard.copy()
    for entry, runs in challengers.items():
        for owner, count in _lower(found, by_run[entry], [by_run[run] for run in runs]).items():
            said[entry].append(f"its worst case is run {owner}'s in {count} rows")
    texts = {run: "; ".join(sentences) for run, sentences in said.items()}
    pairs = zip(found["run"], found["footnote"], strict=True)
    return found.assign(footnote=[texts.get(run, former) for run, former in pairs])


def in_order(sources: Sequence[Entry]) -> list[int]:
    """Return the places of sources, entries before the runs that are submitted against them.

    Of a cell that two have the first one's row is kept, and that has to be the entry's.
    """
    by_run = {run_of(source): source for source in sources if source.record}

    def depth(source: Entry, seen: frozenset[str] = frozenset()) -> int:
        against = str(source.record.get("against", ""))
        if against not in by_run or against in seen:
            return 0
        return 1 + depth(by_run[against], seen | {against})

    return sorted(range(len(sources)), key=lambda at: depth(sources[at]))


def _no_challenge(entry: Entry | None, source: Entry) -> str:
    """Say why a run that was submitted against an entry does not lower it, or return ""."""
    if source.record.get("unreliable"):
        return "it is called unreliable"
    return "the entry is not in this table" if entry is None else apart(entry, source)


def run_of(source: Entry) -> str:
    """Return the run that a submission is of."""
    return str(source.record.get("run") or Path(source.name).stem)


def apart(entry: Entry, other: Entry) -> str:
    """Say why a run cannot be held against an entry, or return ""."""
    if not entry.comparable or entry.comparable != other.comparable:
        return "it is of other photos, identities or another protocol, or does not say of which"
    if not places(entry.leaderboard).keys() & places(other.leaderboard).keys():
        return "it has no defence of the entry on the same tracker with the same head"
    return ""


def places(leaderboard: pd.DataFrame) -> Places:
    """Return place → the row that has the highest worst case there; places without one are left out."""
    rows = leaderboard[leaderboard["asr_worst"].notna()]
    return {_place(row): row for _, row in rows.sort_values("asr_worst", kind="stable").iterrows()}


def stronger(entry: Entry, other: Entry) -> Iterator[str]:
    """Yield a sentence for each worst case of a defence of an entry that a run raises.

    Raises:
        UsageError: the run cannot be held against it.
    """
    if reason := apart(entry, other):
        raise UsageError(
            f"this run cannot be held against {run_of(entry)}: {reason}. Make it with the entry's dataset, protocol, "
            "split seed and identities, and with a defence, backbone and head of the entry."
        )
    theirs = places(entry.leaderboard)
    for place, row in places(other.leaderboard).items():
        if place in theirs and is_stronger(row, theirs[place]):
            before, after = (100 * float(one["asr_worst"]) for one in (theirs[place], row))
            _, _, defense, backbone, head, *_ = place
            yield f"{defense} on {backbone}, {head}: worst case {before:.1f} -> {after:.1f} % by {row['worst_attack']}"


def is_stronger(row: pd.Series[Any], entry: pd.Series[Any]) -> bool:
    """Say whether a row's worst case is above an entry's by more than chance: by the lower end of its 95 % interval.

    Attack for attack nothing is compared: a table has no rates of single identities.
    """
    return row["defense"] != "none" and bool(row["asr_worst_low"] > entry["asr_worst"])


def _marks(record: Mapping[str, Any]) -> Iterator[str]:
    if why := record.get("unreliable"):
        yield f"unreliable: {why}"
    if note := record.get("footnote"):
        yield str(note)


def _lower(found: pd.DataFrame, entry: Entry, others: Sequence[Entry]) -> Counter[str]:
    """Raise the worst cases of an entry's rows to the highest of other runs, in place; run → rows that have its."""
    run = run_of(entry)
    strongest = [(run_of(other), places(other.leaderboard), _attacks(other.leaderboard)) for other in others]
    own = _attacks(entry.leaderboard)
    owners: Counter[str] = Counter()
    for at in found.index[found["run"] == run]:
        place = _place(found.loc[at])
        rivals = [
            (owner, there[place], attacks.get(place, set()))
            for owner, there, attacks in strongest
            if place in there and is_stronger(there[place], found.loc[at])
        ]
        if not rivals:
            continue
        owner, row, attacks = max(rivals, key=lambda rival: float(rival[1]["asr_worst"]))
        for name in _TAKEN:
            found.loc[at, name] = row[name]
        found.loc[at, "worst_over"] = len(attacks)
        found.loc[at, "worst_of"] = len(attacks | own.get(place, set()))
        former = str(found.loc[at, "asr_worst_reason"])
        reason = f"at least: run {owner}, submitted against run {run}, has it under {row['worst_attack']}"
        found.loc[at, "asr_worst_reason"] = "; ".join(filter(None, (reason, former)))
        owners[owner] += 1
    return owners


def _attacks(leaderboard: pd.DataFrame) -> dict[Place, set[str]]:
    """Return place → the attacks that met the defence there."""
    met: dict[Place, set[str]] = {}
    for _, row in leaderboard[leaderboard["attack"] != "none"].iterrows():
        met.setdefault(_place(row), set()).add(str(row["attack"]))
    return met


def _place(row: pd.Series[Any]) -> Place:
    return tuple((str(row[name]) or "black-box") if name == "access" else str(row[name]) for name in PLACE)
