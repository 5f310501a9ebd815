"""Whom the cloaks of a targeted attack imitate."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Attack
from bench.faces.pixels import decode_pixels
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
        return (self.photos, self.targets, *self.attack.learnt)

    @property
    def images(self) -> int:
        return len(self.chosen)

    @property
    def core_seconds(self) -> float:
        return self.work * sum(each.core_seconds for each in self.attack.backbones.values())

    def key_fields(self) -> Mapping[str, Any]:
        return {"attack": self.attack.key_fields(), "chosen": self.chosen}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return a JSON object."""
        targets = decode_pixels(payloads[self.targets.address]).faces(machine.device)
        ctx = self.attack.context(machine, payloads, targets=targets)
        photos = decode_pixels(payloads[self.photos.address]).only(frozenset(self.chosen))
        found: dict[str, str] = {}
        for rows in scopes(self.attack.method.scope, photos, machine.batch_size):
            faces = photos.faces(machine.device).subset(rows)
            found |= calls.assign_targets(self.attack.method, faces, ctx)
        advance(len(found))
        return json.dumps({name: found[name] for name in photos.ids}).encode()
