"""What a tracker makes of photos under Gaussian noise: moments of unit embeddings, for certificates by smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Backbone
from bench.errors import MethodError
from bench.faces.pixels import decode_names, decode_pixels, encode_names
from bench.randomness import torch_generator
from bench.run import calls
from bench.run.bound import Tracker
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads

BATCH = 32
"""Noisy copies of a photo per forward pass, always so many (see `contracts.MICRO_BATCH`)."""


@dataclass(frozen=True)
class Noise:
    """What photos are smoothed by.

    Attributes:
        sigma: σ of the Gaussian, in the unit of pixels in [0, 1]; pixels are not clipped.
        samples: noisy copies of a photo, n.
        seed: decides the draws, with each photo's id.
    """

    sigma: float
    samples: int
    seed: int


@dataclass(frozen=True)
class Moments:
    """Moments of unit embeddings over noisy copies of each photo.

    Attributes:
        ids: image ids.
        identities: identity ids.
        means: N×D float64.
        covariances: N×D×D float32, with n − 1 in the denominator; N×0×0 where none were wanted.
    """

    ids: tuple[str, ...]
    identities: tuple[str, ...]
    means: NDArray[np.float64]
    covariances: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Smooth(Node):
    """Moments of the embeddings of some photos of a shard, under noise.

    Attributes:
        tracker: the backbone.
        photos: a shard of natural photos.
        chosen: image ids of those wanted.
        noise: what is added to them.
        spread: whether covariances are wanted beside means.
    """

    stage: ClassVar[str] = "embed"
    tracker: Tracker
    photos: Node
    chosen: tuple[str, ...]
    noise: Noise
    spread: bool

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.photos, *self.tracker.learnt)

    @property
    def images(self) -> int:
        return len(self.chosen)

    @property
    def passes(self) -> int:
        """Photos that go through the backbone: copies of each in whole batches."""
        return self.images * -(-self.noise.samples // BATCH) * BATCH

    @property
    def core_seconds(self) -> float:
        return self.passes * self.tracker.backbone.core_seconds

    @property
    def size(self) -> int:
        dimension = self.tracker.backbone.plugin.method.card.embedding_dim
        return self.images * (8 * dimension + 4 * dimension**2 * self.spread)

    def key_fields(self) -> Mapping[str, Any]:
        return {
            "tracker": self.tracker.key_fields(),
            "chosen": self.chosen,
            "noise": vars(self.noise),
            "spread": self.spread,
        }

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `Moments` as stored."""
        pixels = decode_pixels(payloads[self.photos.address]).only(frozenset(self.chosen))
        backbone = self.tracker.on(machine, payloads)
        faces = pixels.faces(machine.device)
        found = []
        for image, name in zip(faces.images, faces.ids, strict=True):
            found.append(moments(backbone, image, name, self.noise, spread=self.spread))
            advance(1)
        means, covariances = (torch.stack(each).cpu() for each in zip(*found, strict=True))
        tensors = {"means": means, "covariances": covariances}
        return safetensors.torch.save(tensors, metadata=encode_names(pixels.ids, pixels.identities))


def moments(
    backbone: Backbone, image: Tensor, name: str, noise: Noise, *, spread: bool
) -> tuple[Tensor, Tensor]:
    """Return mean (D, float64) and covariance (D×D, float32) of a photo's unit embeddings under noise.

    Args:
        backbone: loaded.
        image: 3×H×W in [0, 1].
        name: its id, from which and the seed the noise is drawn.
        noise: what is added.
        spread: whether the covariance is wanted; 0×0 otherwise.

    Raises:
        MethodError: the backbone has no direction for a noisy copy: its embedding is 0.
    """
    generator = torch_generator(noise.seed, "smooth", name)
    dimension = backbone.card.embedding_dim
    total = torch.zeros(dimension, dtype=torch.float64, device=image.device)
    products = torch.zeros(
        (dimension, dimension) if spread else (0, 0), dtype=torch.float64, device=image.device
    )
    for start in range(0, noise.samples, BATCH):
        draws = torch.randn((BATCH, *image.shape), generator=generator).to(image.device)
        vectors = calls.embed(backbone, image + noise.sigma * draws)[: noise.samples - start].double()
        if not bool((vectors.norm(dim=1) > 0).all()):
            raise MethodError(f"backbone '{backbone.card.name}' embeds a noisy copy of {name} as 0")
        unit = F.normalize(vectors)
        total += unit.sum(0)
        if spread:
            products += unit.T @ unit
    mean = total / noise.samples
    if spread:
        products = (products - noise.samples * torch.outer(mean, mean)) / (noise.samples - 1)
    return mean, products.float()


def decode_moments(payload: bytes) -> Moments:
    """Return moments from their stored form."""
    names, tensors = decode_names(payload), safetensors.torch.load(payload)
    return Moments(
        tuple(names["ids"]),
        tuple(names["identities"]),
        tensors["means"].numpy(),
        tensors["covariances"].numpy(),
    )
