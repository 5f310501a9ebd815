"""ArcFace: additive angular margin loss (Deng et al., CVPR 2019, Eq. 3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def margin_logits(cosine: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return the cosines with cos(θ + m) in the place of each image's own class.

    Where θ + m would pass π, cos(θ + m) rises again; there cos θ − m·sin m takes its place, as in the
    reference implementation, so that the logit always falls with θ.

    Args:
        cosine: N×C cosines between embeddings and class centres.
        labels: N class indices.
        margin: m in radians, in [0, π/2].
    """
    own = cosine.gather(1, labels[:, None]).squeeze(1)
    sine = torch.sqrt((1 - own * own).clamp_min(1e-9))
    moved = own * math.cos(margin) - sine * math.sin(margin)
    within = (own > -math.cos(margin)).to(own.dtype)
    target = within * moved + (1 - within) * (own - margin * math.sin(margin))
    return cosine.scatter(1, labels[:, None], target[:, None])


class ArcFaceLoss(nn.Module):
    """Mean cross-entropy of s·cosine with the margin m on each image's own class.

    Args:
        embedding_dim: D.
        classes: number of identities, C.
        scale: s.
        margin: m in radians.
        generator: draws the class centres' start.
    """

    def __init__(
        self, embedding_dim: int, classes: int, scale: float, margin: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.centres = nn.Parameter(0.01 * torch.randn(classes, embedding_dim, generator=generator))
        self.scale = scale
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of N×D embeddings and N labels."""
        cosine = F.normalize(embeddings) @ F.normalize(self.centres).T
        return F.cross_entropy(self.scale * margin_logits(cosine, labels, self.margin), labels)
