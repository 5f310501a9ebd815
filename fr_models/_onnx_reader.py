"""Reads an ONNX graph into a differentiable torch module.

What lives here: the folding of batch normalisation, the compiled list of steps. What must not: the graph's checks
(`_onnx_graph`), what an operator means (`_onnx_operators`), and anything about faces, preprocessing or cards.

Weights are buffers, not parameters: the networks read here are fixed; `OnnxNetwork.trainable` copies one
with parameters. Convolutions run in channels_last, which is about six times as fast on a CPU. Shapes and positions
are computed on the CPU wherever the network is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fr_models._onnx_arithmetic import normalises_channels
from fr_models._onnx_graph import Graph, operation_of, parse
from fr_models._onnx_node import Node, Operation
from fr_models._onnx_shapes import NUMBERS


@dataclass(frozen=True)
class Step:
    """One operation of a compiled network.

    Attributes:
        run: the operation.
        label: operator and node name, for messages.
        arguments: its arguments with the constants in their places and None where a value goes.
        values: (argument position, slot) of each value it reads.
        numbers: positions of arguments that are read as Python numbers.
        targets: the slots it fills, in the order of its outputs; `_UNREAD` for one nobody reads.
        finished: slots nobody reads after this step.
    """

    run: Operation
    label: str
    arguments: tuple[Tensor | None, ...]
    values: tuple[tuple[int, int], ...]
    numbers: tuple[int, ...]
    targets: tuple[int, ...]
    finished: tuple[int, ...]


_UNREAD = -1


class OnnxNetwork(nn.Module):
    """A graph as a torch module: N×3×H×W float32 in, the embedding out.

    Attributes:
        input_shape: N, C, H, W as the file states them; None where it leaves them open.
        published: name of the graph's output that is the embedding.
    """

    def __init__(
        self, graph: Graph, operations: Sequence[Operation], learnt: frozenset[str] = frozenset()
    ) -> None:
        """Compile `graph`.

        Args:
            graph: the graph.
            operations: those of its nodes, in their order.
            learnt: constants that become parameters, copied.
        """
        super().__init__()
        self.input_shape = graph.input_shape
        self.published = graph.published
        self._graph = graph
        self._operations = tuple(operations)
        self._weight_names: dict[str, str] = {}
        self._fixed: dict[str, Tensor] = {}
        computed_with = {
            name
            for node in graph.nodes
            for place, name in enumerate(node.inputs)
            if place not in NUMBERS.get(node.operator, ())
        }
        for name in sorted({name for node in graph.nodes for name in node.inputs if name in graph.constants}):
            value = graph.constants[name]
            if value.is_floating_point() and name in computed_with:
                held = self._weight_names[name] = f"w{len(self._weight_names)}"
                if name in learnt:
                    self.register_parameter(held, nn.Parameter(_laid_out(value).clone()))
                else:
                    self.register_buffer(held, _laid_out(value))
            else:
                # Shapes, axes and scales are read by the interpreter: they stay on the CPU.
                self._fixed[name] = value
        self._bind()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnnxNetwork:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._bind()  # moving replaces the tensors the steps hold
        return self

    def _bind(self) -> None:
        """Make the list of steps over the present tensors."""
        nodes = self._graph.nodes
        held: dict[str, Tensor] = {name: getattr(self, own) for name, own in self._weight_names.items()}
        held |= self._fixed
        # "" names no value: an absent input, or an output nobody wants.
        last = {name: i for i, node in enumerate(nodes) for name in node.inputs if name}
        last[self._graph.output] = len(nodes)  # never finished
        made = (name for node in nodes for name in node.outputs if name in last)
        slots = {name: slot for slot, name in enumerate((self._graph.source, *made))}
        self._slots = len(slots)
        self._output = slots[self._graph.output]
        finished: list[list[int]] = [[] for _ in range(len(nodes) + 1)]
        for name, slot in slots.items():
            finished[last.get(name, len(nodes))].append(slot)
        self._steps = tuple(
            Step(
                run=operation,
                label=f"{node.operator} node '{node.name}'",
                arguments=tuple(held.get(name) for name in node.inputs),
                values=tuple((p, slots[name]) for p, name in enumerate(node.inputs) if name in slots),
                numbers=NUMBERS.get(node.operator, ()),
                targets=tuple(slots.get(name, _UNREAD) for name in node.outputs),
                finished=tuple(ends),
            )
            for node, operation, ends in zip(nodes, self._operations, finished, strict=False)
        )

    def trainable(self) -> OnnxNetwork:
        """Return a copy as the file has it, on the CPU, whose weights are parameters.

        Batch norm that was folded stays folded and is trained as part of its layer; where it was not, its
        factor and offset are trained and its statistics stay. Numbers that are no weights (bounds, paddings,
        single factors and offsets) stay too.
        """
        learnt = frozenset(name for node in self._graph.nodes for name in _learnt_by(node))
        return OnnxNetwork(self._graph, self._operations, learnt)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings.

        Args:
            images: N×3×H×W float32, preprocessed; any memory format.
        """
        held: list[Tensor | None] = [None] * self._slots
        held[0] = images.contiguous(memory_format=torch.channels_last)
        at_home = images.is_cpu and images.dtype == torch.float32
        for step in self._steps:
            arguments = list(step.arguments)
            for position, slot in step.values:
                arguments[position] = held[slot]
            if not at_home:
                arguments = _brought(arguments, step.numbers, images)
            try:
                made = step.run(*arguments)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                error.add_note(f"in {step.label}")
                raise
            for slot, value in zip(step.targets, made if isinstance(made, tuple) else (made,), strict=False):
                if slot != _UNREAD:
                    held[slot] = value
            for slot in step.finished:
                held[slot] = None
        result = held[self._output]
        assert result is not None
        return result


