"""Fawkes: cloaks within a DSSIM budget, in both generations the authors published.

Shan et al., "Fawkes: Protecting Privacy against Unauthorized Deep Learning Models" (USENIX Security 2020).
Version 1 (their 1.0.x) moves a photo away from its own embedding; version 0.3 (their 0.3.x) moves it along the way
from the user's photos to another identity's. Both optimise in tanh space with Adadelta and weigh distance against
dissimilarity:

    version 1:    minimise  c · max(DSSIM − b, 0)² − w · Σ_k ‖u_k(x') − u_k(x)‖²
    version 0.3:  minimise  c · max(DSSIM − b, 0)² +     Σ_k ‖e_k(x') − t_k‖ / ‖t_k‖,   t_k = e_k(x) + 2 (T_k − U_k)

e_k are embeddings under surrogate k and u_k those at unit length, T_k and U_k the mean embeddings of the target's and
of the user's photos, b the budget. What differs from the authors' code is listed in docs/methods/fawkes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from attacks._micro_batch import State, in_micro_batches, optimise
from attacks._surrogates import SurrogateParams, clean_embeddings, require_surrogates, unit_embeddings
from attacks._targets import drawn_target, require_targets, rows_of
from attacks._truncation import truncated, truncated_reach
from bench.contracts import Attack, Backbone, Context, Faces, ThreatModel
from bench.quality.metrics import GREY_LEVELS, SsimReference, to_8_bits


@dataclass(frozen=True)
class Mode:
    """A setting: DSSIM budget, optimisation steps, Adadelta's learning rate."""

    budget: float
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Version:
    """What one generation of the authors' code fixes.

    Attributes:
        modes: their named settings.
        targeted: whether the cloak imitates another identity.
        epsilon: Adadelta's ε (Keras and TensorFlow 1 differ).
        penalty: c, the weight of the squared DSSIM excess.
        clip: largest change, in grey levels.
        decay: what is left of the learning rate after each third of the steps.
    """

    modes: Mapping[str, Mode]
    targeted: bool
    epsilon: float
    penalty: float
    clip: float
    decay: float


VERSIONS: Mapping[str, Version] = {
    "1": Version(
        modes={"low": Mode(0.004, 40, 25), "mid": Mode(0.012, 75, 20), "high": Mode(0.017, 150, 15)},
        targeted=False,
        epsilon=1e-7,
        penalty=1e6,
        clip=15.0,
        decay=1.0,
    ),
    "0.3": Version(
        modes={
            "min": Mode(0.002, 20, 40),
            "low": Mode(0.003, 50, 35),
            "mid": Mode(0.005, 200, 20),
            "high": Mode(0.008, 500, 10),
            "ultra": Mode(0.01, 1000, 8),
        },
        targeted=True,
        epsilon=1e-8,
        penalty=1e6,
        clip=255.0,
        decay=0.8,
    ),
}

RHO = 0.95
"""Adadelta's decay, TensorFlow's default."""
TANH_SCALE = 2 - 1e-6
"""Keeps black and white finite in tanh space."""
FIRST_SIGN_STEP = 0.01
"""Added to version 1's first update, in tanh space."""
OVER, UNDER = 1.1, 0.9
"""Shares of the budget above and below which the weights move; up to `OVER` counts as within."""
MAX_WEIGHT = 129
"""A weight w outside [1/129, 129] falls back to 1."""
SAVED_DISTANCE, SAVED_DSSIM = 0.3, 0.015
"""Version 1 keeps the last iterate where the best within the budget has moved less than the one, its own DSSIM is below
the other, whatever the budget, and it has moved further."""
CANDIDATES = 20
"""Version 0.3 draws its target among so many identities, those farthest from the user's photos."""
WAY = 2.0
"""How far version 0.3's target point lies along the way between the centres, which is 1 long."""
BISECTIONS = 12
WORST = -1e9
"""Below every score: a cloak is a few times the target point's length away from it at most."""


def to_tanh(images: Tensor) -> Tensor:
    """Return the tanh-space coordinates of pixels in [0, 1]."""
    return torch.atanh((images - 0.5) * TANH_SCALE)


def from_tanh(coordinates: Tensor) -> Tensor:
    """Return the pixels in [0, 1] of tanh-space coordinates."""
    return torch.tanh(coordinates) / TANH_SCALE + 0.5


