"""EdgeNeXt as EdgeFace uses it, written as an ordinary ONNX graph from the checkpoint's tensors.

What lives here: the network, node by node, under the names of its tensors in timm. What must not: reading the
checkpoint (`_edgenext_checkpoint`), cards.

Everything is as in the checkpoint but one thing: the positional encoding of the second stage depends on the map's
size alone and is written as a constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import CROP_SIZE
from bench.errors import DataError
from fr_models._edgenext_checkpoint import Array, read_checkpoint

OPSET = 20
"""The first with Gelu."""

_IR_VERSION = 9
_EPSILON = 1e-6
_PREFIX = "model."


@dataclass(frozen=True)
class Stage:
    """One of the four stages: convolutional blocks, the last of them an attention block where it has scales.

    Attributes:
        width: channels.
        depth: blocks.
        kernel: of the depthwise convolutions, in pixels.
        scales: parts into which the attention block splits its channels; 0 for no attention block.
        positions: whether the attention block adds the positional encoding.
    """

    width: int
    depth: int
    kernel: int
    scales: int = 0
    positions: bool = False


XX_SMALL = (
    Stage(24, 2, 3),
    Stage(48, 2, 5, scales=2, positions=True),
    Stage(88, 6, 7, scales=3),
    Stage(168, 2, 9, scales=4),
)
"""timm's ``edgenext_xx_small`` (Maaz et al., EdgeNeXt, 2022, table 2)."""

HEADS = 4
EXPANSION = 4
EMBEDDING_DIM = 512
POSITION_FEATURES = 32
"""Sines and cosines for each of the two axes of the positional encoding."""


def convert(sources: tuple[Path, ...], target: Path) -> None:
    """Write EdgeFace-XXS as ONNX; see `bench.contracts.Convert`.

    Args:
        sources: the published checkpoint alone.
        target: the file to write.

    Raises:
        DataError: the checkpoint cannot be read, or is of another network.
    """
    (source,) = sources
    target.write_bytes(model_bytes(read_checkpoint(source), source))


def model_bytes(tensors: Mapping[str, Array], source: Path) -> bytes:
    """Return the network as the bytes of an ONNX file: image batch×3×112×112 → embedding batch×512.

    Args:
        tensors: of the checkpoint.
        source: it, for messages.

    Raises:
        DataError: a tensor is missing, of another shape, or none of the network's.
    """
    graph = _Graph(tensors, source)
    _network(graph, "image", "embedding")
    return graph.serialised()


@dataclass
class _Graph:
    """Nodes and weights written so far.

    Attributes:
        tensors: of the checkpoint.
        source: it, for messages.
        nodes: in the order they run.
        constants: weights by name.
    """

    tensors: Mapping[str, Array]
    source: Path
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def add(self, operator: str, *inputs: str, out: str, **attributes: Any) -> str:
        """Append a node with one output, which is also its name, and return it."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [out], name=out, **attributes))
        return out

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a weight, once under its name."""
        self.constants[name] = value
        return name

    def tensor(self, name: str, *shape: int) -> Array:
        """Return a tensor of the checkpoint.

        Raises:
            DataError: it is missing or of another shape.
        """
        value = self.tensors.get(_PREFIX + name)
        if value is None or value.shape != shape:
            found = "missing" if value is None else f"of shape {value.shape}, expected {shape}"
            raise DataError(
                f"{self.source} is not EdgeFace-XXS: '{_PREFIX}{name}' is {found}. Fetch it again."
            )
        self._used.add(_PREFIX + name)
        return value

    def weight(self, name: str, *shape: int) -> str:
        """Add a tensor of the checkpoint as it is."""
        return self.constant(name, self.tensor(name, *shape))

    def serialised(self) -> bytes:
        """Return the bytes of the file; the same tensors give the same bytes.

        Raises:
            DataError: the checkpoint holds tensors that the network has no place for.
        """
        from onnx import TensorProto, helper, numpy_helper

        if extra := sorted(set(self.tensors) - self._used):
            raise DataError(f"{self.source} is not EdgeFace-XXS: it has '{extra[0]}' too. Fetch it again.")
        image: list[str | int | None] = ["batch", 3, CROP_SIZE, CROP_SIZE]
        graph = helper.make_graph(
            self.nodes,
            "edgeface-xxs",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", EMBEDDING_DIM])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="cloakbench",
        )
        return bytes(model.SerializeToString(deterministic=True))


