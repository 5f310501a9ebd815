"""Sentences under figures: who was measured, what bars and marks mean. Plain English, numbers from the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.figures.selection import NO_CLOAK, Selection
from bench.leaderboard import adaptation
from bench.leaderboard.adaptation import Adaptation
from bench.leaderboard.names import explained

INTERVALS = "Bars are 95 % intervals over identities."


def percent(value: Any) -> str:
    """Return a rate as per cent with one decimal, NA where it is empty."""
    return "NA" if value is None or pd.isna(value) else f"{100 * float(value):.1f}"


def listed(items: Iterable[str], last: str = "and") -> str:
    """Return items as a list in a sentence."""
    found = list(items)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}" if found else "none"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def measured(chosen: Selection, identities: Iterable[Any]) -> str:
    """Return the sentence that says on what, on whom and against which trackers rates were measured.

    Args:
        chosen: what is shown.
        identities: the numbers of identities behind what is shown; empty values are left out.
    """
    counts = sorted({int(n) for n in identities if n is not None and not pd.isna(n)})
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "no"
    noun = "identity" if counts == [1] else "identities"
    return f"{many} {noun} of {dataset(chosen)}, {place(chosen)}."


def dataset(chosen: Selection) -> str:
    """Return the dataset, and the split where it is not the usual one."""
    spec = chosen.view.facts.spec
    return spec.dataset if spec.split == "evaluation" else f"{spec.dataset} ({spec.split} split)"


def place(chosen: Selection) -> str:
    """Return protocol and condition in words."""
    under = f", condition {chosen.condition}" if chosen.condition else ""
    return f"protocol {chosen.view.facts.spec.protocol}{under}"


def mean_over(chosen: Selection, rows: pd.DataFrame) -> str:
    """Return the sentence that names the trackers rates are averaged over; where panels differ, each panel's."""
    found = rows[["against", "head", "access", "backbones"]].drop_duplicates()
    trackers = list(dict.fromkeys(found["backbones"]))
    if len(trackers) == 1:
        named = trackers[0].split("|")
        return (
            f"Tracker: {named[0]}."
            if len(named) == 1
            else f"Each identity's rate is the mean over the trackers {listed(named)}."
        )
    parts = [
        f"{chosen.short_attacks[str(row.against)]} ({row.access}): {listed(str(row.backbones).split('|'))}"
        for row in found[["against", "access", "backbones"]].drop_duplicates().itertuples(index=False)
    ]
    return f"Each identity's rate is the mean over the trackers that every defence meets: {'; '.join(parts)}."


def adapted(chosen: Selection) -> str:
    """Return what the marks of adaptation mean, "" where no attack shown is adapted to a defence."""
    return adaptation.explained(
        kind
        for (attack, defense), kind in chosen.adapted.items()
        if attack in chosen.attacks and defense in chosen.defenses
    )


def adapted_names(names: Mapping[str, Adaptation]) -> str:
    """Return methods as a list in a sentence, those adapted in part marked so."""
    return listed(f"{name} (in part)" if kind == "partial" else name for name, kind in sorted(names.items()))


def left_out(chosen: Selection, defenses: Sequence[str]) -> str:
    """Return the sentence that names the attacks no mean is taken over, since they adapt to a defence compared."""
    kept = chosen.averaged(defenses)
    names = [name for name in chosen.attacks if name not in kept]
    if not names:
        return ""
    shown = listed(chosen.short_attacks[name] for name in names)
    return (
        f"Left out of what defences are compared by, since adapted to one of them or a part of one: {shown}."
    )


def opponents(chosen: Selection, attacks: Sequence[str]) -> str:
    """Return the words that say which attacks, by their short names, defences are compared against."""
    named = listed(chosen.short_attacks[name] for name in attacks)
    return f"against {named}" if len(attacks) == 1 else f"in the mean over the attacks {named}"


def full_names(
    chosen: Selection, *, attacks: bool = True, defenses: bool = True, backbones: bool = False
) -> str:
    """Return the sentence with the full names of methods that are shortened in the figure, or ""."""
    names: dict[str, str] = {}
    if attacks:
        names |= {name: chosen.short_attacks[name] for name in chosen.attacks if name != NO_CLOAK}
    if defenses:
        names |= {name: chosen.short_defenses[name] for name in chosen.defenses if name != NO_CLOAK}
    if backbones:
        names |= chosen.short_backbones
    return explained(list(names), names)


def joined(sentences: Sequence[str]) -> str:
    """Return sentences as one text, without the empty ones."""
    return " ".join(sentence for sentence in sentences if sentence)
