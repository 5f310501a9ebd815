"""photo_analyze's ``mobilefacenet.onnx``, which takes one image at a time → the same network with an open batch axis.

Weights stay as they are. The last node, a Reshape to one row, becomes a Flatten; names and versions are those of the
other networks here.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from bench.data.cursor import read_whole
from bench.errors import DataError
from fr_models._onnx_writer import INPUT, IR_VERSION, OPSET, OUTPUT

_LARGEST = 1 << 26


def convert(sources: tuple[Path, ...], target: Path) -> None:
    """Write the network with an open batch axis (`bench.contracts.Convert`).

    Raises:
        DataError: the source cannot be read, or is not that network.
    """
    (source,) = sources
    model = _read(source)
    graph = model.graph
    last = graph.node[-1] if graph.node else None
    values = [*graph.input, *graph.output]
    if len(values) != 2 or last is None or last.op_type != "Reshape" or len(last.input) != 2:
        raise DataError(f"{source} is not the network expected: one input, one output, a Reshape at its end.")
    _rename(graph, {values[0].name: INPUT, values[1].name: OUTPUT})
    for value in values:
        sides = value.type.tensor_type.shape.dim
        if not sides or sides[0].dim_value != 1:
            raise DataError(f"{source} is not the network expected: '{value.name}' is not of one image.")
        sides[0].dim_param = "batch"
    _flatten(graph, last)
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    # Nothing it uses means anything else in this opset than in its own, 11.
    model.opset_import.append(helper.make_opsetid("", OPSET))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{source} is no valid ONNX network: {reason}.") from error
    target.write_bytes(model.SerializeToString(deterministic=True))


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(read_whole(path, _LARGEST))
    except DecodeError as error:
        raise DataError(f"{path} is no ONNX file, or is broken.") from error
    assert isinstance(model, onnx.ModelProto)
    return model


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
    for node in graph.node:
        for given in (node.input, node.output):
            given[:] = [names.get(name, name) for name in given]


def _flatten(graph: onnx.GraphProto, last: onnx.NodeProto) -> None:
    shape = last.input.pop()
    last.op_type = "Flatten"
    last.attribute.append(helper.make_attribute("axis", 1))
    for place, weight in enumerate(graph.initializer):
        if weight.name == shape:
            del graph.initializer[place]
            return
