"""The checkpoint of Xiaoccer/MobileFaceNet_Pytorch (``068.ckpt``) → ONNX, its batch norm folded in float64.

The network (Chen et al., MobileFaceNets, CCBR 2018, Table 1, with PReLU; the repository's core/model.py): 3×3
convolution of stride 2, depthwise 3×3, fifteen bottlenecks, 1×1 to 512 channels, linear global depthwise
convolution of 7×6, linear 1×1 to 128. Input 112 high, 96 wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data.checkpoints import read_tensors
from bench.errors import DataError
from fr_models._onnx_writer import INPUT, OnnxWriter, Pair, batch_norm, folded

BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Expansion t, channels c, repetitions n, stride s of the first (Table 1)."""

EPSILON = 1e-5
"""Of batch norm: torch's own."""

HEIGHT, WIDTH, DIMENSION = 112, 96, 128

Array = npt.NDArray[Any]


def convert(sources: tuple[Path, ...], target: Path) -> None:
    """Write the network of the checkpoint (`bench.contracts.Convert`).

    Raises:
        DataError: the source cannot be read, or holds another network.
    """
    (source,) = sources
    network = _Network(_Weights(source), OnnxWriter())
    output = network.write()
    network.weights.finish()
    network.writer.save(target, output, height=HEIGHT, width=WIDTH, dimension=DIMENSION)


class _Weights:
    """The tensors of a checkpoint; each is taken once, and its shape compared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left = {
            name: tensor.numpy()
            for name, tensor in read_tensors(path).items()
            if not name.endswith("num_batches_tracked")
        }

    def take(self, name: str, *shape: int) -> Array:
        found = self._left.pop(name, None)
        if found is None or found.shape != shape or found.dtype != np.float32:
            what = "missing" if found is None else f"{found.dtype} of shape {found.shape}"
            raise DataError(f"{self.path} is another network: '{name}' is {what}, not float32 of {shape}.")
        return found

    def finish(self) -> None:
        if self._left:
            raise DataError(f"{self.path} is another network: it has '{min(self._left)}' too.")


@dataclass(frozen=True)
class _Network:
    """The network's layers over one checkpoint."""

    weights: _Weights
    writer: OnnxWriter

    def write(self) -> str:
        """Write all layers; return the name of the embedding."""
        x = self.layer(INPUT, "conv1", 3, 64, (3, 3), stride=2)
        x = self.layer(x, "dw_conv1", 64, 64, (3, 3), groups=64)
        inputs, block = 64, 0
        for expansion, channels, repetitions, first_stride in BOTTLENECKS:
            for repetition in range(repetitions):
                stride = first_stride if repetition == 0 else 1
                x = self.bottleneck(x, f"blocks.{block}.conv", inputs, channels, expansion, stride)
                inputs, block = channels, block + 1
        x = self.layer(x, "conv2", inputs, 512, (1, 1))
        x = self.layer(x, "linear7", 512, 512, (7, 6), groups=512, padding=(0, 0), linear=True)
        x = self.layer(x, "linear1", 512, DIMENSION, (1, 1), linear=True)
        return self.writer.flatten(x)

    def layer(
        self,
        x: str,
        name: str,
        inputs: int,
        outputs: int,
        kernel: Pair,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: Pair | None = None,
        linear: bool = False,
    ) -> str:
        """Write convolution and batch norm, with PReLU where it is not `linear`."""
        conv, norm, slopes = f"{name}.conv.weight", f"{name}.bn", f"{name}.prelu.weight"
        x = self.normed(x, conv, norm, inputs, outputs, kernel, stride, groups, padding)
        return x if linear else self.writer.prelu(x, self.weights.take(slopes, outputs))

    def bottleneck(self, x: str, name: str, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        """Write an inverted residual: 1×1 up, depthwise 3×3, linear 1×1 down, and the input where it fits."""
        wide = inputs * expansion
        up = self.normed(x, f"{name}.0.weight", f"{name}.1", inputs, wide, (1, 1))
        up = self.writer.prelu(up, self.weights.take(f"{name}.2.weight", wide))
        deep = self.normed(up, f"{name}.3.weight", f"{name}.4", wide, wide, (3, 3), stride, wide)
        deep = self.writer.prelu(deep, self.weights.take(f"{name}.5.weight", wide))
        down = self.normed(deep, f"{name}.6.weight", f"{name}.7", wide, outputs, (1, 1))
        return self.writer.add("Add", [x, down]) if stride == 1 and inputs == outputs else down

    def normed(
        self,
        x: str,
        conv: str,
        norm: str,
        inputs: int,
        outputs: int,
        kernel: Pair,
        stride: int = 1,
        groups: int = 1,
        padding: Pair | None = None,
    ) -> str:
        """Write a convolution with its batch norm folded; padded by half the kernel where nothing else is said."""
        weight = self.weights.take(conv, outputs, inputs // groups, *kernel)
        statistics = ("weight", "bias", "running_mean", "running_var")
        taken = [self.weights.take(f"{norm}.{each}", outputs) for each in statistics]
        weight, bias = folded(weight, None, *batch_norm(taken, EPSILON))
        padding = (kernel[0] // 2, kernel[1] // 2) if padding is None else padding
        return self.writer.conv(x, weight, bias, stride=(stride, stride), padding=padding, groups=groups)
