"""Networks in a ``.safetensors`` file that states their shape: reading one, frozen and ready to use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from bench.errors import DataError

N = TypeVar("N", bound=nn.Module)


def read_frozen(
    path: Path, device: torch.device, build: Callable[[Mapping[str, Any]], N], *, what: str, fix: str
) -> N:
    """Return the network of a file on `device`: float32, frozen, in evaluation mode and channels-last.

    Args:
        path: holds the tensors, and as metadata ``network`` the shape as JSON.
        device: where to.
        build: makes the network of a shape; on the meta device, so that torch's random state stays as it is.
        what: the weights, for messages.
        fix: a sentence that says how to get them.

    Raises:
        DataError: the file is missing, is no safetensors file, or does not hold such a network.
    """
    if not path.is_file():
        raise DataError(f"{what} weights {path} do not exist. {fix}")
    try:
        with safe_open(path, framework="pt") as file:
            shape = json.loads((file.metadata() or {}).get("network", "{}"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}. {fix}") from error
    with torch.device("meta"):
        network = build(shape)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise DataError(f"{path} does not hold the network it declares: {error}. {fix}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise DataError(f"{path} holds weights that are not finite. {fix}")
    network.requires_grad_(False).eval()
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
