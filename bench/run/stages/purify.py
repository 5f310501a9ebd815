"""What a purifier makes of a shard of images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from bench.contracts import Context, Purifier
from bench.faces.pixels import Pixels, decode_pixels, encode_pixels, to_bytes_range
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.scopes import batches


@dataclass(frozen=True, eq=False)
class Purify(Node):
    """Images as a purifier gives them back.

    Attributes:
        purifier: the defence.
        images_given: a shard of photos or cloaks.
    """

    stage: ClassVar[str] = "purify"
    purifier: BoundMethod[Purifier]
    images_given: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.images_given, *self.purifier.learnt)

    @property
    def core_seconds(self) -> float:
        return self.work * self.purifier.core_seconds

    def key_fields(self) -> Mapping[str, Any]:
        return {"purifier": purifier_fields(self.purifier)}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored."""
        ctx = purifier_context(self.purifier, machine, payloads, advance)
        pixels = decode_pixels(payloads[self.images_given.address])
        return encode_pixels(purify(self.purifier.method, pixels, ctx, machine.batch_size))


def purifier_fields(purifier: BoundMethod[Purifier]) -> Mapping[str, Any]:
    """Return the key fields of a purifier: its seed is among them where it draws random numbers."""
    return purifier.key_fields(draws=not purifier.method.deterministic)


def purifier_context(
    purifier: BoundMethod[Purifier],
    machine: Machine,
    payloads: Payloads,
    advance: Advance = lambda _images: None,
) -> Context:
    """Return the context of a purifier: what its key fields lack does not reach it."""
    return purifier.context(machine, payloads, advance, draws=not purifier.method.deterministic)


def purify(defense: Purifier, pixels: Pixels, ctx: Context, batch_size: int) -> Pixels:
    """Return every image as the defence gives it back, rounded to 8 bits.

    Raises:
        MethodError: the defence broke its contract.
    """
    done = [pixels.images[:0]]
    for rows in batches(len(pixels.ids), batch_size):
        images = calls.purify(defense, pixels.faces(ctx.device).subset(rows), ctx)
        done.append(to_bytes_range(images))
    return replace(pixels, images=torch.cat(done))
