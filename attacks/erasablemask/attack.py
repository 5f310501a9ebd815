"""ErasableMask: a mask that makes a face look like somebody else to backbones, and that a key takes off again.

arXiv 2412.17038. A generator masks the photo towards another identity, a restorer takes the mask off where the key
is the one it was made with and leaves the photo alone where it is not. What the abstract says and what is ours:
docs/methods/erasablemask.md; training: `attacks.erasablemask.training`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attacks._input_diversity import draw_diversity
from attacks._micro_batch import in_micro_batches
from attacks._surrogates import SurrogateParams, require_surrogates
from attacks._targets import drawn_target, require_targets, rows_of, target_centre, unit_rows
from attacks.erasablemask.meta_auxiliary import Aim
from attacks.erasablemask.networks import change_of, key_pattern, load_networks
from attacks.erasablemask.refinement import DIVERSITY, Draws, Surrogates, drawn_meta_train, refined
from bench.contracts import Attack, Backbone, Binding, Context, Faces, Frozen, ThreatModel
from bench.data.cards import Shelf, WeightsCard, kept
from bench.errors import UsageError

BLUR = 4
"""Side in pixels of the squares over which a target's mean photo is averaged: looks, not details."""


class MaskQuality(Frozen):
    """What the networks do to training identities they were not trained on, on the surrogates themselves."""

    identities: int = Field(ge=1, description="held-out training identities measured on, one photo each")
    mask_psnr: float = Field(description="of masked photos against the photos, dB")
    restored_psnr: float = Field(description="of masked photos after erasing with the key, dB")
    likeness_own: float = Field(description="mean cosine of masked to own photo, over the surrogates")
    likeness_target: float = Field(description="mean cosine of masked photo to its target")
    likeness_restored: float = Field(description="mean cosine of erased to own photo")
    opened_right: float = Field(ge=0, le=1, description="share of masks that the right key opens")
    opened_wrong: float = Field(ge=0, le=1, description="share that another key opens")
    opened_natural: float = Field(ge=0, le=1, description="share of natural photos that a key opens")


class MaskCard(WeightsCard):
    """How one set of weights was made; lies beside the weights as ``.json``."""

    surrogates: tuple[str, ...] = Field(description="backbones it was trained against, sorted")
    primary: str = Field(description="the primary one among them")
    targets: tuple[str, ...] = Field(description="ids of the identities it learnt to imitate, sorted")
    psnr: float = Field(description="least PSNR of a mask, dB")
    linf: float = Field(description="largest change of a pixel by mask and key pattern, grey levels")
    gradients: str = Field(description="'meta-auxiliary' or 'ensemble'")
    curriculum: tuple[int, ...] = Field(description="steps at which its stages began; () without curriculum")
    quality: MaskQuality


SHELF = Shelf(Path(__file__).parents[1] / "weights", "erasablemask", MaskCard, "erasablemask")
"""The weights the project ships, each with its card."""

loaded_networks = kept(load_networks)
"""Generator and restorer of a file, read once."""


def target_looks(photos: Tensor) -> Tensor:
    """Return 3×H×W, the mean of N×3×H×W photos of an identity averaged over squares of `BLUR` pixels."""
    mean = F.avg_pool2d(photos.mean(0, keepdim=True), BLUR)
    return F.interpolate(mean, scale_factor=float(BLUR), mode="bilinear", align_corners=False)[0]


