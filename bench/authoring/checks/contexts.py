"""Contexts as a run gives them: a cell's helper backbones, files, seeds and key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bench.contracts import (
    Attack,
    Backbone,
    BackbonePool,
    Binding,
    Context,
    Faces,
    Method,
)
from bench.errors import UsageError
from bench.plugins import factory, registry
from bench.plugins.binding import bind
from bench.randomness import stream_seed

SEED = 7
"""Seed handed to the plugins."""

KEY = b"the key of the contract checks"
"""Secret handed to erasable attacks."""

FILES = "finds its files"

_NO_POOL = BackbonePool(name="fake", groups=(("fake",),))


def with_seed(ctx: Context, seed: int) -> Context:
    """Return a context, and those of its parts, as a run of another seed gives it."""
    parts = (with_seed(part, stream_seed(seed, "part", str(i))) for i, part in enumerate(ctx.parts))
    return replace(ctx, seed=seed, parts=tuple(parts))


def with_targets(ctx: Context, targets: Faces) -> Context:
    """Return a context, and those of its parts, with faces to imitate."""
    return replace(ctx, targets=targets, parts=tuple(with_targets(part, targets) for part in ctx.parts))


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
    refusal: UsageError | None = None
    resolved = False
    for name in sorted(registry.DATASETS.entries(), key=lambda name: (name != "synthetic", name)):
        dataset = registry.DATASETS.load(name)
        pool = registry.POOLS.load(dataset.default_pool)
        for tracker in (group[0] for group in pool.groups):
            try:
                bound = bind(method, name, dataset.domain, pool, tracker)
            except UsageError as error:
                refusal = refusal or error
                continue
            resolved = True
            yield bound
    if not resolved:
        raise refusal or UsageError("there is no pool of backbones to check it with")


def context(method: Method) -> Context:
    """Return a context with the files the method names for the first cell that it can serve."""
    refusal: UsageError | None = None
    for binding in bindings(method):
        try:
            return _bound_context(method, binding, SEED)
        except UsageError as error:
            refusal = refusal or error
    raise refusal or UsageError("there is no pool of backbones to check it with")


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
