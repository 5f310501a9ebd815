"""The attacker who knows the defence: any gradient attack, made through the defence, or on surrogates trained by it.

The inner attack runs as it is; its surrogates embed *defended* images, so that its gradient goes through the
defence. What has no gradient is passed straight through (BPDA), what draws at random is averaged over draws
(EOT): Athalye, Carlini, Wagner, "Obfuscated Gradients Give a False Sense of Security" (ICML 2018), sections 4.1
and 4.2; Athalye et al., "Synthesizing Robust Adversarial Examples" (ICML 2018).

A defence may also train the tracker's own backbone. Who has its recipe, not its weights, trains his surrogates by it
and makes his cloaks on those: a transfer attack from adversarially trained surrogates (Springer, Mitchell, Kenyon, "A
Little Robustness Goes a Long Way", NeurIPS 2021). The harness trains them; here they embed in the surrogates' place.

Where several things may happen to a cloak (defences b, or none), the one it moves least counts:

    maximise  Σ_b w_b · ‖e_b(x') − e_b(x)‖²,    w_b ∝ ‖e_b(x') − e_b(x)‖^−p,    p = 4

with the weights taken anew for each photo at each step, a smooth form of the least of them. An attack that
imitates someone minimises the greatest: w_b ∝ ‖·‖^p. What is known and what is ours: docs/methods/adaptive.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from attacks._surrogates import require_surrogates
from bench.contracts import (
    Attack,
    Backbone,
    Binding,
    Context,
    Defense,
    Faces,
    Hardening,
    Method,
    MethodParams,
    PersonMask,
    Purifier,
    ThreatModel,
)
from bench.errors import MethodError, UsageError
from bench.plugins import factory, syntax
from bench.plugins import factory as methods
from bench.plugins.composition import Composition
from bench.randomness import stream_seed

POWER = 4
"""p, how sharply the weights single out the worst branch."""

BALLAST = 15
"""Squared length of the constant beside the branches' embeddings, for each branch.

