"""Protego in the plane of aligned crops: one mask an identity under which its photos no longer match each other.

Wang et al., "Protego" (CVPR 2026), without its 3D texture: the mask lies on the aligned crop. With ĥ the unit
embedding, G the Gram matrix of a batch's protected embeddings and SSIM against the clean photos:

    minimise  −log(det(G + 1e-4·I) + 1e-4)  +  mean ⟨ĥ(x + η), ĥ(x)⟩  +  λ · max(.95 − SSIM, 0),   ‖η‖∞ ≤ ε

A tracker that has seen some protected photos of somebody must not know the next one by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks._person_mask import PenalisedMask, PenalisedParams
from attacks._surrogates import unit_embeddings
from bench.contracts import Backbone
from bench.quality.metrics import ssim

_JITTER = 1e-4
"""What is added to the diagonal of G and to its determinant."""

_MARGIN = 0.01
"""Share of the least SSIM around it within which λ stays."""


def spread_loss(embeddings: Tensor) -> Tensor:
    """Return −log(det(G + 1e-4·I) + 1e-4) of N×D unit embeddings: small where they do not match each other."""
    # In float64: the determinant of much alike embeddings is below what float32 can tell from nothing.
    rows = embeddings.double()
    gram = rows @ rows.T + _JITTER * torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    return -torch.log(torch.linalg.det(gram) + _JITTER).to(embeddings.dtype)


class Protego2D(PenalisedMask):
    """Drives the protected embeddings of an identity apart, and away from the clean ones, by one mask."""

    name: ClassVar[str] = "protego2d"
    paper: ClassVar[str] = "Wang et al., CVPR 2026, in the plane"

    class Params(PenalisedParams):
        """Parameters of Protego in the plane."""

        eps: float = Field(
            16, gt=0, le=255, description="L∞ bound", json_schema_extra={"unit": "grey levels"}
        )
        step: float = Field(
            0.01, gt=0, le=2, description="length of a signed step", json_schema_extra={"unit": "of eps"}
        )
        epochs: int = Field(
            100, ge=1, le=10_000, description="passes over the photos", json_schema_extra={"unit": "epochs"}
        )
        batch: int = Field(
            16, ge=1, le=1000, description="photos in a step", json_schema_extra={"unit": "photos"}
        )
        ssim: float = Field(0.95, gt=0, le=0.99, description="SSIM below which a mask is penalised")

    params: Params

    @property
    def eps(self) -> float:
        """As requested."""
        return self.params.eps

    @property
    def start(self) -> float:
        """The bound."""
        return self.params.eps

    @property
    def length(self) -> float:
        """As requested, of the bound."""
        return self.params.step * self.params.eps

    @property
    def margin(self) -> float:
        """A hundredth of the least SSIM."""
        return _MARGIN * self.params.ssim

    def excess(self, seen: Tensor, photos: Tensor) -> Tensor:
        """Return the mean SSIM below what is allowed."""
        return self.params.ssim - ssim(seen, photos).mean()

    def matching(self, seen: Tensor, clean: Sequence[Tensor], backbones: Sequence[Backbone]) -> Tensor:
        """Return the mean over surrogates of how much protected photos match each other and the clean ones."""
        pairs = zip(unit_embeddings(backbones, seen), clean, strict=True)
        found = [spread_loss(embeddings) + (embeddings * own).sum(1).mean() for embeddings, own in pairs]
        return torch.stack(found).mean()
