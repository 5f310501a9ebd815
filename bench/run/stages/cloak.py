"""The cloaks of a shard of photos, as they are posted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.contracts import Attack, Context
from bench.faces.pixels import Pixels, decode_pixels, encode_pixels, to_bytes_range
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.scopes import scopes


@dataclass(frozen=True, eq=False)
class Cloak(Node):
    """The images an attack changed.

    Attributes:
        attack: the attack.
        photos: a shard of natural photos.
        chosen: image ids of those it is given.
        targets: faces it may imitate; None where it imitates nobody.
    """

    stage: ClassVar[str] = "cloak"
    attack: BoundMethod[Attack]
    photos: Node
    chosen: tuple[str, ...]
    targets: Node | None = None

    @property
    def inputs(self) -> tuple[Node, ...]:
        targets = () if self.targets is None else (self.targets,)
        return (self.photos, *targets, *self.attack.learnt)

    @property
    def images(self) -> int:
        return len(self.chosen)

    @property
    def core_seconds(self) -> float:
        return self.work * self.attack.core_seconds

    def key_fields(self) -> Mapping[str, Any]:
        return {"attack": self.attack.key_fields(), "chosen": self.chosen}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored: the changed images only."""
        targets = None
        if self.targets is not None:
            targets = decode_pixels(payloads[self.targets.address]).faces(machine.device)
        ctx = self.attack.context(machine, payloads, advance, targets=targets)
        photos = decode_pixels(payloads[self.photos.address]).only(frozenset(self.chosen))
        return encode_pixels(cloak(self.attack.method, photos, ctx, machine.batch_size))


def cloak(attack: Attack, pixels: Pixels, ctx: Context, batch_size: int) -> Pixels:
    """Return the images an attack changed, rounded to 8 bits.

    Args:
        attack: called through `bench.run.calls`, in the batches of `scopes`.
        pixels: photos of protected identities, whole scopes.
        ctx: with surrogates, targets and state.
        batch_size: see `scopes`.
    """
    edits: dict[str, Tensor] = {}
    for rows in scopes(attack.scope, pixels, batch_size):
        made = calls.cloak(attack, pixels.faces(ctx.device).subset(rows), ctx)
        edits.update({name: to_bytes_range(image) for name, image in made.items()})
    kept = pixels.only(frozenset(edits))
    images = torch.stack([edits[name] for name in kept.ids]) if kept.ids else kept.images
    return replace(kept, images=images)
