"""Whom the cloaks of a targeted attack imitate."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Attack, Context
from bench.faces.pixels import Pixels, decode_pixels
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.scopes import scopes


@dataclass(frozen=True, eq=False)
class TargetAssignment(Node):
    """Image id → identity id that its cloak imitates.

    Attributes:
        attack: a targeted attack.
        photos: a shard of natural photos.
        chosen: image ids of those that are cloaked.
        targets: faces of the identities it may imitate.
    """

    stage: ClassVar[str] = "target_assignment"
    image_bytes: ClassVar[int] = 64
    attack: BoundMethod[Attack]
    photos: Node
    chosen: tuple[str, ...]
    targets: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The photos, the targets, and what the attack learnt."""
        return (self.photos, self.targets, *self.attack.learnt)

    @property
    def images(self) -> int:
        """The number of cloaked photos."""
        return len(self.chosen)

    def key_fields(self) -> Mapping[str, Any]:
        """Return the attack and the photos it is given."""
        return {"attack": self.attack.key_fields(), "chosen": self.chosen}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return a JSON object."""
        targets = decode_pixels(payloads[self.targets.address]).faces(machine.device)
        ctx = self.attack.context(machine, payloads, targets=targets)
        photos = decode_pixels(payloads[self.photos.address]).only(frozenset(self.chosen))
        found = assign_targets(self.attack.method, photos, ctx, machine.batch_size)
        advance(len(found))
        return json.dumps(found).encode()


def assign_targets(attack: Attack, pixels: Pixels, ctx: Context, batch_size: int) -> dict[str, str]:
    """Return image id → identity id whom the image's cloak imitates.

    Raises:
        MethodError: the attack names nobody for a photo, or someone outside its pool.
    """
    found: dict[str, str] = {}
    for rows in scopes(attack.scope, pixels, batch_size):
        found |= calls.assign_targets(attack, pixels.faces(ctx.device).subset(rows), ctx)
    return {name: found[name] for name in pixels.ids}
