"""The mask of an identity, learnt from its gallery photos."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import safetensors.torch
import torch
from torch import Tensor

from bench.contracts import PersonMask
from bench.faces.pixels import decode_pixels
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class LearnMask(Node):
    """What an attack learns of one identity.

    Attributes:
        attack: one that learns masks.
        photos: a shard of natural photos.
        identity: whose mask.
        chosen: image ids of the photos that it is learnt from.
        targets: faces it may imitate; None where it imitates nobody.
    """

    stage: ClassVar[str] = "mask"
    attack: BoundMethod[PersonMask]
    photos: Node
    identity: str
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
    def size(self) -> int:
        return 4 * self.image_bytes  # one float32 mask of a photo's size, as a rule

    @property
    def core_seconds(self) -> float:
        return self.work * self.attack.core_seconds

    def key_fields(self) -> Mapping[str, Any]:
        return {"attack": self.attack.key_fields(), "chosen": self.chosen}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return the mask's tensors as safetensors."""
        targets = None
        if self.targets is not None:
            targets = decode_pixels(payloads[self.targets.address]).faces(machine.device)
        ctx = self.attack.context(machine, payloads, advance, targets=targets)
        photos = decode_pixels(payloads[self.photos.address]).only(frozenset(self.chosen))
        mask = calls.learn(self.attack.method, photos.faces(machine.device), ctx)
        return safetensors.torch.save({name: value.cpu().contiguous() for name, value in mask.items()})


def read_mask(payload: bytes, device: torch.device) -> dict[str, Tensor]:
    """Return the tensors of a mask, on a device."""
    return {name: value.to(device) for name, value in safetensors.torch.load(payload).items()}