def moved(embeddings: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Return version 1's distance, Σ_k ‖u_k(x') − u_k(x)‖²: N values.

    Args:
        embeddings: of the cloaks, at unit length, N×D_k for each surrogate.
        clean: of the photos, likewise.
    """
    return torch.stack([(e - c).square().sum(1) for e, c in zip(embeddings, clean, strict=True)]).sum(0)


def short_of(embeddings: Sequence[Tensor], points: Sequence[Tensor]) -> Tensor:
    """Return version 0.3's distance, Σ_k ‖e_k(x') − t_k‖ / ‖t_k‖: N values.

    Args:
        embeddings: of the cloaks, N×D_k for each surrogate.
        points: where they should get, likewise.
    """
    return torch.stack(
        [(e - t).norm(dim=1) / t.norm(dim=1) for e, t in zip(embeddings, points, strict=True)]
    ).sum(0)


def rate_share(updates: Tensor, steps: int, decay: float) -> Tensor:
    """Return the share of the learning rate that the next update has.

    As in the authors' code the rate falls after the update of number ⌊steps/3⌋ and its multiples, counted from 0.

    Args:
        updates: how many there were, N values.
        steps: how many there will be.
        decay: what each fall leaves.
    """
    falls = (updates - 1).clamp_min(0).div(max(1, steps // 3), rounding_mode="floor")
    return torch.pow(decay, falls)


def adadelta(gradient: Tensor, squares: Tensor, deltas: Tensor, *, epsilon: float) -> Tensor:
    """Return Adadelta's step (Zeiler 2012, algorithm 1) before the learning rate; moves the averages.

    Args:
        gradient: of the loss.
        squares: running mean of squared gradients, changed in place.
        deltas: running mean of squared steps, changed in place.
        epsilon: inside both square roots, as in TensorFlow.
    """
    squares.mul_(RHO).addcmul_(gradient, gradient, value=1 - RHO)
    step = (deltas + epsilon).div_(squares + epsilon).sqrt_().mul_(gradient)
    deltas.mul_(RHO).addcmul_(step, step, value=1 - RHO)
    return step


def next_weight(weight: Tensor, side: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance's next weight and the side of the budget it was set on (version 1).

    Doubled while DSSIM is below .9 of the budget, halved while above 1.1, back to 1 where it changes sides,
    lies between or has left [1/129, 129]: the same balance as a penalty doubled above and halved below.

    Args:
        weight: N weights w.
        side: N of −1 (was above), 0, 1 (was below).
        excess: DSSIM / budget of each.
    """
    below = ((excess <= UNDER) & (weight <= MAX_WEIGHT)).to(weight)
    above = ((excess >= OVER) & (weight >= 1 / MAX_WEIGHT)).to(weight)
    new_side = below - above
    goes_on = (new_side * side >= 0).to(weight) * new_side.abs()
    return 1 + goes_on * (weight * torch.exp2(new_side) - 1), new_side


