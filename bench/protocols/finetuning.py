"""The head `finetune`: a tracker that trains its whole network on the gallery, not just a layer on top.

What lives here: the training of one network on one gallery, and the scores of probes. What must not: who is
protected, rotations, how a network comes about (`Backbone.trainable`).

A cosine-softmax layer on unit embeddings (Wang et al., NormFace, ACM MM 2017, Eq. 5) starts as the mean
embedding of each class (Qi et al., Low-Shot Learning with Imprinted Weights, CVPR 2018, Eq. 5); it and the
network are trained together with AdamW on cross-entropy. Before the first step it is the head ``centroid``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.errors import MethodError
from bench.protocols.heads import Head, Labels, Scorer, Scores, constant_scorer
from bench.quality.metrics import GREY_LEVELS
from bench.randomness import torch_generator

SCALE = 16.0
"""Factor s on the cosines before the softmax. Cross-entropy can fall below .01 for a thousand classes, and
probabilities stay far enough from 1 to rank probes (NormFace, Sec. 3.3, bounds it from below)."""

_EMBED_BATCH = 32

Photos = NDArray[np.uint8]
"""N×3×H×W RGB in grey levels."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the gallery.
        learning_rate: AdamW's, constant; for the network and the layer alike.
        batch: photos a step; the last step of an epoch may have fewer.
    """

    epochs: int
    learning_rate: float
    batch: int


class FineTuned(Head):
    """Trains a network on the photos of a gallery; scores are probabilities.

    Batch norm and dropout act as in evaluation throughout: a gallery is too small for statistics of its own,
    and nothing random is drawn but the order of the photos.
    """

    name: ClassVar[str] = "finetune"

    def __init__(
        self, network: Callable[[], nn.Module], recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        """Set up; trains nothing yet.

        Args:
            network: returns a fresh copy that maps N×3×H×W images in [0, 1] to N×D embeddings.
            recipe: how it is trained.
            seed: decides the order of the photos, the same in every rotation.
            device: where to compute.
        """
        self.network, self.recipe, self.seed, self.device = network, recipe, seed, device

    def fit(self, vectors: Any, labels: Labels, n_classes: int) -> Scorer:
        """Train on photos; see `Head.fit`.

        Args:
            vectors: `Photos` in place of embeddings.
            labels: N classes.
            n_classes: K; a class without a photo scores −inf.

        Returns:
            a function from M `Photos` to M×K softmax probabilities.

        Raises:
            MethodError: the training diverges.
            UsageError: the backbone cannot be trained.
        """
        present, classes = np.unique(labels, return_inverse=True)
        if len(present) < 2:
            return constant_scorer(present, n_classes)
        network = self.network().eval()
        prototypes = train(network, vectors, classes, self.recipe, self.seed, self.device)

        def score(probes: Any) -> Scores:
            logits = SCALE * unit_embeddings(network, probes, self.device) @ prototypes.T
            scores = np.full((len(probes), n_classes), -np.inf, dtype=np.float32)
            scores[:, present] = logits.double().softmax(1).cpu().numpy()
            return scores

        return score


def train(
    network: nn.Module,
    photos: Photos,
    classes: NDArray[np.intp],
    recipe: Recipe,
    seed: int,
    device: torch.device,
) -> Tensor:
    """Train `network` in place and return the class prototypes, K×D of unit length.

    Args:
        network: in the mode it is to be trained in, on `device`.
        photos: the gallery.
        classes: N classes from 0 to K − 1, each at least once.
        recipe: how to train.
        seed: decides the order of the photos.
        device: where to compute.

    Raises:
        MethodError: the loss is not finite.
    """
    labels = torch.from_numpy(classes).to(device)
    prototypes = nn.Parameter(class_means(unit_embeddings(network, photos, device), labels))
    optimiser = torch.optim.AdamW([*network.parameters(), prototypes], lr=recipe.learning_rate)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(photos), generator=torch_generator(seed, "finetune", str(epoch)))
        for rows in torch.split(order, recipe.batch):
            cosines = F.linear(_embedded(network, photos[rows.numpy()], device), F.normalize(prototypes))
            loss = F.cross_entropy(SCALE * cosines, labels[rows.to(device)])
            if not bool(loss.isfinite()):
                raise MethodError(
                    f"head 'finetune' diverged in epoch {epoch + 1}: its loss is {loss.item()}. "
                    f"Lower finetune_learning_rate, now {recipe.learning_rate}."
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return F.normalize(prototypes.detach())


def class_means(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of each class's unit embeddings, scaled to length 1: K×D."""
    sums = torch.zeros(int(labels.max()) + 1, embeddings.shape[1], device=embeddings.device)
    return F.normalize(sums.index_add_(0, labels, embeddings))


def unit_embeddings(network: nn.Module, photos: Photos, device: torch.device) -> Tensor:
    """Return the unit embeddings of `photos` without gradient: N×D, on `device`."""
    with torch.no_grad():
        starts = range(0, len(photos), _EMBED_BATCH)
        return torch.cat([_embedded(network, photos[i : i + _EMBED_BATCH], device) for i in starts])


def as_photos(images: Tensor) -> Photos:
    """Return N×3×H×W images in [0, 1], already rounded to whole grey levels, as 8-bit numbers."""
    photos: Photos = images.mul(GREY_LEVELS).round().to(torch.uint8).cpu().numpy()
    return photos


def _embedded(network: nn.Module, photos: Photos, device: torch.device) -> Tensor:
    images = torch.from_numpy(photos).to(device).float().div(GREY_LEVELS)
    return F.normalize(network(images))
