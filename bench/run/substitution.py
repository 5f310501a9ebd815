"""A tracker that embeds with several backbones: what a `bench.contracts.Substitution` makes of one.

Stored embeddings are fused by `bench.run.stages.fuse.Fuse`; what is here is for those who need the backbone itself:
heads that train it, and attacks that know the defence.

A module of its own, so that no key of a tracker with one backbone holds its code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.contracts import Backbone, BackboneCard, Substitution
from bench.run import calls
from bench.run.bound import BoundBackbone, BoundMethod, Tracker
from bench.run.code_hashes import code_digest
from bench.run.device import Machine
from bench.run.graph import Payloads

Fuse = Callable[[Sequence[Tensor]], Tensor]


class FusedBackbone(Backbone):
    """Several backbones that answer as one.

    Args:
        method: fuses their embeddings.
        members: loaded, in the order in which the method named them; two or more.
    """

    def __init__(self, method: Substitution, members: Sequence[Backbone]) -> None:
        super().__init__()
        self._method = method
        self._members = tuple(members)
        self.differentiable = all(member.differentiable for member in members)
        self.black_box = next((member.black_box for member in members if member.black_box), "")
        self.card = self._card()

    def _card(self) -> BackboneCard:
        cards = [member.card for member in self._members]
        # Thresholds and accuracy of a card are of its own weights: none holds for all of them together.
        return BackboneCard(
            name=" & ".join(card.name for card in cards),
            licence="; ".join(dict.fromkeys(card.licence for card in cards)),
            training_data="; ".join(dict.fromkeys(card.training_data for card in cards)),
            domain=cards[0].domain,
            embedding_dim=self._fuse([torch.ones(1, card.embedding_dim) for card in cards]).shape[1],
        )

    def _fuse(self, embeddings: Sequence[Tensor]) -> Tensor:
        return calls.fuse(self._method, embeddings)

    @property
    def core_seconds(self) -> float:
        """Those of the members together."""
        return sum(member.core_seconds for member in self._members)

    def load(self, device: torch.device) -> None:
        """Load each member."""
        for member in self._members:
            member.load(device)

    def embed(self, images: Tensor) -> Tensor:
        """Return N×D embeddings, fused; differentiable where every member is."""
        return self._fuse([member.embed(images) for member in self._members])

    def embed_batch(self, images: Tensor) -> Tensor:
        """Return the same without gradient, each member by its fastest path."""
        with torch.inference_mode():
            return self._fuse([member.embed_batch(images) for member in self._members])

    def trainable(self, device: torch.device) -> nn.Module:
        """Return a network that trains every member together; see `Backbone.trainable`."""
        return _FusedNetwork([member.trainable(device) for member in self._members], self._fuse)


class _FusedNetwork(nn.Module):
    """The networks of several backbones under the fusion of their embeddings."""

    def __init__(self, networks: Sequence[nn.Module], fuse: Fuse) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._fuse = fuse

    def forward(self, images: Tensor) -> Tensor:
        """Return N×D embeddings of N×3×112×112 images in [0, 1]."""
        return self._fuse([network(images) for network in self.networks])


@dataclass(frozen=True)
class FusedTracker(Tracker):
    """A tracker that embeds with several backbones.

    Attributes:
        others: backbones besides the first, in the order in which the method named them.
    """

    others: tuple[BoundBackbone, ...] = ()

    @property
    def substitution(self) -> BoundMethod[Substitution]:
        """What named the backbones."""
        assert self.hardening is not None, "a substitution named the backbones"
        assert isinstance(self.hardening.method, Substitution), "no other hardening fuses backbones"
        return cast("BoundMethod[Substitution]", self.hardening)

    @property
    def each(self) -> tuple[Tracker, ...]:
        """A tracker of each backbone alone, as it is without a defence."""
        return tuple(Tracker(backbone) for backbone in (self.backbone, *self.others))

    @property
    def label(self) -> str:
        """The names of its backbones, as an identity reads them."""
        return " & ".join(one.label for one in self.each)

    def key_fields(self) -> Mapping[str, Any]:
        """Return what decides its embeddings; no seed is among it."""
        return {
            "backbones": [one.backbone.key_fields for one in self.each],
            "substitution": self.substitution.key_fields(draws=False),
            "fused": code_digest(FusedBackbone),
        }

    def on(self, machine: Machine, payloads: Payloads) -> Backbone:
        """Return its backbones as one, loaded."""
        return FusedBackbone(self.substitution.method, [one.on(machine, payloads) for one in self.each])
