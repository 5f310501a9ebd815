"""The denoisers of Zhang et al., as MatConvNet saved them → safetensors in the layout that `_denoiser` reads.

A convolution's tensors are ``model.0.weight`` and ``model.0.bias``, the next one's ``model.2.…``, as the ReLUs
between count.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from bench.data.matconvnet_files import Layer, read_layers
from bench.errors import DataError
from defenses import dncnn, ffdnet

Array = npt.NDArray[Any]

_ROW_MAJOR = np.arange(12).reshape(3, 2, 2).swapaxes(1, 2).ravel()
"""Where each of pixel_unshuffle's 12 channels (colour, row, column) lies among FFDNet's (colour, column, row)."""


def convert_dncnn(sources: tuple[Path, ...], target: Path) -> None:
    """Write DnCNN's tensors (`bench.contracts.Convert`).

    Raises:
        DataError: the source cannot be read, or holds another network.
    """
    (source,) = sources
    layers = read_layers(source, dncnn.WEIGHTS.recipe.sources[0].sha256)
    save_file(_tensors(source, layers, dncnn.WEIGHTS.channels), target)


def convert_ffdnet(sources: tuple[Path, ...], target: Path) -> None:
    """Write FFDNet's tensors (`bench.contracts.Convert`).

    Its first layer makes 12 channels of the image's 2×2 blocks, the second adds the level of noise as a 13th,
    its last puts the blocks together again; these three are no weights. MATLAB counts a block's pixels down the
    columns, torch along the rows, so the channels of the first and last convolution change places.

    Raises:
        DataError: the source cannot be read, or holds another network.
    """
    (source,) = sources
    layers = read_layers(source, ffdnet.WEIGHTS.recipe.sources[0].sha256)
    if [layer.kind for layer in (*layers[:2], *layers[-1:])] != ["SubP", "concat", "SubP"]:
        raise DataError(
            f"{source} is another network: it does not make blocks, add a level and join the blocks."
        )
    tensors = _tensors(source, layers[2:-1], ffdnet.WEIGHTS.channels)
    *_, last = (name.removesuffix(".weight") for name in tensors if name.endswith(".weight"))
    first = tensors["model.0.weight"]
    tensors["model.0.weight"] = first[:, [*_ROW_MAJOR, 12]]
    for part in ("weight", "bias"):
        tensors[f"{last}.{part}"] = tensors[f"{last}.{part}"][_ROW_MAJOR]
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, target)


def _tensors(path: Path, layers: tuple[Layer, ...], channels: tuple[int, ...]) -> dict[str, Array]:
    """Return the tensors of a chain of 3×3 convolutions with ReLU between them.

    Raises:
        DataError: it is not that, or of other widths.
    """
    kinds = [layer.kind for layer in layers]
    wanted = ["conv", *["relu", "conv"] * (len(channels) - 2)]
    if kinds != wanted:
        raise DataError(
            f"{path} is another network: {len(kinds)} layers, not {len(wanted)} of conv and relu."
        )
    tensors: dict[str, Array] = {}
    for place, (inputs, outputs) in enumerate(pairwise(channels)):
        layer = layers[2 * place]
        shapes = [array.shape for array in layer.arrays]
        if shapes != [(outputs, inputs, 3, 3), (outputs,)] or not _is_plain(layer.numbers):
            raise DataError(f"{path} is another network: convolution {place + 1} holds {shapes}.")
        for part, array in zip(("weight", "bias"), layer.arrays, strict=True):
            tensors[f"model.{2 * place}.{part}"] = np.ascontiguousarray(array, np.float32)
    return tensors


def _is_plain(numbers: Mapping[str, tuple[float, ...]]) -> bool:
    """Say whether a convolution has stride 1, padding 1 and no holes."""
    return all({*numbers.get(name, (1.0,))} == {1.0} for name in ("stride", "pad", "dilate"))
