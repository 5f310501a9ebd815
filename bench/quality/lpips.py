"""LPIPS (Zhang et al., CVPR 2018): version 0.1 over AlexNet, or the reason why it cannot be had.

The linear heads come with the package ``lpips``; AlexNet's weights do not: they are a file the user names, the one
that ``bench fetch lpips`` put into the data folder (`bench.quality.lpips_trunk`), or the one that torchvision left in
its cache, in this order. Without them the answer is `Unavailable`, never another number.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.files import data_folder, locate, sha256_of
from bench.errors import DataError

VARIABLE = "CLOAKBENCH_LPIPS_TRUNK"
TRUNK_FILE = "alexnet-owt-7be5be79.pth"
"""The name torchvision gives its AlexNet; the digits are the first of its SHA-256."""
TRUNK_PATH = "weights/lpips/alexnet-features.safetensors"
"""Place of the trunk in the data folder."""
TRUNK_SHA256 = "b69c1475efee3522c56c02b695d0f28a135f1bc2df8a1818cd5c594bebd179ba"
"""Of the file at `TRUNK_PATH`: the ten tensors of torchvision's file that LPIPS needs."""
FETCH = "`bench fetch lpips`"
HEADS_FILE = "weights/v0.1/alex.pth"

LEAST_SIDE = 63
"""Of an image whose distance can be computed, pixels."""

_CHUNK = 32
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10


@dataclass(frozen=True)
class _Convolution:
    """One of AlexNet's five convolutions as torchvision numbers them: each is followed by a ReLU."""

    name: str
    out_channels: int
    in_channels: int
    kernel: int
    stride: int = 1
    padding: int = 1
    pooled_first: bool = False


TRUNK = (
    _Convolution("features.0", 64, 3, 11, stride=4, padding=2),
    _Convolution("features.3", 192, 64, 5, padding=2, pooled_first=True),
    _Convolution("features.6", 384, 192, 3, pooled_first=True),
    _Convolution("features.8", 256, 384, 3),
    _Convolution("features.10", 256, 256, 3),
)
"""AlexNet's convolutions in order."""


def trunk_shapes() -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each of the trunk's ten tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in TRUNK:
        shapes[f"{layer.name}.weight"] = (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel)
        shapes[f"{layer.name}.bias"] = (layer.out_channels,)
    return shapes


@dataclass(frozen=True)
class Unavailable:
    """LPIPS cannot be computed here.

    Attributes:
        reason: why, and how to provide what is missing; one sentence or two for a report.
    """

    reason: str


