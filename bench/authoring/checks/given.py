"""What a plugin is given: rendered faces, fake backbones, and contexts as a run makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from bench.authoring.fakes import FakeBackbone
from bench.contracts import (
    Attack,
    Backbone,
    BackbonePool,
    Binding,
    Context,
    Faces,
    Hardening,
    Method,
    Substitution,
)  # fmt: skip
from bench.errors import UsageError
from bench.plugins import factory, registry
from bench.plugins.binding import bind
from bench.randomness import stream_seed
from bench.run.substitution import FusedBackbone


@cache
def _faces(role: str, photos: tuple[int, ...]) -> Faces:
    """Return rendered faces: `photos[k]` of the k-th identity of a role."""
    from bench.datasets.synthetic import Synthetic

    dataset = Synthetic()
    identities = [identity for identity in dataset.identities() if identity.role == role]
    named = [
        (image, identity.id)
        for identity, count in zip(identities, photos, strict=False)
        for image in identity.photos[:count]
    ]
    images = dataset.crops([image for image, _ in named]).float() / 255
    return Faces(images, tuple(image for image, _ in named), tuple(identity for _, identity in named))


def sample_faces() -> Faces:
    """Return 5 rendered faces of 3 identities, one of them with a single photo."""
    return _faces("evaluation", (2, 2, 1))


def training_faces() -> Faces:
    """Return 8 rendered faces of 4 other identities."""
    return _faces("training", (2, 2, 2, 2))


def fake_backbones(count: int = 2) -> tuple[FakeBackbone, ...]:
    """Return loaded fake backbones."""
    made = tuple(FakeBackbone(FakeBackbone.Params(seed=seed)) for seed in range(count))
    for backbone in made:
        backbone.load(torch.device("cpu"))
    return made


SEED = 7
"""Seed handed to the plugins."""

KEY = b"the key of the contract checks"
"""Secret handed to erasable attacks."""

FILES = "finds its files"
FIND_FILES = (
    "return paths that exist from files(self, binding), or raise UsageError that says how to get them"
)

_NO_POOL = BackbonePool(name="fake", groups=(("fake",),))


def with_seed(ctx: Context, seed: int) -> Context:
    """Return a context, and those of its parts, as a run of another seed gives it."""
    parts = (with_seed(part, stream_seed(seed, "part", str(i))) for i, part in enumerate(ctx.parts))
    return replace(ctx, seed=seed, parts=tuple(parts))


def with_targets(ctx: Context, targets: Faces) -> Context:
    """Return a context, and those of its parts, with faces to imitate."""
    return replace(ctx, targets=targets, parts=tuple(with_targets(part, targets) for part in ctx.parts))


def lending(ctx: Context, backbones: Sequence[Backbone]) -> Context:
    """Return a context, and those of its parts, with other backbones."""
    return replace(ctx, backbones=backbones, parts=tuple(lending(part, backbones) for part in ctx.parts))


def with_hardened(method: Method, ctx: Context, surrogates: Sequence[Backbone] | None = None) -> Context:
    """Return a context in which each hardening that an attack knows has hardened the attack's surrogates.

    Args:
        method: whose context it is.
        ctx: without hardened surrogates.
        surrogates: of the attack that it is a part of; None where it is of none. An attack has those of its context,
            or the fakes that `bench.authoring.checks.observation.observe` gives in their place.
    """
    if isinstance(method, Attack):
        surrogates = tuple(ctx.backbones) or fake_backbones()
    parts = []
    for part, own in zip(method.parts(), ctx.parts, strict=True):
        if surrogates is not None and isinstance(part, Hardening):
            parts.append(replace(own, hardened=tuple(_hardened(part, each, own) for each in surrogates)))
        else:
            parts.append(with_hardened(part, own, surrogates))
    return replace(ctx, parts=tuple(parts))


def _hardened(hardening: Hardening, backbone: Backbone, ctx: Context) -> Backbone:
    if isinstance(hardening, Substitution):
        return substituted(hardening, backbone)
    state = hardening.train(backbone, training_faces(), lending(ctx, fake_backbones()))
    return hardening.harden(backbone, state)


def substituted(method: Substitution, tracker: Backbone) -> Backbone:
    """Return what a tracker embeds with under a substitution, loaded as a run loads it."""
    members = method.embeds_with(tracker)
    for member in members:
        if member is not tracker:
            member.load(torch.device("cpu"))
    return FusedBackbone(method, members) if len(members) > 1 else members[0]


def pools(method: Method) -> list[str]:
    """Return what a method and its parts want of backbones."""
    own = method.pool()
    return [*([] if own is None else [own]), *(name for part in method.parts() for name in pools(part))]


def bindings(method: Method) -> Iterator[Binding]:
    """Yield the cells that a plan would grant a method: each dataset's pool, each group as the trackers.

    Raises:
        UsageError: there is none.
    """
    if not pools(method):
        yield bind(method, "synthetic", "synthetic", _NO_POOL, "fake")
        return
    refusals: list[UsageError] = []
    found = False
    for name in sorted(registry.DATASETS.entries(), key=lambda name: (name != "synthetic", name)):
        dataset = registry.DATASETS.load(name)
        pool = registry.POOLS.load(dataset.default_pool)
        for tracker in (group[0] for group in pool.groups):
            try:
                bound = bind(method, name, dataset.domain, pool, tracker)
            except UsageError as error:
                refusals.append(error)
            else:
                found = True
                yield bound
    if not found:
        raise next(iter(refusals), UsageError("there is no pool of backbones to check it with"))


def context(method: Method) -> Context:
    """Return a context with the files the method names for the first cell that it can serve."""
    refusals = []
    for binding in bindings(method):
        try:
            return _bound_context(method, binding, SEED)
        except UsageError as error:
            refusals.append(error)
    raise refusals[0]


def _bound_context(method: Method, binding: Binding, seed: int) -> Context:
    bound = zip(method.parts(), binding.parts, strict=True)
    parts = tuple(
        _bound_context(part, own, stream_seed(seed, "part", str(index)))
        for index, (part, own) in enumerate(bound)
    )
    files = method.files(binding)
    return Context(
        seed=seed,
        backbones=_made_for(method, files, binding),
        files=files,
        key=KEY if isinstance(method, Attack) and method.erasable else b"",
        parts=parts,
    )


def _made_for(method: Method, files: Sequence[Path], binding: Binding) -> tuple[Backbone, ...]:
    """Return the backbones an attack's weights were made against, loaded; () where fakes will do."""
    if not files or not isinstance(method, Attack):
        return ()
    backbones = tuple(factory.backbone(name) for name in binding.backbones)
    for backbone in backbones:
        backbone.load(torch.device("cpu"))
    return backbones
