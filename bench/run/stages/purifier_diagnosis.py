"""What a purifier did to each image of a shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.faces.pixels import decode_pixels
from bench.quality import diagnosis
from bench.run.graph import Advance, Node, Payloads

if TYPE_CHECKING:
    from bench.run.device import Machine


@dataclass(frozen=True, eq=False)
class PurifierDiagnosis(Node):
    """How much a purifier changed each image, and how different what it returned still is.

    Attributes:
        given: a shard of photos or cloaks.
        returned: what the purifier made of them.
    """

    stage: ClassVar[str] = "diagnose"
    given: Node
    returned: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        """What was given, then what was returned."""
        return (self.given, self.returned)

    @property
    def images(self) -> int:
        """The number of images."""
        return self.returned.images

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return 32 * self.images

    def key_fields(self) -> Mapping[str, Any]:
        """Return nothing: the images decide."""
        return {}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return a `bench.quality.diagnosis.PurifiedShard` as JSON."""
        del machine
        shard = diagnosis.probe_purifier(*(decode_pixels(payloads[node.address]) for node in self.inputs))
        advance(len(shard.changes))
        return diagnosis.to_bytes(shard)