@dataclass(frozen=True)
class Lpips:
    """LPIPS with its weights.

    Attributes:
        trunk: AlexNet's convolutions by torchvision's names.
        heads: one 1×C×1×1 weight for each convolution.
        trunk_sha256: SHA-256 of the trunk's file.
    """

    trunk: Mapping[str, Tensor]
    heads: tuple[Tensor, ...]
    trunk_sha256: str

    @property
    def trunk_is_torchvisions(self) -> bool:
        """Whether the trunk is the one torchvision publishes: its file, by the digest in its name, or made of it."""
        return self.trunk_sha256 == TRUNK_SHA256 or self.trunk_sha256.startswith(
            TRUNK_FILE.removesuffix(".pth").rpartition("-")[2]
        )

    def distance(self, images: Tensor, reference: Tensor) -> Tensor:
        """Return the distance of each image from its reference (eq. 1 of the paper).

        Args:
            images: N×3×H×W RGB in [0, 1], sides of at least `LEAST_SIDE` pixels.
            reference: likewise.

        Returns:
            N values of at least 0, on the CPU; no gradient.

        Raises:
            ValueError: the shapes differ.
        """
        if images.shape != reference.shape:
            raise ValueError(f"image shapes differ: {tuple(images.shape)} and {tuple(reference.shape)}")
        pairs = zip(torch.split(images.cpu(), _CHUNK), torch.split(reference.cpu(), _CHUNK), strict=True)
        with torch.inference_mode():
            return torch.cat([self._distance(a, b) for a, b in pairs])

    def to(self, device: torch.device) -> Lpips:
        """Return the same with its weights on `device`."""
        trunk = {name: weight.to(device) for name, weight in self.trunk.items()}
        return replace(self, trunk=trunk, heads=tuple(head.to(device) for head in self.heads))

    def penalty(self, images: Tensor, reference: Tensor) -> Tensor:
        """Return the `distance` of each image in one pass, differentiable, where the weights are (see `to`)."""
        return self._distance(images, reference)

    def _distance(self, images: Tensor, reference: Tensor) -> Tensor:
        features = zip(self._features(images), self._features(reference), self.heads, strict=True)
        layers = [F.conv2d((a - b).square(), head).mean((1, 2, 3)) for a, b, head in features]
        return torch.stack(layers).sum(0)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Return the five ReLU outputs, each scaled to unit length across channels."""
        shift = torch.tensor(_SHIFT, device=images.device).view(1, 3, 1, 1)
        scale = torch.tensor(_SCALE, device=images.device).view(1, 3, 1, 1)
        x = ((2 * images - 1 - shift) / scale).contiguous(memory_format=torch.channels_last)
        outputs = []
        for layer in TRUNK:
            if layer.pooled_first:
                x = F.max_pool2d(x, kernel_size=3, stride=2)
            weight, bias = self.trunk[f"{layer.name}.weight"], self.trunk[f"{layer.name}.bias"]
            x = F.relu(F.conv2d(x, weight, bias, stride=layer.stride, padding=layer.padding))
            outputs.append(x / (x.square().sum(1, keepdim=True).sqrt() + _EPSILON))
        return outputs


def load_lpips(trunk: Path | None = None) -> Lpips | Unavailable:
    """Load LPIPS.

    Args:
        trunk: AlexNet's weights (a ``.pth`` state dict or ``.safetensors`` with torchvision's names); by
            default the file ``CLOAKBENCH_LPIPS_TRUNK`` names, else the data folder's, else torchvision's in
            torch.hub's cache.

    Raises:
        DataError: a file that was named is missing or is not AlexNet's, or the heads' file is not what it
            should be.
    """
    files = lpips_files(trunk)
    if isinstance(files, Unavailable):
        return files
    path, heads = files
    return Lpips(_trunk_tensors(path), _head_tensors(heads), sha256_of(path))


def lpips_files(trunk: Path | None = None) -> tuple[Path, Path] | Unavailable:
    """Return the files of the trunk and of the heads; of the data folder's trunk the digest is checked.

    Args:
        trunk: as for `load_lpips`.

    Raises:
        DataError: a file that was named is missing, or the data folder's has another digest.
    """
    path = trunk or _named_by_environment()
    if path is not None and not path.is_file():
        raise DataError(
            f"LPIPS trunk '{path}' does not exist. Name AlexNet's weights ({TRUNK_FILE}), or run {FETCH}."
        )
    path = path or _found_trunk()
    if path is None:
        return Unavailable(
            f"AlexNet's weights are not here. {FETCH} gets them; or give {TRUNK_FILE} by --lpips-trunk FILE or "
            f"{VARIABLE}."
        )
    heads = _heads_file()
    if heads is None:
        return Unavailable(f"LPIPS' linear heads ({HEADS_FILE}) are missing. Install the package 'lpips'.")
    return path, heads


def _found_trunk() -> Path | None:
    """Return the trunk that nobody named: the data folder's, else the one in torch.hub's cache, None without any."""
    if (data_folder() / TRUNK_PATH).is_file():
        return locate(TRUNK_PATH, TRUNK_SHA256)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / TRUNK_FILE
    return cached if cached.is_file() else None


def _named_by_environment() -> Path | None:
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else None


def _heads_file() -> Path | None:
    """Find the heads without importing the package: that would import torchvision and more."""
    spec = PathFinder.find_spec("lpips")  # a plan without torch has a stand-in before it
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / HEADS_FILE
    return path if path.is_file() else None


def _trunk_tensors(path: Path) -> dict[str, Tensor]:
    state = _read(path)
    return {name: _tensor_of(state, name, shape, path) for name, shape in trunk_shapes().items()}


def _head_tensors(path: Path) -> tuple[Tensor, ...]:
    state = _read(path)
    return tuple(
        _tensor_of(state, f"lin{k}.model.1.weight", (1, layer.out_channels, 1, 1), path)
        for k, layer in enumerate(TRUNK)
    )


def _tensor_of(state: Mapping[str, Tensor], name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    tensor = state.get(name)
    if tensor is None or tuple(tensor.shape) != shape:
        found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
        raise DataError(
            f"'{path}' is not what LPIPS needs: '{name}' is {found}, expected {shape}. "
            f"Use torchvision's AlexNet, {TRUNK_FILE}."
        )
    return tensor.float()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
        _safetensor_error(),
    ) as error:
        raise DataError(f"'{path}' cannot be read as weights: {error}. Use {TRUNK_FILE}.") from error
    if not isinstance(loaded, dict):
        raise DataError(f"'{path}' holds no state dict. Use {TRUNK_FILE}.")
    return {k: v for k, v in loaded.items() if isinstance(v, Tensor)}


def _safetensor_error() -> type[Exception]:
    from safetensors import SafetensorError

    error: type[Exception] = SafetensorError
    return error
