"""What is kept of a shard of photos to find the same picture again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.faces.pixels import decode_pixels
from bench.quality import near_duplicates
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class PhotoFingerprints(Node):
    """Hashes and small grey pictures of the crops of a shard, a twelfth of their size.

    Attributes:
        photos: the shard.
    """

    stage: ClassVar[str] = "diagnose"
    image_bytes: ClassVar[int] = 4 * near_duplicates.PICTURE_SIDE**2 + 8
    photos: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.photos,)

    @property
    def core_seconds(self) -> float:
        return 0.0005 * self.work

    def key_fields(self) -> Mapping[str, Any]:
        return {}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `bench.quality.near_duplicates.Fingerprints` as stored."""
        del machine
        pixels = decode_pixels(payloads[self.photos.address])
        found = near_duplicates.fingerprints(pixels.ids, pixels.images)
        advance(len(pixels.ids))
        return near_duplicates.to_bytes(found)
