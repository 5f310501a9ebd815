"""What the published denoisers share: finding and reading their weights, and fixed micro-batches.

Here: nothing about one denoiser's forward pass. The weights are not shipped (no licence is stated for them);
they are found in the data folder and pinned by SHA-256.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.contracts import MICRO_BATCH
from bench.data.files import locate
from bench.errors import DataError


@dataclass(frozen=True)
class DenoiserWeights:
    """A chain of 3×3 convolutions in a file: stride 1, zero padding 1, bias, ReLU after all but the last.

    Attributes:
        name: of the defence; ``bench models fetch NAME`` gets the file.
        file: path inside the data folder.
        sha256: of the file.
        channels: of the input, after each convolution, and so of the output: depth + 1 numbers.
    """

    name: str
    file: str
    sha256: str
    channels: tuple[int, ...]

    @property
    def fix(self) -> str:
        """The sentence that says how to get the file."""
        return (
            f"`bench models fetch {self.name} --from URL_OR_FOLDER` puts it there from a copy somebody has; "
            "or point CLOAKBENCH_DATA to a folder that has it."
        )

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
        try:
            state = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}. {self.fix}") from error
        return _read(self, path, state.st_mtime_ns, state.st_size, device)


@lru_cache(maxsize=8)
def _read(
    weights: DenoiserWeights, path: Path, modified: int, size: int, device: torch.device
) -> nn.Sequential:
    del modified, size  # they stand for the file's content
    with torch.device("meta"):  # no weights to draw: torch's global random state stays as it is
        network = _chain(weights.channels)
    # Tensors made in inference mode could not carry gradients later, and these are kept.
    with torch.inference_mode(False):
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
