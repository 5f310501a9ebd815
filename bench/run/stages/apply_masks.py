"""A shard of photos under the masks of their identities, as they are posted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.contracts import Faces, PersonMask
from bench.faces.pixels import Pixels, decode_pixels, encode_pixels, to_bytes_range
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.learn_mask import LearnMask, read_mask
from bench.run.stages.scopes import scopes

Masks = Mapping[str, Mapping[str, Tensor]]
"""Identity id → its mask."""


@dataclass(frozen=True, eq=False)
class ApplyMasks(Node):
    """The photos of a shard under masks that were learnt before; photos that no mask has seen are as good.

    Attributes:
        attack: one that learns masks.
        photos: a shard of natural photos.
        chosen: image ids of those that are masked.
        masks: of the identities that `chosen` shows.
    """

    stage: ClassVar[str] = "cloak"
    attack: BoundMethod[PersonMask]
    photos: Node
    chosen: tuple[str, ...]
    masks: tuple[LearnMask, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.photos, *self.masks, *self.attack.learnt)

    @property
    def images(self) -> int:
        return len(self.chosen)

    def key_fields(self) -> Mapping[str, Any]:
        return {"attack": self.attack.key_fields(), "chosen": self.chosen}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored: the masked images only."""
        ctx = self.attack.context(machine, payloads)
        photos = decode_pixels(payloads[self.photos.address]).only(frozenset(self.chosen))
        attack = self.attack.method
        masked = of_each_identity(
            photos,
            {each.identity: read_mask(payloads[each.address], machine.device) for each in self.masks},
            lambda faces, mask: calls.apply(attack, faces, mask, ctx),
            machine.device,
        )
        advance(len(masked.ids))
        return encode_pixels(masked)


def of_each_identity(
    photos: Pixels,
    masks: Masks,
    change: Callable[[Faces, Mapping[str, Tensor]], Tensor],
    device: torch.device,
) -> Pixels:
    """Return photos with each identity's changed by its mask, rounded to 8 bits.

    Args:
        photos: of identities that have masks.
        masks: likewise.
        change: takes photos of one identity and its mask.
        device: where to compute.
    """
    images = torch.empty_like(photos.images)
    for rows in scopes("identity", photos, 1):
        own = photos.faces(device).subset(rows)
        images[rows] = to_bytes_range(change(own, masks[own.identities[0]]))
    return replace(photos, images=images)
