"""Trains the purifier of `defenses.puface.purifier`: amplified cloaks in, natural photos out (arXiv 2406.02253).

Every draw comes from (seed, stage, step) and every checkpoint holds weights and optimiser, so a training
that was killed goes on to the same weights.
"""

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.contracts import MICRO_BATCH, Backbone, Identity, MethodParams, Trainer, TrainRequest
from bench.data.files import sha256_of
from bench.errors import MethodError, UsageError
from bench.plugins.factory import canonical
from bench.plugins.training import (
    Clock,
    cosine_decay,
    deal_training_identities,
    learnt_from,
    load_checkpoint,
    save_checkpoint,
    training_command,
)
from bench.quality.lpips import LEAST_SIDE, Lpips, Unavailable, load_lpips
from bench.randomness import numpy_generator, torch_generator
from defenses.puface.losses import adaptive_examples, feature_distance
from defenses.puface.network import PurifierNetwork, load_network, purify, save_network
from defenses.puface.perturbations import Recipe
from defenses.puface.purifier import ADAPTIVE, PurifierCard, PurifierQuality
from defenses.puface.training_photos import Cloaker, Photos, choose_photos, embed_all, to_bytes


class PuFaceTrainer(Trainer):
    """Trains a purifier on cloaks that the request's attacks make with the request's backbones."""

    name: ClassVar[str] = "puface"
    paper: ClassVar[str] = "PuFace: Defending against Facial Cloaking Attacks, arXiv 2406.02253 (2024)"
    needs_attacks: ClassVar[bool] = True
    needs_backbones: ClassVar[bool] = True

    class Params(MethodParams):
        """Parameters of `PuFaceTrainer`."""

        steps: int = Field(
            800, ge=1, description="steps of the optimiser", json_schema_extra={"unit": "steps"}
        )
        batch: int = Field(
            32, ge=1, le=4096, description="images a step", json_schema_extra={"unit": "images"}
        )
        lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate of AdamW, decays as a cosine")
        k_min: tuple[float, ...] = Field(
            (1.0,),
            description="least amplification: one for all attacks, or one each in --attack's order",
        )
        k_max: tuple[float, ...] = Field(
            (3.0,),
            description="greatest amplification: one for all attacks, or one each in --attack's order",
        )
        image_weight: float = Field(10.0, ge=0, description="weight of the image loss (MSE of [0, 1] pixels)")
        perceptual_weight: float = Field(
            0.0,
            ge=0,
            description="weight of LPIPS between natural photos and what the purifier makes of them",
        )
        feature_weight: float = Field(1.0, ge=0, description="weight of the feature loss (mean 1 − cos)")
        extractors_per_step: int = Field(
            0, ge=0, description="extractors in one step's feature loss, drawn anew each step; 0 for all"
        )
        natural_share: float = Field(
            0.25, ge=0, le=1, description="share of each batch that is natural photos, to be left alone"
        )
        smooth_share: float = Field(
            0.0, ge=0, le=1, description="share of batches whose perturbations are randomly smoothed"
        )
        borrow_share: float = Field(
            0.0, ge=0, le=1, description="share of batches whose perturbations come from other photos"
        )
        adaptive_share: float = Field(
            0.0,
            ge=0,
            le=1,
            description="share of batches whose cloaks are made against the purifier as it stands",
        )
        adaptive_steps: int = Field(
            4, ge=1, le=100, description="steps of such a cloak", json_schema_extra={"unit": "steps"}
        )
        adaptive_eps: tuple[float, float] = Field(
            (6.0, 16.0),
            description="range of the bound of such a cloak, drawn for each image",
            json_schema_extra={"unit": "grey levels"},
        )
        cloaks: tuple[int, ...] = Field(
            (600,),
            description="photos to cloak: one number for all attacks, or one each in --attack's order",
            json_schema_extra={"unit": "images"},
        )
        naturals: int = Field(
            1000, ge=1, description="photos used uncloaked", json_schema_extra={"unit": "images"}
        )
        holdout: int = Field(
            32,
            ge=1,
            description="training identities kept for measuring",
            json_schema_extra={"unit": "people"},
        )
        evaluate_every: int = Field(
            100,
            ge=1,
            description="steps between checkpoints and measurements",
            json_schema_extra={"unit": "steps"},
        )
        patience: int = Field(
            0, ge=0, description="measurements without improvement before stopping early; 0 for never"
        )
        natural_image_weight: float = Field(
            1.0, ge=0, description="weight of the image loss of natural photos, in units of image_weight"
        )
        width: int = Field(48, ge=1, le=256, description="channels", json_schema_extra={"unit": "channels"})
        depth: int = Field(
            10,
            ge=0,
            le=40,
            multiple_of=2,
            description="3×3 convolutions",
            json_schema_extra={"unit": "layers"},
        )
        stride: Literal[1, 2, 4] = Field(
            2, description="side of the input over the side inside", json_schema_extra={"unit": "pixels"}
        )
        precision: Literal["float32", "bfloat16"] = Field(
            "float32", description="arithmetic of the purifier while it trains; weights stay float32"
        )

        @model_validator(mode="after")
        def _amplification_is_a_range(self) -> Self:
            if len(self.k_min) != len(self.k_max):
                raise ValueError(f"k_min has {len(self.k_min)} values, k_max {len(self.k_max)}; give as many")
            for low, high in zip(self.k_min, self.k_max, strict=True):
                if not 0 <= low <= high:
                    raise ValueError(f"k_min {low} and k_max {high} are not 0 ≤ k_min ≤ k_max")
            low, high = self.adaptive_eps
            if not 0 < low <= high <= 255:
                raise ValueError(f"adaptive_eps {low}|{high} is not 0 < least ≤ greatest ≤ 255")
            if self.perceptual_weight and not round(self.batch * self.natural_share):
                raise ValueError(
                    f"perceptual_weight {self.perceptual_weight:g} weighs natural photos, and natural_share "
                    f"{self.natural_share:g} of {self.batch} leaves none in a batch"
                )
            if any(count < 1 for count in self.cloaks):
                raise ValueError(f"cloaks {self.cloaks}: at least one photo each")
            return self

    params: Params

    def train(self, request: TrainRequest) -> Mapping[str, Any]:
        """Train, write weights and card, return the card.

        The folder ``<out>.checkpoint`` holds the cloaks and the last checkpoint until the weights are
        written; called again after a kill, training goes on from there.

        Raises:
            UsageError: no attacks, no backbones, too few training identities, or per-attack parameters
                that are not one for all or one each.
        """
        return _Training(self.params, canonical(self), request).run()