def shrink_into_budget(
    images: Tensor,
    cloaks: Tensor,
    limit: float | Tensor,
    to_whole_levels: Callable[[Tensor], Tensor] = to_8_bits,
) -> Tensor:
    """Return cloaks whose DSSIM at 8 bits is at most `limit`.

    A cloak that already holds is returned as it is; any other has its perturbation scaled by the largest
    factor that bisection finds to hold.

    Args:
        images: N×3×H×W originals in [0, 1].
        cloaks: likewise.
        limit: largest DSSIM, one for all or N values.
        to_whole_levels: how pixels become 8 bits, rounded unless given.
    """
    posted = SsimReference.of(to_8_bits(images))

    def within(candidates: Tensor) -> Tensor:
        return posted.dssim(to_whole_levels(candidates)) <= limit

    held = within(cloaks)
    if bool(held.all()):
        return cloaks
    low = held.to(images)
    high = torch.ones_like(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        holds = within(_scaled(images, cloaks, middle)).to(images)
        low, high = low + holds * (middle - low), high + (1 - holds) * (middle - high)
    return _scaled(images, cloaks, low)


def _scaled(images: Tensor, cloaks: Tensor, factors: Tensor) -> Tensor:
    return torch.lerp(images, cloaks, factors.view(-1, 1, 1, 1))


class Fawkes(Attack):
    """Cloaks within a DSSIM budget, away from the photo's own embedding or towards another identity's."""

    name: ClassVar[str] = "fawkes"
    paper: ClassVar[str] = "Shan et al., USENIX Security 2020 (arXiv 2002.08327)"

    class Params(SurrogateParams):
        """Parameters of Fawkes."""

        version: Literal["1", "0.3"] = Field("1", description="generation of the authors' code")
        mode: Literal["min", "low", "mid", "high", "ultra"] = Field(
            "high", description="published setting; version 1 has low, mid and high"
        )
        steps: int | None = Field(
            None,
            ge=1,
            le=100_000,
            description="optimisation steps; the mode's own when absent",
            json_schema_extra={"unit": "steps"},
        )
        budget: float | None = Field(
            None,
            gt=0,
            le=0.5,
            description="DSSIM budget; the mode's own when absent",
            json_schema_extra={"unit": "DSSIM"},
        )
        learning_rate: float | None = Field(
            None,
            gt=0,
            le=1000,
            description="Adadelta's learning rate; the mode's own when absent",
        )
        strict: bool = Field(False, description="hold 1.0 × the DSSIM budget instead of 1.1 × as published")
        save_last: bool = Field(
            True,
            description="version 1, not with strict: where no cloak within the budget moved far, take the last one "
            "if its DSSIM is below .015, as published",
        )
        truncate: bool = Field(
            False, description="truncate pixels to 8 bits, as the authors' programs do, instead of rounding"
        )

        @model_validator(mode="after")
        def _mode_of_version(self) -> Fawkes.Params:
            modes = VERSIONS[self.version].modes
            if self.mode not in modes:
                raise ValueError(
                    f"version {self.version} has no mode '{self.mode}'. Valid: {', '.join(modes)}"
                )
            return self

        @property
        def setting(self) -> Mode:
            """The mode, with what was requested by itself in place of its own."""
            mode = VERSIONS[self.version].modes[self.mode]
            return Mode(
                budget=mode.budget if self.budget is None else self.budget,
                steps=mode.steps if self.steps is None else self.steps,
                learning_rate=mode.learning_rate if self.learning_rate is None else self.learning_rate,
            )

        @property
        def share(self) -> float:
            """Share of the budget that counts as within it."""
            return 1 if self.strict else OVER

        @property
        def limit(self) -> float:
            """Largest DSSIM of a posted cloak that was chosen within the budget."""
            return self.setting.budget * self.share

        @property
        def saves_last(self) -> bool:
            """Whether the last iterate may be taken over the budget; above `SAVED_DSSIM` a budget has room for it."""
            return self.save_last and self.version == "1" and not self.strict and self.limit < SAVED_DSSIM

        @property
        def max_dssim(self) -> float:
            """Largest DSSIM of a posted cloak."""
            return SAVED_DSSIM if self.saves_last else self.limit

    params: Params

    @property
    def threat(self) -> ThreatModel:
        """Version 0.3 imitates another identity and has no bound on single pixels."""
        version = VERSIONS[self.params.version]
        budget = f"DSSIM at most {self.params.share} × budget"
        if self.params.saves_last:
            budget += f", {SAVED_DSSIM} where the last iterate is taken"
        clip = truncated_reach(version.clip) if self.params.truncate else version.clip
        return ThreatModel(
            goal="targeted" if version.targeted else "untargeted",
            surrogates=1,
            needs_targets=version.targeted,
            constraint=budget if version.targeted else f"{budget}, L∞ at most {clip:.0f} grey levels",
            max_linf=None if version.targeted else clip,
            max_dssim=self.params.max_dssim,
        )

    @property
    def scope(self) -> Literal["image", "identity"]:
        """Version 0.3 chooses its target by all photos of the identity."""
        return "identity" if VERSIONS[self.params.version].targeted else "image"

    @property
    def core_seconds(self) -> float:
        """SSIM with its gradient, and Adadelta's step, at each step."""
        return 0.0025 * self.passes

    @property
    def passes(self) -> int:
        """The optimisation's steps."""
        return self.params.setting.steps

    def pool(self) -> str | None:
        """Return the surrogates requested."""
        return self.params.surrogates

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return one cloak for every face.

        Raises:
            UsageError: `ctx` has no differentiable surrogate, or no target faces for version 0.3.
        """
        backbones = require_surrogates(self.name, ctx)
        version = VERSIONS[self.params.version]
        points = _Choice.of(faces, ctx, backbones).points if version.targeted else ()
        task = _Cloaking(self.params, faces, ctx, points)
        cloaks = optimise(task, len(faces), ctx.advance)
        return {i: c.to(faces.images.device) for i, c in zip(faces.ids, cloaks, strict=True)}

    def assign_targets(self, faces: Faces, ctx: Context) -> Mapping[str, str]:
        """Return whom each photo's cloak imitates; version 0.3 only.

        Raises:
            UsageError: `ctx` has no differentiable surrogate, or no target faces.
        """
        if not VERSIONS[self.params.version].targeted:
            return super().assign_targets(faces, ctx)
        choice = _Choice.of(faces, ctx, require_surrogates(self.name, ctx))
        return dict(zip(faces.ids, choice.identities, strict=True))


class _Cloaking:
    """Fawkes as an image-wise optimisation."""

    def __init__(self, params: Fawkes.Params, faces: Faces, ctx: Context, points: tuple[Tensor, ...]) -> None:
        self.faces, self.ctx, self.points = faces, ctx, points
        self.version = VERSIONS[params.version]
        setting = params.setting
        self.budget, self.learning_rate = setting.budget, setting.learning_rate
        self.steps = setting.steps
        self.limit, self.saves_last, self.truncate = params.limit, params.saves_last, params.truncate
        self.fresh = True  # whether some photo has not been moved yet

    def start(self, images: Sequence[int]) -> State:
        clean = self.faces.images[list(images)].to(self.ctx.device)
        reference = SsimReference.of(clean)
        per_row = torch.zeros(len(clean), device=clean.device)
        self.fresh = True
        return {
            "image": clean,
            "mean": reference.mean,
            "square": reference.square,
            "tanh": to_tanh(clean),
            "modifier": self._first_modifier(images).to(clean),
            "squares": torch.zeros_like(clean),
            "deltas": torch.zeros_like(clean),
            "weight": torch.ones_like(per_row),
            "side": per_row.clone(),
            # On the host, as all that says when to stop: a GPU is never waited for within the loop.
            "step": torch.zeros(len(clean)),
            "best": clean.clone(),
            "best_score": torch.full_like(per_row, WORST if self.version.targeted else 0.0),
            "limit": torch.full_like(per_row, self.limit),
            **self._anchors(images, clean),
        }

    def _first_modifier(self, images: Sequence[int]) -> Tensor:
        shape = self.faces.images.shape[1:]
        if self.version.targeted:
            return torch.full((len(images), *shape), 1e-6)
        draws = [torch.rand(shape, generator=self.ctx.generator("fawkes", self.faces.ids[i])) for i in images]
        return torch.stack(draws).mul(2e-4).sub(1e-4)

    def _anchors(self, images: Sequence[int], clean: Tensor) -> dict[str, Tensor]:
        if not self.version.targeted:
            return clean_embeddings(self.ctx.backbones, clean)
        return {f"clean{k}": point[list(images)] for k, point in enumerate(self.points)}

    def update(self, state: State) -> Tensor:
        """Evaluate the current cloak, remember it if it is the best, and move on."""
        clip = self.version.clip / GREY_LEVELS
        squashed = torch.add(state["tanh"], state["modifier"]).tanh_()
        change = squashed.div(TANH_SCALE).add_(0.5).sub_(state["image"])
        cloak = change.clamp(-clip, clip).add_(state["image"]).requires_grad_()

        score = self._score(cloak, state)
        reference = SsimReference(state["image"], state["mean"], state["square"])
        dissimilarity = reference.dssim(cloak)
        penalty = self.version.penalty * (dissimilarity - self.budget).clamp_min(0).square()
        loss = penalty - state["weight"] * score
        (gradient,) = torch.autograd.grad(loss.sum(), cloak)

        cloak, dissimilarity, score = cloak.detach(), dissimilarity.detach(), score.detach()
        self._keep_best(state, cloak, dissimilarity, score)
        if self.saves_last:
            self._save_last(state, cloak, dissimilarity, score)
        # Back through the clip and the tanh (d tanh = 1 − tanh²), by hand: both are element-wise.
        slope = squashed.square_().sub_(1).mul_(-1 / TANH_SCALE)
        self._move(state, torch.ops.aten.hardtanh_backward(slope.mul_(gradient), change, -clip, clip))
        if not self.version.targeted:
            state["weight"], state["side"] = next_weight(
                state["weight"], state["side"], dissimilarity / self.budget
            )
        state["step"] += 1
        return state["step"] >= self.steps

    def _score(self, cloak: Tensor, state: State) -> Tensor:
        """Return what is maximised beside the penalty, one value an image."""
        anchors = [state[f"clean{k}"] for k in range(len(self.ctx.backbones))]
        if self.version.targeted:
            return -short_of([backbone.embed(cloak) for backbone in self.ctx.backbones], anchors)
        return moved(unit_embeddings(self.ctx.backbones, cloak), anchors)

    def _keep_best(self, state: State, cloak: Tensor, dissimilarity: Tensor, score: Tensor) -> None:
        better = (dissimilarity <= OVER * self.budget) & (score > state["best_score"])
        state["best_score"] = torch.where(better, score, state["best_score"])
        state["best"] = torch.where(better.view(-1, 1, 1, 1), cloak, state["best"])

    def _save_last(self, state: State, cloak: Tensor, dissimilarity: Tensor, score: Tensor) -> None:
        last = state["step"] + 1 >= self.steps
        if not bool(last.any()):
            return
        best = state["best_score"]
        saved = (
            (best < SAVED_DISTANCE) & (dissimilarity < SAVED_DSSIM) & (score > best) & last.to(best.device)
        )
        state["best"] = torch.where(saved.view(-1, 1, 1, 1), cloak, state["best"])
        state["limit"] = state["limit"].masked_fill(saved, SAVED_DSSIM)

    def _move(self, state: State, gradient: Tensor) -> None:
        step = adadelta(gradient, state["squares"], state["deltas"], epsilon=self.version.epsilon)
        if self.version.decay < 1:
            share = rate_share(state["step"], self.steps, self.version.decay)
            step.mul_(share.to(step).view(-1, 1, 1, 1))
        state["modifier"].sub_(step, alpha=self.learning_rate)
        if self.fresh and not self.version.targeted:
            first = (state["step"] == 0).to(gradient)
            state["modifier"].sub_(gradient.sign() * first.view(-1, 1, 1, 1), alpha=FIRST_SIGN_STEP)
        self.fresh = False

    def finish(self, state: State) -> Tensor:
        """Return the cloaks chosen, within their limits at 8 bits."""
        if not self.truncate:
            return shrink_into_budget(state["image"], state["best"], state["limit"])
        return truncated(shrink_into_budget(state["image"], state["best"], state["limit"], truncated))


@dataclass(frozen=True)
class _Choice:
    """Whom every face imitates.

    Attributes:
        identities: identity id for each face.
        points: where each face's embedding should get under every surrogate, N×D_k.
    """

    identities: tuple[str, ...]
    points: tuple[Tensor, ...]

    @classmethod
    def of(cls, faces: Faces, ctx: Context, backbones: Sequence[Backbone]) -> _Choice:
        """Draw a target for each identity and return the points its photos should get to.

        Raises:
            UsageError: `ctx` brings no faces of other identities.
        """
        targets = require_targets("fawkes:version=0.3", "fawkes:version=1", ctx)
        own, pool = _embeddings_of(backbones, faces, ctx), _embeddings_of(backbones, targets, ctx)
        identities = sorted(set(targets.identities))
        places = [rows_of(targets, identity) for identity in identities]
        centres = tuple(torch.stack([e[rows].mean(0) for rows in places]) for e in pool)
        points = tuple(embeddings.clone() for embeddings in own)
        chosen = [""] * len(faces)
        for identity in sorted(set(faces.identities)):
            rows = rows_of(faces, identity)
            away = _distances([e[rows] for e in own], centres)
            ranked = [identities[k] for k in away.argsort(descending=True, stable=True).tolist()]
            farthest = [other for other in ranked if other != identity][:CANDIDATES]
            target = drawn_target(targets, ctx, identity, farthest)
            place = identities.index(target)
            for point, mine, centre in zip(points, own, centres, strict=True):
                point[rows] += WAY * (centre[place] - mine[rows].mean(0))
            for row in rows:
                chosen[row] = target
        return cls(tuple(chosen), points)


def _distances(photos: Sequence[Tensor], centres: Sequence[Tensor]) -> Tensor:
    """Return how far each of M centres is from the nearest photo, all surrogates' embeddings side by side: M values."""
    # Not by a product of matrices: its rounding depends on how many there are.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(torch.cat(list(photos), 1), torch.cat(list(centres), 1), compute_mode=mode).amin(0)


def _embeddings_of(backbones: Sequence[Backbone], faces: Faces, ctx: Context) -> tuple[Tensor, ...]:
    """Return the embeddings of all faces, not brought to unit length: N×D_k for each backbone."""
    images = faces.images.to(ctx.device)
    with torch.no_grad():
        return tuple(in_micro_batches(backbone.embed, images) for backbone in backbones)
