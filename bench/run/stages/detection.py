"""Which photos of a shard a detector takes for cloaked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Detector
from bench.faces.pixels import decode_pixels
from bench.quality import diagnosis
from bench.quality.detections import DetectedShard
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.purify import purifier_context, purifier_fields
from bench.run.stages.scopes import batches


@dataclass(frozen=True, eq=False)
class Detection(Node):
    """What a detector flags.

    Attributes:
        detector: the defence.
        images_given: a shard of photos or cloaks.
    """

    stage: ClassVar[str] = "diagnose"
    image_bytes: ClassVar[int] = 64
    detector: BoundMethod[Detector]
    images_given: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.images_given, *self.detector.learnt)

    @property
    def core_seconds(self) -> float:
        return self.work * self.detector.core_seconds

    def key_fields(self) -> Mapping[str, Any]:
        return {"detector": purifier_fields(self.detector)}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return a `bench.quality.detections.DetectedShard` as JSON."""
        ctx = purifier_context(self.detector, machine, payloads, advance)
        pixels = decode_pixels(payloads[self.images_given.address])
        flags: list[bool] = []
        for rows in batches(len(pixels.ids), machine.batch_size):
            faces = pixels.faces(ctx.device).subset(rows)
            flags += calls.flagged(self.detector.method, faces, ctx).tolist()
        found = DetectedShard(images=pixels.ids, identities=pixels.identities, flagged=tuple(flags))
        return diagnosis.to_bytes(found)