An attack that normalises what it gets would take from every branch the mean cosine of all, and past 90° the
order of the branches would turn round. Beside a long constant normalising is nearly linear.
"""


class Adaptive(Attack):
    """Makes another attack's cloaks through the purifiers, and on surrogates under the hardenings, that are known."""

    name: ClassVar[str] = "adaptive"
    paper: ClassVar[str] = (
        "Athalye, Carlini, Wagner, ICML 2018 (arXiv 1802.00420); Tramèr et al., NeurIPS 2020 (arXiv 2002.08347); "
        "Springer, Mitchell, Kenyon, NeurIPS 2021 (arXiv 2106.02105)"
    )

    class Params(MethodParams):
        """Parameters of `Adaptive`."""

        attack: str = Field(
            "pgd:eps=15",
            min_length=1,
            description="the attack that is made through the defences; one that follows a surrogate's gradient",
            json_schema_extra={"method": "attack"},
        )
        defense: str = Field(
            "puface",
            min_length=1,
            description="what the attacker knows: purifiers and hardenings, several joined by ' & '",
            json_schema_extra={"method": "defenses"},
        )
        mode: Literal["defended", "joint"] = Field(
            "defended", description="reckon with the defences, or with an undefended tracker too"
        )
        grad: Literal["auto", "exact", "bpda", "eot"] = Field(
            "auto",
            description="gradient of a purifier: what it declares, its own, straight through, or own and averaged",
        )
        samples: int = Field(
            4,
            ge=1,
            le=1000,
            description="draws averaged in each step where a purifier draws at random",
            json_schema_extra={"unit": "draws"},
        )

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self._inner = factory.attack(self.params.attack)
        self._defenses = _known(self.params.defense)
        _require_gradient_attack(self._inner)

    def parts(self) -> tuple[Method, ...]:
        """Return the inner attack and the defences."""
        return (self._inner, *self._defenses)

    @property
    def threat(self) -> ThreatModel:
        """The inner attack's, with the defences it adapts to."""
        known = tuple(methods.canonical(defense) for defense in self._defenses)
        return self._inner.threat.model_copy(update={"adapts_to": known})

    @property
    def scope(self) -> Literal["image", "identity"]:
        """The inner attack's."""
        return self._inner.scope

    @property
    def core_seconds(self) -> float:
        """The inner attack's own, and every view of the photo forward and back at each of its steps."""
        views = sum(self._draws(each) * each.core_seconds for each in self._purifiers())
        return self._inner.core_seconds + 2.5 * self._inner.passes * views

    @property
    def passes(self) -> int:
        """The inner attack's, each with every view."""
        kept = [purifier for defense in self._defenses for purifier in _views(defense)]
        views = sum(1 if purifier is None else self._draws(purifier) for purifier in kept)
        return self._inner.passes * (views + (self.params.mode == "joint"))

    def _purifiers(self) -> tuple[Purifier, ...]:
        kept = (purifier for defense in self._defenses for purifier in _views(defense))
        return tuple(purifier for purifier in kept if purifier is not None)

    def _draws(self, purifier: Purifier) -> int:
        """Return how many draws of a purifier are averaged at each step."""
        return 1 if purifier.deterministic else self.params.samples

    def pool(self) -> str | None:
        """Return the surrogates the inner attack asks for."""
        return self._inner.pool()

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return no files; those of the parts are named by the parts.

        Raises:
            UsageError: `grad` asks of a defence what it cannot do.
        """
        del binding
        purifiers = self._purifiers()
        if self.params.grad != "auto" and not purifiers:
            raise UsageError(
                f"adaptive: grad={self.params.grad} is about purifiers, and '{self.params.defense}' has none: a "
                "hardened surrogate has the gradient of its own network. Leave grad out."
            )
        for purifier in purifiers:
            self._require_gradient(purifier)
        return ()

    def _require_gradient(self, defense: Purifier) -> None:
        named = f"defence '{methods.canonical(defense)}'"
        if self.params.grad == "exact":
            for member in _members(defense):
                if not member.differentiable:
                    raise UsageError(
                        f"adaptive: grad=exact, and '{methods.canonical(member)}' of {named} has no gradient. "
                        "Say grad=auto or grad=bpda."
                    )
        if self.params.grad == "eot" and defense.deterministic:
            raise UsageError(
                f"adaptive: grad=eot averages over what a defence draws at random, and {named} draws nothing. "
                "Say grad=auto."
            )

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return the inner attack's cloaks of the raw photos, made through the purifiers and on hardened surrogates.

        Raises:
            UsageError: `ctx` has no differentiable surrogate, or what the inner attack raises.
            MethodError: `ctx` has not a hardened surrogate for each surrogate and hardening.
        """
        require_surrogates(self.name, ctx)
        return self._inner.cloak(faces, self._inner_context(ctx))

    def assign_targets(self, faces: Faces, ctx: Context) -> Mapping[str, str]:
        """Return whom the inner attack's cloaks imitate; its surrogates are those of `cloak`."""
        return self._inner.assign_targets(faces, self._inner_context(ctx))

    def _inner_context(self, ctx: Context) -> Context:
        """Return the inner attack's context, its surrogates looking through the purifiers or hardened."""
        own, *others = ctx.parts
        branches: list[Branch] = []
        embedding: list[Sequence[Backbone]] = []  # of each branch, in the surrogates' order
        for defense, part in zip(self._defenses, others, strict=True):
            hardening = defense.hardening
            backbones = ctx.backbones
            if hardening is not None:
                backbones = _hardened(hardening, ctx, _context_of(hardening, defense, part))
            for purifier in _views(defense):
                branches.append(self._branch(purifier, defense, part))
                embedding.append(backbones)
        if self.params.mode == "joint":
            branches.append(Branch((), 1))
            embedding.append(ctx.backbones)
        views = Views(tuple(branches))
        power = POWER if self._inner.threat.goal == "targeted" else -POWER
        return replace(
            own,
            seed=ctx.seed,
            backbones=tuple(Defended(each, views, power) for each in zip(*embedding, strict=True)),
            targets=ctx.targets,
            advance=ctx.advance,
        )

    def _branch(self, purifier: Purifier | None, defense: Defense, ctx: Context) -> Branch:
        """Return what a defence makes of photos by one of its purifiers, or by none; `ctx` is the defence's."""
        if purifier is None:
            return Branch((), 1)
        return Branch(self._steps(purifier, _context_of(purifier, defense, ctx)), self._draws(purifier))

    def _steps(self, defense: Purifier, ctx: Context) -> tuple[Step, ...]:
        """Return a defence's members in order, each with its context and its gradient."""
        members = _members(defense)
        contexts = (ctx,) if members == (defense,) else ctx.parts
        return tuple(
            Step(member, _apart(part), member.differentiable and self.params.grad != "bpda")
            for member, part in zip(members, contexts, strict=True)
        )


