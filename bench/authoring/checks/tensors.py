"""What is wrong with tensors: images, named results, gradients."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from bench.authoring.checks.contexts import SEED
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