class ErasableMask(Attack):
    """Masks a face towards another identity; the key takes the mask off."""

    name: ClassVar[str] = "erasablemask"
    paper: ClassVar[str] = "ErasableMask, arXiv 2412.17038 (2024)"
    erasable: ClassVar[bool] = True

    class Params(SurrogateParams):
        """Parameters of `ErasableMask`."""

        weights: str = Field(
            "",
            description="a .safetensors of your own, with its card beside it; empty for those shipped",
            json_schema_extra={"path": True},
        )
        refinement: int | None = Field(
            None,
            ge=0,
            le=1000,
            description="steps that refine a mask on its own photo; as in training when absent",
            json_schema_extra={"unit": "steps"},
        )

    params: Params

    @property
    def threat(self) -> ThreatModel:
        """Targeted; how visible a mask is was decided when its weights were trained."""
        return ThreatModel(
            goal="targeted",
            surrogates=1,
            needs_targets=True,
            constraint="PSNR at least that on the weights' card, the key's pattern not counted",
        )

    @property
    def passes(self) -> int:
        """The steps of the refinement, those of the shipped weights where the parameters leave them to a card."""
        return 24 if self.params.refinement is None else self.params.refinement

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the weights and the card for this cell.

        Raises:
            UsageError: no weights fit; or the tracker is a surrogate and was not named.
            DataError: weights, card or digest are not what they should be.
        """
        named = self.params.surrogates != "auto"
        return fitting_weights(self.name, self.params.weights, binding, named=named)

    def training_identities(self, binding: Binding) -> str:
        """Return whose photos the weights were trained on, from their card."""
        return SHELF.read(self.files(binding)[0]).training_identities

    def assign_targets(self, faces: Faces, ctx: Context) -> Mapping[str, str]:
        """Return whom each photo's mask imitates: drawn for each identity from those the weights learnt.

        Where the pool has none of these, from everyone in it: the generator is given what its target looks like
        and can imitate identities it was not trained on, though less well.

        Raises:
            UsageError: there is nobody to imitate.
        """
        targets = require_targets(self.name, "an attack that aims at nobody", ctx)
        learnt = set(SHELF.read(ctx.files[0]).targets)
        of_identity = {}
        for identity in sorted(set(faces.identities)):
            known = (learnt & set(targets.identities)) - {identity}
            of_identity[identity] = drawn_target(targets, ctx, identity, known or None)
        return {image: of_identity[name] for image, name in zip(faces.ids, faces.identities, strict=True)}

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one masked photo for every face.

        Raises:
            UsageError: `ctx` has no key, no surrogate, or nobody to imitate.
            DataError: the weights are corrupt.
        """
        if not ctx.key:
            raise UsageError("erasablemask needs a key to mask with: without one nobody could take it off.")
        posting = _Posting(
            faces, ctx, require_surrogates(self.name, ctx), self.assign_targets(faces, ctx), self.params
        )
        cloaks = in_micro_batches(posting.masked, torch.arange(len(faces), device=ctx.device))
        return {name: cloak.to(faces.images.device) for name, cloak in zip(faces.ids, cloaks, strict=True)}

    def erase(self, faces: Faces, key: bytes, ctx: Context) -> Tensor:
        """Return the photos without their masks where `key` opens them, and as they are where it does not.

        Raises:
            DataError: the weights are corrupt.
        """
        if not key:
            return faces.images
        _, restorer = loaded_networks(ctx.files[0], ctx.device)
        images = faces.images.to(ctx.device)
        pattern = key_pattern(key).to(ctx.device)

        def erased(rows: Tensor) -> Tensor:
            with torch.no_grad():
                photos = images[rows].contiguous(memory_format=torch.channels_last)
                patterns = pattern.expand(len(rows), -1, -1, -1)
                opened = (restorer.fits(photos, patterns) > 0).view(-1, 1, 1, 1)
                restored = restorer(photos, patterns).clamp(0, 1)
                return torch.where(opened, restored, photos).contiguous()

        return in_micro_batches(erased, torch.arange(len(faces), device=ctx.device)).to(faces.images.device)


