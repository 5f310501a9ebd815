"""PuFace: one purifier for all of the tracker's training images, cloaked and natural (arXiv 2406.02253).

The purifier is trained on amplified cloaked images with an image loss and a feature loss; see
`defenses.puface.training`. What is the paper's and what is ours: docs/methods/puface.md.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from bench.contracts import Binding, Context, Faces, Frozen, MethodParams, Purifier
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from defenses.puface.network import PurifierNetwork, load_network, purify

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Folder of the weights the project ships, each with its card."""


ADAPTIVE = "adaptive"
"""Stands among a card's attacks for cloaks made in training against the purifier as it stood."""


class PurifierQuality(Frozen):
    """What the purifier does to training identities it was not trained on."""

    identities: int = Field(ge=1, description="held-out training identities measured on")
    natural_psnr: float = Field(description="of purified natural photos against themselves, dB")
    cloaked_psnr: float = Field(description="of cloaked photos against the natural ones, dB")
    purified_psnr: float = Field(description="of purified cloaked photos against the natural ones, dB")
    distance_cloaked: float = Field(description="mean 1 − cos of cloaked to natural, over the extractors")
    distance_purified: float = Field(description="mean 1 − cos of purified cloaked to natural")
    recovered: float = Field(description="1 − distance_purified / distance_cloaked")


class PurifierCard(Frozen):
    """How one set of purifier weights was made; lies beside the weights as ``.json``."""

    file: str = Field(description="name of the weights, beside the card")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the weights")
    domain: str = Field(description="kind of faces it was trained on, e.g. 'real'")
    dataset: str = Field(description="canonical name of the dataset")
    dataset_fingerprint: str = Field(description="digest of everything that decides its crops")
    training_identities: str = Field(description="on whose photos it was trained: '<dataset>/training'")
    extractors: tuple[str, ...] = Field(description="backbones of the cloaks and the feature loss, sorted")
    attacks: tuple[str, ...] = Field(description="attacks it was trained against, canonical, sorted")
    amplification: dict[str, tuple[float, float]] = Field(description="attack → range of k")
    image_weight: float = Field(description="weight of the image loss (MSE of [0, 1] pixels)")
    feature_weight: float = Field(description="weight of the feature loss (mean 1 − cos)")
    width: int
    depth: int
    stride: int = 2
    parameters: int = Field(ge=1, description="number of trained parameters")
    steps: int = Field(ge=0, description="steps taken before the weights that were kept")
    batch: int = Field(ge=1, description="images a step")
    trainer: str = Field(description="canonical trainer, with every parameter that is not a default")
    command: str = Field(description="the command that makes the weights again")
    seed: int
    wall_seconds: float = Field(ge=0, description="wall-clock time, cloaking included")
    machine: str = Field(description="device and threads it was measured on")
    quality: PurifierQuality

    @property
    def attack_names(self) -> tuple[str, ...]:
        """Names of the training attacks without their parameters, sorted."""
        return tuple(sorted({attack.partition(":")[0] for attack in self.attacks}))


def read_card(weights: Path) -> PurifierCard:
    """Return the card beside `weights`.

    Raises:
        DataError: there is no card, or it is not one.
    """
    path = weights.with_suffix(".json")
    try:
        return PurifierCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            f"{weights} has no card: {path.name} is missing beside it. `bench train puface` writes both."
        ) from None
    except (ValidationError, ValueError) as error:
        raise DataError(f"{path} is not the card of a purifier: {error}") from error


@lru_cache(maxsize=8)
def _read_network(path: Path, modified: int, size: int, device: torch.device) -> PurifierNetwork:
    del modified, size  # they stand for the file's content
    # Weights read where gradients are off could not carry one later.
    with torch.inference_mode(False):
        return load_network(path, device)


def _loaded(path: Path, device: torch.device) -> PurifierNetwork:
    """Return the network of a file, read once: an attack that knows the purifier asks for it at every step."""
    try:
        facts = path.stat()
    except OSError:
        return load_network(path, device)  # says what is missing
    return _read_network(path, facts.st_mtime_ns, facts.st_size, device)


def shipped_weights() -> tuple[Path, ...]:
    """Return the weights the project ships, sorted by name."""
    return tuple(sorted(WEIGHTS.glob("puface-*.safetensors")))


