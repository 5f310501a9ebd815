"""Aligned crops of a shard of photos."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Dataset
from bench.faces.pixels import Pixels, encode_pixels
from bench.plugins import factory
from bench.run import calls
from bench.run.bound import Plugin
from bench.run.code_hashes import code_digest
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class Crops(Node):
    """The crops of some photos.

    Attributes:
        dataset: where they come from.
        fingerprint: of the dataset.
        ids: image ids.
        identities: identity id of each.
    """

    stage: ClassVar[str] = "faces"
    dataset: Plugin[Dataset]
    fingerprint: str
    ids: tuple[str, ...]
    identities: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    @property
    def images(self) -> int:
        return len(self.ids)

    @property
    def core_seconds(self) -> float:
        return self.work * self.dataset.method.core_seconds

    def key_fields(self) -> Mapping[str, Any]:
        return {
            "dataset": self.dataset.name,
            "class": type(self.dataset.method).__qualname__,
            "dataset_code": code_digest(type(self.dataset.method), *factory.modules_of(self.dataset.method)),
            "fingerprint": self.fingerprint,
            "ids": self.ids,
            "identities": self.identities,
        }

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored."""
        del payloads, machine
        images = calls.crops(self.dataset.method, self.ids)
        advance(len(self.ids))
        return encode_pixels(Pixels(images, self.ids, self.identities))
