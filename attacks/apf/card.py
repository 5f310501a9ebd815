"""What is known of one set of APF weights, and which are shipped."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bench.contracts import Frozen
from bench.data.cards import Shelf, WeightsCard

PAPER_COSINE = 0.49
"""The paper accepts a pair iff the squared distance of unit embeddings is below 1.02: cos > 1 − 1.02/2."""


class ApfQuality(Frozen):
    """What the modules do to training identities that nothing was trained on, scored with a third photo.

    The keys are ``0`` (the photo itself), ``1``, ``1+2`` and ``1+2+3``.
    """

    identities: int = Field(ge=1, description="held-out training identities measured on")
    photos: int = Field(ge=1, description="their photos; each is compared with one that crafting did not see")
    dodging_server: dict[str, float] = Field(
        description="share of photos with cos ≤ 0.49 on the server model"
    )
    dodging_probe: dict[str, float] = Field(description="the same on the probe model")
    cosine_server: dict[str, float] = Field(description="mean cosine on the server model")
    cosine_probe: dict[str, float] = Field(description="mean cosine on the probe model")
    mean_change: dict[str, float] = Field(description="mean absolute change of a pixel, grey levels")


class ApfCard(WeightsCard):
    """How one set of APF weights was made; lies beside the weights as ``.json``."""

    probe: str = Field(description="backbone of module 1, on the user's device")
    server: str = Field(description="backbone that modules 2 and 3 were trained against")
    eps: int = Field(ge=1, le=16, description="L∞ bound of gradients and perturbations in training")
    width: int = Field(description="channels of the U-Net's first level")
    steps: int = Field(ge=0, description="steps that trained the U-Net")
    enhance_steps: int = Field(ge=0, description="steps that trained α, β and the 1×1 convolution")
    photos: int = Field(ge=1, description="photos trained on, each with another of the same identity")
    quality: ApfQuality

    @property
    def surrogates(self) -> tuple[str, ...]:
        """Probe and server, sorted."""
        return tuple(sorted({self.probe, self.server}))


SHELF = Shelf(Path(__file__).parents[1] / "weights", "apf", ApfCard, "apf")
"""The weights the project ships, each with its card."""