class PuFace(Purifier):
    """Purifies every training image with a small network trained on amplified cloaks.

    Weights are made for one domain of faces and one set of feature extractors, and are never used where
    the tracker's backbone is among those extractors, unless `features` names it.
    """

    name: ClassVar[str] = "puface"
    paper: ClassVar[str] = "PuFace: Defending against Facial Cloaking Attacks, arXiv 2406.02253 (2024)"
    differentiable = True

    class Params(MethodParams):
        """Parameters of `PuFace`."""

        features: str = Field(
            "auto",
            min_length=1,
            description="feature extractors it was trained with: auto (the dataset's pool without the "
            "tracker's group), or backbones joined by |",
        )
        train: str = Field(
            "auto",
            min_length=1,
            description="attacks it was trained against: auto (the widest mixture there is), mixed (likewise, two "
            "attacks at least), adaptive (attacks on itself among them), or names joined by |",
        )
        weights: str = Field(
            "",
            description="a .safetensors of your own, with its card beside it; empty for those shipped",
            json_schema_extra={"path": True},
        )

    params: Params

    def pool(self) -> str | None:
        """Return the pool of the feature extractors (`features`)."""
        return self.params.features

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the weights and the card for this cell.

        Raises:
            UsageError: no weights fit; or the tracker is an extractor and was not named.
            DataError: weights, card or digest are not what they should be.
        """
        weights = self._weights(binding)
        card = read_card(weights)
        if not weights.is_file():
            raise DataError(f"{weights} is missing though its card is there. Train it again: {card.command}")
        if (found := sha256_of(weights)) != card.sha256:
            raise DataError(f"{weights} has SHA-256 {found}, its card says {card.sha256}. Train it again.")
        return weights, weights.with_suffix(".json")

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the canonical attacks of the weights' card."""
        return read_card(self._weights(binding)).attacks

    def training_identities(self, binding: Binding) -> str:
        """Return whose photos the weights were trained on, from their card."""
        return read_card(self._weights(binding)).training_identities

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the purified images, N×3×H×W in [0, 1].

        Raises:
            DataError: the weights are corrupt, or the images have an odd side.
        """
        height, width = faces.images.shape[-2:]
        network = _loaded(ctx.files[0], ctx.device)
        if height % network.stride or width % network.stride:
            raise DataError(
                f"puface needs sides that are multiples of {network.stride}, got {height}×{width} pixels."
            )
        purified = purify(network, faces.images.to(ctx.device))
        ctx.advance(len(faces))
        return purified

    def _weights(self, binding: Binding) -> Path:
        if self.params.features == "auto" and binding.tracker in binding.backbones:
            raise UsageError(
                f"puface: the tracker '{binding.tracker}' is among the feature extractors "
                f"{', '.join(binding.backbones)}. A purifier that was trained with the tracker's own "
                "features is another claim: ask for it by name, features=NAME|NAME."
            )
        if self.params.weights:
            return self._own(binding, Path(self.params.weights))
        fitting = [path for path in shipped_weights() if self._fits(read_card(path), binding)]
        if not fitting:
            raise UsageError(self._none_fits(binding))
        return max(fitting, key=lambda path: (len(read_card(path).attacks), path.name))

    def _own(self, binding: Binding, weights: Path) -> Path:
        if not weights.is_file():
            raise UsageError(f"puface: weights={weights} is not a file.")
        card = read_card(weights)
        if not self._fits(card, binding):
            raise UsageError(
                f"puface: weights={weights} were trained for domain '{card.domain}', extractors "
                f"{'|'.join(card.extractors)}, attacks {'|'.join(card.attack_names)}; this cell has domain "
                f"'{binding.domain}', extractors {'|'.join(binding.backbones)}, train={self.params.train}. "
                f"Say features={'|'.join(card.extractors)}, or train again."
            )
        return weights

    def _fits(self, card: PurifierCard, binding: Binding) -> bool:
        return (
            card.domain == binding.domain
            and card.extractors == tuple(sorted(binding.backbones))
            and self._trained_as_requested(card.attack_names)
        )

    def _trained_as_requested(self, names: tuple[str, ...]) -> bool:
        """Say whether weights trained against attacks of these names are among those `train` asks for."""
        if self.params.weights and self.params.train == "auto":
            return True
        if self.params.train == "auto":
            return ADAPTIVE not in names
        if self.params.train == "mixed":
            return ADAPTIVE not in names and len(names) > 1
        if self.params.train == ADAPTIVE:
            return ADAPTIVE in names
        return names == tuple(sorted(set(self.params.train.split("|"))))

    def _none_fits(self, binding: Binding) -> str:
        cards = [(path, read_card(path)) for path in shipped_weights()]
        there = "; ".join(
            f"{path.stem}: domain {card.domain}, extractors {'|'.join(card.extractors)}, "
            f"train {'|'.join(card.attack_names)}"
            for path, card in cards
        )
        attacks = ["fawkes", "pgd"]
        if self.params.train not in ("auto", "mixed", ADAPTIVE):
            attacks = self.params.train.split("|")
        trainer = "puface:adaptive_share=0.5" if self.params.train == ADAPTIVE else "puface"
        command = " ".join(
            [
                f"bench train {trainer} --dataset {binding.dataset}",
                *(f"--attack {attack}" for attack in attacks),
                *(f"--backbone {backbone}" for backbone in binding.backbones),
                "--out puface-mine.safetensors",
            ]
        )
        return (
            f"puface has no weights for domain '{binding.domain}', extractors "
            f"{'|'.join(binding.backbones) or 'none'}, train={self.params.train}. "
            f"There are: {there or 'none'}. Train your own: {command}, then say "
            "puface:weights=puface-mine.safetensors."
        )
