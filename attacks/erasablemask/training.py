"""Trains generator and restorer of `attacks.erasablemask.attack` together (arXiv 2412.17038).

Every draw comes from (seed, stage, step) and every checkpoint holds networks, optimiser and curriculum, so a
training that was killed goes on to the same weights. What the abstract says and what is ours:
docs/methods/erasablemask.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from attacks._input_diversity import draw_diversity
from attacks._micro_batch import in_micro_batches
from attacks._targets import target_centre, unit_rows
from attacks.erasablemask.attack import MaskCard, MaskQuality, target_looks
from attacks.erasablemask.curriculum import EVERYTHING_AT_ONCE, Curriculum, Stage, Weights
from attacks.erasablemask.meta_auxiliary import Aim
from attacks.erasablemask.networks import (
    PATTERN_SIDE,
    Generator,
    Restorer,
    Shape,
    change_of,
    drawn_networks,
    load_networks,
    save_networks,
)
from attacks.erasablemask.refinement import DIVERSITY, Draws, Surrogates, drawn_meta_train, refined
from bench.contracts import Backbone, Faces, Identity, MethodParams, Trainer, TrainRequest
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
from bench.randomness import numpy_generator, torch_generator
from bench.run.code_hashes import code_digest
from bench.run.digest import environment
from bench.run.photo_sets import shown_photos, target_identities

REFINED_FROM = 0.4
"""Share of all steps after which the restorer meets refined masks."""


class ErasableMaskTrainer(Trainer):
    """Trains a mask's generator and restorer against the request's backbones."""

    name: ClassVar[str] = "erasablemask"
    paper: ClassVar[str] = "ErasableMask, arXiv 2412.17038 (2024)"
    needs_backbones: ClassVar[bool] = True

    class Params(MethodParams):
        """Parameters of `ErasableMaskTrainer`."""

        steps: int = Field(
            3000, ge=1, description="steps of the optimiser", json_schema_extra={"unit": "steps"}
        )
        batch: int = Field(
            16, ge=1, le=1024, description="photos a step", json_schema_extra={"unit": "images"}
        )
        lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate of AdamW, decays as a cosine")
        psnr: float = Field(
            28, ge=15, le=50, description="least PSNR of a mask", json_schema_extra={"unit": "dB"}
        )
        linf: float = Field(
            40,
            gt=0,
            le=255,
            description="largest change by a mask",
            json_schema_extra={"unit": "grey levels"},
        )
        pattern: float = Field(
            2,
            gt=0,
            le=16,
            description="amplitude of the key's pattern, on top",
            json_schema_extra={"unit": "grey levels"},
        )
        width: int = Field(32, ge=1, le=256, description="channels", json_schema_extra={"unit": "channels"})
        blocks: int = Field(
            4, ge=0, le=32, description="residual blocks", json_schema_extra={"unit": "blocks"}
        )
        targets: int = Field(
            50,
            ge=1,
            description="identities it learns to imitate: the first of the pool of targeted attacks",
            json_schema_extra={"unit": "identities"},
        )
        split_seed: int = Field(0, ge=0, description="of the runs it is for: decides the pool of targets")
        gradients: Literal["meta-auxiliary", "ensemble"] = Field(
            "meta-auxiliary", description="how the surrogates' gradients are put together"
        )
        primary: str = Field("", description="the primary surrogate; empty: the first --backbone")
        stride: float = Field(
            2,
            ge=0,
            le=64,
            description="root mean square of the inner step of the meta-auxiliary attack",
            json_schema_extra={"unit": "grey levels"},
        )
        refinement: int = Field(
            10,
            ge=0,
            le=1000,
            description="steps that refine a mask on its own photo",
            json_schema_extra={"unit": "steps"},
        )
        refined_share: float = Field(
            0.2,
            ge=0,
            le=1,
            description="share of steps of the last stage that train the restorer alone, on refined masks",
        )
        diversity: float = Field(
            0.7, ge=0, le=1, description="probability that a surrogate sees a photo shrunk and shifted"
        )
        curriculum: Literal["staged", "none"] = Field(
            "staged", description="attribute, adversarial, restoration one after the other; or all at once"
        )
        dodge_weight: float = Field(
            1,
            ge=0,
            le=100,
            description="weight of getting away from the own face against being like the target",
        )
        attribute_weight: float = Field(
            0.2, ge=0, description="weight of 1 − cosine of the mask to the way to the target's looks"
        )
        restore_weight: float = Field(
            150, ge=0, description="weight of the erased photo's mean squared error ([0, 1] pixels)"
        )
        feature_weight: float = Field(
            0.5, ge=0, description="weight of 1 − cosine of the erased photo to the photo, for one surrogate"
        )
        lock_weight: float = Field(
            0.2, ge=0, description="weight of the cross-entropy of right, wrong and no key"
        )
        photos: int = Field(
            2500,
            ge=2,
            description="photos to train on, one an identity first",
            json_schema_extra={"unit": "images"},
        )
        holdout: int = Field(
            32,
            ge=1,
            description="training identities kept for measuring",
            json_schema_extra={"unit": "people"},
        )
        checkpoint_every: int = Field(
            100, ge=1, description="steps between checkpoints", json_schema_extra={"unit": "steps"}
        )
        precision: Literal["float32", "bfloat16"] = Field(
            "bfloat16", description="arithmetic of the two networks while they train; weights stay float32"
        )

    params: Params

    def train(self, request: TrainRequest) -> Mapping[str, Any]:
        """Train, write weights and card, return the card.

        Raises:
            UsageError: no backbones, one without gradient, an unknown primary one, or too few identities.
            MethodError: the loss is no longer finite.
        """
        return _Training(self.params, canonical(self), request).run()


@dataclass(frozen=True)
class _Identities:
    """Photos to train on, with what the surrogates see in them.

    Attributes:
        photos: N×3×H×W uint8.
        own: for each surrogate N×D unit embeddings.
    """

    photos: Tensor
    own: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Targets:
    """The identities to imitate.

    Attributes:
        ids: identity ids.
        looks: T×3×H×W.
        centres: for each surrogate T×D unit embeddings.
    """

    ids: tuple[str, ...]
    looks: Tensor
    centres: tuple[Tensor, ...]

    @property
    def condition(self) -> Tensor:
        """What the generator is given of each, T×C; the surrogates in the order of their names."""
        return torch.cat(self.centres, dim=1)


@dataclass(frozen=True)
class _Batch:
    """What one step works on: photos, whom each imitates, and two keys' patterns."""

    photos: Tensor
    own: list[Tensor]
    who: Tensor
    right: Tensor
    wrong: Tensor


