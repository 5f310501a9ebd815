"""PuFace: one purifier for all of the tracker's training images, cloaked and natural (arXiv 2406.02253).

The purifier is trained on amplified cloaked images with an image loss and a feature loss; see
`defenses.puface.training`. What is the paper's and what is ours: docs/methods/puface.md.
"""

from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bench.contracts import Binding, Context, Faces, Frozen, HealthCheck, MethodParams, Purifier
from bench.data.cards import Shelf, WeightsCard, kept
from bench.errors import DataError, UsageError
from defenses.puface.network import load_network, purify

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
    natural_lpips: float | None = Field(
        None,
        description="LPIPS of purified natural photos to themselves; null where AlexNet's weights were not there",
    )


class PurifierCard(WeightsCard):
    """How one set of purifier weights was made; lies beside the weights as ``.json``."""

    extractors: tuple[str, ...] = Field(description="backbones of the cloaks and the feature loss, sorted")
    attacks: tuple[str, ...] = Field(description="attacks it was trained against, canonical, sorted")
    amplification: dict[str, tuple[float, float]] = Field(description="attack → range of k")
    image_weight: float = Field(description="weight of the image loss (MSE of [0, 1] pixels)")
    feature_weight: float = Field(description="weight of the feature loss (mean 1 − cos)")
    width: int
    depth: int
    stride: int = 2
    quality: PurifierQuality

    @property
    def attack_names(self) -> tuple[str, ...]:
        """Names of the training attacks without their parameters, sorted."""
        return tuple(sorted({attack.partition(":")[0] for attack in self.attacks}))


SHELF = Shelf(Path(__file__).parents[1] / "weights", "puface", PurifierCard, "puface")
"""The weights the project ships, each with its card."""

loaded = kept(load_network)
"""The network of a file, read once."""


class PuFace(Purifier):
    """Purifies every training image with a small network trained on amplified cloaks.

    Weights are made for one domain of faces and one set of feature extractors, and are never used where
    the tracker's backbone is among those extractors, unless `features` names it.
    """

    name: ClassVar[str] = "puface"
    paper: ClassVar[str] = "PuFace: Defending against Facial Cloaking Attacks, arXiv 2406.02253 (2024)"
    core_seconds: ClassVar[float] = 0.03
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
        return SHELF.files(self._weights(binding))

    def trained_on(self, binding: Binding) -> tuple[str, ...]:
        """Return the canonical attacks of the weights' card."""
        return SHELF.read(self._weights(binding)).attacks

    def training_identities(self, binding: Binding) -> str:
        """Return whose photos the weights were trained on, from their card."""
        return SHELF.read(self._weights(binding)).training_identities

    def health_checks(self, binding: Binding) -> tuple[HealthCheck, ...]:
        """Return whether the weights of the embedded default are here and whole."""
        here = ", ".join(path.name for path in self.files(binding))
        return (HealthCheck(name="PuFace", state="ok", detail=here, needed=True),)

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the purified images, N×3×H×W in [0, 1].

        Raises:
            DataError: the weights are corrupt, or the images have an odd side.
        """
        height, width = faces.images.shape[-2:]
        network = loaded(ctx.files[0], ctx.device)
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
            own = Path(self.params.weights)
            return SHELF.own(
                self.name, own, partial(self._fits, binding=binding), partial(self._unlike, binding=binding)
            )
        fitting = SHELF.fitting(partial(self._fits, binding=binding))
        if not fitting:
            raise UsageError(self._none_fits(binding))
        return max(fitting, key=lambda path: (len(SHELF.read(path).attacks), path.name))

    def _unlike(self, card: PurifierCard, binding: Binding) -> str:
        return (
            f"domain '{card.domain}', extractors {'|'.join(card.extractors)}, attacks {'|'.join(card.attack_names)}; "
            f"this cell has domain '{binding.domain}', extractors {'|'.join(binding.backbones)}, "
            f"train={self.params.train}. Say features={'|'.join(card.extractors)}, or train again."
        )

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
        there = SHELF.described(
            lambda card: (
                f"domain {card.domain}, extractors {'|'.join(card.extractors)}, train {'|'.join(card.attack_names)}"
            )
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
            f"There are: {there}. Train your own: {command}, then say "
            "puface:weights=puface-mine.safetensors."
        )