def _known(text: str) -> tuple[Defense, ...]:
    """Return the defences of a list joined by ``&``.

    Raises:
        UsageError: one of them does nothing, or has a purifier that learns first.
    """
    found = []
    for part in syntax.split(text, "&"):
        defense = factory.defense(part)
        if defense.hardening is None and not any(_views(defense)):
            raise UsageError(
                f"adaptive: defence '{part}' does nothing to a photo or to a backbone, so no cloak can be made through "
                "it. Leave it out; mode=joint counts the undefended tracker."
            )
        if any(purifier.requires_fit for purifier in defense.purifiers):
            raise UsageError(
                f"adaptive: defence '{part}' learns from photos first, and what the tracker's will have learnt is "
                "not known when cloaks are made. Name one whose weights are fixed, e.g. defense=puface."
            )
        found.append(defense)
    return tuple(found)


def _views(defense: Defense) -> tuple[Purifier | None, ...]:
    """Return what makes each image that a tracker keeps of a photo; None where it keeps the photo as it is."""
    return tuple(each if each.changes_images else None for each in defense.purifiers) or (None,)


def _context_of(method: Method, whole: Method, ctx: Context) -> Context:
    """Return the context of a method that another is made of, or is itself.

    Args:
        method: the very object.
        whole: what it is looked for in.
        ctx: of the whole.

    Raises:
        MethodError: it is none of the whole's parts, nor of theirs.
    """
    inside = [(whole, ctx)]
    while inside:
        each, own = inside.pop()
        if each is method:
            return own
        inside += zip(each.parts(), own.parts, strict=True)
    raise MethodError(
        f"defence '{methods.canonical(whole)}' declares '{methods.canonical(method)}', which is none of its parts."
    )


def _hardened(hardening: Hardening, ctx: Context, part: Context) -> Sequence[Backbone]:
    """Return the attack's surrogates under a hardening, as the harness trained them.

    Args:
        hardening: for messages.
        ctx: the attack's.
        part: the hardening's.

    Raises:
        MethodError: there is not one for each surrogate.
        UsageError: one has no gradient.
    """
    if len(part.hardened) != len(ctx.backbones):
        raise MethodError(
            f"adaptive: the context has {len(part.hardened)} surrogates hardened by "
            f"'{methods.canonical(hardening)}' for {len(ctx.backbones)} surrogates: whoever calls an attack that knows "
            "a hardening must fill Context.hardened of that part."
        )
    for backbone in part.hardened:
        if not backbone.differentiable:
            raise UsageError(
                f"adaptive: surrogate '{backbone.card.name}' has no gradient once '{methods.canonical(hardening)}' "
                "has hardened it. Name another hardening or other surrogates."
            )
    return part.hardened


def _require_gradient_attack(attack: Attack) -> None:
    named = f"attack '{methods.canonical(attack)}'"
    if attack.requires_fit:
        raise UsageError(
            f"adaptive: {named} learns its cloaks from other identities' photos first, and that would have to go "
            "through the defence too. Name an attack on single photos, e.g. attack=pgd."
        )
    if attack.erasable and not isinstance(attack, PersonMask):
        raise UsageError(
            f"adaptive: {named} makes cloaks for a key and for surrogates its weights were made against; neither goes "
            "through a defence. Name an attack without weights, e.g. attack=pgd."
        )
    if any(isinstance(part, Hardening) for part in attack.parts()):
        raise UsageError(
            f"adaptive: {named} has hardened surrogates of its own, which would not look through the defences named "
            "beside it. Name all defences in one adaptive, joined by ' & '."
        )
    if attack.pool() is None or not attack.threat.surrogates:
        raise UsageError(
            f"adaptive: {named} has no surrogates, so it follows no gradient that could go through a defence. "
            "Name one that has, e.g. attack=pgd."
        )


