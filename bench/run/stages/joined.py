"""The cloaks of a shard that were made in parts, so that an interruption costs a part and not the shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from bench.faces.pixels import decode_pixels, encode_pixels, join_pixels
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.cloak import Cloak


@dataclass(frozen=True, eq=False)
class JoinedCloaks(Node):
    """The artefact `whole`, put together from its parts.

    Cloaks do not depend on what other photos they are made with, so the bytes are those of `whole.run`, and key and
    address are `whole`'s: how a shard was dealt into parts is nobody's business after it is there.

    Attributes:
        whole: all cloaks of the shard; never run itself.
        parts: the same, some at a time, in the order of `whole.chosen`.
    """

    stage: ClassVar[str] = "cloak"
    whole: Cloak
    parts: tuple[Cloak, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.parts

    @property
    def chosen(self) -> tuple[str, ...]:
        """Image ids of the photos that the attack is given."""
        return self.whole.chosen

    @property
    def images(self) -> int:
        return self.whole.images

    @property
    def work(self) -> int:
        return 0

    @cached_property
    def key(self) -> dict[str, Any]:
        return self.whole.key

    def key_fields(self) -> Mapping[str, Any]:
        return self.whole.key_fields()

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Pixels` as stored: the changed images only."""
        del machine, advance
        return encode_pixels(join_pixels([decode_pixels(payloads[part.address]) for part in self.parts]))
