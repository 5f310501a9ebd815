"""The embeddings of a shard of images by a tracker of several backbones, fused from those of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bench.contracts import Embedded, Substitution
from bench.run import calls
from bench.run.bound import BoundMethod
from bench.run.device import Machine
from bench.run.embeddings import decode_embedded, encode_embedded
from bench.run.graph import Advance, Node, Payloads
from bench.run.stages.embed import Embed


@dataclass(frozen=True, eq=False)
class Fuse(Node):
    """Embeddings of images, one for each, made of those by several backbones.

    Attributes:
        method: says how they are fused.
        members: the same images by each backbone alone: the artefacts of an undefended tracker of that backbone.
    """

    stage: ClassVar[str] = "embed"
    method: BoundMethod[Substitution]
    members: tuple[Embed, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.members

    @property
    def work(self) -> int:
        return 0  # the members have embedded them

    @property
    def size(self) -> int:
        return sum(member.size for member in self.members)

    def key_fields(self) -> Mapping[str, Any]:
        return {"fused_by": self.method.key_fields(draws=False)}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Embedded` as stored."""
        del machine, advance
        each = [decode_embedded(payloads[member.address]) for member in self.members]
        vectors = calls.fuse(self.method.method, [torch.from_numpy(one.vectors) for one in each])
        return encode_embedded(Embedded(vectors.numpy(), each[0].ids, each[0].identities))
