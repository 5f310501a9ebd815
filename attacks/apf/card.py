"""What is known of one set of APF weights, and which are shipped."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from bench.contracts import Frozen
from bench.data.files import sha256_of
from bench.errors import DataError

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Folder of the weights the project ships, each with its card."""

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


class ApfCard(Frozen):
    """How one set of APF weights was made; lies beside the weights as ``.json``."""

    file: str = Field(description="name of the weights, beside the card")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the weights")
    domain: str = Field(description="kind of faces it was trained on, e.g. 'real'")
    dataset: str = Field(description="canonical name of the dataset")
    dataset_fingerprint: str = Field(description="digest of everything that decides its crops")
    training_identities: str = Field(description="on whose photos it was trained: '<dataset>/training'")
    probe: str = Field(description="backbone of module 1, on the user's device")
    server: str = Field(description="backbone that modules 2 and 3 were trained against")
    eps: int = Field(ge=1, le=16, description="L∞ bound of gradients and perturbations in training")
    width: int = Field(description="channels of the U-Net's first level")
    parameters: int = Field(ge=1, description="number of trained parameters")
    steps: int = Field(ge=0, description="steps that trained the U-Net")
    enhance_steps: int = Field(ge=0, description="steps that trained α, β and the 1×1 convolution")
    batch: int = Field(ge=1, description="photos a step")
    photos: int = Field(ge=1, description="photos trained on, each with another of the same identity")
    trainer: str = Field(description="canonical trainer, with every parameter that is not a default")
    command: str = Field(description="the command that makes the weights again")
    seed: int
    wall_seconds: float = Field(ge=0, description="wall-clock time, gradients included")
    machine: str = Field(description="device and threads it was measured on")
    quality: ApfQuality

    @property
    def surrogates(self) -> tuple[str, ...]:
        """Probe and server, sorted."""
        return tuple(sorted({self.probe, self.server}))


def read_card(weights: Path) -> ApfCard:
    """Return the card beside `weights`.

    Raises:
        DataError: there is no card, or it is not one.
    """
    path = weights.with_suffix(".json")
    try:
        return ApfCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            f"{weights} has no card: {path.name} is missing beside it. `bench train apf` writes both."
        ) from None
    except (ValidationError, ValueError) as error:
        raise DataError(f"{path} is not the card of APF weights: {error}") from error


def checked(weights: Path) -> ApfCard:
    """Return the card of weights that are there and are those of the card.

    Raises:
        DataError: weights or card are missing, or the digest is another.
    """
    card = read_card(weights)
    if not weights.is_file():
        raise DataError(f"{weights} is missing though its card is there. Train it again: {card.command}")
    if (found := sha256_of(weights)) != card.sha256:
        raise DataError(f"{weights} has SHA-256 {found}, its card says {card.sha256}. Train it again.")
    return card


def shipped_weights() -> tuple[Path, ...]:
    """Return the weights the project ships, sorted by name."""
    return tuple(sorted(WEIGHTS.glob("apf-*.safetensors")))
