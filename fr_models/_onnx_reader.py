"""Reads an ONNX graph into a differentiable torch module.

What lives here: the file's checks, the folding of batch normalisation, the compiled list of steps. What must
not: what an operator means (`_onnx_operators`), and anything about faces, preprocessing or cards.

Weights are buffers, not parameters: the networks read here are fixed; `OnnxNetwork.trainable` copies one
with parameters. Convolutions run in channels_last, which is about six times as fast on a CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import DataError
from fr_models._onnx_operators import OPERATORS, Node, Operation, UnreadableNodeError

OLDEST_OPSET = 7
"""The first opset with NumPy's broadcasting; older graphs mean something else by the same words."""

_VANISHING = ("Constant", "Dropout", "Identity")


@dataclass(frozen=True)
class Step:
    """One operation of a compiled network.

    Attributes:
        run: the operation.
        label: operator and node name, for messages.
        arguments: its arguments with the constants in their places and None where a value goes.
        values: (argument position, slot) of each value it reads.
        target: the slot it fills.
        finished: slots nobody reads after this step.
    """

    run: Operation
    label: str
    arguments: tuple[Tensor | None, ...]
    values: tuple[tuple[int, int], ...]
    target: int
    finished: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A graph of one image input and one output, simplified.

    Attributes:
        nodes: in the order they run.
        constants: weights by name; floating ones are float32.
        source: name of the graph's input.
        output: name of the graph's output.
        input_shape: N, C, H, W as the file states them; None where it leaves them open.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    source: str
    output: str
    input_shape: tuple[int | None, ...]


