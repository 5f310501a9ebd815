"""The cloaks of a shard where the protocol says whom each identity imitates: those of one target at a time, as one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.faces.pixels import decode_pixels, encode_pixels, join_pixels
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.cloak import Cloak
from bench.run.stages.joined import JoinedCloaks


@dataclass(frozen=True, eq=False)
class AimedCloaks(Node):
    """Cloaks that imitate several identities, each part of them one.

    Attributes:
        chosen: image ids of the photos that the attack is given.
        parts: the same, those that imitate one identity at a time; one or more.
    """

    stage: ClassVar[str] = "cloak"
    chosen: tuple[str, ...]
    parts: tuple[Cloak | JoinedCloaks, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.parts

    @property
    def images(self) -> int:
        return len(self.chosen)

    @property
    def work(self) -> int:
        return 0

    def key_fields(self) -> Mapping[str, Any]:
        return {"chosen": self.chosen}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored: the changed images only."""
        del machine, advance
        return encode_pixels(join_pixels([decode_pixels(payloads[part.address]) for part in self.parts]))
