"""A tracker that compares faces by several backbones at once: the mean of their cosines.

With e_k(x) the embedding of photo x by backbone k of K, brought to unit length, photos x and y are compared by

    s(x, y) = 1/K · Σ_k ⟨e_k(x), e_k(y)⟩ = ⟨f(x), f(y)⟩,    f(x) = (e_1(x), …, e_K(x)) / √K

so that whatever head works on embeddings works on f: the sum rule of Kittler et al. (TPAMI 1998) with equal weights, on
the cosines. A cloak must move a photo in every backbone. What is known and what is ours:
docs/methods/fusion.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.contracts import Backbone, Method, MethodParams, Substitution
from bench.errors import UsageError
from bench.plugins import factory


def fused(embeddings: Sequence[Tensor]) -> Tensor:
    """Return unit embeddings whose cosine is the mean of the cosines by each backbone.

    Args:
        embeddings: K tensors N×D_k, of any length; the row of one photo in each.

    Returns:
        N×ΣD_k.
    """
    return torch.cat([F.normalize(each) for each in embeddings], dim=1) / math.sqrt(len(embeddings))


class Fusion(Substitution):
    """Compares by the mean cosine over several backbones, the tracker's own among them unless `own` says no."""

    name: ClassVar[str] = "fusion"
    paper: ClassVar[str] = "after Kittler et al., On Combining Classifiers, TPAMI 1998"
    required: ClassVar[tuple[str, ...]] = ("backbones",)

    class Params(MethodParams):
        """Parameters of `Fusion`."""

        backbones: tuple[str, ...] = Field(
            (),
            description="backbones that take part besides the tracker's own, joined by ' & '",
            json_schema_extra={"method": "backbones"},
        )
        own: bool = Field(True, description="whether the tracker's own backbone takes part")

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self._others = tuple(factory.backbone(text) for text in self.params.backbones)
        names = Counter(map(factory.canonical, self._others))
        for name, count in names.items():
            if count > 1:
                raise UsageError(
                    f"fusion:backbones=[{' & '.join(self.params.backbones)}] has '{name}' {count} times; leave the "
                    "others out."
                )

    def parts(self) -> tuple[Method, ...]:
        """Return the backbones named, in order."""
        return self._others

    def embeds_with(self, tracker: Backbone) -> tuple[Backbone, ...]:
        """Return the tracker's own, if it takes part, and those named; one that is both counts once."""
        if not self.params.own:
            return self._others
        name = factory.canonical(tracker)
        return (tracker, *(each for each in self._others if factory.canonical(each) != name))

    def refuse(self, tracker: Backbone) -> str:
        """Refuse fewer than two backbones."""
        members = self.embeds_with(tracker)
        if len(members) > 1:
            return ""
        names = f"{factory.canonical(members[0])} alone" if members else "no backbone"
        return (
            f"it would compare by {names}. Name those that take part, e.g. "
            "fusion:backbones=[mobilefacenet-relu6 & edgeface-xxs]; `bench models list` has them."
        )

    def fuse(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Return the unit embeddings side by side, by √K."""
        return fused(embeddings)
