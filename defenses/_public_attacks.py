"""Attacks whose program anyone can run, so that a tracker can make cloaks of photos it has, and these cloaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bench.contracts import Attack, Context, Faces
from bench.errors import UsageError
from bench.plugins import factory
from bench.quality.metrics import GREY_LEVELS


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


def as_posted(images: Tensor) -> Tensor:
    """Return images of [0, 1] as 8 bits hold them, uint8."""
    return (images.clamp(0, 1) * GREY_LEVELS).round().to(torch.uint8)


def cloaked(
    attacks: Sequence[Attack], faces: Faces, contexts: Sequence[Context], advance: Callable[[int], None]
) -> tuple[Tensor, ...]:
    """Return the photos under each attack, as posted; those that it leaves alone are as they are.

    Args:
        attacks: as `public_attacks` returns them.
        faces: the photos.
        contexts: one for each attack.
        advance: called with the number of photos that an attack has finished.

    Returns:
        for each attack N×3×H×W uint8.
    """
    versions = []
    for attack, own in zip(attacks, contexts, strict=True):
        edits = attack.cloak(faces, replace(own, advance=advance))
        pairs = zip(faces.ids, faces.images, strict=True)
        versions.append(torch.stack([edits.get(name, image).to(faces.images) for name, image in pairs]))
    return tuple(as_posted(each) for each in versions)
