"""What an attack or a defence learns on training identities."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import safetensors.torch

from bench.contracts import Attack, Defense, Hardening
from bench.faces.pixels import decode_pixels
from bench.run import calls
from bench.run.bound import BoundBackbone, BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class Fit(Node):
    """What a method learns: named tensors.

    Attributes:
        method: the attack or defence.
        faces: training identities.
        tracker: the backbone that a hardening trains; None for other methods.
    """

    stage: ClassVar[str] = "fit"
    resumes: ClassVar[bool] = True
    method: BoundMethod[Attack | Defense]
    faces: Node
    tracker: BoundBackbone | None = None

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.faces,)

    @property
    def size(self) -> int:
        return 1 << 20

    @property
    def core_seconds(self) -> float:
        method = self.method.method
        if isinstance(method, Hardening) and self.tracker:
            own = self.work * self.method.core_seconds  # what it makes of each photo first
            return own + method.training_passes(self.work) * self.tracker.core_seconds
        return 100 * self.work * method.core_seconds  # epochs, about

    def key_fields(self) -> Mapping[str, Any]:
        tracker = self.tracker.key_fields if self.tracker else None
        return {"method": self.method.key_fields(), "tracker": tracker}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return the tensors in safetensors' format."""
        method = self.method.method
        faces = decode_pixels(payloads[self.faces.address]).faces(machine.device)
        ctx = replace(self.method.context(machine, payloads, advance), checkpoint=machine.checkpoint)
        if isinstance(method, Hardening):
            assert self.tracker is not None, "a hardening trains a tracker"
            state = calls.train(method, self.tracker.fresh(machine), faces, ctx)
        else:
            state = calls.fit(method, faces, ctx)
        return safetensors.torch.save({name: value.contiguous().cpu() for name, value in state.items()})
