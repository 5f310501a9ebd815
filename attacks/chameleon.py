"""Chameleon: one mask an identity by its largest angle to the clean photos, held back by DSSIM; the mask is the key.

Chow et al., "Personalized Privacy Protection Mask Against Unauthorized Facial Recognition" (ECCV 2024, arXiv
2407.13975). With ĥ the unit embedding, over batches of an identity's photos x:

    minimise  − Σ over surrogates of  mean arccos⟨ĥ(x + η), ĥ(x)⟩  +  λ · max(DSSIM(x + η, x) − .03, 0),   ‖η‖∞ ≤ ε

λ follows the budget. Whoever has the mask can subtract it; what differs from the paper is in docs/methods/chameleon.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks._person_mask import PenalisedMask, PenalisedParams
from attacks._surrogates import unit_embeddings
from bench.contracts import Backbone, Context, Faces
from bench.quality.metrics import GREY_LEVELS, dssim

START = 1.0
"""Grey levels of the random start: at the clean photo itself the angle has no gradient."""

_MARGIN = 0.1
"""Share of the budget around it within which λ stays."""

_LARGEST_COSINE = 1 - 1e-6
"""Where arccos is cut off: its slope is infinite at 1."""


class Chameleon(PenalisedMask):
    """Turns the embeddings of all photos of an identity away by one mask, which takes itself off again."""

    name: ClassVar[str] = "chameleon"
    paper: ClassVar[str] = "Chow et al., ECCV 2024 (arXiv 2407.13975)"
    erasable: ClassVar[bool] = True

    class Params(PenalisedParams):
        """Parameters of Chameleon."""

        eps: float = Field(
            16, gt=0, le=255, description="L∞ bound", json_schema_extra={"unit": "grey levels"}
        )
        step: float = Field(
            0.255,
            gt=0,
            le=255,
            description="length of a signed step",
            json_schema_extra={"unit": "grey levels"},
        )
        budget: float = Field(0.03, gt=0, le=1, description="DSSIM above which a mask is penalised")

    params: Params

    @property
    def eps(self) -> float:
        """As requested."""
        return self.params.eps

    @property
    def start(self) -> float:
        """A grey level, or the bound where that is less."""
        return min(START, self.params.eps)

    @property
    def length(self) -> float:
        """As requested."""
        return self.params.step

    @property
    def margin(self) -> float:
        """A tenth of the budget."""
        return _MARGIN * self.params.budget

    def excess(self, seen: Tensor, photos: Tensor) -> Tensor:
        """Return the mean DSSIM above the budget."""
        return dssim(seen, photos).mean() - self.params.budget

    def matching(self, seen: Tensor, clean: Sequence[Tensor], backbones: Sequence[Backbone]) -> Tensor:
        """Return minus the sum over surrogates of the mean angle to the clean photos."""
        pairs = zip(unit_embeddings(backbones, seen), clean, strict=True)
        return -torch.stack([_angle(embeddings, own).mean() for embeddings, own in pairs]).sum()

    def take_off(self, faces: Faces, mask: Mapping[str, Tensor], ctx: Context) -> Tensor:
        """Return the photos less the mask: exact to rounding wherever no pixel was clipped."""
        del ctx
        # What was posted was rounded, so that half a grey level is open: the nearest whole level is taken.
        levels = (faces.images - mask["mask"].to(faces.images)) * GREY_LEVELS
        return levels.round().div(GREY_LEVELS).clamp(0, 1)


def _angle(embeddings: Tensor, clean: Tensor) -> Tensor:
    """Return the angle in radians between unit embeddings, row by row: N."""
    cosine = (embeddings * clean).sum(1)
    return cosine.clamp(-_LARGEST_COSINE, _LARGEST_COSINE).acos()
