"""The networks of APF's cloud side: a U-Net on gradients and the universal perturbation that enhances it.

Here: their shapes, and reading and writing their weights. Not here: who may feed them (`cloud`), which
weights fit which cell (`card`), training (`training`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.contracts import CROP_SIZE
from bench.data.networks import read_frozen
from bench.errors import DataError

SLOPE = 0.2
"""Of the leaky ReLU."""

UNIVERSAL_BOUND = 0.1
"""L∞ bound of U where pixels are in [−1, 1]; 12.75 grey levels."""

STRIDE = 16
"""Side of the input over the side of the innermost features."""

_ARCHITECTURE = "apf"

_IDENTITY_CHANNELS = 24
"""Channels that carry a 2×2 block of RGB pixels through a leaky ReLU: a pair for each of the 12 numbers."""

_START_NOISE = 0.1
"""What is left of the last layer's random draw where the U-Net starts as the identity."""


class TransferNetwork(nn.Module):
    """Module 2: the gradient of the probe model → a perturbation for the server's.

    Four 3×3 convolutions of stride 2, four transposed ones back, the features of each level beside those
    that come back (skips); no normalisation, no activation after the last.

    Args:
        width: channels of the first level; 64 in the paper, doubled at each level.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        down = (3, width, 2 * width, 4 * width, 8 * width)
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(down))
        # Every level but the innermost gets its skip beside it, so it has twice the channels.
        up = ((8 * width, 4 * width), (8 * width, 2 * width), (4 * width, width), (2 * width, 3))
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1) for a, b in up
        )

    def forward(self, gradients: Tensor) -> Tensor:
        """Return N×3×H×W perturbations in units of ε, not bounded.

        Args:
            gradients: N×3×H×W in units of ε, so in [−1, 1]; H and W multiples of 16.
        """
        x, skips = gradients, []
        for layer in self.encoder:
            x = F.leaky_relu(layer(x), SLOPE)
            skips.append(x)
        skips.pop()
        for layer in self.decoder[:-1]:
            x = torch.cat([F.leaky_relu(layer(x), SLOPE), skips.pop()], dim=1)
        perturbations: Tensor = self.decoder[-1](x)
        return perturbations


class Enhancement(nn.Module):
    """Module 3: conv₁ₓ₁(αU + β), one perturbation for every photo; U is fixed, α, β and the convolution learn.

    Starts as U itself (α = 1, β = 0, the convolution the identity), so at 0.1 ε.
    """

    universal: Tensor

    def __init__(self, size: int = CROP_SIZE) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.zeros(()))
        self.mix = nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(3)[:, :, None, None])
        self.register_buffer("universal", torch.zeros(3, size, size))

    def forward(self) -> Tensor:
        """Return the 1×3×H×W perturbation that is added, in units of ε."""
        mixed: Tensor = self.mix((self.alpha * self.universal + self.beta)[None])
        return mixed


class ApfNetwork(nn.Module):
    """Modules 2 and 3; 3,471,825 parameters at width 64.

    Args:
        width: of the U-Net.
        size: side of the photos in pixels; that of U, too.
    """

    def __init__(self, width: int = 64, size: int = CROP_SIZE) -> None:
        super().__init__()
        self.width, self.size = width, size
        self.transfer = TransferNetwork(width)
        self.enhancement = Enhancement(size)

    def draw(self, generator: torch.Generator) -> None:
        """Draw the U-Net's first weights: He's for layers before a leaky ReLU, biases zero.

        From width 24 on it starts as the identity, up to a little noise: what the outermost skip carries
        suffices for that, and a transfer that starts from module 1's answer keeps more of it (ours).
        """
        for name, parameter in self.transfer.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
                continue
            # A transposed convolution of stride 2 sums a quarter of its kernel at each pixel.
            fan = parameter[0].numel() if "encoder" in name else parameter.shape[0] * 9 / 4
            deviation = (2 / (1 + SLOPE**2) / fan) ** 0.5
            with torch.no_grad():
                parameter.normal_(0, deviation, generator=generator)
        if self.width >= _IDENTITY_CHANNELS:
            self._start_as_identity()

    @torch.no_grad()
    def _start_as_identity(self) -> None:
        """Let pairs of channels of the first level carry x and −x of each pixel of a 2×2 block to the last.

        With f the leaky ReLU of slope s, f(x) − f(−x) = (1 + s)·x. Kernel position (1 + a, 1 + b) of a 3×3
        kernel of stride 2 is pixel (a, b) of the block, there and back.
        """
        first, last = self.transfer.encoder[0].weight, self.transfer.decoder[-1].weight
        assert isinstance(first, Tensor)
        assert isinstance(last, Tensor)
        last.mul_(_START_NOISE)
        for k, (channel, a, b) in enumerate(product(range(3), range(2), range(2))):
            for sign, place in ((1, 2 * k), (-1, 2 * k + 1)):
                first[place] = 0
                first[place, channel, 1 + a, 1 + b] = sign
                skip = self.width + place  # after the channels that come from below
                last[skip] = 0
                last[skip, channel, 1 + a, 1 + b] = sign / (1 + SLOPE)

    def forward(self, gradients: Tensor, modules: int = 3) -> Tensor:
        """Return N×3×H×W perturbations in units of ε, not bounded.

        Args:
            gradients: N×3×H×W in units of ε.
            modules: 2 for the U-Net alone, 3 for U on top.
        """
        perturbations: Tensor = self.transfer(gradients)
        return perturbations + self.enhancement() if modules == 3 else perturbations


def save_network(network: ApfNetwork, path: Path) -> None:
    """Write a network as safetensors that say its shape; in float16, which halves the file."""
    tensors = {
        name: tensor.detach().cpu().half().contiguous() for name, tensor in network.state_dict().items()
    }
    shape = {"architecture": _ARCHITECTURE, "width": network.width, "size": network.size}
    temporary = path.with_name(path.name + ".tmp")
    # One entry: safetensors writes several in an order of its own each time, and bytes must come again.
    save_file(tensors, temporary, {"network": json.dumps(shape, sort_keys=True)})
    temporary.replace(path)


def load_network(path: Path, device: torch.device) -> ApfNetwork:
    """Read a network onto `device`, frozen and channels-last.

    Raises:
        DataError: the file is missing, is no safetensors file, or does not hold such a network.
    """
    fix = "Train weights with `bench train apf`, or reinstall the package for those it ships."

    def build(shape: Mapping[str, Any]) -> ApfNetwork:
        if shape.get("architecture") != _ARCHITECTURE:
            found = shape.get("architecture", "not stated")
            raise DataError(f"{path} holds architecture '{found}', expected '{_ARCHITECTURE}'. {fix}")
        return ApfNetwork(shape["width"], shape["size"])

    return read_frozen(path, device, build, what="APF", fix=fix)