class _Posting:
    """The masking of some photos: what their targets look like, and the networks."""

    def __init__(
        self,
        faces: Faces,
        ctx: Context,
        backbones: Sequence[Backbone],
        target_assignment: Mapping[str, str],
        params: ErasableMask.Params,
    ) -> None:
        assert ctx.targets is not None, "assign_targets() refuses a context without targets"
        self.faces, self.ctx = faces, ctx
        self.images = faces.images.to(ctx.device)
        self.generator, _ = loaded_networks(ctx.files[0], ctx.device)
        card = SHELF.read(ctx.files[0])
        shape = self.generator.shape
        self.steps = shape.refinement if params.refinement is None else params.refinement
        pool = ctx.targets.with_images(ctx.targets.images.to(ctx.device))
        identities = sorted(set(target_assignment.values()))
        self.aimed = torch.tensor(
            [identities.index(target_assignment[name]) for name in faces.ids], device=ctx.device
        )
        self.looks = torch.stack(
            [target_looks(pool.images[rows_of(pool, identity)]) for identity in identities]
        )
        centres = [target_centre(backbones, pool, identity) for identity in identities]
        self.centres = [torch.stack(of_backbone) for of_backbone in zip(*centres, strict=True)]
        self.pattern = key_pattern(ctx.key).to(ctx.device)
        # The primary one first, as in training.
        names = [backbone.card.name for backbone in backbones]
        self.order = sorted(range(len(names)), key=lambda k: (names[k] != card.primary, names[k]))
        self.surrogates = Surrogates(
            [backbones[k] for k in self.order], ensemble=card.gradients == "ensemble"
        )

    def masked(self, rows: Tensor) -> Tensor:
        """Return the masked photos of one micro-batch, N×3×H×W in [0, 1]."""
        photos = self.images[rows].contiguous(memory_format=torch.channels_last)
        who, patterns = self.aimed[rows], self.pattern.expand(len(rows), -1, -1, -1)
        with torch.no_grad():
            half = self.generator.mask(photos, self.looks[who], torch.cat(self.centres, dim=1)[who])
        if self.steps:
            own = [unit_rows(backbone, photos) for backbone in self.surrogates.backbones]
            target_assignment = [
                Aim(seen, self.centres[k][who]) for seen, k in zip(own, self.order, strict=True)
            ]
            draws = [self._draws(rows.tolist(), step) for step in range(self.steps)]
            half = refined(
                half, photos, patterns, self.surrogates, target_assignment, self.generator.shape, draws
            )
        self.ctx.advance(len(set(rows.tolist())))
        change = change_of(half, patterns, self.generator.shape)
        return (photos + change).clamp(0, 1).contiguous()

    def _draws(self, rows: Sequence[int], step: int) -> Draws:
        """Return a step's random numbers: every photo's by its own name, the split of the surrogates for all."""
        diversity = [
            draw_diversity(
                [self.ctx.generator(f"erasablemask/{step}/{place}", self.faces.ids[row]) for row in rows],
                DIVERSITY,
            )
            for place in range(len(self.order))
        ]
        split = self.ctx.generator("erasablemask/split", str(step))
        return Draws(diversity, drawn_meta_train(len(self.order), split))


# -- which weights -----------------------------------------------------------------------------------------


def fitting_weights(method: str, given: str, binding: Binding, *, named: bool) -> tuple[Path, Path]:
    """Return the weights for a cell, and their card.

    Args:
        method: who asks, for messages.
        given: path of the user's own weights, or "".
        binding: of the cell; its backbones are the surrogates the weights were trained against.
        named: whether the user named these backbones; else the tracker may not be among them.

    Raises:
        UsageError: no weights fit; or the tracker is a surrogate and was not named.
        DataError: weights, card or digest are not what they should be.
    """
    if not named and binding.tracker in binding.backbones:
        raise UsageError(
            f"{method}: the tracker '{binding.tracker}' is among the surrogates {', '.join(binding.backbones)}. "
            "Weights trained against the tracker itself are another claim: ask for it by name, "
            "surrogates=NAME|NAME."
        )

    def fits(card: MaskCard) -> bool:
        return card.domain == binding.domain and card.surrogates == tuple(sorted(binding.backbones))

    def unlike(card: MaskCard) -> str:
        return (
            f"domain '{card.domain}' against {'|'.join(card.surrogates)}; this cell has domain '{binding.domain}' and "
            f"surrogates {'|'.join(binding.backbones)}. Say surrogates={'|'.join(card.surrogates)}, or train again."
        )

    if given:
        return SHELF.files(SHELF.own(method, Path(given), fits, unlike))
    fitting = SHELF.fitting(fits)
    if not fitting:
        raise UsageError(_none_fits(method, binding))
    return SHELF.files(fitting[0])


def _none_fits(method: str, binding: Binding) -> str:
    there = SHELF.described(lambda card: f"domain {card.domain}, surrogates {'|'.join(card.surrogates)}")
    surrogates = " ".join(f"--backbone {name}" for name in binding.backbones)
    return (
        f"{method} has no weights for domain '{binding.domain}' and surrogates "
        f"{'|'.join(binding.backbones) or 'none'}. There are: {there}. Train your own: bench train "
        f"erasablemask --dataset {binding.dataset} {surrogates} --out mask.safetensors, then say "
        f"{method}:weights=mask.safetensors."
    )
