"""One mask an identity within an L∞ ball, added to every photo: what person-mask attacks share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks._surrogates import SurrogateParams, require_surrogates, unit_embeddings
from bench.contracts import Backbone, Context, Faces, PersonMask, ThreatModel
from bench.quality.metrics import GREY_LEVELS


class MaskParams(SurrogateParams):
    """Parameters of a mask within a ball."""

    photos: int = Field(
        10,
        ge=1,
        le=1000,
        description="photos of an identity that its mask is learnt from at most: the first ones",
        json_schema_extra={"unit": "photos"},
    )


class PenalisedParams(MaskParams):
    """Parameters of a mask that is learnt in epochs."""

    epochs: int = Field(
        50, ge=1, le=10_000, description="passes over the photos", json_schema_extra={"unit": "epochs"}
    )
    batch: int = Field(4, ge=1, le=1000, description="photos in a step", json_schema_extra={"unit": "photos"})


class BoundedMask(PersonMask):
    """Adds a mask of at most `eps` grey levels.

    Attributes:
        params: with a field ``eps``, in grey levels.
    """

    Params: ClassVar[type[MaskParams]] = MaskParams
    params: MaskParams

    @property
    @abstractmethod
    def eps(self) -> float:
        """The bound on every pixel, in grey levels."""

    @property
    def threat(self) -> ThreatModel:
        """Untargeted; the bound counts posted cloaks, and rounding may add up to half a grey level."""
        return ThreatModel(
            goal="untargeted",
            surrogates=1,
            constraint="L∞ at most eps grey levels, one mask for all photos of an identity",
            max_linf=min(255.0, max(self.eps, math.floor(self.eps + 0.5))),
        )

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def learn(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return ``mask``, 3×H×W in [−ε, ε] of [0, 1], learnt from the first photos.

        Raises:
            UsageError: `ctx` has no differentiable surrogate.
        """
        backbones = require_surrogates(self.name, ctx)
        seen = faces.subset(range(min(len(faces), self.params.photos)))
        # Only whole identities come here, so that the shape of a batch is the identity's own.
        images = seen.images.to(ctx.device, memory_format=torch.channels_last)
        mask = self.learnt(seen.with_images(images), ctx, backbones)
        ctx.advance(len(faces))
        return {"mask": mask.detach()}

    @abstractmethod
    def learnt(self, faces: Faces, ctx: Context, backbones: Sequence[Backbone]) -> Tensor:
        """Return the mask of an identity, 3×H×W in [−ε, ε] of [0, 1].

        Args:
            faces: the photos that it is learnt from, on `ctx.device`.
            ctx: of the attack.
            backbones: the surrogates.
        """

    def apply(self, faces: Faces, mask: Mapping[str, Tensor], ctx: Context) -> Tensor:
        """Return the photos plus the mask, clipped to [0, 1]."""
        del ctx
        return masked(faces.images, mask["mask"].to(faces.images))


class PenalisedMask(BoundedMask):
    """Steps down over batches of an identity's photos, held back by how visible the mask is.

    Attributes:
        start: bound of the random start, in grey levels.
        params: with the fields ``epochs`` and ``batch``.
    """

    params: PenalisedParams

    @property
    def passes(self) -> int:
        """One for each epoch."""
        return self.params.epochs

    @property
    def core_seconds(self) -> float:
        """SSIM with its gradient, at each epoch."""
        return 0.0025 * self.params.epochs

    @property
    @abstractmethod
    def start(self) -> float:
        """The bound of the random start, in grey levels."""

    @property
    @abstractmethod
    def length(self) -> float:
        """The length of a step, in grey levels."""

    @property
    @abstractmethod
    def margin(self) -> float:
        """How far `excess` may be from 0 without the penalty's weight being changed."""

    @abstractmethod
    def excess(self, seen: Tensor, photos: Tensor) -> Tensor:
        """Return by how much N×3×H×W masked photos are more visible than allowed, below 0 where they are less."""

    @abstractmethod
    def matching(self, seen: Tensor, clean: Sequence[Tensor], backbones: Sequence[Backbone]) -> Tensor:
        """Return what is minimised besides the penalty.

        Args:
            seen: N×3×H×W masked photos.
            clean: N×D_k unit embeddings of the photos, for each surrogate.
            backbones: the surrogates.
        """

    def learnt(self, faces: Faces, ctx: Context, backbones: Sequence[Backbone]) -> Tensor:
        """Return the mask after the epochs requested; see `BoundedMask.learnt`."""
        params, images = self.params, faces.images
        with torch.no_grad():
            clean = unit_embeddings(backbones, images)
        mask = uniform_mask(faces, ctx, self.name, self.start)
        weight = 1.0
        for epoch in range(params.epochs):
            order = ctx.generator(f"{self.name}/order/{epoch}", faces.identities[0])
            for rows in torch.split(torch.randperm(len(images), generator=order), params.batch):
                mask.requires_grad_()
                seen = masked(images[rows], mask)
                excess = self.excess(seen, images[rows])
                loss = weight * excess.clamp_min(0)
                loss = loss + self.matching(seen, [own[rows] for own in clean], backbones)
                (gradient,) = torch.autograd.grad(loss, mask)
                mask = stepped(mask.detach(), gradient, -self.length, self.eps)
                over = float(excess.detach())
                weight = weighed(weight, exceeded=over > self.margin, kept=over < -self.margin)
        return mask


def masked(images: Tensor, mask: Tensor) -> Tensor:
    """Return N×3×H×W images under a mask 3×H×W, clipped to [0, 1]; differentiable."""
    return (images + mask).clamp(0, 1)


def uniform_mask(faces: Faces, ctx: Context, attack: str, eps: float) -> Tensor:
    """Return a mask 3×H×W drawn from U(±eps), in units of [0, 1], by the identity's own generator.

    Args:
        faces: of one identity.
        ctx: decides the draw.
        attack: the name of the stream.
        eps: in grey levels.
    """
    drawn = torch.rand(faces.images.shape[1:], generator=ctx.generator(attack, faces.identities[0]))
    return drawn.mul(2).sub(1).mul(eps / GREY_LEVELS).to(faces.images)


def stepped(mask: Tensor, gradient: Tensor, step: float, eps: float) -> Tensor:
    """Return a mask after a signed step, within its ball: clip(η + step · sign(∇), ±eps).

    Args:
        mask: 3×H×W in units of [0, 1].
        gradient: likewise; uphill.
        step: in grey levels, negative to go downhill.
        eps: in grey levels.
    """
    bound = eps / GREY_LEVELS
    return (mask + gradient.sign() * (step / GREY_LEVELS)).clamp(-bound, bound)


def weighed(weight: float, exceeded: bool, kept: bool) -> float:
    """Return a penalty's weight for the next step: doubled, halved or as it is, within [1/129, 129].

    Args:
        weight: now.
        exceeded: whether the mask is more visible than its budget allows, by more than a margin.
        kept: whether it is less visible, by more than that.
    """
    factor = 2 if exceeded else 0.5 if kept else 1
    return min(129.0, max(1 / 129, weight * factor))