def _network(graph: _Graph, x: str, output: str) -> None:
    first = XX_SMALL[0].width
    x = _convolution(graph, "stem.0", x, (first, 3, 4, 4), strides=(4, 4))
    x = _channel_norm(graph, "stem.1", x, first)
    side, width = CROP_SIZE // 4, first
    for place, stage in enumerate(XX_SMALL):
        name = f"stages.{place}"
        if place:
            x = _channel_norm(graph, f"{name}.downsample.0", x, width)
            x = _convolution(graph, f"{name}.downsample.1", x, (stage.width, width, 2, 2), strides=(2, 2))
            side //= 2
        width = stage.width
        for block in range(stage.depth - bool(stage.scales)):
            x = _conv_block(graph, f"{name}.blocks.{block}", x, stage)
        if stage.scales:
            x = _attention_block(graph, f"{name}.blocks.{stage.depth - 1}", x, stage, side)
    x = graph.add("GlobalAveragePool", x, out="head.pooled")
    x = graph.add("Flatten", x, out="head.flat")
    x = _norm(graph, "head.norm", x, width)
    _linear(graph, "head.fc", x, width, EMBEDDING_DIM, out=output)


def _convolution(graph: _Graph, name: str, x: str, shape: Sequence[int], **attributes: Any) -> str:
    """Add a convolution of a kernel of `shape`; depthwise where a channel sees itself alone."""
    names = graph.weight(f"{name}.weight", *shape), graph.weight(f"{name}.bias", shape[0])
    kernel = shape[2:]
    return graph.add("Conv", x, *names, out=name, kernel_shape=kernel, **attributes)


