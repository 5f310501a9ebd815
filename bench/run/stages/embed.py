"""The embeddings of a shard of images by the tracker's backbone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bench.contracts import Backbone, Embedded, Purifier
from bench.faces.pixels import Pixels, decode_pixels
from bench.run import calls
from bench.run.bound import BoundMethod, Tracker
from bench.run.device import Machine, to_device
from bench.run.embeddings import encode_embedded
from bench.run.graph import Advance, Node, Payloads
from bench.run.precision import Precision, multiplying_in
from bench.run.stages.purify import purifier_context, purifier_fields, purify

EMBED_BATCH = 32
"""Images per forward pass when embedding, always padded to this many (see `contracts.MICRO_BATCH`)."""


@dataclass(frozen=True, eq=False)
class Embed(Node):
    """Embeddings of images, after purifiers whose images nobody else needs.

    Attributes:
        tracker: the backbone, hardened where the defence does that.
        pictures: a shard of photos, cloaks or purified images.
        channel: purifiers that the images go through first; what they make is not stored, as a grid of channels would
            fill a disk with it.
        precision: what the backbone multiplies in.
    """

    stage: ClassVar[str] = "embed"
    tracker: Tracker
    pictures: Node
    channel: tuple[BoundMethod[Purifier], ...] = ()
    precision: Precision = "float32"

    @property
    def inputs(self) -> tuple[Node, ...]:
        learnt = (node for purifier in self.channel for node in purifier.learnt)
        return (self.pictures, *self.tracker.learnt, *learnt)

    @property
    def size(self) -> int:
        return self.images * self.tracker.backbone.plugin.method.card.embedding_dim * 4

    @property
    def core_seconds(self) -> float:
        return self.work * (
            self.tracker.backbone.core_seconds + sum(purifier.core_seconds for purifier in self.channel)
        )

    def key_fields(self) -> Mapping[str, Any]:
        channel = [purifier_fields(purifier) for purifier in self.channel]
        fields = {"tracker": self.tracker.key_fields(), "channel": channel}
        return fields if self.precision == "float32" else fields | {"precision": self.precision}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Embedded` as stored."""
        pixels = decode_pixels(payloads[self.pictures.address])
        for purifier in self.channel:
            ctx = purifier_context(purifier, machine, payloads)
            pixels = purify(purifier.method, pixels, ctx, machine.batch_size)
        backbone = self.tracker.on(machine, payloads)
        return encode_embedded(embed(backbone, pixels, machine.device, advance, self.precision))


def embed(
    backbone: Backbone,
    pixels: Pixels,
    device: torch.device,
    advance: Callable[[int], None],
    precision: Precision = "float32",
) -> Embedded:
    """Return embeddings computed in batches of one fixed shape.

    Raises:
        MethodError: an embedding has the wrong shape or is not finite.
    """
    done = [torch.zeros((0, backbone.card.embedding_dim), device=device)]
    images = to_device(pixels.images, device)
    for start in range(0, len(pixels.ids), EMBED_BATCH):
        batch = images[start : start + EMBED_BATCH]
        count = len(batch)
        padded = torch.cat([batch, batch[-1:].expand(EMBED_BATCH - count, -1, -1, -1)])
        with multiplying_in(precision, device):
            vectors = calls.embed(backbone, padded.float() / 255, in_torch=precision != "float32")
        done.append(vectors[:count].to(device, torch.float32))
        advance(count)
    return Embedded(torch.cat(done).cpu().numpy(), pixels.ids, pixels.identities)
