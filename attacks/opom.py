"""OPOM: one mask an identity, away from the subspace that the identity's own photos span.

Zhong, Deng, "OPOM: Customized Invisible Cloak towards Face Privacy Protection" (IEEE TPAMI 2022, arXiv 2205.11981).
With ĥ the unit embedding and x_1 … x_n photos of one identity:

    maximise  mean over photos of  min over w in W of  ‖ĥ(x + η) − Σ_j w_j ĥ(x_j)‖²,   ‖η‖∞ ≤ ε

W says which points model the identity: the convex hull (w ≥ 0, Σw = 1), the affine hull (Σw = 1) or the centre (1/n);
FI-UAP is away from each photo's own embedding. No gradient goes through w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attacks._feature_dropout import dropped_embeddings
from attacks._person_mask import BoundedMask, MaskParams, masked, stepped, uniform_mask
from attacks._surrogates import unit_embeddings
from bench.contracts import Backbone, Context, Faces

UNIFORM_STEPS = 5
"""Steps in which w is 1/n: the hull's nearest point to an embedding that has hardly moved is the embedding itself."""

_SUM = 1e3
"""Weight of the row that holds Σw = 1 in the least-squares problem of the convex hull."""

_ALIKE = 1e-6
"""Share of the largest singular value below which photos of an affine hull add no direction: the same photo twice."""

Subspace = Literal["convex-hull", "affine", "center", "fi-uap"]


def nearest_points(embeddings: Tensor, clean: Tensor, subspace: Subspace) -> Tensor:
    """Return the point of an identity's subspace that is nearest to each embedding: N×D.

    Args:
        embeddings: N×D.
        clean: n×D, embeddings of the identity's photos; N of them for ``fi-uap``.
        subspace: which points model the identity.
    """
    if subspace == "fi-uap":
        return clean
    centre = clean.mean(0)
    if subspace == "center" or len(clean) == 1:
        return centre.expand_as(embeddings)
    if subspace == "affine":
        return clean[0] + _projected(embeddings - clean[0], clean[1:] - clean[0])
    return _hull_weights(embeddings, clean) @ clean


def _projected(vectors: Tensor, basis: Tensor) -> Tensor:
    """Return N×D vectors projected onto the span of the rows of `basis`, n×D."""
    rows = basis.double()
    projected: Tensor = vectors.double() @ torch.linalg.pinv(rows, rtol=_ALIKE) @ rows
    return projected.to(vectors)


def _hull_weights(embeddings: Tensor, clean: Tensor) -> Tensor:
    """Return N×n weights w ≥ 0 with Σw = 1 that minimise ‖e − Σ_j w_j c_j‖² for each embedding e."""
    import numpy as np
    from scipy.optimize import nnls

    points, wanted = (values.double().cpu().numpy() for values in (clean, embeddings))
    system = np.vstack([points.T, np.full((1, len(points)), _SUM)])
    found = [nnls(system, np.append(row, _SUM), maxiter=100 * len(points))[0] for row in wanted]
    weights = np.stack(found)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).to(clean)


class OPOM(BoundedMask):
    """Moves all photos of an identity away from its subspace by one mask."""

    name: ClassVar[str] = "opom"
    paper: ClassVar[str] = "Zhong, Deng, IEEE TPAMI 2022 (arXiv 2205.11981); Zhong, Deng, TIFS 2021 (dfanet)"

    class Params(MaskParams):
        """Parameters of OPOM."""

        subspace: Subspace = Field("convex-hull", description="which points model the identity")
        eps: float = Field(8, gt=0, le=255, description="L∞ bound", json_schema_extra={"unit": "grey levels"})
        step: float = Field(
            1, gt=0, le=255, description="length of a signed step", json_schema_extra={"unit": "grey levels"}
        )
        steps: int = Field(
            16, ge=1, le=10_000, description="ascent steps", json_schema_extra={"unit": "steps"}
        )
        momentum: float = Field(
            0,
            ge=0,
            le=10,
            description="decay of the accumulated gradient; 0 is off, with dfanet it is 1 in the paper",
        )
        dfanet: float = Field(
            0,
            ge=0,
            lt=1,
            description="share of every convolution's output that is dropped inside surrogates (DFANet); 0 is off",
        )

    params: Params

    @property
    def eps(self) -> float:
        """As requested."""
        return self.params.eps

    @property
    def passes(self) -> int:
        """The steps."""
        return self.params.steps

    def learnt(self, faces: Faces, ctx: Context, backbones: Sequence[Backbone]) -> Tensor:
        """Return the mask after the steps requested; see `BoundedMask.learnt`."""
        params = self.params
        with torch.no_grad():
            clean = unit_embeddings(backbones, faces.images)
        mask = uniform_mask(faces, ctx, self.name, params.eps)
        velocity = torch.zeros_like(mask)
        for step in range(params.steps):
            mask.requires_grad_()
            embeddings = self._embeddings(masked(faces.images, mask), faces, ctx, backbones, step)
            (gradient,) = torch.autograd.grad(self._distance(embeddings, clean, step), mask)
            scale = gradient.abs().mean().clamp_min(torch.finfo(gradient.dtype).tiny)
            velocity = params.momentum * velocity + gradient / scale
            mask = stepped(mask.detach(), velocity, params.step, params.eps)
        return mask

    def _distance(self, embeddings: Sequence[Tensor], clean: Sequence[Tensor], step: int) -> Tensor:
        """Return the mean over surrogates and photos of the squared distance to the subspace."""
        subspace = self.params.subspace
        if step < UNIFORM_STEPS and subspace != "fi-uap":
            subspace = "center"
        distances = [
            (own - nearest_points(own.detach(), points, subspace)).square().sum(1).mean()
            for own, points in zip(embeddings, clean, strict=True)
        ]
        return torch.stack(distances).mean()

    def _embeddings(
        self, images: Tensor, faces: Faces, ctx: Context, backbones: Sequence[Backbone], step: int
    ) -> Sequence[Tensor]:
        """Return this step's unit embeddings of N×3×H×W images under each surrogate: N×D_k."""
        share = self.params.dfanet
        if not share:
            return unit_embeddings(backbones, images)
        found = []
        for backbone in backbones:
            stream = f"opom/dfanet/{backbone.card.name}/{step}"
            own = [ctx.generator(stream, name) for name in faces.ids]
            found.append(F.normalize(dropped_embeddings(backbone, images, share, own), dim=1))
        return found
