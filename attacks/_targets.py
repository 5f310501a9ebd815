"""Whom a targeted attack imitates: another identity of `Context.targets`, and that identity's embedding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks._micro_batch import in_micro_batches
from bench.contracts import Backbone, Context, Faces
from bench.errors import UsageError


def require_targets(attack: str, untargeted: str, ctx: Context) -> Faces:
    """Return the faces of other identities.

    Args:
        attack: the attack as written, e.g. ``pgd:goal=targeted``.
        untargeted: how to write the one that needs no targets.
        ctx: of the attack.

    Raises:
        UsageError: `ctx` brings none.
    """
    if ctx.targets is None or not len(ctx.targets):
        raise UsageError(
            f"{attack} imitates another identity and got no target faces. Use a dataset with training "
            f"identities, or {untargeted}."
        )
    return ctx.targets


def drawn_target(targets: Faces, ctx: Context, identity: str, among: Iterable[str] | None = None) -> str:
    """Return the identity id `identity` imitates: drawn from the targets, never the identity themself.

    Args:
        targets: faces of the identities there are.
        ctx: decides the draw.
        identity: who imitates.
        among: only these of them; None for all.

    Raises:
        UsageError: the targets are of nobody else.
    """
    identities = set(targets.identities) if among is None else set(targets.identities) & set(among)
    others = sorted(identities - {identity})
    if not others:
        raise UsageError(
            f"'{identity}' is the only identity among the target faces, so there is nobody to imitate. Use a "
            "dataset with more training identities."
        )
    drawn = torch.randint(len(others), (1,), generator=ctx.generator("aim", identity))
    return others[int(drawn)]


def target_centre(backbones: Sequence[Backbone], targets: Faces, identity: str) -> tuple[Tensor, ...]:
    """Return for each backbone the mean unit embedding of an identity's photos, scaled to length 1: D_k each."""
    photos = targets.images[rows_of(targets, identity)]
    means = [in_micro_batches(partial(unit_rows, backbone), photos).mean(0) for backbone in backbones]
    return tuple(F.normalize(mean, dim=0) for mean in means)


def target_centres(
    backbones: Sequence[Backbone], targets: Faces, target_assignment: Mapping[str, str], device: torch.device
) -> Mapping[str, tuple[Tensor, ...]]:
    """Return `target_centre` of everyone who is imitated: image id → D_k for each backbone."""
    on_device = targets.with_images(targets.images.to(device))
    of_identity = {
        identity: target_centre(backbones, on_device, identity)
        for identity in sorted(set(target_assignment.values()))
    }
    return {image: of_identity[identity] for image, identity in target_assignment.items()}


def unit_rows(backbone: Backbone, images: Tensor) -> Tensor:
    """Return the unit embeddings of N×3×H×W `images` without gradient: N×D."""
    with torch.no_grad():
        return F.normalize(backbone.embed(images), dim=1)


def rows_of(faces: Faces, identity: str) -> list[int]:
    """Return the places of an identity's photos."""
    return [i for i, name in enumerate(faces.identities) if name == identity]


def first_identities(targets: Faces, count: int) -> tuple[str, ...]:
    """Return the first `count` identities of the pool in its own order, which puts those with most photos first."""
    return tuple(dict.fromkeys(targets.identities))[:count]
