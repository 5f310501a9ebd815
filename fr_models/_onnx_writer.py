"""Writes a network as an ONNX file: the same calls give the same bytes, anywhere.

What lives here: the file's frame and the few nodes that converted networks are made of. What must not: any particular
network or format. Nothing of a date, a version of a package or a path gets into a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "image", "embedding"

Array = npt.NDArray[Any]
Pair = tuple[int, int]


def folded(
    weight: Array, bias: Array | None, factor: Array, offset: Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weight and bias of a layer and the factor and offset a channel that follow it, as one; in float64.

    Args:
        weight: outputs first.
        bias: (outputs,), or None.
        factor: (outputs,).
        offset: (outputs,).
    """
    wide = np.asarray(factor, np.float64)
    before = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
    scaled = np.asarray(weight, np.float64) * wide.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled, before * wide + np.asarray(offset, np.float64)


def batch_norm(
    statistics: Sequence[Array], epsilon: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return batch normalisation with fixed statistics as factor and offset a channel, in float64.

    Args:
        statistics: gamma, beta, mean and variance, each (channels,).
        epsilon: added to the variance.
    """
    gamma, beta, mean, variance = (np.asarray(each, np.float64) for each in statistics)
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor


class OnnxWriter:
    """A graph in the making, from one image input to one embedding.

    A method that adds a node takes the names of the values it reads and returns the name of what it makes. Weights
    are stored as float32.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node of one output."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add numbers that do not change; the same numbers are held once."""
        array = np.ascontiguousarray(value, np.dtype(dtype).newbyteorder("<"))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        tensor = onnx.TensorProto(dims=np.shape(value), data_type=kind, raw_data=array.tobytes())
        for name, known in self._weights.items():
            if known.dims == tensor.dims and known.raw_data == tensor.raw_data and known.data_type == kind:
                return name
        tensor.name = f"weight_{len(self._weights)}"
        self._weights[tensor.name] = tensor
        return tensor.name

    def conv(
        self, value: str, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair, groups: int = 1
    ) -> str:
        """Add a convolution; `weight` is (out, in/groups, height, width), pairs are (vertical, horizontal)."""
        weights = [self.constant(each) for each in (weight, bias) if each is not None]
        return self.add(
            "Conv",
            [value, *weights],
            kernel_shape=weight.shape[2:],
            strides=stride,
            pads=(*padding, *padding),
            group=groups,
        )

    def linear(self, value: str, weight: Array, bias: Array | None) -> str:
        """Add x·Wᵀ + b of N×in; `weight` is (out, in)."""
        weights = [self.constant(each) for each in (weight, bias) if each is not None]
        return self.add("Gemm", [value, *weights], transB=1)

    def prelu(self, value: str, slopes: Array) -> str:
        """Add PReLU of N×C×H×W with a slope a channel."""
        return self.add("PRelu", [value, self.constant(np.reshape(slopes, (-1, 1, 1)))])

    def clip(self, value: str, low: float | None, high: float | None) -> str:
        """Add bounds; None for none."""
        bounds = ["" if bound is None else self.constant(bound) for bound in (low, high)]
        return self.add("Clip", [value, *bounds[: 2 if bounds[1] else 1]])

    def flatten(self, value: str) -> str:
        """Add N×C×H×W → N×CHW."""
        return self.add("Flatten", [value], axis=1)

    def save(
        self, target: Path, output: str, *, height: int, width: int, dimension: int, channels: int = 3
    ) -> None:
        """Write the file.

        Args:
            target: where to.
            output: the value that is the embedding, made by the last node.
            height: of the input, in pixels.
            width: likewise.
            dimension: of the embedding.
            channels: of the input.
        """
        assert list(self._nodes[-1].output) == [output]
        self._nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self._nodes,
            "network",
            [
                helper.make_tensor_value_info(
                    INPUT, onnx.TensorProto.FLOAT, ["batch", channels, height, width]
                )
            ],
            [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", dimension])],
            list(self._weights.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="cloakbench",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        target.write_bytes(model.SerializeToString(deterministic=True))