class OnnxNetwork(nn.Module):
    """A graph as a torch module: N×3×H×W float32 in, the graph's only output out.

    Attributes:
        input_shape: N, C, H, W as the file states them; None where it leaves them open.
    """

    def __init__(
        self, graph: Graph, operations: Mapping[str, Operation], learnt: frozenset[str] = frozenset()
    ) -> None:
        """Compile `graph`.

        Args:
            graph: the graph.
            operations: those of its nodes, by the name of their output.
            learnt: constants that become parameters, copied.
        """
        super().__init__()
        self.input_shape = graph.input_shape
        self._graph = graph
        self._operations = operations
        used = {name for node in graph.nodes for name in node.inputs if name in graph.constants}
        self._weight_names: dict[str, str] = {}
        self._fixed: dict[str, Tensor] = {}
        for name in sorted(used):
            value = graph.constants[name]
            if value.is_floating_point():
                held = self._weight_names[name] = f"w{len(self._weight_names)}"
                if name in learnt:
                    self.register_parameter(held, nn.Parameter(_laid_out(value).clone()))
                else:
                    self.register_buffer(held, _laid_out(value))
            else:
                # Shapes and axes are read by the interpreter: they stay on the CPU.
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
        slots = {self._graph.source: 0} | {node.outputs[0]: i for i, node in enumerate(nodes, start=1)}
        last = {name: i for i, node in enumerate(nodes) for name in node.inputs if name in slots}
        last.pop(self._graph.output, None)
        self._output = slots[self._graph.output]
        self._steps = tuple(
            Step(
                run=self._operations[node.outputs[0]],
                label=f"{node.operator} node '{node.name}'",
                arguments=tuple(held.get(name) for name in node.inputs),
                values=tuple((p, slots[name]) for p, name in enumerate(node.inputs) if name in slots),
                target=slots[node.outputs[0]],
                finished=tuple(slots[name] for name, end in last.items() if end == index),
            )
            for index, node in enumerate(nodes)
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
        """Return the graph's output.

        Args:
            images: N×3×H×W float32, preprocessed; any memory format.
        """
        held: list[Tensor | None] = [None] * (len(self._steps) + 1)
        held[0] = images.contiguous(memory_format=torch.channels_last)
        for step in self._steps:
            arguments = list(step.arguments)
            for position, slot in step.values:
                arguments[position] = held[slot]
            try:
                held[step.target] = step.run(*arguments)
            except (RuntimeError, ValueError, IndexError) as error:
                error.add_note(f"in {step.label}")
                raise
            for slot in step.finished:
                held[slot] = None
        result = held[self._output]
        assert result is not None
        return result


_WEIGHTED = ("Conv", "Gemm", "MatMul", "PRelu")
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
        DataError: the file is missing, corrupt, older than opset 7, has not exactly one image input and one
            output, or has an operator that is not among those read here; the message says which and where.
    """
    graph = _folded(_parse(path))
    operations: dict[str, Operation] = {}
    for node in graph.nodes:
        try:
            operations[node.outputs[0]] = OPERATORS[node.operator](node)
        except UnreadableNodeError as error:
            raise DataError(f"{path}: {node.operator} node '{node.name}' cannot be read: {error}.") from error
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(f"{path}: {node.operator} node '{node.name}' is malformed: {error!r}.") from error
    return OnnxNetwork(graph, operations)


def _load_model(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.inliner import inline_local_functions

    if not path.is_file():
        raise DataError(f"{path} is not a file. Give the path of an ONNX network.")
    try:
        model = onnx.load(str(path))
        if model.functions:
            model = inline_local_functions(model)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        raise DataError(f"{path} is no readable ONNX file ({error}). Fetch or export it again.") from error
    if not model.graph.node:
        raise DataError(f"{path} holds no ONNX network (its graph has no nodes). Fetch or export it again.")
    return model


def _opset(model: Any, path: Path) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    opset = int(versions[0]) if versions else 1
    if opset < OLDEST_OPSET:
        raise DataError(f"{path} is of ONNX opset {opset}; export it with opset {OLDEST_OPSET} or newer.")
    return opset


def _tensor(proto: Any, path: Path) -> Tensor:
    from onnx import numpy_helper

    try:
        value = torch.from_numpy(numpy_helper.to_array(proto).copy())
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: the weights '{proto.name}' cannot be read ({error}).") from error
    return value.float() if value.is_floating_point() else value


def _image_input(graph: Any, path: Path) -> tuple[str, tuple[int | None, ...]]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise DataError(f"{path} must have one input, the images; it has {len(inputs)}: {names}.")
    kind = inputs[0].type.tensor_type
    if not kind.HasField("shape"):
        return inputs[0].name, (None, None, None, None)
    shape = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim
    )
    if len(shape) != 4 or shape[1] not in (None, 3):
        found = " × ".join("?" if size is None else str(size) for size in shape)
        raise DataError(f"{path}: the input '{inputs[0].name}' is {found}; expected N × 3 × height × width.")
    return inputs[0].name, shape


def _constant_node(proto: Any, path: Path) -> Tensor:
    from onnx import helper

    attribute = proto.attribute[0]
    if attribute.name == "value":
        return _tensor(attribute.t, path)
    value = helper.get_attribute_value(attribute)
    if not isinstance(value, int | float | list):
        raise DataError(
            f"{path}: Constant node '{proto.name}' holds {attribute.name}, which is not a number."
        )
    return torch.tensor(value)


def _parse(path: Path) -> Graph:
    """Read the file; drop what does nothing, compute what is known beforehand."""
    model = _load_model(path)
    opset = _opset(model, path)
    source, shape = _image_input(model.graph, path)
    if len(model.graph.output) != 1:
        names = ", ".join(value.name for value in model.graph.output)
        raise DataError(
            f"{path} must have one output, the embedding; it has {len(model.graph.output)}: {names}."
        )
    constants = {tensor.name: _tensor(tensor, path) for tensor in model.graph.initializer}
    same = _Aliases()
    known = {source, ""}
    nodes: list[Node] = []
    wanted = {name for proto in model.graph.node for name in proto.input} | {model.graph.output[0].name}
    for proto in model.graph.node:
        node = _node(proto, opset, same, constants, path)
        if missing := [n for n in node.inputs if n not in known and n not in constants]:
            raise DataError(
                f"{path}: {node.operator} node '{node.name}' reads '{missing[0]}', which nothing makes."
            )
        if extra := wanted.intersection(node.outputs[1:]):
            raise DataError(
                f"{path}: {node.operator} node '{node.name}' must give its first output only, "
                f"but '{min(extra)}' is used."
            )
        if node.operator == "Constant":
            constants[node.outputs[0]] = _constant_node(proto, path)
        elif node.operator in _VANISHING:
            same.add(node.outputs[0], node.inputs[0])
        elif all(name in constants or not name for name in node.inputs):
            constants[node.outputs[0]] = _computed(node, path)
        else:
            nodes.append(node)
            known.add(node.outputs[0])
    output = same.of(model.graph.output[0].name)
    if output not in known - {source, ""}:
        raise DataError(f"{path}: nothing computes the output '{output}' from the image.")
    return Graph(_reaching(nodes, output), constants, source, output, shape)


class _Aliases:
    """Names of one and the same value, as Identity and Dropout make them."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def add(self, name: str, same_as: str) -> None:
        self._first[name] = same_as

    def of(self, name: str) -> str:
        return self._first.get(name, name)


def _node(proto: Any, opset: int, same: _Aliases, constants: Mapping[str, Tensor], path: Path) -> Node:
    from onnx import helper

    operator = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    name = proto.name or (proto.output[0] if proto.output else "")
    if operator not in OPERATORS and operator not in _VANISHING:
        supported = ", ".join(sorted((*OPERATORS, *_VANISHING)))
        raise DataError(
            f"{path}: operator '{operator}' of node '{name}' is not supported. Supported: {supported}. "
            f"Simplify the network when exporting it."
        )
    inputs = tuple(same.of(value) for value in proto.input)
    attributes = {} if operator == "Constant" else proto.attribute
    return Node(
        operator=operator,
        name=name,
        inputs=inputs,
        outputs=tuple(proto.output),
        attributes={a.name: helper.get_attribute_value(a) for a in attributes},
        constants={value: constants[value] for value in inputs if value in constants},
        opset=opset,
    )


def _computed(node: Node, path: Path) -> Tensor:
    """Return the value of a node whose inputs are all constants."""
    try:
        arguments = [node.constants[name] if name else None for name in node.inputs]
        return OPERATORS[node.operator](node)(*arguments)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: {node.operator} node '{node.name}' cannot be computed: {error}.") from error


def _reaching(nodes: list[Node], output: str) -> tuple[Node, ...]:
    """Return the nodes the output depends on."""
    needed = {output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.outputs[0] in needed:
            kept.append(node)
            needed.update(node.inputs)
    return tuple(reversed(kept))


def _folded(graph: Graph) -> Graph:
    """Fold batch normalisation into the convolution or matrix product whose only reader it is."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers[graph.output] += 1
    constants = dict(graph.constants)
    nodes: dict[str, Node] = {}
    for original in graph.nodes:
        node = _as_linear(original, constants) if original.operator == "Gemm" else original
        before = nodes.get(node.inputs[0]) if node.operator == "BatchNormalization" else None
        if before is not None and readers[node.inputs[0]] == 1 and _can_fold(before, node):
            del nodes[node.inputs[0]]
            node = _fold(before, node, constants)
        nodes[node.outputs[0]] = node
    return replace(graph, nodes=tuple(nodes.values()), constants=constants)


def _can_fold(before: Node, norm: Node) -> bool:
    if before.operator not in ("Conv", "Gemm") or len(norm.constants) != len(set(norm.inputs[1:])):
        return False
    if norm.attributes.get("training_mode", 0) or not norm.attributes.get("spatial", 1):
        return False
    plain_gemm = before.attributes.get("transB") == 1 and before.attributes.get("alpha") == 1
    named = before.inputs[1:]
    return all(n in before.constants for n in named if n) and (before.operator == "Conv" or plain_gemm)


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
