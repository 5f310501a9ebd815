"""What the published denoisers share: the purifier, finding and reading their weights, and fixed micro-batches.

Here: nothing about one denoiser's forward pass. The weights are not shipped (no licence is stated for them);
they are found in the data folder and pinned by SHA-256.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.contracts import MICRO_BATCH, AssetEntry, AssetFile, Binding, Context, Faces, Purifier, Recipe
from bench.data.cards import kept
from bench.data.files import locate
from bench.errors import DataError


@dataclass(frozen=True)
class DenoiserWeights:
    """A chain of 3×3 convolutions in a file: stride 1, zero padding 1, bias, ReLU after all but the last.

    Attributes:
        name: of the defence; ``bench fetch NAME`` gets the file.
        what: the network, in a line.
        file: path inside the data folder.
        bytes: its size.
        sha256: of the file.
        source: the repository and commit it is made from.
        recipe: how it is made from the file of its authors.
        channels: of the input, after each convolution, and so of the output: depth + 1 numbers.
    """

    name: str
    what: str
    file: str
    bytes: int
    sha256: str
    source: str
    recipe: Recipe
    channels: tuple[int, ...]

    @property
    def entry(self) -> AssetEntry:
        """How the file is listed and fetched."""
        return AssetEntry(
            name=self.name,
            kind="weights",
            what=self.what,
            licence=f"none stated in {self.source.partition(' ')[0]} (no licence file)",
            source=self.source,
            files=(AssetFile(path=self.file, bytes=self.bytes, sha256=self.sha256, recipes=(self.recipe,)),),
            how="",
        )

    @property
    def fix(self) -> str:
        """The sentence that says how to get the file."""
        return f"Run 'bench fetch {self.name}', or point CLOAKBENCH_DATA to a folder that has it."

    def locate(self) -> Path:
        """Return the path of the file.

        Raises:
            DataError: it is missing or has another digest.
        """
        return locate(self.file, self.sha256, fix=self.fix)

    def load(self, path: Path, device: torch.device) -> nn.Sequential:
        """Return the network in `path` on `device`: frozen, channels-last, read once a process.

        Raises:
            DataError: the file is missing, unreadable, or holds another network.
        """
        return _read(path, self, device)


@kept
def _read(path: Path, weights: DenoiserWeights, device: torch.device) -> nn.Sequential:
    if not path.is_file():
        raise DataError(f"{path} cannot be read: there is no such file. {weights.fix}")
    with torch.device("meta"):  # no weights to draw: torch's global random state stays as it is
        network = _chain(weights.channels)
    try:
        tensors = load_file(path)
        network.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items()}, assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} does not hold the {weights.name} network: {reason[:160]} … {weights.fix}"
        ) from error
    network.requires_grad_(False).eval()
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _chain(channels: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def in_micro_batches(denoise: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return `denoise` of N×3×H×W images, clamped to [0, 1].

    It sees `MICRO_BATCH` images at a time, always padded to that many, so an image comes out as the same
    bytes in whatever company it came. Gradients flow to `images` where they are requested.
    """
    denoised = []
    for start in range(0, len(images), MICRO_BATCH):
        batch = images[start : start + MICRO_BATCH]
        count = len(batch)
        padding = batch.new_zeros(MICRO_BATCH - count, *batch.shape[1:])
        full = torch.cat([batch, padding]) if count < MICRO_BATCH else batch
        output = denoise(full.contiguous(memory_format=torch.channels_last))
        denoised.append(output[:count].clamp(0, 1).contiguous())
    return torch.cat(denoised) if denoised else images


class Denoiser(Purifier):
    """Base of the two: a purifier by a published network. A subclass gives `weights` and `denoise`.

    Attributes:
        weights: of the network.
    """

    weights: ClassVar[DenoiserWeights]
    differentiable = True

    @abstractmethod
    def denoise(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return what the network makes of one micro-batch, N×3×H×W, not clamped."""

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the weights.

        Raises:
            DataError: they are missing or have another digest; the message says how to get them.
        """
        del binding
        return (self.weights.locate(),)

    def assets(self) -> tuple[AssetEntry, ...]:
        """Return the entry of the weights."""
        return (self.weights.entry,)

    def training_identities(self, binding: Binding) -> str:
        """Return ``unknown``: general photographs whose list nobody has checked for identities."""
        del binding
        return "unknown"

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return the denoised images, N×3×H×W in [0, 1].

        Raises:
            DataError: the weights cannot be read.
        """
        network = self.weights.load(ctx.files[0], ctx.device)
        images = faces.images.to(ctx.device)
        purified = in_micro_batches(partial(self.denoise, network), images).to(faces.images.device)
        ctx.advance(len(faces))
        return purified
