"""PuFace in 8-bit arithmetic, as a defence from a file: `--defense ./benchmarks/puface_int8.py:PuFaceInt8`.

The shipped weights as an ONNX graph, quantised by onnxruntime on photos of training identities and run by it. What
lives here: the graph, its quantisation, the defence. Not here: what it costs and loses, measured by
`benchmarks.purifier`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from bench.contracts import MICRO_BATCH, Context, Faces
from defenses.puface.network import PurifierNetwork, load_network
from defenses.puface.purifier import PuFace

CALIBRATED_ON = 64
"""Photos of training identities, the first ones, on which the ranges of activations are found."""

_OPSET = 17
_IR_VERSION = 8


class PuFaceInt8(PuFace):
    """`PuFace` with the convolutions in 8 bits: weights by channel, activations in ranges found on training photos."""

    name: ClassVar[str] = "puface-int8"
    requires_fit = True
    differentiable = False

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Return the quantised graph as bytes."""
        network = load_network(ctx.files[0], torch.device("cpu"))
        model = quantised(network, faces.images[:CALIBRATED_ON].cpu())
        return {"graph": torch.frombuffer(bytearray(model), dtype=torch.uint8)}

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the purified images, N×3×H×W in [0, 1]."""
        purified = run(ctx.state["graph"].cpu().numpy().tobytes(), faces.images.cpu())
        ctx.advance(len(faces))
        return purified.to(faces.images.device)


def run(model: bytes, images: Tensor) -> Tensor:
    """Return N×3×H×W purified images in [0, 1] by a graph's bytes, `MICRO_BATCH` at a time, always so many."""
    session = _session(model, torch.get_num_threads())
    purified = np.empty(tuple(images.shape), np.float32)
    for start in range(0, len(images), MICRO_BATCH):
        given = images[start : start + MICRO_BATCH].numpy()
        batch = np.zeros((MICRO_BATCH, *given.shape[1:]), np.float32)
        batch[: len(given)] = given
        output = session.run(None, {"image": batch})[0][: len(given)]
        np.clip(output, 0, 1, out=purified[start : start + MICRO_BATCH])
    return torch.from_numpy(purified)


@lru_cache(maxsize=4)
def _session(model: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


# -- the graph ------------------------------------------------------------------------------------------------


def quantised(network: PurifierNetwork, photos: Tensor) -> bytes:
    """Return a network as an ONNX graph whose 3×3 convolutions compute in 8 bits.

    The outer layers stay in float32: one sees pixels, the other makes the correction, and onnxruntime has no 8-bit
    transposed convolution.

    Args:
        network: frozen.
        photos: N×3×H×W in [0, 1], on which the ranges of activations are found; none that is evaluated.
    """
    graph = as_onnx(network)
    inner = [node.name for node in graph.graph.node if node.name.startswith("body.")]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            graph,
            target,
            _Photos(photos),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=inner,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()


class _Photos(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    """Hands photos to the calibration, `MICRO_BATCH` at a time."""

    def __init__(self, photos: Tensor) -> None:
        self._batches = iter(photos.split(MICRO_BATCH))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch.numpy()}


def as_onnx(network: PurifierNetwork) -> ModelProto:
    """Return a network as an ONNX graph in float32: image → purified, N×3×H×W, not clamped."""
    weights = {
        name: value.detach().cpu().contiguous().numpy() for name, value in network.state_dict().items()
    }
    weights["half"] = np.array(0.5, np.float32)
    nodes = [
        helper.make_node("Sub", ["image", "half"], ["centred"]),
        _convolution(network, "down", "centred"),
    ]
    x = "down"
    for number in range(0, network.depth, 2):
        first, second, total = f"body.{number}", f"body.{number + 1}", f"sum.{number}"
        nodes += [
            helper.make_node("Relu", [x], [f"{first}.given"]),
            _convolution(network, first, f"{first}.given"),
            helper.make_node("Relu", [first], [f"{second}.given"]),
            _convolution(network, second, f"{second}.given"),
            helper.make_node("Add", [x, second], [total]),
        ]
        x = total
    nodes += [
        helper.make_node("Relu", [x], ["up.given"]),
        _convolution(network, "up", "up.given"),
        helper.make_node("Add", ["image", "up"], ["purified"]),
    ]
    shape: list[int | str | None] = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "puface",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("purified", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _convolution(network: PurifierNetwork, name: str, given: str) -> Any:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    top, left = (int(side) for side in layer.padding)
    return helper.make_node(
        "ConvTranspose" if name == "up" else "Conv",
        [given, f"{name}.weight", f"{name}.bias"],
        [name],
        name=name,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=[top, left, top, left],
    )
