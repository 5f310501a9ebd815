"""One node of an ONNX graph, and what every builder of an operation needs of it.

What lives here: `Node` and the types of its operation. What must not: what an operator means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class UnreadableNodeError(ValueError):
    """A node asks for something its operator here does not do; the reader adds where."""


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        operator: e.g. ``Conv``; with its domain where that is not ONNX's own.
        name: as in the file, else the name of its first output.
        inputs: names of the values it reads; "" where an optional one is absent.
        outputs: names of the values it makes.
        attributes: by name, as Python values.
        constants: those of its inputs that are known before the network runs.
        opset: of the graph.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[str, Tensor]
    opset: int

    def constant(self, position: int) -> Tensor | None:
        """Return the input at `position`, or None where it is absent.

        Raises:
            UnreadableNodeError: it is only known when the network runs.
        """
        if not self.has(position):
            return None
        name = self.inputs[position]
        if name not in self.constants:
            raise UnreadableNodeError(f"its input '{name}' is not a constant")
        return self.constants[name]

    def has(self, position: int) -> bool:
        """Say whether the optional input at `position` is there."""
        return position < len(self.inputs) and bool(self.inputs[position])

    def integers(self, attribute: str, position: int) -> tuple[int, ...] | None:
        """Return a list of integers that older opsets give as attribute, newer ones as an input."""
        if attribute in self.attributes:
            return tuple(int(v) for v in self.attributes[attribute])
        given = self.constant(position)
        return None if given is None else tuple(numbers(given))

    def text(self, attribute: str, default: str) -> str:
        """Return a text attribute."""
        value = self.attributes.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else str(value)


Operation = Callable[..., Tensor | tuple[Tensor, ...]]
"""Of all the node's inputs, None where an optional one is absent; a tuple where the operator has several outputs."""

Builder = Callable[[Node], Operation]


def plain(function: Operation) -> Builder:
    """Return the builder of an operator without attributes."""
    return lambda _node: function


def numbers(value: Tensor) -> list[int]:
    """Return a tensor of shapes, axes or positions as Python integers."""
    return [int(v) for v in value.flatten().tolist()]


def whole(value: Tensor) -> bool:
    """Say whether a tensor holds integers."""
    return not value.is_floating_point() and value.dtype != torch.bool
