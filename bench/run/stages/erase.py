"""What an attack's own inverse makes of its cloaks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from bench.contracts import Attack, Context
from bench.faces.pixels import Pixels, decode_pixels, encode_pixels, to_bytes_range
from bench.run import calls
from bench.run.bound import BoundMethod, secret
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.scopes import scopes

KEY_OF = {"right": "key", "wrong": "another key", "none": ""}
"""View.key → the stream its secret is drawn from; none: the empty key."""


@dataclass(frozen=True, eq=False)
class Erase(Node):
    """A shard of cloaks after the attack's `erase`.

    Attributes:
        attack: an erasable attack.
        cloaks: a shard of its cloaks.
        tried: which key it is given (see `View.key`).
    """

    stage: ClassVar[str] = "erase"
    attack: BoundMethod[Attack]
    cloaks: Node
    tried: str

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.cloaks, *self.attack.learnt)

    @property
    def core_seconds(self) -> float:
        return self.work * self.attack.core_seconds

    def key_fields(self) -> Mapping[str, Any]:
        return {"attack": self.attack.key_fields(), "key": self.tried}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored."""
        stream = KEY_OF[self.tried]
        key = secret(self.attack.seed, stream) if stream else b""
        cloaks = decode_pixels(payloads[self.cloaks.address])
        ctx = self.attack.context(machine, payloads, key=b"")
        erased = erase(self.attack.method, cloaks, key, ctx, machine.batch_size)
        advance(len(erased.ids))
        return encode_pixels(erased)


def erase(attack: Attack, cloaks: Pixels, key: bytes, ctx: Context, batch_size: int) -> Pixels:
    """Return cloaked images with their cloaks taken off, rounded to 8 bits.

    Args:
        attack: an erasable attack.
        cloaks: as posted.
        key: what is tried as the secret.
        ctx: without the secret.
        batch_size: see `scopes`.
    """
    images = torch.empty_like(cloaks.images)
    for rows in scopes(attack.scope, cloaks, batch_size):
        erased = calls.erase(attack, cloaks.faces(ctx.device).subset(rows), key, ctx)
        images[rows] = to_bytes_range(erased)
    return replace(cloaks, images=images)
