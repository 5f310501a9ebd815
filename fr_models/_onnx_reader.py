"""Reads an ONNX graph into a differentiable torch module.

What lives here: the graph's checks, the folding of batch normalisation, the compiled list of steps. What must
not: what an operator means (`_onnx_operators`), how a file is loaded (`_onnx_file`), and anything about faces,
preprocessing or cards.

Weights are buffers, not parameters: the networks read here are fixed; `OnnxNetwork.trainable` copies one
with parameters. Convolutions run in channels_last, which is about six times as fast on a CPU. Shapes and positions
are computed on the CPU wherever the network is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import DataError
from fr_models._onnx_arithmetic import normalises_channels
from fr_models._onnx_file import load_model
from fr_models._onnx_node import Node, Operation, UnreadableNodeError
from fr_models._onnx_operators import OPERATORS, SEVERAL_OUTPUTS
from fr_models._onnx_shapes import NUMBERS

OLDEST_OPSET = 7
"""The first opset with NumPy's broadcasting; older graphs mean something else by the same words."""

_VANISHING = ("Constant", "Dropout", "Identity")


class UnreadableNetworkError(DataError):
    """A sound file asks for what is not read here; another program may read it."""


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


@dataclass(frozen=True)
class Graph:
    """A graph of one image input and one output, simplified.

    Attributes:
        nodes: in the order they run.
        constants: weights by name; floating ones are float32.
        source: name of the graph's input.
        output: name of the value that is the embedding.
        published: name of the graph's output that is the embedding.
        input_shape: N, C, H, W as the file states them; None where it leaves them open.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    source: str
    output: str
    published: str
    input_shape: tuple[int | None, ...]


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
        last = {name: i for i, node in enumerate(nodes) for name in node.inputs}
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
    graph = _folded(_parse(path))
    return OnnxNetwork(graph, [_operation(node, path) for node in graph.nodes])


def _operation(node: Node, path: Path) -> Operation:
    try:
        return OPERATORS[node.operator](node)
    except UnreadableNodeError as error:
        raise UnreadableNetworkError(
            f"{path}: {node.operator} node '{node.name}' cannot be read: {error}."
        ) from error
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path}: {node.operator} node '{node.name}' is malformed: {error!r}.") from error


def _inlined(path: Path) -> Any:
    from onnx.inliner import inline_local_functions

    model = load_model(path)
    if not model.functions:
        return model
    try:
        return inline_local_functions(model)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path} is no readable ONNX file ({error}). Fetch or export it again.") from error


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
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError) as error:
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
    if len(shape) != 4 or shape[1] not in (None, 3) or (shape[1] is None and shape[3] == 3):
        found = " × ".join("?" if size is None else str(size) for size in shape)
        fix = " It takes its channels last: transpose its input when exporting it." * (shape[3:] == (3,))
        raise DataError(
            f"{path}: the input '{inputs[0].name}' is {found}; expected N × 3 × height × width.{fix}"
        )
    return inputs[0].name, shape


def embedding_output(graph: Any, path: Path) -> Any:
    """Return the description of that output of a graph which is the embedding.

    That is the only one, or of several the only one of more than one number a row: some networks give the norm too.

    Raises:
        DataError: none or more of them can be.
    """
    outputs = list(graph.output)
    several = len(outputs) > 1
    found = [value for value in outputs if not several or _row_length(value) > 1]
    if len(found) != 1:
        names = ", ".join(value.name for value in outputs) or "none"
        raise DataError(
            f"{path} must have one output, the embedding; it has {len(outputs)}: {names}. "
            "Export it with the embedding alone."
        )
    return found[0]


def _row_length(value: Any) -> int:
    """Return D of an output that states N×D, or N×D×1×1; 0 where it does not."""
    sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
    return sizes[1] if len(sizes) > 1 and all(size == 1 for size in sizes[2:]) else 0


def _constant_node(proto: Any, path: Path) -> Tensor:
    from onnx import helper

    if len(proto.attribute) != 1:
        raise DataError(f"{path}: Constant node '{proto.name}' holds {len(proto.attribute)} values, not one.")
    attribute = proto.attribute[0]
    if attribute.name == "value":
        return _tensor(attribute.t, path)
    value = helper.get_attribute_value(attribute)
    if not isinstance(value, int | float | list) or attribute.name == "value_strings":
        raise UnreadableNetworkError(
            f"{path}: Constant node '{proto.name}' holds {attribute.name}, which is not a number."
        )
    # A list of no numbers is a list of no axes.
    return torch.tensor(value, dtype=None if value != [] else torch.int64)


def _parse(path: Path) -> Graph:
    """Read the file; drop what does nothing, compute what is known beforehand."""
    model = _inlined(path)
    opset = _opset(model, path)
    source, shape = _image_input(model.graph, path)
    published = embedding_output(model.graph, path).name
    constants = {tensor.name: _tensor(tensor, path) for tensor in model.graph.initializer}
    same = _Aliases()
    made = {source}
    nodes: list[Node] = []
    wanted = {name for proto in model.graph.node for name in proto.input} | {published}
    for proto in model.graph.node:
        node = _node(proto, opset, same, constants, path)
        _check_names(node, made, constants, wanted, path)
        first = node.outputs[0]
        if node.operator == "Constant":
            constants[first] = _constant_node(proto, path)
        elif node.operator in _VANISHING:
            same.add(first, node.inputs[0])
            made.add(first)
        elif all(name in constants or not name for name in node.inputs):
            constants |= _computed(node, path)
        else:
            nodes.append(node)
            made.update(node.outputs)
    output = same.of(published)
    if not any(output in node.outputs for node in nodes):
        raise DataError(f"{path}: nothing computes the output '{output}' from the image.")
    return Graph(_reaching(nodes, output), constants, source, output, published, shape)


def _check_names(
    node: Node, made: set[str], constants: Mapping[str, Tensor], wanted: set[str], path: Path
) -> None:
    """Refuse a node that reads what nothing makes, or makes what is made, or more than is read here."""
    who = f"{path}: {node.operator} node '{node.name}'"
    if not node.outputs or not any(node.outputs):
        raise DataError(f"{who} has no output.")
    if missing := [n for n in node.inputs if n and n not in made and n not in constants]:
        raise DataError(f"{who} reads '{missing[0]}', which nothing makes.")
    if twice := [n for n in node.outputs if n and (n in made or n in constants)]:
        raise DataError(f"{who} makes '{twice[0]}', which is there already.")
    if node.operator in SEVERAL_OUTPUTS:
        return
    if not node.outputs[0]:
        raise DataError(f"{who} has no first output.")
    if extra := wanted.intersection(node.outputs[1:]) - {""}:
        raise UnreadableNetworkError(f"{who} must give its first output only, but '{min(extra)}' is used.")


class _Aliases:
    """Names of one and the same value, as Identity and Dropout make them."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def add(self, name: str, same_as: str) -> None:
        self._first[name] = same_as

    def of(self, name: str) -> str:
        return self._first.get(name, name)


