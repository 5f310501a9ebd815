"""What a purifier did to each image of a shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.faces.pixels import decode_pixels
from bench.quality import diagnosis
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class PurifierDiagnosis(Node):
    """How much a purifier changed each image, and how different what it returned still is.

    Attributes:
        given: a shard of photos or cloaks.
        returned: what the purifier made of them.
    """

    stage: ClassVar[str] = "diagnose"
    image_bytes: ClassVar[int] = 32
    given: Node
    returned: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.given, self.returned)

    def key_fields(self) -> Mapping[str, Any]:
        return {}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return a `bench.quality.diagnosis.PurifiedShard` as JSON."""
        del machine
        shard = diagnosis.probe_purifier(*(decode_pixels(payloads[node.address]) for node in self.inputs))
        advance(len(shard.changes))
        return diagnosis.to_bytes(shard)
