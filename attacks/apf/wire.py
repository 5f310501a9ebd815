"""What crosses the wire between `bench apf protect` and `bench apf serve`, and nothing else.

One safetensors file each way: int8 grey levels and, in its metadata, the version and ε. docs/methods/apf.md
has the table.
"""

from __future__ import annotations

import json
from typing import Any, Final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from attacks.apf.cloud import Gradient, Perturbation
from bench.contracts import Frozen
from bench.errors import DataError

VERSION: Final = 1
"""Raise it when either message changes its meaning."""

VERSION_HEADER: Final = "X-APF-Version"
ABOUT_PATH: Final = f"/v{VERSION}/about"
TRANSFER_PATH: Final = f"/v{VERSION}/transfer"


class About(Frozen):
    """What a server says of itself."""

    version: int
    probe: str
    server: str
    domain: str
    modules: int
    size: int
    weights_sha256: str
    max_bytes: int


def encode_gradient(gradient: Gradient) -> bytes:
    """Return the request: the gradient, its ε, the version."""
    return _encoded("gradient", gradient.values, gradient.eps)


def encode_perturbation(perturbation: Perturbation) -> bytes:
    """Return the answer: the perturbation, its ε, the version."""
    return _encoded("perturbation", perturbation.values, perturbation.eps)


def decode_gradient(payload: bytes) -> Gradient:
    """Return the gradient of a request.

    Raises:
        DataError: it is truncated, of another version, or holds anything but int8 values within ±ε.
    """
    values, eps = _decoded("gradient", payload)
    try:
        return Gradient._checked(values, eps)
    except (TypeError, ValueError) as error:
        raise DataError(f"The gradient is not valid: {error}") from error


def decode_perturbation(payload: bytes, requested: Gradient) -> Perturbation:
    """Return the perturbation of an answer.

    Args:
        payload: the answer.
        requested: the gradient that was sent: the answer must have its size and ε.

    Raises:
        DataError: it is truncated, of another version or size, or holds anything but int8 values within ±ε.
    """
    values, eps = _decoded("perturbation", payload)
    try:
        answer = Perturbation._checked(values, eps)
    except (TypeError, ValueError) as error:
        raise DataError(f"The server's answer is not valid: {error}") from error
    sizes = tuple(values.shape), tuple(requested.values.shape)
    if sizes[0] != sizes[1] or eps != requested.eps:
        raise DataError(
            f"The server's answer is for {sizes[0]} within ±{eps} grey levels, requested {sizes[1]} within "
            f"±{requested.eps}. Ask again, or another server."
        )
    return answer


def _encoded(name: str, values: Tensor, eps: int) -> bytes:
    facts = json.dumps({"version": VERSION, "eps": eps}, sort_keys=True)
    return safetensors.torch.save({name: values}, metadata={"apf": facts})


def _decoded(name: str, payload: bytes) -> tuple[Tensor, int]:
    """Return the values and ε of a message of one tensor called `name`."""
    try:
        tensors = safetensors.torch.load(payload)
        facts = _facts(payload)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The {name} cannot be read; it is truncated or no APF message ({error}).") from error
    if facts.get("version") != VERSION:
        raise DataError(
            f"The {name} has version {facts.get('version')!r}, this program speaks {VERSION}. "
            "Install the same release of cloakbench on both sides."
        )
    if set(tensors) != {name} or set(facts) != {"version", "eps"}:
        found = ", ".join(sorted([*tensors, *facts]))[:200]
        raise DataError(f"The message must hold '{name}', 'version' and 'eps' and nothing else, got {found}.")
    return tensors[name], facts["eps"]


def _facts(payload: bytes) -> dict[str, Any]:
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["apf"])
    if set(header["__metadata__"]) != {"apf"} or not isinstance(facts, dict):
        raise ValueError("its metadata is not that of an APF message")
    return facts
