"""APF: a cloak from a gradient made on the device and transferred in the cloud, which never sees the photo.

Zhang et al., "Adversarial Privacy-preserving Filter" (ACM MM 2020; demo ACM MM 2021). What is the paper's,
what is second-hand and what is ours: docs/methods/apf.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from attacks._surrogates import SurrogateParams, require_surrogates
from attacks.apf.card import SHELF, ApfCard
from attacks.apf.cloud import LARGEST_EPS, CloudSide
from attacks.apf.end import Ascent, image_gradients, other_photos
from attacks.apf.network import load_network
from bench.contracts import Attack, Backbone, Binding, Context, Faces, HealthCheck, ThreatModel
from bench.data.cards import kept
from bench.errors import UsageError, unknown
from bench.quality.metrics import GREY_LEVELS

loaded = kept(load_network)
"""The network of a file, read once."""


def cloud_side(weights: Path, modules: Literal[2, 3], device: torch.device) -> CloudSide:
    """Return the cloud side of a file of weights, read once.

    Raises:
        DataError: the file is missing or holds no such network.
    """
    return CloudSide(loaded(weights, device), modules, device)


class APF(Attack):
    """Pushes a photo away from another of the same identity; the cloud makes the push work on its own model."""

    name: ClassVar[str] = "apf"
    paper: ClassVar[str] = (
        "Zhang et al., Adversarial Privacy-preserving Filter, ACM MM 2020 (demo: ACM MM 2021)"
    )

    class Params(SurrogateParams):
        """Parameters of APF."""

        modules: Literal[1, 2, 3] = Field(
            3,
            description="how many of the modules, in order: gradient on the device, transfer by the U-Net, "
            "enhancement by a universal perturbation",
        )
        eps: int = Field(
            8, ge=1, le=LARGEST_EPS, description="L∞ bound", json_schema_extra={"unit": "grey levels"}
        )
        step: float = Field(
            2,
            gt=0,
            le=255,
            description="length of a signed step of module 1",
            json_schema_extra={"unit": "grey levels"},
        )
        steps: int = Field(
            10, ge=1, le=10_000, description="steps of module 1", json_schema_extra={"unit": "steps"}
        )
        diversity: float = Field(
            0.5, ge=0, le=1, description="probability that a step of module 1 sees a changed photo"
        )
        probe: str = Field(
            "auto",
            min_length=1,
            description="surrogate of module 1: auto (that of the weights' card; for modules=1 the first by name)",
        )
        weights: str = Field(
            "",
            description="a .safetensors of your own, with its card beside it; empty for those shipped",
            json_schema_extra={"path": True},
        )

    params: Params

    @property
    def threat(self) -> ThreatModel:
        """Untargeted, within eps whole grey levels; modules 2 and 3 were trained against a second surrogate."""
        return ThreatModel(
            goal="untargeted",
            surrogates=1 if self.params.modules == 1 else 2,
            constraint="L∞ at most eps grey levels",
            max_linf=self.params.eps,
        )

    @property
    def scope(self) -> Literal["image", "identity"]:
        """The identity: a photo is pushed away from another of the same identity."""
        return "identity"

    @property
    def ascent(self) -> Ascent:
        """The settings of module 1."""
        params = self.params
        return Ascent(params.eps, params.step, params.steps, params.diversity)

    @property
    def passes(self) -> int:
        """The steps of module 1; the networks of the others are small beside them."""
        return self.params.steps

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the weights and the card for this cell; none for modules=1.

        Raises:
            UsageError: no weights fit; the probe is no surrogate; or the tracker is one and was not named.
            DataError: weights, card or digest are not what they should be.
        """
        if self.params.surrogates == "auto" and binding.tracker in binding.backbones:
            raise UsageError(
                f"apf: the tracker '{binding.tracker}' is among the surrogates {', '.join(binding.backbones)}. "
                "An attack made with the tracker's own model is another claim: ask for it by name, "
                "surrogates=NAME|NAME."
            )
        if self.params.probe != "auto" and self.params.probe not in binding.backbones:
            raise unknown(
                "apf probe", self.params.probe, binding.backbones, "The probe is one of the surrogates."
            )
        if self.params.modules == 1:
            return ()
        return SHELF.files(self._weights(binding))

    def training_identities(self, binding: Binding) -> str:
        """Return whose photos the weights were trained on, from their card; ``none`` for modules=1."""
        files = self.files(binding)
        return SHELF.read(files[0]).training_identities if files else "none"

    def health_checks(self, binding: Binding) -> tuple[HealthCheck, ...]:
        """Return whether the server can be started; the attack itself does without."""
        del binding
        return (HealthCheck.of_extra("APF server", "starlette", "serve", "`bench apf serve`"),)

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one cloak for every face.

        Raises:
            UsageError: `ctx` has no differentiable probe, or no weights where modules 2 and 3 need them.
            DataError: the weights are corrupt, or of another size than the photos.
        """
        params = self.params
        gradient = image_gradients(faces, other_photos(faces), self._probe(ctx), ctx, self.ascent)
        photos = faces.images
        if params.modules == 1:
            cloaks = (photos + gradient.values.to(photos) / GREY_LEVELS).clamp(0, 1)
        else:
            cloud = cloud_side(ctx.files[0], params.modules, ctx.device)
            cloaks = cloud.transfer(gradient).added_to(photos)
        return dict(zip(faces.ids, cloaks, strict=True))

    def _probe(self, ctx: Context) -> Backbone:
        """Return module 1's model: by name, else by the card's place for it among the sorted surrogates."""
        backbones = require_surrogates(self.name, ctx)
        if self.params.modules > 1 and not ctx.files:
            raise UsageError(
                "apf got no weights for modules 2 and 3. Say modules=1, or let `bench run` find them."
            )
        if self.params.probe != "auto":
            by_name = {backbone.card.name: backbone for backbone in backbones}
            if self.params.probe not in by_name:
                raise unknown("apf probe", self.params.probe, by_name, "The probe is one of the surrogates.")
            return by_name[self.params.probe]
        if self.params.modules == 1:
            return backbones[0]
        card = SHELF.read(ctx.files[0])
        return backbones[card.surrogates.index(card.probe)]

    def _weights(self, binding: Binding) -> Path:
        if self.params.weights:
            own = Path(self.params.weights)
            return SHELF.own(
                self.name, own, partial(self._fits, binding=binding), partial(self._unlike, binding=binding)
            )
        fitting = SHELF.fitting(partial(self._fits, binding=binding))
        if not fitting:
            raise UsageError(self._none_fits(binding))
        return fitting[-1]

    def _unlike(self, card: ApfCard, binding: Binding) -> str:
        return (
            f"domain '{card.domain}', probe {card.probe}, server {card.server}; this cell has domain "
            f"'{binding.domain}', surrogates {'|'.join(binding.backbones)}, probe={self.params.probe}. "
            f"Say surrogates={'|'.join(card.surrogates)}, or train again."
        )

    def _fits(self, card: ApfCard, binding: Binding) -> bool:
        return (
            card.domain == binding.domain
            and card.surrogates == tuple(sorted(binding.backbones))
            and self.params.probe in ("auto", card.probe)
        )

    def _none_fits(self, binding: Binding) -> str:
        there = SHELF.described(
            lambda card: f"domain {card.domain}, probe {card.probe}, server {card.server}"
        )
        start = f"apf has no weights for domain '{binding.domain}', surrogates {'|'.join(binding.backbones) or 'none'}"
        if len(binding.backbones) != 2:
            fix = "It takes two, probe and server: name them, surrogates=PROBE|SERVER; or say modules=1."
        else:
            ordered = sorted(binding.backbones, key=lambda name: (name != self.params.probe, name))
            fix = (
                f"Train your own: bench train apf --dataset {binding.dataset} "
                f"--backbone {ordered[0]} --backbone {ordered[1]} --out apf-mine.safetensors, then say "
                "apf:weights=apf-mine.safetensors; or say modules=1, which needs none."
            )
        return f"{start}, probe={self.params.probe}. There are: {there}. {fix}"
