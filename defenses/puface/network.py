"""The convolutional network behind `PuFace`, after RED-Net (Mao, Shen, Yang, NIPS 2016).

Here: its shape, and reading and writing its weights. Not here: which weights fit which cell, training.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.contracts import MICRO_BATCH
from bench.data.networks import read_frozen
from bench.errors import DataError

_ARCHITECTURE = "red-net-stride{}"
_KERNEL = {1: (3, 1), 2: (4, 1), 4: (8, 2)}
"""Stride → kernel and padding of the outer layers: the size comes back, and no output pixel is favoured."""

_IN_CACHE = 2
"""Images whose intermediate results stay in one core's cache and are small enough for freed memory to be used again;
several threads need `MICRO_BATCH` to share."""


class PurifierNetwork(nn.Module):
    """Image → purified image, as a correction added to the input.

    A 4×4 stride-2 convolution to `width` channels, `depth` 3×3 convolutions with an additive skip around
    every second one, a 4×4 stride-2 transposed convolution back to RGB, and the input added (the global
    residual). The last layer starts at zero, so training starts from the identity. With stride 4 the outer
    kernels are 8×8, with stride 1 they are 3×3.

    Width 48 and depth 10 have 212,499 parameters.

    Args:
        width: channels between the first and the last layer.
        depth: number of 3×3 convolutions; even.
        generator: draws the first weights; None where they are loaded anyway.
        stride: side of the input over the side inside: 1, 2 or 4.
    """

    def __init__(
        self, width: int, depth: int, generator: torch.Generator | None = None, stride: int = 2
    ) -> None:
        super().__init__()
        if depth % 2:
            raise ValueError(f"depth {depth} is odd; skips span two convolutions each")
        self.width = width
        self.depth = depth
        self.stride = stride
        kernel, padding = _KERNEL[stride]
        self.down = nn.Conv2d(3, width, kernel, stride=stride, padding=padding)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.up = nn.ConvTranspose2d(width, 3, kernel, stride=stride, padding=padding)
        self._draw(generator)

    def _draw(self, generator: torch.Generator | None) -> None:
        """Draw the first weights: He's for the layers before a ReLU, small branches, no correction."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name.startswith("up."):
                nn.init.zeros_(parameter)
                continue
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
            if name.startswith("body.") and int(name.split(".")[1]) % 2:
                # The second convolution of a branch starts small, so that the sum does not grow with depth.
                parameter.data.mul_(0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Return N×3×H×W corrected images, not clamped.

        Args:
            images: N×3×H×W float in [0, 1]; H and W multiples of the stride.
        """
        x = self.down(images - 0.5)
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            x = x + second(F.relu(first(F.relu(x))))
        correction: Tensor = self.up(F.relu(x))
        return images + correction


def purify(network: PurifierNetwork, images: Tensor) -> Tensor:
    """Return N×3×H×W purified images in [0, 1].

    The network always sees as many images at a time, so an image comes out as the same bytes in whatever company
    it came. Gradients flow to `images`, and to a network in training, where they are requested; where none is, no
    intermediate result is kept: the same bytes in less time.
    """
    if torch.is_grad_enabled() and (
        images.requires_grad or any(p.requires_grad for p in network.parameters())
    ):
        return _purify_for_gradients(network, images)
    fuses = _fuses(images)
    size = _IN_CACHE if fuses and torch.get_num_threads() == 1 else MICRO_BATCH
    body = _fused_body(network, images, size) if fuses else _body_in_place(network)
    purified = torch.empty_like(images, memory_format=torch.contiguous_format)
    for start in range(0, len(images), size):
        batch = _padded(images[start : start + size], size)
        corrected = network.up(body(network.down(batch - 0.5))).add_(batch)
        given = purified[start : start + size]
        torch.clamp(corrected[: len(given)], 0, 1, out=given)
    return purified


def _purify_for_gradients(network: PurifierNetwork, images: Tensor) -> Tensor:
    """Return the same as `purify`, by operations that a gradient passes through."""
    purified = []
    for start in range(0, len(images), MICRO_BATCH):
        batch = images[start : start + MICRO_BATCH]
        output = network(_padded(batch, MICRO_BATCH))
        purified.append(output[: len(batch)].clamp(0, 1).contiguous())
    return torch.cat(purified) if purified else images


def _padded(images: Tensor, size: int) -> Tensor:
    """Return `size` images channels-last: those given, and black ones."""
    missing = size - len(images)
    if missing:
        images = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
    return images.contiguous(memory_format=torch.channels_last)


def _body_in_place(network: PurifierNetwork) -> Callable[[Tensor], Tensor]:
    """Return what `PurifierNetwork.forward` does between its outer layers, in place: no gradient passes through."""

    def body(x: Tensor) -> Tensor:
        for first, second in zip(network.body[::2], network.body[1::2], strict=True):
            x = second(first(F.relu(x)).relu_()).add_(x)
        return x.relu_()

    return body


def _fused_body(network: PurifierNetwork, images: Tensor, size: int) -> Callable[[Tensor], Tensor]:
    """Return the same as `_body_in_place`, as oneDNN does it: a convolution and what follows it in one pass.

    Args:
        network: as it stands; its weights are laid out anew, so that the function is for one call of `purify`.
        images: N×3×H×W, for their height and width.
        size: images at a time.
    """
    sides = [side // network.stride for side in images.shape[-2:]]

    def laid_out(layer: nn.Module) -> tuple[Any, ...]:
        how = (layer.padding, layer.stride, layer.dilation, layer.groups)
        shape = [size, network.width, *sides]
        return torch.ops.mkldnn._reorder_convolution_weight(layer.weight, *how, shape), layer.bias, *how

    layers = [laid_out(layer) for layer in network.body]
    convolved, onto = torch.ops.mkldnn._convolution_pointwise, torch.ops.mkldnn._convolution_pointwise_.binary

    def body(x: Tensor) -> Tensor:
        for first, second in zip(layers[::2], layers[1::2], strict=True):
            inner = convolved(F.relu(x), *first, "relu", [], None)
            onto(x, inner, *second, "add", None, None, [], None)
        return x.relu_()

    return body


def _fuses(images: Tensor) -> bool:
    """Say whether oneDNN convolves these images, and this torch has its convolutions with a second operation.

    They are what `torch.compile` emits, have no public name, and round as the operations do one after the other.
    """
    operations = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
    return (
        images.device.type == "cpu"
        and images.dtype == torch.float32
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and bool(torch.backends.mkldnn.enabled)
        and all(hasattr(torch.ops.mkldnn, name) for name in operations)
    )


def save_network(network: PurifierNetwork, path: Path) -> None:
    """Write a network as safetensors that say its shape; in float16, which halves the file."""
    tensors = {
        name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()
    }
    shape = {
        "architecture": _ARCHITECTURE.format(network.stride),
        "width": network.width,
        "depth": network.depth,
    }
    # One entry: safetensors writes several in an order of its own each time, and bytes must come again.
    metadata = {"network": json.dumps(shape, sort_keys=True)}
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


def load_network(path: Path, device: torch.device) -> PurifierNetwork:
    """Read a network onto `device`, frozen, in evaluation mode and channels-last.

    Raises:
        DataError: the file is missing, is no safetensors file, or does not hold such a network.
    """
    fix = "Train weights with `bench train puface`, or reinstall the package for those it ships."

    def build(shape: Mapping[str, Any]) -> PurifierNetwork:
        strides = {_ARCHITECTURE.format(stride): stride for stride in _KERNEL}
        if shape.get("architecture") not in strides:
            raise DataError(
                f"{path} holds architecture '{shape.get('architecture', 'not stated')}', "
                f"expected one of {', '.join(strides)}. {fix}"
            )
        return PurifierNetwork(shape["width"], shape["depth"], stride=strides[shape["architecture"]])

    return read_frozen(path, device, build, what="purifier", fix=fix)