def _depthwise(graph: _Graph, name: str, x: str, channels: int, kernel: int) -> str:
    return _convolution(graph, name, x, (channels, 1, kernel, kernel), group=channels, pads=[kernel // 2] * 4)


def _norm(graph: _Graph, name: str, x: str, width: int) -> str:
    """Add layer normalisation over the last axis."""
    names = graph.weight(f"{name}.weight", width), graph.weight(f"{name}.bias", width)
    return graph.add("LayerNormalization", x, *names, out=name, axis=-1, epsilon=_EPSILON)


def _channel_norm(graph: _Graph, name: str, x: str, width: int) -> str:
    """Add layer normalisation over the channels of an N×C×H×W map."""
    last = _channels_last(graph, f"{name}.last", x)
    return _channels_first(graph, f"{name}.first", _norm(graph, name, last, width))


def _channels_last(graph: _Graph, name: str, x: str) -> str:
    return graph.add("Transpose", x, out=name, perm=[0, 2, 3, 1])


def _channels_first(graph: _Graph, name: str, x: str) -> str:
    return graph.add("Transpose", x, out=name, perm=[0, 3, 1, 2])


def _linear(graph: _Graph, name: str, x: str, width: int, outputs: int, out: str = "") -> str:
    weight = graph.tensor(f"{name}.weight", outputs, width)
    turned = graph.constant(f"{name}.weight", np.ascontiguousarray(weight.T))
    product = graph.add("MatMul", x, turned, out=f"{name}.product")
    return graph.add("Add", product, graph.weight(f"{name}.bias", outputs), out=out or name)


def _scaled(graph: _Graph, name: str, x: str, width: int) -> str:
    return graph.add("Mul", x, graph.weight(name, width), out=f"{name}.scaled")


def _perceptron(graph: _Graph, block: str, x: str, width: int) -> str:
    """Add norm, two linear layers and the layer scale to an N×H×W×C map; return it as N×C×H×W."""
    x = _norm(graph, f"{block}.norm", x, width)
    x = _linear(graph, f"{block}.mlp.fc1", x, width, EXPANSION * width)
    x = graph.add("Gelu", x, out=f"{block}.mlp.act")
    x = _linear(graph, f"{block}.mlp.fc2", x, EXPANSION * width, width)
    x = _scaled(graph, f"{block}.gamma", x, width)
    return _channels_first(graph, f"{block}.first", x)


def _conv_block(graph: _Graph, block: str, x: str, stage: Stage) -> str:
    """Add a depthwise convolution and the perceptron, past which the block's input goes."""
    inner = _depthwise(graph, f"{block}.conv_dw", x, stage.width, stage.kernel)
    inner = _channels_last(graph, f"{block}.last", inner)
    return graph.add("Add", x, _perceptron(graph, block, inner, stage.width), out=block)


def _attention_block(graph: _Graph, block: str, x: str, stage: Stage, side: int) -> str:
    """Add the split depthwise transpose attention encoder (Maaz et al., section 3.2) on a side×side map."""
    width, tokens = stage.width, side * side
    split = _split_convolutions(graph, block, x, stage)
    flat = graph.constant(f"{block}.tokens", np.array([0, width, tokens], np.int64))
    y = graph.add("Reshape", split, flat, out=f"{block}.flat")
    y = graph.add("Transpose", y, out=f"{block}.sequence", perm=[0, 2, 1])
    if stage.positions:
        y = graph.add("Add", y, _positions(graph, block, width, side), out=f"{block}.placed")
    normed = _norm(graph, f"{block}.norm_xca", y, width)
    attended = _attention(graph, f"{block}.xca", normed, width, tokens)
    y = graph.add("Add", y, _scaled(graph, f"{block}.gamma_xca", attended, width), out=f"{block}.attended")
    square = graph.constant(f"{block}.map", np.array([0, side, side, width], np.int64))
    y = graph.add("Reshape", y, square, out=f"{block}.last")
    return graph.add("Add", x, _perceptron(graph, block, y, width), out=block)


def _split_convolutions(graph: _Graph, block: str, x: str, stage: Stage) -> str:
    """Convolve all parts of the channels but the last, each together with what the one before it gave."""
    from onnx import helper

    part = math.ceil(stage.width / stage.scales)
    sizes = [part] * (stage.scales - 1) + [stage.width - part * (stage.scales - 1)]
    parts = [f"{block}.part.{i}" for i in range(stage.scales)]
    given = graph.constant(f"{block}.parts", np.array(sizes, np.int64))
    graph.nodes.append(helper.make_node("Split", [x, given], parts, name=f"{block}.part", axis=1))
    done: list[str] = []
    for place, each in enumerate(parts[:-1]):
        fed = graph.add("Add", done[-1], each, out=f"{block}.sum.{place}") if done else each
        done.append(_depthwise(graph, f"{block}.convs.{place}", fed, part, 3))
    return graph.add("Concat", *done, parts[-1], out=f"{block}.joined", axis=1)


def _attention(graph: _Graph, name: str, x: str, width: int, tokens: int) -> str:
    """Add cross-covariance attention on N×tokens×C: channels attend to channels within each head."""
    from onnx import helper

    joined = _linear(graph, f"{name}.qkv", x, width, 3 * width)
    by_head = graph.constant(f"{name}.by_head", np.array([0, tokens, 3, HEADS, width // HEADS], np.int64))
    y = graph.add("Reshape", joined, by_head, out=f"{name}.heads")
    y = graph.add("Transpose", y, out=f"{name}.turned", perm=[2, 0, 3, 4, 1])
    roles = [f"{name}.{role}" for role in ("query", "key", "value")]
    thirds = [f"{role}.kept" for role in roles]
    ones = graph.constant("ones", np.array([1, 1, 1], np.int64))
    graph.nodes.append(helper.make_node("Split", [y, ones], thirds, name=f"{name}.roles", axis=0))
    first = graph.constant("first_axis", np.array([0], np.int64))
    query, key, value = (
        graph.add("Squeeze", kept, first, out=role) for kept, role in zip(thirds, roles, strict=True)
    )
    turned = graph.add("Transpose", _unit(graph, key), out=f"{key}.turned", perm=[0, 1, 3, 2])
    y = graph.add("MatMul", _unit(graph, query), turned, out=f"{name}.similarity")
    y = graph.add("Mul", y, graph.weight(f"{name}.temperature", HEADS, 1, 1), out=f"{name}.scaled")
    y = graph.add("Softmax", y, out=f"{name}.weights", axis=-1)
    y = graph.add("MatMul", y, value, out=f"{name}.mixed")
    y = graph.add("Transpose", y, out=f"{name}.sequence", perm=[0, 3, 1, 2])
    flat = graph.constant(f"{name}.flat_shape", np.array([0, tokens, width], np.int64))
    y = graph.add("Reshape", y, flat, out=f"{name}.flat")
    return _linear(graph, f"{name}.proj", y, width, width)


def _unit(graph: _Graph, x: str) -> str:
    """Divide the last axis by its Euclidean norm, as ``torch.nn.functional.normalize`` does."""
    norm = graph.add("ReduceL2", x, graph.constant("last_axis", np.array([-1], np.int64)), out=f"{x}.norm")
    least = graph.constant("least_norm", np.array(1e-12, np.float32))
    return graph.add("Div", x, graph.add("Max", norm, least, out=f"{x}.bounded"), out=f"{x}.unit")


def _positions(graph: _Graph, block: str, width: int, side: int) -> str:
    """Add the positional encoding of a side×side map as a constant of 1×tokens×C."""
    name = f"{block}.pos_embd.token_projection"
    weight = graph.tensor(f"{name}.weight", width, 2 * POSITION_FEATURES, 1, 1)[:, :, 0, 0]
    bias = graph.tensor(f"{name}.bias", width)
    waves = [_waves((index + 1) / (side + 1e-6) * 2 * math.pi) for index in range(side)]
    rows: list[list[float]] = []
    for y in range(side):
        for x in range(side):
            features = waves[y] + waves[x]
            # Exact sums rounded once: no platform's vectorised sum shows in the file's bytes.
            rows.append(
                [
                    math.fsum((*(float(w) * f for w, f in zip(row, features, strict=True)), float(b)))
                    for row, b in zip(weight, bias, strict=True)
                ]
            )
    return graph.constant(f"{block}.positions", np.array([rows], np.float32))


def _waves(angle: float) -> list[float]:
    """Return sines and cosines by turns, at wavelengths from 2π to 10000·2π."""
    pairs = (angle / 10000 ** (2 * k / POSITION_FEATURES) for k in range(POSITION_FEATURES // 2))
    return [value for a in pairs for value in (math.sin(a), math.cos(a))]
