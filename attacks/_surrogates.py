"""What attacks ask of their surrogates: the parameter that names them and their unit embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bench.contracts import Backbone, Context, MethodParams
from bench.errors import UsageError


class SurrogateParams(MethodParams):
    """Parameters of attacks that use surrogates."""

    surrogates: str = Field(
        "auto",
        min_length=1,
        description="surrogate backbones joined by '|', or 'auto' for the dataset's pool without the "
        "tracker's group",
    )


def require_surrogates(attack: str, ctx: Context) -> Sequence[Backbone]:
    """Return the surrogates of `ctx`.

    Raises:
        UsageError: there are none, or one has no gradient.
    """
    if not ctx.backbones:
        raise UsageError(
            f"attack '{attack}' got no surrogates. Name some, e.g. '{attack}:surrogates=mobileface-v2', or "
            "use 'auto' with a dataset whose pool holds backbones besides the tracker's."
        )
    for backbone in ctx.backbones:
        if not backbone.differentiable:
            raise UsageError(
                f"surrogate '{backbone.card.name}' has no gradient, attack '{attack}' needs one"
                f"{backbone.black_box and f' ({backbone.black_box})'}. Choose differentiable surrogates."
            )
    return ctx.backbones


def unit_embeddings(backbones: Sequence[Backbone], images: Tensor) -> tuple[Tensor, ...]:
    """Return the unit-length embeddings of N×3×H×W `images` under each backbone: N×D_k, differentiable."""
    return tuple(F.normalize(backbone.embed(images), dim=1) for backbone in backbones)


def clean_embeddings(backbones: Sequence[Backbone], images: Tensor) -> dict[str, Tensor]:
    """Return `unit_embeddings` without gradient under the names ``clean0``, ``clean1`` … of a state."""
    with torch.no_grad():
        return {f"clean{k}": e for k, e in enumerate(unit_embeddings(backbones, images))}
