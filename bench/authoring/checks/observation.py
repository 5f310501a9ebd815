"""Calls that are watched: what a method returned, and what it did besides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np
import torch

from bench.authoring.checks.contexts import pools
from bench.authoring.checks.samples import fake_backbones
from bench.authoring.checks.suite import Check
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Backbone, Context, Faces, Method

T = TypeVar("T")

GLOBALS = "leaves global random state and settings alone"
INPUT = "leaves its input as it was"

_STREAMS = ("torch's global random state", "NumPy's global random state", "Python's global random state")


class _Watched(Sequence[Backbone]):
    """Backbones that remember whether anyone took one."""

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        self.backbones = backbones
        self.used = False

    def __len__(self) -> int:
        return len(self.backbones)

    @overload
    def __getitem__(self, index: int) -> Backbone: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Backbone]: ...
    def __getitem__(self, index: int | slice) -> Backbone | Sequence[Backbone]:
        self.used = True
        return self.backbones[index]


def _global_state() -> dict[str, Any]:
    """Return everything global that a method could disturb, by name."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the global stream is what is watched
    assert isinstance(legacy, dict)
    return {
        _STREAMS[0]: torch.get_rng_state().numpy().tobytes(),
        _STREAMS[1]: (legacy["state"]["key"].tobytes(), legacy["state"]["pos"], legacy["has_gauss"]),
        _STREAMS[2]: random.getstate(),
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
    }


def watched(call: Callable[[], T]) -> tuple[T, frozenset[str]]:
    """Return what a call returns and the names of the global state it changed."""
    before = _global_state()
    result = call()
    after = _global_state()
    return result, frozenset(name for name, value in before.items() if after[name] != value)


@dataclass(frozen=True)
class Observation:
    """What one call returned and what it did besides."""

    result: Any
    advanced: int
    disturbed: frozenset[str]
    input_changed: bool
    backbones_used: bool
    backbones_changed: bool


def observe(call: Callable[[Faces, Context], Any], faces: Faces, ctx: Context) -> Observation:
    """Call a method on its own copy of `faces` with the context's backbones, or fake ones, and watch."""
    helpers = tuple(ctx.backbones) or fake_backbones()
    fakes = [helper for helper in helpers if isinstance(helper, FakeBackbone)]
    before = [weight.clone() for fake in fakes for weight in fake.weights]
    lent = _Watched(helpers)
    steps: list[int] = []
    given = faces.with_images(faces.images.clone())
    used = replace(_looking_at(lent, ctx), advance=steps.append)
    result, changed = watched(lambda: call(given, used))
    after = [weight for fake in fakes for weight in fake.weights]
    return Observation(
        result=result,
        advanced=sum(steps),
        disturbed=changed,
        input_changed=not torch.equal(given.images, faces.images),
        backbones_used=lent.used,
        backbones_changed=not all(
            torch.equal(a, b) and b.grad is None for a, b in zip(before, after, strict=True)
        ),
    )


def _looking_at(backbones: _Watched, ctx: Context) -> Context:
    """Return a context, and those of its parts, with other backbones."""
    return replace(ctx, backbones=backbones, parts=tuple(_looking_at(backbones, part) for part in ctx.parts))


def disturbed(first: frozenset[str], second: frozenset[str]) -> str:
    """Say what two calls disturbed; the first may import packages, and those may draw random numbers."""
    changed = sorted(first.difference(_STREAMS) | second)
    return f"it changed {', '.join(changed)}" if changed else ""


def manners(method: Method, seen: Callable[[], Observation], count: int, needs: str) -> Iterator[Check]:
    """Yield the checks of what a call did besides returning its result.

    Args:
        method: who was called.
        seen: returns what was observed.
        count: images it was given.
        needs: the check that the call returns at all.
    """
    yield Check(INPUT, lambda: "it wrote into the images" if seen().input_changed else "", (needs,))
    yield Check(
        "leaves the backbones as they were",
        lambda: "it changed weights or left gradients" if seen().backbones_changed else "",
        (needs,),
    )
    yield Check(
        "uses backbones only if pool() asks for them",
        lambda: "it took one, and pool() is None" if seen().backbones_used and not pools(method) else "",
        (needs,),
    )
    yield Check(
        "reports each image to advance() once",
        lambda: "" if seen().advanced == count else f"it reported {seen().advanced} of {count} images",
        (needs,),
    )
