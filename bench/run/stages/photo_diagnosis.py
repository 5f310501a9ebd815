"""Which probes show the same picture as a gallery photo: the same photo, saved again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.faces.pixels import decode_pixels
from bench.quality import near_duplicates
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class PhotoDiagnosis(Node):
    """The probes of a run that are near-duplicates of its gallery photos, found on the crops the tracker sees.

    Attributes:
        gallery: shards of gallery photos.
        probes: shards of probes.
    """

    stage: ClassVar[str] = "diagnose"
    image_bytes: ClassVar[int] = 1
    gallery: tuple[Node, ...]
    probes: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (*self.gallery, *self.probes)

    @property
    def images(self) -> int:
        return sum(node.images for node in self.inputs)

    @property
    def core_seconds(self) -> float:
        return 0.0005 * self.work

    def key_fields(self) -> Mapping[str, Any]:
        return {"gallery": len(self.gallery)}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return a `bench.quality.near_duplicates.SamePhotos` as JSON."""
        del machine

        def prints(nodes: Iterable[Node]) -> near_duplicates.Fingerprints:
            found = []
            for node in nodes:
                pixels = decode_pixels(payloads[node.address])
                found.append(near_duplicates.fingerprints(pixels.ids, pixels.images))
                advance(len(pixels.ids))
            return near_duplicates.joined(found)

        return near_duplicates.same_photos(prints(self.probes), prints(self.gallery)).to_bytes()
