"""The graph of an ONNX file, checked and simplified.

What lives here: what a graph must be, the values that are known before it runs. What must not: how it runs
(`_onnx_reader`), what an operator means (`_onnx_operators`), how a file is loaded (`_onnx_file`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.errors import DataError
from fr_models._onnx_file import load_model
from fr_models._onnx_node import Node, Operation, UnreadableNodeError
from fr_models._onnx_operators import OPERATORS, SEVERAL_OUTPUTS
from fr_models._onnx_shapes import NUMBERS

OLDEST_OPSET = 7
"""The first opset with NumPy's broadcasting; older graphs mean something else by the same words."""

_MOST_ELEMENTS = 2**28
"""Of a value computed from constants alone: a gibibyte of float32; a file of some bytes could ask for any more."""

_VANISHING = ("Constant", "Dropout", "Identity")


class UnreadableNetworkError(DataError):
    """A sound file asks for what is not read here; another program may read it."""


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


def parse(path: Path) -> Graph:
    """Read a file; drop what does nothing, compute what is known beforehand.

    Raises:
        UnreadableNetworkError: it has an operator, or a use of one, that is not among those read here.
        DataError: the file is missing, corrupt, older than opset 7, or has not exactly one image input and one
            output that can be the embedding.
    """
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
    run = operation_of(node, path)
    given = [node.constants[name] if name else None for name in node.inputs]
    who = f"{path}: {node.operator} node '{node.name}'"
    try:
        most = max((value.numel() for value in _shaped(run, node.operator, given)), default=0)
        if most > _MOST_ELEMENTS:
            raise DataError(
                f"{who} makes a constant of {most} elements; at most {_MOST_ELEMENTS} are computed beforehand."
            )
        values = _several(run(*given))
    except (KeyError, IndexError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise DataError(f"{who} cannot be computed: {error}.") from error
    return {name: value for name, value in zip(node.outputs, values, strict=False) if name}


def _shaped(run: Operation, operator: str, given: list[Tensor | None]) -> tuple[Tensor, ...]:
    """Return what an operation would make as tensors without values: nothing is allocated."""
    numbers = NUMBERS.get(operator, ())
    with torch.device("meta"):
        return _several(
            run(
                *(
                    value if value is None or place in numbers else value.to("meta")
                    for place, value in enumerate(given)
                )
            )
        )


def _several(made: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


def _reaching(nodes: list[Node], output: str) -> tuple[Node, ...]:
    """Return the nodes the output depends on."""
    needed = {output}
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(filter(None, node.inputs))
    return tuple(reversed(kept))


def operation_of(node: Node, path: Path) -> Operation:
    """Return what a node computes.

    Raises:
        UnreadableNetworkError: it asks for something that is not read here.
        DataError: it is malformed.
    """
    try:
        return OPERATORS[node.operator](node)
    except UnreadableNodeError as error:
        raise UnreadableNetworkError(
            f"{path}: {node.operator} node '{node.name}' cannot be read: {error}."
        ) from error
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path}: {node.operator} node '{node.name}' is malformed: {error!r}.") from error