def _members(defense: Purifier) -> tuple[Purifier, ...]:
    """Return the purifiers a composition is made of, or the defence alone."""
    if not isinstance(defense, Composition):
        return (defense,)
    return tuple(member for member in defense.parts() if isinstance(member, Purifier))


def _apart(ctx: Context) -> Context:
    """Return a defence's context with another seed than the tracker's, whose draws nobody knows."""
    return replace(
        ctx,
        seed=stream_seed(ctx.seed, "adaptive", "draws"),
        advance=lambda _n: None,
        parts=tuple(_apart(part) for part in ctx.parts),
    )


@dataclass(frozen=True)
class Step:
    """One purifier as the attacker runs it.

    Attributes:
        purifier: what it is.
        ctx: its files, extractors, state and a seed that is not the tracker's.
        exact: whether its own gradient is used; otherwise it is passed straight through.
    """

    purifier: Purifier
    ctx: Context
    exact: bool

    def __call__(self, faces: Faces) -> Tensor:
        """Return the purified images, N×3×H×W, with a gradient with respect to `faces.images`."""
        if self.exact:
            return self.purifier.purify(faces, self.ctx)
        with torch.no_grad():
            purified = self.purifier.purify(faces.with_images(faces.images.detach()), self.ctx)
        return straight_through(faces.images, purified)


@dataclass(frozen=True)
class Branch:
    """One thing that may happen to a cloak before the tracker embeds it.

    Attributes:
        steps: the purifiers in order; none for a tracker that purifies nothing, undefended or hardened.
        samples: number of draws.
    """

    steps: tuple[Step, ...]
    samples: int

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return N×3×H×W images as the tracker may see them, one tensor for each draw."""
        if not self.steps:
            return (images,)
        # An attack may leave [0, 1] on its way (LowKey does); what is posted never does.
        seen = straight_through(images, images.detach().clamp(0, 1))
        digests = _digests(seen)
        return tuple(self._draw(seen, digests, draw) for draw in range(self.samples))

    def _draw(self, images: Tensor, digests: Sequence[str], draw: int) -> Tensor:
        # Purifiers draw by image id: an id of the image's own values gives fresh draws at every step, and the
        # same ones in any company.
        names = tuple(f"{digest}-{draw}" for digest in digests)
        for step in self.steps:
            images = step(Faces(images, names, names))
        return images


def _digests(images: Tensor) -> tuple[str, ...]:
    """Return a name for each image that depends on its own values alone."""
    rows = images.detach().cpu().contiguous().numpy()
    return tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in rows)


class Views:
    """The branches' images, shared by all surrogates that embed the same ones.

    Args:
        branches: at least one.
    """

    def __init__(self, branches: tuple[Branch, ...]) -> None:
        self.branches = branches
        self._last: tuple[Tensor, int, bool, tuple[tuple[Tensor, ...], ...]] | None = None

    def __call__(self, images: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        """Return for each branch its draws, N×3×H×W each.

        Kept until other images come or a gradient has flowed back: a purifier costs as much as a backbone, and
        an ensemble asks for the same images once for each of its surrogates.
        """
        if images.is_inference():
            return self._computed(images)
        recorded = torch.is_grad_enabled() and images.requires_grad
        if self._last is not None:
            kept, version, with_gradient, seen = self._last
            if kept is images and version == images._version and with_gradient == recorded:
                return seen
        seen = self._computed(images)
        self._last = (images, images._version, recorded, seen)
        for view in (view for draws in seen for view in draws if view.grad_fn is not None):
            view.register_hook(self._forget)  # type: ignore[no-untyped-call]
        return seen

    def _computed(self, images: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        return tuple(branch(images) for branch in self.branches)

    def _forget(self, _gradient: Tensor) -> None:
        """Drop what was kept: the first gradient frees the graph behind it."""
        self._last = None


class Defended(Backbone):
    """A surrogate under the defences: what is left of images after each, embedded as a tracker with it would.

    Args:
        backbones: the surrogate of each branch, loaded: as it is, or hardened.
        views: the branches.
        power: of the branches' distances in their weights; negative where the nearest counts.

    Raises:
        UsageError: the embeddings of two branches are not of one length.
    """

    name: ClassVar[str] = "defended"

    def __init__(self, backbones: Sequence[Backbone], views: Views, power: int) -> None:
        super().__init__()
        self.backbones, self.views, self.power = tuple(backbones), views, power
        first, *others = (backbone.card for backbone in self.backbones)
        for other in others:
            if other.embedding_dim != first.embedding_dim:
                raise UsageError(
                    f"adaptive: surrogate '{first.name}' gives embeddings of length {first.embedding_dim} under one "
                    f"defence and {other.embedding_dim} under another, which cannot stand side by side. Name one "
                    "defence, with mode=defended."
                )
        count, length = len(self.backbones), first.embedding_dim
        dimension = length if count == 1 else count * length + 1
        self.card = first.model_copy(update={"embedding_dim": dimension})

    def load(self, device: torch.device) -> None:
        """Read nothing: the surrogates are loaded."""

    def embed(self, images: Tensor) -> Tensor:
        """Return N×D embeddings of the one branch there is, or `side_by_side` of several."""
        pairs = zip(self.backbones, self.views(images), strict=True)
        found = [_mean(backbone, draws) for backbone, draws in pairs]
        return found[0] if len(found) == 1 else side_by_side(found, self.power)


def _mean(backbone: Backbone, draws: Sequence[Tensor]) -> Tensor:
    """Return the mean of the draws' unit embeddings, as long as embeddings of this backbone are."""
    embeddings = [backbone.embed(draw) for draw in draws]
    if len(embeddings) == 1:
        return embeddings[0]
    stacked = torch.stack(embeddings)
    length = stacked.detach().norm(dim=2, keepdim=True).mean(0)
    mean: Tensor = F.normalize(stacked, dim=2).mean(0) * length
    return mean