def _brought(arguments: list[Tensor | None], numbers: tuple[int, ...], images: Tensor) -> list[Tensor | None]:
    """Bring what is computed with to the images' device and floating type, where one of it is there already."""

    def move(value: Tensor) -> Tensor:
        return value.to(images.device, images.dtype if value.is_floating_point() else value.dtype)

    computed = [place not in numbers and value is not None for place, value in enumerate(arguments)]
    there = (
        v.device == images.device for v, c in zip(arguments, computed, strict=True) if c and v is not None
    )
    if not any(there):
        return arguments
    return [move(v) if c and v is not None else v for v, c in zip(arguments, computed, strict=True)]


_WEIGHTED = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "MatMul",
    "PRelu",
)
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")


def _learnt_by(node: Node) -> tuple[str, ...]:
    """Return the names of those of a node's constants that training may change."""
    named = node.inputs[:3] if node.operator == "BatchNormalization" else node.inputs
    found = [(name, node.constants[name]) for name in named if name in node.constants]
    if node.operator in _ARITHMETIC:
        # One number for a whole map is the arithmetic of some function or of preprocessing.
        found = [(name, value) for name, value in found if value.numel() > 1]
    elif node.operator not in (*_WEIGHTED, "BatchNormalization"):
        return ()
    return tuple(name for name, value in found if value.is_floating_point())


def _laid_out(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value.contiguous()


def read_onnx(path: Path) -> OnnxNetwork:
    """Read a network from an ONNX file.

    Args:
        path: the file; weights in files beside it are read too.

    Raises:
        UnreadableNetworkError: it has an operator, or a use of one, that is not among those read here; the message
            says which and where.
        DataError: the file is missing, corrupt, older than opset 7, or has not exactly one image input and one
            output that can be the embedding.
    """
    graph = _folded(parse(path))
    return OnnxNetwork(graph, [operation_of(node, path) for node in graph.nodes])


def _folded(graph: Graph) -> Graph:
    """Fold batch normalisation into the convolution or matrix product whose only reader it is."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers[graph.output] += 1
    constants = dict(graph.constants)
    nodes: dict[str, Node] = {}
    for original in graph.nodes:
        node = _as_linear(original, constants) if original.operator == "Gemm" else original
        before = nodes.get(node.inputs[0]) if node.operator == "BatchNormalization" else None
        if (
            before is not None
            and before.outputs[:1] == node.inputs[:1]
            and readers[node.inputs[0]] == 1
            and _can_fold(before, node)
        ):
            del nodes[node.inputs[0]]
            node = _fold(before, node, constants)
        nodes[next(filter(None, node.outputs))] = node
    return replace(graph, nodes=tuple(nodes.values()), constants=constants)


def _can_fold(before: Node, norm: Node) -> bool:
    if before.operator not in ("Conv", "Gemm") or len(norm.constants) != len(set(norm.inputs[1:])):
        return False
    if norm.attributes.get("training_mode", 0) or not normalises_channels(norm):
        return False
    if not all(name in before.constants for name in before.inputs[1:] if name):
        return False
    return before.operator == "Conv" or _is_linear(before)


def _is_linear(gemm: Node) -> bool:
    """Say whether a Gemm with fixed weights is x·Wᵀ + b with a vector b, as `_as_linear` writes it."""
    wanted = {"transA": 0, "transB": 1, "alpha": 1, "beta": 1}
    same = all(gemm.attributes.get(key) == value for key, value in wanted.items())
    return same and (not gemm.has(2) or gemm.constants[gemm.inputs[2]].ndim == 1)


def _fold(before: Node, norm: Node, constants: dict[str, Tensor]) -> Node:
    """Return one node that does `before` and then `norm`; computed in float64."""
    gamma, beta, mean, variance = (norm.constants[name].double() for name in norm.inputs[1:5])
    scale = gamma / torch.sqrt(variance + float(norm.attributes.get("epsilon", 1e-5)))
    weight = before.constants[before.inputs[1]].double()
    bias = before.constants[before.inputs[2]].double() if before.has(2) else torch.zeros_like(mean)
    new = {
        f"{norm.outputs[0]}/weight": (weight * scale.view(-1, *[1] * (weight.ndim - 1))).float(),
        f"{norm.outputs[0]}/bias": (beta + (bias - mean) * scale).float(),
    }
    constants |= new
    return replace(before, inputs=(before.inputs[0], *new), outputs=norm.outputs[:1], constants=new)


def _as_linear(node: Node, constants: dict[str, Tensor]) -> Node:
    """Return a Gemm with fixed weights as x·Wᵀ + b with a vector b; any other as it is."""
    weight = node.constants.get(node.inputs[1])
    bias = node.constants.get(node.inputs[2]) if node.has(2) else None
    if weight is None or (node.has(2) and bias is None) or node.attributes.get("transA", 0):
        return node
    if bias is not None and bias.numel() != bias.shape[-1:].numel():
        return node  # differs from row to row
    weight = (weight if node.attributes.get("transB", 0) else weight.T) * float(
        node.attributes.get("alpha", 1)
    )
    new = {f"{node.outputs[0]}/weight": weight.contiguous()}
    if bias is not None:
        vector = bias.reshape(-1) * float(node.attributes.get("beta", 1))
        new[f"{node.outputs[0]}/bias"] = vector.expand(len(weight)).contiguous()
    constants |= new
    linear = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
    return replace(node, inputs=(node.inputs[0], *new), attributes=linear, constants=new)
