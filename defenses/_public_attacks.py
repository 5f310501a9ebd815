"""Attacks whose program anyone can run, so that a tracker can make cloaks of photos it has."""

from __future__ import annotations

from collections.abc import Sequence

from bench.contracts import Attack
from bench.errors import UsageError
from bench.plugins import factory


def public_attacks(texts: Sequence[str], defense: str) -> tuple[Attack, ...]:
    """Return the attacks that texts describe.

    Args:
        texts: one attack each.
        defense: name of the defence that trains on their cloaks, for messages.

    Raises:
        UsageError: an unknown attack, or one that needs more than a tracker has when it trains: it changes no photo,
            learns first, or imitates someone.
    """
    attacks = tuple(factory.attack(text) for text in texts)
    for attack in attacks:
        if why := _why_not(attack):
            raise UsageError(
                f"{defense} cannot train on cloaks of '{factory.canonical(attack)}': it {why}. Name attacks such as "
                "pgd, fawkes or lowkey."
            )
    return attacks


def _why_not(attack: Attack) -> str:
    """Say as a clause why a tracker cannot run an attack, or return ""."""
    if not attack.changes_images:
        return "changes no photo"
    if attack.requires_fit:
        return "has to learn first"
    return "imitates others, of whom a tracker has no pool" if attack.threat.needs_targets else ""