def _node(proto: Any, opset: int, same: _Aliases, constants: Mapping[str, Tensor], path: Path) -> Node:
    operator = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    name = proto.name or next(filter(None, proto.output), "")
    if operator not in OPERATORS and operator not in _VANISHING:
        raise UnreadableNetworkError(
            f"{path}: operator '{operator}' of node '{name}' is not among the {len(OPERATORS)} that are read with "
            "gradients."
        )
    _check_form(proto, operator, name, opset, path)
    inputs = tuple(same.of(value) for value in proto.input)
    return Node(
        operator=operator,
        name=name,
        inputs=inputs,
        outputs=tuple(proto.output),
        attributes={} if operator == "Constant" else dict(_attributes(proto)),
        constants={value: constants[value] for value in inputs if value in constants},
        opset=opset,
    )


def _attributes(proto: Any) -> Iterator[tuple[str, Any]]:
    from onnx import helper

    return ((attribute.name, helper.get_attribute_value(attribute)) for attribute in proto.attribute)


def _check_form(proto: Any, operator: str, name: str, opset: int, path: Path) -> None:
    """Refuse a node whose inputs are too few, or whose attributes are of another kind than ONNX says."""
    from onnx import defs

    try:
        schema = defs.get_schema(operator, opset, "")
    except defs.SchemaError as error:
        raise UnreadableNetworkError(
            f"{path}: operator '{operator}' of node '{name}' is not in ONNX opset {opset}."
        ) from error
    given = len([value for value in proto.input[: schema.min_input] if value])
    if given < schema.min_input or len(proto.input) > schema.max_input:
        raise DataError(
            f"{path}: {operator} node '{name}' has {len(proto.input)} inputs, expected {schema.min_input}"
            f"{'' if schema.max_input == schema.min_input else ' or more'}."
        )
    for attribute in proto.attribute:
        known = schema.attributes.get(attribute.name)
        if known is not None and getattr(known.type, "value", None) != attribute.type:
            raise DataError(
                f"{path}: attribute '{attribute.name}' of {operator} node '{name}' is of a wrong kind."
            )


def _computed(node: Node, path: Path) -> dict[str, Tensor]:
    """Return the values, by name, of a node whose inputs are all constants."""
    run = _operation(node, path)
    try:
        made = run(*(node.constants[name] if name else None for name in node.inputs))
    except (KeyError, IndexError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise DataError(f"{path}: {node.operator} node '{node.name}' cannot be computed: {error}.") from error
    values = made if isinstance(made, tuple) else (made,)
    return {name: value for name, value in zip(node.outputs, values, strict=False) if name}


def _reaching(nodes: list[Node], output: str) -> tuple[Node, ...]:
    """Return the nodes the output depends on."""
    needed = {output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
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
        if (
            before is not None
            and before.outputs[:1] == node.inputs[:1]
            and readers[node.inputs[0]] == 1
            and _can_fold(before, node)
        ):
            del nodes[node.inputs[0]]
            node = _fold(before, node, constants)
        nodes[node.outputs[0] or node.outputs[-1]] = node
    return replace(graph, nodes=tuple(nodes.values()), constants=constants)


def _can_fold(before: Node, norm: Node) -> bool:
    if before.operator not in ("Conv", "Gemm") or len(norm.constants) != len(set(norm.inputs[1:])):
        return False
    if norm.attributes.get("training_mode", 0) or not normalises_channels(norm):
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
