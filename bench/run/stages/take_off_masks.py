"""What is left of masked photos when a mask is taken off: the mask itself is the key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import PersonMask
from bench.faces.pixels import decode_pixels, encode_pixels
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.apply_masks import of_each_identity
from bench.run.stages.learn_mask import LearnMask, read_mask


@dataclass(frozen=True, eq=False)
class TakeOffMasks(Node):
    """A shard of masked photos after `PersonMask.take_off`.

    Attributes:
        attack: an erasable one.
        cloaks: a shard of masked photos, as posted.
        masks: identity id → the mask that is tried on its photos; without any, photos stay as they were posted.
    """

    stage: ClassVar[str] = "erase"
    attack: BoundMethod[PersonMask]
    cloaks: Node
    masks: Mapping[str, LearnMask]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.cloaks, *self.masks.values(), *self.attack.learnt)

    def key_fields(self) -> Mapping[str, Any]:
        return {"attack": self.attack.key_fields(), "tried on": list(self.masks)}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored."""
        cloaks = decode_pixels(payloads[self.cloaks.address])
        advance(len(cloaks.ids))
        if not self.masks:
            return encode_pixels(cloaks)
        ctx, attack = self.attack.context(machine, payloads), self.attack.method
        tried = {name: read_mask(payloads[each.address], machine.device) for name, each in self.masks.items()}
        return encode_pixels(
            of_each_identity(
                cloaks, tried, lambda faces, mask: calls.take_off(attack, faces, mask, ctx), machine.device
            )
        )