class _Training:
    """One training: the request with its parameters, photos, networks and optimiser."""

    def __init__(self, params: ErasableMaskTrainer.Params, trainer: str, request: TrainRequest) -> None:
        self.params, self.trainer, self.request = params, trainer, request
        if not request.backbones:
            raise UsageError("erasablemask trains against backbones: name at least one, --backbone NAME.")
        for backbone in request.backbones:
            if not backbone.differentiable:
                raise UsageError(f"'{backbone.card.name}' has no gradient. Name differentiable backbones.")
        if request.out.suffix != ".safetensors":
            raise UsageError(f"--out {request.out.name} must end in .safetensors.")
        self.surrogates = tuple(sorted(request.backbones, key=lambda backbone: backbone.card.name))
        names = [backbone.card.name for backbone in self.surrogates]
        self.primary = params.primary or request.backbones[0].card.name
        if self.primary not in names:
            raise UsageError(f"primary '{self.primary}' is not among the backbones: {', '.join(names)}.")
        # The primary one first, as `meta_auxiliary` wants it.
        self.order = sorted(range(len(names)), key=lambda k: (names[k] != self.primary, names[k]))
        self.requested = Surrogates(
            [self.surrogates[k] for k in self.order], ensemble=params.gradients == "ensemble"
        )
        self.folder = request.out.with_suffix(".checkpoint")

    def run(self) -> dict[str, Any]:
        """Train, write, return the card."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(self.folder / "clock.json")
        held_out, identities, targets = self._identities()
        self.targets = self._read_targets(targets)
        trained_on = self._read(identities, self.params.photos)
        shape = Shape(
            condition=self.targets.condition.shape[1],
            width=self.params.width,
            blocks=self.params.blocks,
            psnr=self.params.psnr,
            linf=self.params.linf,
            pattern=self.params.pattern,
            refinement=self.params.refinement,
        )
        networks, began = self._optimise(shape, trained_on)
        save_networks(*networks, self.request.out)
        # Measured as they will be used.
        quality = self._quality(*load_networks(self.request.out, self.request.device), held_out)
        content = self._card(networks, began, quality).model_dump(mode="json")
        self.request.out.with_suffix(".json").write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        shutil.rmtree(self.folder)
        return content

    # -- photos --------------------------------------------------------------------------------------------

    def _identities(self) -> tuple[list[Identity], list[Identity], list[Identity]]:
        """Return identities held out, trained on and imitated; nobody is two of these."""
        everyone = learnt_from(self.request).identities
        targets = list(target_identities(everyone, self.params.split_seed)[: self.params.targets])
        imitated = {identity.id for identity in targets}
        rng = numpy_generator(self.request.seed, "erasablemask/identities")
        # Targets are dealt too, so that a different number of them does not deal the others anew.
        held_out, rest = deal_training_identities(self.request, self.params.holdout, rng)
        held_out, rest = ([p for p in group if p.id not in imitated] for group in (held_out, rest))
        if not held_out or len(rest) < 2:
            raise UsageError(
                f"{len(rest)} training identities are left beside {len(targets)} targets and {len(held_out)} held out. "
                "Lower targets or holdout, or take another dataset."
            )
        return held_out, rest, targets

    def _read(self, identities: Sequence[Identity], count: int) -> _Identities:
        """Read up to `count` photos, everyone's first one before anyone's second."""
        turns = max(len(identity.photos) for identity in identities)
        ids = [p.photos[turn] for turn in range(turns) for p in identities if turn < len(p.photos)][:count]
        photos = self.request.dataset.crops(ids)
        return _Identities(photos, tuple(self._embedded(backbone, photos) for backbone in self.surrogates))

    def _embedded(self, backbone: Backbone, photos: Tensor) -> Tensor:
        """Return unit embeddings of uint8 photos, on the device."""
        device = self.request.device
        return in_micro_batches(lambda rows: unit_rows(backbone, rows.to(device).float() / 255), photos)

    def _read_targets(self, identities: Sequence[Identity]) -> _Targets:
        device = self.request.device
        looks, centres = [], []
        for number, identity in enumerate(identities):
            photos = self.request.dataset.crops(shown_photos(identity)).to(device).float() / 255
            faces = Faces(photos, shown_photos(identity), (identity.id,) * len(photos))
            looks.append(target_looks(photos))
            centres.append(target_centre(self.surrogates, faces, identity.id))
            self.request.report("targets", number + 1, len(identities))
        stacked = tuple(torch.stack(rows) for rows in zip(*centres, strict=True))
        return _Targets(tuple(identity.id for identity in identities), torch.stack(looks), stacked)

    # -- optimisation --------------------------------------------------------------------------------------

    def _optimise(
        self, shape: Shape, identities: _Identities
    ) -> tuple[tuple[Generator, Restorer], tuple[int, ...]]:
        """Return the trained networks and the steps at which the curriculum's stages began."""
        params, device = self.params, self.request.device
        networks = drawn_networks(shape, torch_generator(self.request.seed, "erasablemask/weights"))
        for network in networks:
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        modules: dict[str, nn.Module] = {"generator": networks[0], "restorer": networks[1]}
        parameters = [p for network in networks for p in network.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=params.lr)
        checkpoint = self.folder / f"state-{self._digest(identities)}.safetensors"
        step, curriculum, began = 0, Curriculum(), [0]
        if checkpoint.is_file():
            facts = load_checkpoint(checkpoint, modules, optimiser)
            step, began = facts["step"], facts["began"]
            curriculum = Curriculum(**{**facts["curriculum"], "stage": Stage(facts["curriculum"]["stage"])})
        while step < params.steps:
            loss, following = self._step_loss(networks, self._batch(identities, step), step, curriculum)
            for group in optimiser.param_groups:
                group["lr"] = cosine_decay(step, params.steps, params.lr)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if not math.isfinite(float(nn.utils.clip_grad_norm_(parameters, 1.0))):
                raise MethodError(f"erasablemask: the gradient is not finite at step {step}; lower lr.")
            optimiser.step()
            if following.stage is not curriculum.stage:
                began.append(following.since)
            curriculum, step = following, step + 1
            self.request.report("train", step, params.steps)
            if step % params.checkpoint_every == 0:
                stand = {"step": step, "began": began, "curriculum": asdict(curriculum)}
                save_checkpoint(checkpoint, modules, optimiser, stand)
                self.clock.save()
        return networks, tuple(began) if params.curriculum == "staged" else ()

    def _batch(self, identities: _Identities, step: int) -> _Batch:
        """Draw photos, targets and keys of one step; half of the wrong keys are none."""
        count = self.params.batch
        draw = torch_generator(self.request.seed, "erasablemask/batch", str(step))
        rows = torch.randint(len(identities.photos), (count,), generator=draw)
        who = torch.randint(len(self.targets.ids), (count,), generator=draw)
        signs = torch.randint(2, (2, count, 3, PATTERN_SIDE, PATTERN_SIDE), generator=draw) * 2.0 - 1
        some = (torch.rand(count, generator=draw) < 0.5).float().view(-1, 1, 1, 1)
        device = self.request.device
        photos = (identities.photos[rows].to(device).float() / 255).contiguous(
            memory_format=torch.channels_last
        )
        own = [embeddings[rows.to(device)] for embeddings in identities.own]
        return _Batch(photos, own, who.to(device), signs[0].to(device), (signs[1] * some).to(device))

    def _step_loss(
        self,
        networks: tuple[Generator, Restorer],
        batch: _Batch,
        step: int,
        curriculum: Curriculum,
    ) -> tuple[Tensor, Curriculum]:
        """Return the loss of one step and where the curriculum stands after it."""
        steps = self.params.steps
        if self._trains_on_refined(step):
            return self._restorer_loss(networks, batch, step), curriculum
        staged = self.params.curriculum == "staged"
        weights = curriculum.weights(step, steps) if staged else EVERYTHING_AT_ONCE
        loss, appearance, likeness = self._losses(networks, batch, step, weights)
        return loss, curriculum.after(step, steps, appearance, likeness)

    def _trains_on_refined(self, step: int) -> bool:
        params = self.params
        if not params.refinement or step < REFINED_FROM * params.steps:
            return False
        draw = torch_generator(self.request.seed, "erasablemask/refined", str(step))
        return bool(torch.rand(1, generator=draw) < params.refined_share)

    def _losses(
        self, networks: tuple[Generator, Restorer], batch: _Batch, step: int, weights: Weights
    ) -> tuple[Tensor, float, float]:
        """Return the loss of both networks, the masks' mean appearance and their mean adversarial loss."""
        params = self.params
        change = change_of(self._masks(networks[0], batch), batch.right, networks[0].shape)
        masked = _as_posted(batch.photos + change)
        draw = self._draws(step, "surrogates", len(masked), params.diversity)
        gradient, losses = self.requested.gradient(
            masked.detach(),
            self._target_assignment(batch),
            params.dodge_weight,
            draw.diversity,
            draw.trained,
            params.stride,
        )
        wanted = self.targets.looks[batch.who] - batch.photos
        appearance = F.cosine_similarity(_coarse(change).flatten(1), _coarse(wanted).flatten(1)).mean()
        # The surrogates' part: its gradient with respect to the masked photo is `gradient`.
        loss = weights.adversarial * (gradient * masked).sum() / len(masked)
        loss = loss + weights.attribute * params.attribute_weight * (1 - appearance)
        loss = loss + self._erasing_loss(networks[1], batch, masked, step, weights.restoration)
        return loss, float(appearance.detach()), float(losses.mean())

    def _restorer_loss(self, networks: tuple[Generator, Restorer], batch: _Batch, step: int) -> Tensor:
        """Return the loss of the restorer on masks refined as they are when they are posted."""
        shape, count = networks[0].shape, len(batch.photos)
        with torch.no_grad():
            half = self._masks(networks[0], batch)
        draws = [
            self._draws(step, f"refinement/{number}", count, DIVERSITY)
            for number in range(self.params.refinement)
        ]
        half = refined(
            half, batch.photos, batch.right, self.requested, self._target_assignment(batch), shape, draws
        )
        masked = _as_posted(batch.photos + change_of(half, batch.right, shape))
        return self._erasing_loss(networks[1], batch, masked, step, 1.0)

    def _erasing_loss(
        self, restorer: Restorer, batch: _Batch, masked: Tensor, step: int, weight: float
    ) -> Tensor:
        """Return `weight` · restoration + lock: right key, wrong or no key, and a photo that was never masked."""
        params = self.params
        with self._autocast():
            restored = restorer(masked, batch.right).float()
            right = restorer.fits(masked, batch.right).float()
            wrong = restorer.fits(masked, batch.wrong).float()
            natural = restorer.fits(batch.photos, batch.right).float()
        restoration = params.restore_weight * (restored - batch.photos).square().mean()
        if params.feature_weight:
            restoration = restoration + params.feature_weight * self._unlike(batch, restored, step)
        lock = F.softplus(-right).mean() + F.softplus(wrong).mean() + F.softplus(natural).mean()
        loss: Tensor = weight * restoration + params.lock_weight * lock
        return loss

    def _masks(self, generator: Generator, batch: _Batch) -> Tensor:
        with self._autocast():
            looks, condition = self.targets.looks[batch.who], self.targets.condition[batch.who]
            return generator.mask(batch.photos, looks, condition)

    def _autocast(self) -> torch.autocast:
        enabled = self.params.precision == "bfloat16"
        return torch.autocast(self.request.device.type, torch.bfloat16, enabled=enabled)

    def _target_assignment(self, batch: _Batch) -> list[Aim]:
        """Return what each surrogate should see, the primary one's first."""
        return [Aim(batch.own[k], self.targets.centres[k][batch.who]) for k in self.order]

    def _draws(self, step: int, what: str, count: int, probability: float) -> Draws:
        draw = torch_generator(self.request.seed, f"erasablemask/{what}", str(step))
        diversity = [draw_diversity([draw] * count, probability) for _ in self.order]
        return Draws(diversity, drawn_meta_train(len(self.order), draw))

    def _unlike(self, batch: _Batch, restored: Tensor, step: int) -> Tensor:
        """Return the mean 1 − cosine of erased photos to the photos, for the surrogate whose turn it is."""
        k = step % len(self.surrogates)
        seen = self.surrogates[k].embed(restored.clamp(0, 1))
        return (1 - F.cosine_similarity(seen, batch.own[k])).mean()

    # -- card ----------------------------------------------------------------------------------------------

    def _quality(
        self, generator: Generator, restorer: Restorer, identities: Sequence[Identity]
    ) -> MaskQuality:
        """Measure on one photo of each held-out identity, as posted and as given back."""
        seen = self._read(identities, len(identities))
        count, device = len(seen.photos), self.request.device
        photos = seen.photos.to(device).float() / 255
        draw = torch_generator(self.request.seed, "erasablemask/holdout")
        who = (torch.arange(count) % len(self.targets.ids)).to(device)
        right, wrong = (
            torch.randint(2, (2, count, 3, PATTERN_SIDE, PATTERN_SIDE), generator=draw) * 2.0 - 1
        ).to(device)

        def mask(rows: Tensor) -> Tensor:
            told = self.targets.looks[who[rows]], self.targets.condition[who[rows]]
            half = generator.mask(photos[rows], *told)
            target_assignment = [
                Aim(seen.own[k][rows], self.targets.centres[k][who[rows]]) for k in self.order
            ]
            draws = [
                self._draws(number, "holdout", len(rows), DIVERSITY)
                for number in range(generator.shape.refinement)
            ]
            half = refined(
                half, photos[rows], right[rows], self.requested, target_assignment, generator.shape, draws
            )
            return _as_posted(photos[rows] + change_of(half, right[rows], generator.shape))

        with torch.no_grad():
            rows = torch.arange(count, device=device)
            masked = in_micro_batches(mask, rows)
            restored = in_micro_batches(lambda r: _as_posted(restorer(masked[r], right[r])), rows)
            opened = [
                float((in_micro_batches(partial(_fits, restorer, *pair), rows) > 0).float().mean())
                for pair in ((masked, right), (masked, wrong), (photos, right))
            ]
        likeness = [
            (self._embedded(b, _to_bytes(masked)), self._embedded(b, _to_bytes(restored)))
            for b in self.surrogates
        ]
        own = [(m * e).sum(1).mean() for (m, _), e in zip(likeness, seen.own, strict=True)]
        target = [
            (m * c[who]).sum(1).mean() for (m, _), c in zip(likeness, self.targets.centres, strict=True)
        ]
        back = [(r * e).sum(1).mean() for (_, r), e in zip(likeness, seen.own, strict=True)]
        return MaskQuality(
            identities=count,
            mask_psnr=_psnr(masked, photos),
            restored_psnr=_psnr(restored, photos),
            likeness_own=_mean(own),
            likeness_target=_mean(target),
            likeness_restored=_mean(back),
            opened_right=opened[0],
            opened_wrong=opened[1],
            opened_natural=opened[2],
        )

    def _card(
        self, networks: tuple[Generator, Restorer], began: tuple[int, ...], quality: MaskQuality
    ) -> MaskCard:
        request, params = self.request, self.params
        return MaskCard(
            file=request.out.name,
            sha256=sha256_of(request.out),
            domain=request.dataset.domain,
            dataset=canonical(request.dataset),
            dataset_fingerprint=request.dataset.fingerprint(),
            training_identities=learnt_from(request).name,
            surrogates=tuple(backbone.card.name for backbone in self.surrogates),
            primary=self.primary,
            targets=tuple(sorted(self.targets.ids)),
            psnr=params.psnr,
            linf=params.linf + params.pattern,
            gradients=params.gradients,
            curriculum=began,
            parameters=sum(p.numel() for network in networks for p in network.parameters()),
            steps=params.steps,
            batch=params.batch,
            trainer=self.trainer,
            command=training_command(self.trainer, self.request, self.request.backbones),
            seed=request.seed,
            wall_seconds=round(self.clock.save(), 1),
            machine=f"{platform.machine()}, {request.device.type}, {torch.get_num_threads()} threads",
            quality=quality,
        )

    def _digest(self, identities: _Identities) -> str:
        """Return a digest of all that decides the weights, so that a checkpoint of another training is not read."""
        content = [
            self.params.model_dump(mode="json"),
            code_digest(type(self)),
            environment(str(self.request.device), torch.get_num_threads()),
            self.primary,
            self.request.seed,
            self.request.dataset.fingerprint(),
            learnt_from(self.request).name,
            self.targets.ids,
            len(identities.photos),
            [(b.card.name, b.card.sha256) for b in self.surrogates],
        ]
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def _as_posted(images: Tensor) -> Tensor:
    """Clamp and round to 8 bits; the gradient goes straight through where it can help."""
    clamped = images.clamp(0, 1)
    return clamped + ((clamped * 255).round() / 255 - clamped).detach()


def _to_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def _coarse(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 8)


def _fits(restorer: Restorer, images: Tensor, patterns: Tensor, rows: Tensor) -> Tensor:
    return restorer.fits(images[rows], patterns[rows])


def _psnr(images: Tensor, originals: Tensor) -> float:
    """Return the mean over images of the PSNR in dB."""
    errors = (images - originals).square().mean((1, 2, 3)).clamp_min(1e-10)
    return round(float((-10 * errors.log10()).mean()), 2)


def _mean(values: Sequence[Tensor]) -> float:
    return round(float(torch.stack(list(values)).mean()), 4)
