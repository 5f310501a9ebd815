"""Which probes show the same picture as a gallery photo: the same photo, saved again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.quality import near_duplicates
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.photo_fingerprints import PhotoFingerprints


@dataclass(frozen=True, eq=False)
class PhotoDiagnosis(Node):
    """The probes of a run that are near-duplicates of its gallery photos, found on the crops the tracker sees.

    Attributes:
        gallery: fingerprints of gallery photos, shard by shard.
        probes: of probes.
    """

    stage: ClassVar[str] = "diagnose"
    image_bytes: ClassVar[int] = 1
    streams: ClassVar[bool] = True
    gallery: tuple[PhotoFingerprints, ...]
    probes: tuple[PhotoFingerprints, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (*self.gallery, *self.probes)

    @property
    def images(self) -> int:
        return sum(node.images for node in self.inputs)

    @property
    def work(self) -> int:
        return 0

    @property
    def core_seconds(self) -> float:
        gallery, probes = (sum(node.images for node in nodes) for nodes in (self.gallery, self.probes))
        return 1e-8 * gallery * probes

    def key_fields(self) -> Mapping[str, Any]:
        return {"gallery": len(self.gallery)}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return a `bench.quality.near_duplicates.SamePhotos` as JSON."""
        del machine, advance

        def read(nodes: tuple[PhotoFingerprints, ...]) -> Iterator[near_duplicates.Fingerprints]:
            return (near_duplicates.from_bytes(payloads[node.address]) for node in nodes)

        return near_duplicates.same_photos(read(self.probes), lambda: read(self.gallery)).to_bytes()
