"""What happens to perturbations on the way into a purifier's training batch: amplified, smoothed, borrowed.

Pure functions of tensors, and the recipe that draws them. Not here: where cloaks come from, and losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from defenses.gaussian import gaussian_blur

SMOOTHING = (0.6, 2.1)
"""Range in pixels of the random Gaussian that varies training perturbations (ours)."""


def amplify(natural: Tensor, cloaked: Tensor, k: Tensor) -> Tensor:
    """Return x + k·(x_cloaked − x), clipped to [0, 1].

    Args:
        natural: N×3×H×W in [0, 1].
        cloaked: N×3×H×W in [0, 1].
        k: N amplification factors; 0 gives the natural photo, 1 the cloak as posted.
    """
    return (natural + k.view(-1, 1, 1, 1) * (cloaked - natural)).clamp(0, 1)


def smooth(perturbation: Tensor, sigma: float, mix: float) -> Tensor:
    """Return perturbations of the same L2 norm whose spectrum leans to low frequencies.

    Args:
        perturbation: N×3×H×W.
        sigma: Gaussian standard deviation in pixels.
        mix: share of the smoothed perturbation against the original, in [0, 1].
    """
    norm = _norms(perturbation)
    # `gaussian_blur` clamps to [0, 1]; perturbations are within ±1, so they pass shifted and halved.
    blurred = gaussian_blur(perturbation / 2 + 0.5, sigma) * 2 - 1
    blurred = blurred * (norm / _norms(blurred).clamp_min(1e-12))
    mixed = mix * blurred + (1 - mix) * perturbation
    restored: Tensor = mixed * (norm / _norms(mixed).clamp_min(1e-12))
    return restored


def _norms(perturbation: Tensor) -> Tensor:
    norms: Tensor = perturbation.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return norms


@dataclass(frozen=True)
class Recipe:
    """How the perturbations of a batch are drawn.

    Attributes:
        batch: images in a batch.
        natural_share: share of them that is natural photos.
        smooth_share: share of batches whose perturbations are smoothed.
        borrow_share: share of batches whose perturbations come from other photos.
        amplification: attack → range of k.
    """

    batch: int
    natural_share: float
    smooth_share: float
    borrow_share: float
    amplification: Mapping[str, tuple[float, float]]

    @property
    def untouched(self) -> int:
        """Natural photos in each batch; they come first."""
        return round(self.batch * self.natural_share)

    def draw(
        self, natural: Tensor, cloaks: Mapping[str, tuple[list[int], Tensor]], rng: np.random.Generator
    ) -> tuple[list[int], Tensor]:
        """Return rows of the natural photos, and what the network sees of them: batch×3×H×W in [0, 1].

        Args:
            natural: N×3×H×W uint8.
            cloaks: attack → rows of `natural` that it cloaked, and N'×3×H×W uint8 cloaks.
            rng: draws everything.
        """
        rows = [int(i) for i in rng.integers(len(natural), size=self.untouched)]
        images = [natural[rows].float() / 255]
        names = list(cloaks)
        drawn = rng.integers(len(names), size=self.batch - self.untouched)
        smoothing = rng.random() < self.smooth_share
        sigma, mix = rng.uniform(*SMOOTHING), rng.random()
        # Drawn only where requested, so that older recipes give the batches they gave.
        borrowing = self.borrow_share > 0 and rng.random() < self.borrow_share
        for i, name in enumerate(names):
            size = int((drawn == i).sum())
            cloaked_rows, cloaked = cloaks[name]
            picked = rng.integers(len(cloaked_rows), size=size)
            k = torch.from_numpy(rng.uniform(*self.amplification[name], size=size).astype(np.float32))
            if not size:
                continue
            hosts = [cloaked_rows[j] for j in picked]
            photos = natural[hosts].float() / 255
            change = cloaked[torch.from_numpy(picked)].float() / 255 - photos
            if borrowing:
                hosts = [int(row) for row in rng.integers(len(natural), size=size)]
                photos = natural[hosts].float() / 255
            if smoothing:
                change = smooth(change, sigma, mix)
            rows += hosts
            images.append(amplify(photos, photos + change, k))
        return rows, torch.cat(images)
