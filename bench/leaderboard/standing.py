"""How entries of the public table stand: who was submitted against whom, and what maintainers say of an entry.

An entry's worst case is over the attacks of its own run. Anyone may submit a run with a stronger attack against it:
where both runs are of the same photos, identities and protocol, the entry's worst case is at least what the other run
has for the same defence on the same tracker. Per-identity rates of both would give more, and a table has none, so that
the number is a lower bound and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from bench.errors import UsageError

PLACE = ("dataset", "protocol", "defense", "backbone", "head", "condition", "access")
"""What rows of one worst case share; rows of attack none have no access, and stand for black-box."""

_TAKEN = (
    "asr_worst",
    "asr_worst_low",
    "asr_worst_high",
    "worst_attack",
    "worst_attack_asr",
    "worst_knows",
)

Places = Mapping[tuple[str, ...], "pd.Series[Any]"]


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

    A run that maintainers call unreliable lowers nobody.

    Args:
        leaderboard: of all sources.
        sources: what it is made of.
    """
    by_run = {run_of(source): source for source in sources if source.record}
    found = leaderboard.copy()
    said: dict[str, list[str]] = {run: list(_marks(source.record)) for run, source in by_run.items()}
    for run, source in by_run.items():
        against = str(source.record.get("against", ""))
        if not against:
            continue
        said[run].append(f"submitted against entry {against}")
        if against not in by_run:
            said[run].append(f"entry {against} is not in this table")
        elif source.record.get("unreliable"):
            said[run].append("lowers nobody, as it is called unreliable")
        elif reason := apart(by_run[against], source):
            said[run].append(f"lowers nobody: {reason}")
        elif fell := _lower(found, against, run, places(source.leaderboard)):
            said[against].append(f"its worst case is run {run}'s in {fell} rows")
    texts = {run: "; ".join(sentences) for run, sentences in said.items()}
    return found.assign(footnote=[texts.get(run, "") for run in found["run"]])


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
    rows = rows.assign(access=rows["access"].replace("", "black-box")).sort_values("asr_worst", kind="stable")
    return {tuple(str(row[name]) for name in PLACE): row for _, row in rows.iterrows()}


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
        _, _, defense, backbone, head, *_ = place
        if defense == "none":
            continue
        if place in theirs and row["asr_worst"] > theirs[place]["asr_worst"]:
            before, after = (100 * float(one["asr_worst"]) for one in (theirs[place], row))
            yield f"{defense} on {backbone}, {head}: worst case {before:.1f} -> {after:.1f} % by {row['worst_attack']}"


def _marks(record: Mapping[str, Any]) -> Iterator[str]:
    if why := record.get("unreliable"):
        yield f"unreliable: {why}"
    if note := record.get("footnote"):
        yield str(note)


def _lower(found: pd.DataFrame, entry: str, run: str, strongest: Places) -> int:
    """Raise the worst cases of an entry's rows to those of another run, in place, and return how many rows fell."""
    fell = 0
    for at in found.index[found["run"] == entry]:
        row = found.loc[at]
        key = tuple(str(row[name]) or "black-box" if name == "access" else str(row[name]) for name in PLACE)
        if key not in strongest or not strongest[key]["asr_worst"] > row["asr_worst"]:
            continue
        other = strongest[key]
        for name in _TAKEN:
            found.loc[at, name] = other[name]
        found.loc[at, "asr_worst_reason"] = (
            f"at least: run {run}, submitted against run {entry}, has it under {other['worst_attack']}; over the "
            "attacks of both runs it may be higher"
        )
        fell += 1
    return fell