def side_by_side(embeddings: Sequence[Tensor], power: int) -> Tensor:
    """Return one embedding whose squared distance counts the worst branch.

    Every branch's embedding is brought to unit length u_b. The result is [u_1, …, u_B, √(15·B)], times a length
    such that an attack that does not normalise meets distances of the size it knows from one branch. Backward,
    the gradients g_b of the branches are weighed by `branch_weights`.

    Args:
        embeddings: N×D for each of B branches.
        power: see `branch_weights`.

    Returns:
        N×(B·D + 1).
    """
    stacked = torch.stack(tuple(embeddings), dim=1)
    count = len(embeddings)
    length = stacked.detach().norm(dim=2).mean(1, keepdim=True)
    units: Tensor = _Weighed.apply(F.normalize(stacked, dim=2), power)
    ballast = units.new_full((len(units), 1), (BALLAST * count) ** 0.5)
    joined: Tensor = torch.cat([units.flatten(1), ballast], dim=1) * length * (count / (1 + BALLAST)) ** 0.5
    return joined


def branch_weights(gradients: Tensor, power: int) -> Tensor:
    """Return n_b^power / Σ n^power: N×B weights that sum to 1 for each image.

    n_b is the L2 norm of a branch's gradient. Of a squared distance it is proportional to the distance, so a
    negative power favours the branch that is nearest. A branch without any gradient gets nothing.

    Args:
        gradients: N×B×D.
        power: of the norms.
    """
    norms = gradients.norm(dim=2)
    alive = (norms > 0).to(norms)
    logs = norms.clamp_min(torch.finfo(norms.dtype).tiny).log() * power
    logs = logs - (1 - alive) * torch.finfo(norms.dtype).max / 4
    weights: Tensor = logs.softmax(dim=1) * alive
    return weights


class _Weighed(torch.autograd.Function):
    """Identity forward; backward each branch's gradient gets its weight, an equal share being 1."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, power: int) -> Tensor:
        ctx.power = power
        return units.view_as(units)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        weights = branch_weights(gradient, ctx.power) * gradient.shape[1] * (1 + BALLAST)
        return gradient * weights.unsqueeze(2), None


class _StraightThrough(torch.autograd.Function):
    """Forward the second argument, backward the identity to the first (BPDA)."""

    @staticmethod
    def forward(_ctx: Any, images: Tensor, defended: Tensor) -> Tensor:
        return defended.view_as(images)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(images: Tensor, defended: Tensor) -> Tensor:
    """Return `defended` with the gradient of `images`: ∂/∂images is taken as the identity.

    Args:
        images: N×3×H×W.
        defended: likewise, without gradient.
    """
    through: Tensor = _StraightThrough.apply(images, defended)
    return through