def _one_each(values: tuple[Any, ...], count: int, what: str) -> tuple[Any, ...]:
    if len(values) == count:
        return values
    if len(values) == 1:
        return values * count
    raise UsageError(f"puface: {what} has {len(values)} values for {count} attacks; give one, or one each.")


def _lpips(request: TrainRequest) -> Lpips:
    """Return LPIPS on the request's device.

    Raises:
        UsageError: it cannot be had.
    """
    lpips = load_lpips()
    if isinstance(lpips, Unavailable):
        raise UsageError(
            f"puface: perceptual_weight weighs LPIPS. {lpips.reason} Or leave perceptual_weight out."
        )
    return lpips.to(request.device)


class _Training:
    """One training: the request with its parameters, photos, network and optimiser."""

    def __init__(self, params: PuFaceTrainer.Params, trainer: str, request: TrainRequest) -> None:
        self.params = params
        self.trainer = trainer
        self.request = request
        if not request.attacks:
            raise UsageError("puface trains against attacks: name at least one, --attack pgd:eps=15.")
        if not request.backbones:
            raise UsageError("puface needs feature extractors: name at least one, --backbone NAME.")
        for attack in request.attacks:
            if attack.parts():
                raise UsageError(
                    f"puface cannot be trained against '{canonical(attack)}', which is made of other methods. To "
                    "train it against attacks that know it, say puface:adaptive_share=0.5."
                )
        if request.out.suffix != ".safetensors":
            raise UsageError(f"--out {request.out.name} must end in .safetensors.")
        order = sorted(range(len(request.attacks)), key=lambda i: canonical(request.attacks[i]))
        count = len(order)
        k_min = _one_each(params.k_min, count, "k_min")
        k_max = _one_each(params.k_max, count, "k_max")
        cloaks = _one_each(params.cloaks, count, "cloaks")
        self.attacks = {canonical(request.attacks[i]): request.attacks[i] for i in order}
        self.amplification = {canonical(request.attacks[i]): (k_min[i], k_max[i]) for i in order}
        self.cloaks = {canonical(request.attacks[i]): cloaks[i] for i in order}
        self.extractors = tuple(sorted(request.backbones, key=lambda backbone: backbone.card.name))
        self.recipe = Recipe(
            params.batch, params.natural_share, params.smooth_share, params.borrow_share, self.amplification
        )
        self.lpips = _lpips(request) if params.perceptual_weight else None
        self.folder = request.out.with_suffix(".checkpoint")

    def run(self) -> dict[str, Any]:
        """Train, write, return the card."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(self.folder / "clock.json")
        held_out, rest = self._identities()
        self.cloaker = Cloaker(
            self.request, self.extractors, rest, self.request.cloaks or self.folder / "cloaks"
        )
        naturals = choose_photos(rest, self.params.naturals, "image")
        photos = self._photos(rest, naturals, self.cloaks)
        measured = choose_photos(held_out, len(held_out), "image")
        holdout = self._photos(held_out, measured, dict.fromkeys(self.attacks, len(held_out)))
        best, steps = self._optimise(photos, holdout)
        save_network(best, self.request.out)
        network = load_network(self.request.out, self.request.device)  # measured as it will be used
        card = self._card(network, holdout, steps, len(held_out))
        content = card.model_dump(mode="json")
        self.request.out.with_suffix(".json").write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        shutil.rmtree(self.folder)
        return content

    # Photos and cloaks.

    def _identities(self) -> tuple[list[Identity], list[Identity]]:
        rng = numpy_generator(self.request.seed, "puface/identities")
        return deal_training_identities(self.request, self.params.holdout, rng)

    def _photos(
        self, identities: list[Identity], naturals: list[tuple[str, str]], counts: Mapping[str, int]
    ) -> Photos:
        chosen = {name: choose_photos(identities, counts[name], self.attacks[name].scope) for name in counts}
        everything = list(
            dict.fromkeys([*naturals, *(photo for photos in chosen.values() for photo in photos)])
        )
        row = {photo: i for i, photo in enumerate(everything)}
        natural = self.request.dataset.crops([photo for photo, _ in everything])
        cloaks = {
            name: ([row[photo] for photo in photos], self._cloak(name, photos))
            for name, photos in chosen.items()
        }
        features = embed_all(natural, self.extractors, self.request.device)
        return Photos(natural, cloaks, features)

    def _cloak(self, name: str, photos: list[tuple[str, str]]) -> Tensor:
        cloaks = self.cloaker.cloak(name, self.attacks[name], photos)
        self.clock.save()
        return cloaks

    # Optimisation.

    def _network(self) -> PurifierNetwork:
        generator = torch_generator(self.request.seed, "puface/weights")
        network = PurifierNetwork(
            self.params.width, self.params.depth, generator=generator, stride=self.params.stride
        )
        return network.to(device=self.request.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _optimise(self, photos: Photos, holdout: Photos) -> tuple[PurifierNetwork, int]:
        """Return the network with the least loss on held-out identities, and its step."""
        params = self.params
        network = self._network()
        optimiser = torch.optim.AdamW(network.parameters(), lr=params.lr)
        best, progress = deepcopy(network), _Progress()
        modules = {"network": network, "best": best}
        checkpoint = self.folder / f"state-{self._digest('state')}.safetensors"
        if checkpoint.is_file():
            progress = _Progress(**load_checkpoint(checkpoint, modules, optimiser))
        while progress.step < params.steps and not progress.stopped(params.patience):
            rate = cosine_decay(progress.step, params.steps, params.lr)
            self._step(network, optimiser, photos, progress.step, rate)
            progress.step += 1
            self.request.report("train", progress.step, params.steps)
            if progress.step % params.evaluate_every == 0 or progress.step == params.steps:
                if progress.improved(self._holdout_loss(network, holdout)):
                    best.load_state_dict(network.state_dict())
                save_checkpoint(checkpoint, modules, optimiser, asdict(progress))
                self.clock.save()
        return best, progress.best_step

    def _step(
        self,
        network: PurifierNetwork,
        optimiser: torch.optim.Optimizer,
        photos: Photos,
        step: int,
        rate: float,
    ) -> None:
        rng = numpy_generator(self.request.seed, "puface/batch", str(step))
        rows, images = self.recipe.draw(photos.natural, photos.cloaks, rng)
        device = self.request.device
        natural = (photos.natural[rows].to(device).float() / 255).contiguous(
            memory_format=torch.channels_last
        )
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        drawn = self._extractors_of(step)
        extractors = [self.extractors[i] for i in drawn]
        features = [photos.features[i][rows] for i in drawn]
        if self.params.adaptive_share > 0 and rng.random() < self.params.adaptive_share:
            images = self._against_itself(network, images, natural, features, extractors, rng)
        loss = self._loss(network, images, natural, features, extractors)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def _against_itself(
        self,
        network: PurifierNetwork,
        images: Tensor,
        natural: Tensor,
        features: Sequence[Tensor],
        extractors: Sequence[Backbone],
        rng: np.random.Generator,
    ) -> Tensor:
        """Return the batch with cloaks made against the network as it stands in place of the others."""
        rest = slice(self.recipe.untouched, None)
        count = len(images) - self.recipe.untouched
        low, high = self.params.adaptive_eps
        eps = torch.from_numpy(rng.uniform(low, high, size=count).astype(np.float32) / 255)
        start = torch.from_numpy(rng.uniform(-1, 1, size=(count, *images.shape[1:])).astype(np.float32))
        cloaks = adaptive_examples(
            partial(self._purified, network),
            natural[rest],
            [of_all[rest] for of_all in features],
            extractors,
            eps=eps.to(images.device),
            steps=self.params.adaptive_steps,
            joint=bool(rng.random() < 0.5),
            start=start.to(images.device),
        )
        mixed = torch.cat([images[: self.recipe.untouched], cloaks])
        return mixed.contiguous(memory_format=torch.channels_last)

    def _purified(self, network: PurifierNetwork, images: Tensor) -> Tensor:
        device = self.request.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.params.precision == "bfloat16"):
            purified: Tensor = network(images).float()
        return purified

    def _extractors_of(self, step: int) -> list[int]:
        """Return which extractors one step's feature loss looks through."""
        count = len(self.extractors)
        wanted = self.params.extractors_per_step or count
        rng = numpy_generator(self.request.seed, "puface/extractors", str(step))
        return sorted(int(i) for i in rng.permutation(count)[:wanted])

    def _loss(
        self,
        network: PurifierNetwork,
        images: Tensor,
        natural: Tensor,
        features: Sequence[Tensor],
        extractors: Sequence[Backbone],
    ) -> Tensor:
        """Return image_weight · MSE + feature_weight · mean(1 − cos), the two losses of the paper.

        With a `perceptual_weight`, that much of the natural photos' LPIPS is added (ours); all are means over a batch.
        """
        purified = self._purified(network, images)
        errors = (purified - natural).square().mean((1, 2, 3))
        weights = torch.ones_like(errors)
        weights[: self.recipe.untouched] = self.params.natural_image_weight
        loss = self.params.image_weight * (weights * errors).mean()
        if self.params.feature_weight:
            distance = feature_distance(purified.clamp(0, 1), features, extractors).mean()
            loss = loss + self.params.feature_weight * distance
        if self.lpips is not None and self.recipe.untouched:
            left_alone = slice(self.recipe.untouched)
            visible = self.lpips.penalty(purified[left_alone].clamp(0, 1), natural[left_alone]).sum()
            loss = loss + self.params.perceptual_weight * visible / len(images)
        return loss

    def _holdout_loss(self, network: PurifierNetwork, holdout: Photos) -> float:
        """Return the training loss on held-out identities, natural and cloaked as posted, one part each."""
        natural = holdout.natural.float() / 255
        inputs = [(list(range(len(natural))), natural)]
        inputs += [(rows, cloaks.float() / 255) for rows, cloaks in holdout.cloaks.values()]
        losses = []
        for rows, images in inputs:
            error, distance = self._measure(
                network, images, natural[rows], [f[rows] for f in holdout.features]
            )
            losses.append(self.params.image_weight * error + self.params.feature_weight * distance)
        visible = self._visible(network, natural) if self.params.perceptual_weight else 0.0
        losses[0] += self.params.perceptual_weight * (visible or 0.0)
        return sum(losses) / len(losses)

    def _visible(self, network: PurifierNetwork, natural: Tensor) -> float | None:
        """Return the mean LPIPS of natural photos after the network and rounding; None where it cannot be had."""
        too_small = min(natural.shape[-2:]) < LEAST_SIDE
        lpips = self.lpips or (None if too_small else load_lpips())
        if lpips is None or isinstance(lpips, Unavailable):
            return None
        lpips, device, found = lpips.to(self.request.device), self.request.device, []
        for start in range(0, len(natural), MICRO_BATCH):
            part = natural[start : start + MICRO_BATCH].to(device)
            with torch.no_grad():
                found.append(lpips.penalty(to_bytes(purify(network, part)).float() / 255, part))
        return float(torch.cat(found).mean())

    def _measure(
        self, network: PurifierNetwork | None, images: Tensor, natural: Tensor, features: Sequence[Tensor]
    ) -> tuple[float, float]:
        """Return MSE and feature distance of images after the network and rounding, to natural ones."""
        device = self.request.device
        errors, distances = [], []
        for start in range(0, len(images), MICRO_BATCH):
            part = slice(start, start + MICRO_BATCH)
            with torch.no_grad():
                output = images[part].to(device)
                if network is not None:
                    output = to_bytes(purify(network, output)).float() / 255
                errors += [(output - natural[part].to(device)).square().mean((1, 2, 3))]
                distances += [feature_distance(output, [f[part] for f in features], self.extractors)]
        return float(torch.cat(errors).mean()), float(torch.cat(distances).mean())

    # Card and digests.

    def _card(self, network: PurifierNetwork, holdout: Photos, steps: int, identities: int) -> PurifierCard:
        request, params = self.request, self.params
        return PurifierCard(
            file=request.out.name,
            sha256=sha256_of(request.out),
            domain=request.dataset.domain,
            dataset=canonical(request.dataset),
            dataset_fingerprint=request.dataset.fingerprint(),
            training_identities=learnt_from(request).name,
            extractors=tuple(extractor.card.name for extractor in self.extractors),
            attacks=tuple(sorted([*self.attacks, *([ADAPTIVE] if params.adaptive_share else [])])),
            amplification=self.amplification,
            image_weight=params.image_weight,
            feature_weight=params.feature_weight,
            width=params.width,
            depth=params.depth,
            stride=params.stride,
            parameters=sum(p.numel() for p in network.parameters()),
            steps=steps,
            batch=params.batch,
            trainer=self.trainer,
            command=training_command(self.trainer, self.request, self.extractors),
            seed=request.seed,
            wall_seconds=round(self.clock.save(), 1),
            machine=f"{request.device.type}, {platform.machine()}, {torch.get_num_threads()} threads",
            quality=self._quality(network, holdout, identities),
        )

    def _quality(self, network: PurifierNetwork, holdout: Photos, identities: int) -> PurifierQuality:
        natural = holdout.natural.float() / 255
        natural_error, _ = self._measure(network, natural, natural, holdout.features)
        before, after = [], []
        for rows, cloaks in holdout.cloaks.values():
            features = [f[rows] for f in holdout.features]
            images = cloaks.float() / 255
            before.append(self._measure(None, images, natural[rows], features))
            after.append(self._measure(network, images, natural[rows], features))
        cloaked_error, distance_cloaked = np.mean(before, axis=0)
        purified_error, distance_purified = np.mean(after, axis=0)
        return PurifierQuality(
            identities=identities,
            natural_psnr=_psnr(natural_error),
            cloaked_psnr=_psnr(cloaked_error),
            purified_psnr=_psnr(purified_error),
            distance_cloaked=round(float(distance_cloaked), 4),
            distance_purified=round(float(distance_purified), 4),
            recovered=round(1 - float(distance_purified) / max(float(distance_cloaked), 1e-12), 4),
            natural_lpips=None if (visible := self._visible(network, natural)) is None else round(visible, 4),
        )

    def _digest(self, *parts: str) -> str:
        """Return a digest of what decides a checkpoint: all of the request, or what makes its cloaks."""
        content: list[Any] = [
            parts,
            self.request.seed,
            self.request.dataset.fingerprint(),
            self.params.holdout,
            learnt_from(self.request).name,
        ]
        content += [(e.card.name, e.card.sha256) for e in self.extractors]
        if parts[0] == "state":
            content += [self.trainer, list(self.attacks), repr(self.amplification), repr(self.cloaks)]
            content += [] if self.lpips is None else [self.lpips.trunk_sha256]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


@dataclass
class _Progress:
    """Where a training stands.

    Attributes:
        step: steps done.
        best_step: the one with the least held-out loss so far.
        best_loss: that loss.
        stale: measurements since.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    stale: int = 0

    def improved(self, loss: float) -> bool:
        """Take note of the held-out loss at the present step; say whether it is the least so far."""
        if not math.isfinite(loss):
            raise MethodError(f"puface: the held-out loss is {loss} at step {self.step}; lower lr.")
        self.stale += 1
        if loss >= self.best_loss:
            return False
        self.best_step, self.best_loss, self.stale = self.step, loss, 0
        return True

    def stopped(self, patience: int) -> bool:
        """Say whether to stop early."""
        return patience > 0 and self.stale >= patience


def _psnr(error: float) -> float:
    """Return the PSNR in dB of a mean squared error of [0, 1] pixels, at most 99."""
    return round(min(-10 * math.log10(max(float(error), 1e-12)), 99.0), 2)
