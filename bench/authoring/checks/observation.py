"""Calls that are watched, results that are compared, and learning that must be repeatable."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from bench.authoring.checks.given import FILES, SEED, fake_backbones, lending, pools
from bench.authoring.checks.suite import Check, attempt
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Backbone, Context, Faces, Method
from bench.plugins import process
from bench.randomness import torch_generator


def wrong_images(images: object, shape: tuple[int, ...]) -> str:
    """Say what keeps a result from being images of `shape`, float32 in [0, 1]."""
    if not isinstance(images, Tensor):
        return f"{type(images).__name__} is not a tensor"
    if images.dtype != torch.float32 or tuple(images.shape) != shape:
        return f"{images.dtype} {tuple(images.shape)} is not torch.float32 {shape}"
    if not bool(images.isfinite().all()):
        return "values are not finite"
    low, high = (float(bound) for bound in images.detach().aminmax())
    return "" if low >= 0 and high <= 1 else f"values lie in [{low:.6g}, {high:.6g}], not in [0, 1]"


def difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Say where two mappings of tensors differ; "" where they are the same bytes."""
    if expected.keys() != found.keys():
        odd = sorted(expected.keys() ^ found.keys())
        return f"'{odd[0]}' is in one result only ({len(odd)} such)"
    for name, value in expected.items():
        if not torch.equal(value, found[name]):
            return f"'{name}' differs by up to {largest(value, found[name]):.3g}"
    return ""


def largest(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors; NaN where their shapes differ or there is nothing."""
    return float((a.double() - b.double()).abs().max()) if a.shape == b.shape and a.numel() else float("nan")


def stored(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return named tensors as they come back from the store."""
    payload = safetensors.torch.save({name: value.contiguous().cpu() for name, value in state.items()})
    return safetensors.torch.load(payload)


def wrong_gradient(outcome: Tensor, images: Tensor) -> str:
    """Say what is wrong with the gradient of a random projection of `outcome` for each image."""
    weights = torch.randn(outcome.shape, generator=torch_generator(SEED, "projection"))
    (gradient,) = torch.autograd.grad((outcome * weights).sum(), images)
    if not bool(gradient.isfinite().all()):
        return "the gradient is not finite"
    blind = (gradient.flatten(1).abs().amax(1) == 0).nonzero().flatten().tolist()
    return f"the gradient of image {blind[0]} is zero everywhere" if blind else ""


T = TypeVar("T")

GLOBALS = "leaves global random state and settings alone"
INPUT = "leaves its input as it was"

DRAW = 'draw from ctx.generator("noise", image_id), set no global seed, dtype, grad mode or thread count'
OWN_COPY = "images = faces.images.clone() before writing into them"

_STREAMS = ("torch's global random state", "NumPy's global random state", "Python's global random state")


class _Watched(Sequence[Backbone]):
    """Backbones that remember whether anyone took one."""

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        self.backbones = backbones
        self.used = False

    def __len__(self) -> int:
        return len(self.backbones)

    def __getitem__(self, index: Any) -> Any:
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
        **process.settings(),
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
    used = replace(lending(ctx, lent), advance=steps.append)
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
    yield Check(
        INPUT, lambda: "it wrote into the images" if seen().input_changed else "", needs, fix=OWN_COPY
    )
    yield Check(
        "leaves the backbones as they were",
        lambda: "it changed weights or left gradients" if seen().backbones_changed else "",
        needs,
        fix="(gradient,) = torch.autograd.grad(loss, images) in place of loss.backward()",
    )
    yield Check(
        "uses backbones only if pool() asks for them",
        lambda: "it took one, and pool() is None" if seen().backbones_used and not pools(method) else "",
        needs,
        fix='def pool(self): return "auto"',
    )
    yield Check(
        "reports each image to advance() once",
        lambda: "" if seen().advanced == count else f"it reported {seen().advanced} of {count} images",
        needs,
        fix="ctx.advance(len(faces)) once, or ctx.advance(1) after each image",
    )


class Learning:
    """Something learnt twice from the same faces and seed.

    Args:
        verb: ``fit`` or ``train``.
        learn: calls the method, watched; its result is named tensors.
    """

    def __init__(self, verb: str, learn: Callable[[], Observation]) -> None:
        self.verb = verb
        self._learn = learn

    @property
    def learns(self) -> str:
        """The name of the check that something is learnt at all."""
        return f"{self.verb} returns named tensors that can be stored"

    @cached_property
    def first(self) -> tuple[Observation, Mapping[str, Tensor]]:
        """What was observed the first time, and what was learnt, as read back from the store."""
        seen = self._learn()
        return seen, stored(seen.result)

    @cached_property
    def second(self) -> tuple[Observation, Mapping[str, Tensor]]:
        """The same the second time."""
        seen = self._learn()
        return seen, stored(seen.result)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """What was learnt."""
        return self.first[1]

    def checks(self) -> Iterator[Check]:
        """Yield the checks of learning."""
        yield Check(
            self.learns,
            attempt(lambda: self.first),
            FILES,
            fix=f'return {{"weight": tensor}} from {self.verb}(): text → torch.Tensor, nothing else',
        )
        yield Check(
            f"{self.verb} learns the same again from the same seed",
            lambda: difference(self.state, self.second[1]),
            self.learns,
            fix=f'draw from ctx.generator("{self.verb}", "start") alone',
        )
