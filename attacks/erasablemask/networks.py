"""The two networks of ErasableMask: the generator that masks a face and the restorer that takes the mask off.

Here: their shapes, the key's pattern, reading and writing weights. Not here: training, and which weights fit
which cell. Both networks predict at half the photo's side and are enlarged bilinearly: a mask is smooth, as
make-up is, and the restorer's correction has the same form.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.contracts import CROP_SIZE
from bench.errors import DataError
from bench.quality.metrics import GREY_LEVELS
from bench.randomness import torch_generator

PATTERN_SIDE = CROP_SIZE // 4
"""Side of the key's pattern: one sign for every square of 4×4 pixels and colour."""

ARCHITECTURE = "erasablemask-1"


@dataclass(frozen=True)
class Shape:
    """All that decides the two networks besides their weights.

    Attributes:
        condition: length of the target's description (its embeddings under all surrogates).
        width: channels at half the photo's side; twice as many at a quarter.
        blocks: residual blocks at a quarter of the side.
        psnr: least PSNR of a mask against the photo, dB.
        linf: largest change of a pixel by the mask, grey levels; the key's pattern comes on top.
        pattern: amplitude of the key's pattern, grey levels.
        refinement: steps that refine a mask on its own photo (see `attacks.erasablemask.refinement`).
    """

    condition: int
    width: int = 32
    blocks: int = 4
    psnr: float = 28.0
    linf: float = 40.0
    pattern: float = 2.0
    refinement: int = 10

    @property
    def rms(self) -> float:
        """The root mean square of a mask at `psnr`, in [0, 1]."""
        return float(10 ** (-self.psnr / 20))


def key_pattern(key: bytes) -> Tensor:
    """Return the pattern a key stands for: 3×28×28 of −1 and 1; zeros for the empty key.

    The key is hashed first, so that a pattern that leaks says nothing of the key.
    """
    if not key:
        return torch.zeros(3, PATTERN_SIDE, PATTERN_SIDE)
    stream = hashlib.sha256(b"erasablemask/" + key).hexdigest()
    draw = torch.randint(
        2, (3, PATTERN_SIDE, PATTERN_SIDE), generator=torch_generator(0, "erasablemask", stream)
    )
    return 2.0 * draw - 1


class _Block(nn.Module):
    """Two 3×3 convolutions with a skip; the target scales and shifts what lies between (FiLM)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(condition, 2 * channels) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        inner = self.first(F.relu(x))
        if self.film is not None and condition is not None:
            scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        return x + self.second(F.relu(inner))  # type: ignore[no-any-return]


class _UNet(nn.Module):
    """Photo → `outputs` channels at half its side: two stride-2 convolutions, blocks, one step up with a skip."""

    def __init__(self, inputs: int, outputs: int, shape: Shape, condition: int) -> None:
        super().__init__()
        width = shape.width
        self.down = nn.Conv2d(inputs, width, 4, stride=2, padding=1)
        self.deeper = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.embed = nn.Linear(condition, 2 * width) if condition else None
        hidden = 2 * width if condition else 0
        self.blocks = nn.ModuleList(_Block(2 * width, hidden) for _ in range(shape.blocks))
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.out = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        top = self.down(images)
        x = self.deeper(F.relu(top))
        hidden = F.relu(self.embed(condition)) if self.embed is not None else None
        for block in self.blocks:
            x = block(x, hidden)
        x = F.interpolate(self.up(F.relu(x)), scale_factor=2.0, mode="nearest")
        return self.out(F.relu(x + top))  # type: ignore[no-any-return]


class Generator(nn.Module):
    """Photo, target and key → mask."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.net = _UNet(6, 4, shape, shape.condition)

    def forward(self, images: Tensor, looks: Tensor, condition: Tensor, patterns: Tensor) -> Tensor:
        """Return the change of each photo, N×3×H×W; not yet clamped to what a photo can hold.

        Args:
            images: N×3×H×W in [0, 1].
            looks: N×3×H×W, the target's appearance (its mean photo, blurred).
            condition: N×C, the target's unit embeddings, one after the other.
            patterns: N×3×28×28 of `key_pattern`.
        """
        return change_of(self.mask(images, looks, condition), patterns, self.shape)

    def mask(self, images: Tensor, looks: Tensor, condition: Tensor) -> Tensor:
        """Return the mask of each photo at half its side, N×3×H/2×W/2, within the bounds of `Shape`; see `forward`."""
        raw = self.net(torch.cat([images, looks], dim=1) - 0.5, condition).float()
        paint, attention = raw[:, :3].tanh(), raw[:, 3:].sigmoid()
        return within_bounds(self.shape.linf / GREY_LEVELS * paint * attention, self.shape)


class Restorer(nn.Module):
    """Masked photo and key → photo, or the refusal to touch it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.net = _UNet(3, 3, shape, 0)
        self.look = nn.Sequential(
            nn.Conv2d(3, shape.width, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(shape.width, shape.width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(shape.width, 3, 3, padding=1),
        )
        self.lock = nn.Parameter(torch.tensor([10.0, -2.0]))

    def forward(self, images: Tensor, patterns: Tensor) -> Tensor:
        """Return N×3×H×W photos without mask and pattern, as if the key were right; not clamped."""
        plain = images - self.shape.pattern / GREY_LEVELS * spread(patterns)
        return plain + enlarged(self.net(plain - 0.5))

    def seen_pattern(self, images: Tensor) -> Tensor:
        """Return N×3×28×28, what the network makes out of the key's pattern in photos; its signs are its guess."""
        seen: Tensor = self.look(images - 0.5)
        return seen

    def fits(self, images: Tensor, patterns: Tensor) -> Tensor:
        """Return N logits: above 0 where the key whose pattern this is made the mask.

        They grow with the correlation of the pattern and what the network sees of it in the photo.
        """
        seen = self.seen_pattern(images)
        seen = seen / seen.square().mean((1, 2, 3), keepdim=True).add(1e-6).sqrt()
        logits: Tensor = self.lock[0] * (seen * patterns).mean((1, 2, 3)) + self.lock[1]
        return logits


def spread(patterns: Tensor) -> Tensor:
    """Return N×3×112×112 of N×3×28×28: every sign over its square."""
    return F.interpolate(patterns, scale_factor=4.0, mode="nearest")


def enlarged(half: Tensor) -> Tensor:
    """Return N×C×H×W of half that side, bilinearly."""
    return F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)


def within_bounds(half: Tensor, shape: Shape) -> Tensor:
    """Return masks at half the side, clamped to `Shape.linf` and scaled down to `Shape.psnr` where they exceed it."""
    bound = shape.linf / GREY_LEVELS
    clamped = half.clamp(-bound, bound)
    size = enlarged(clamped).square().mean((1, 2, 3), keepdim=True).add(1e-12).sqrt()
    return clamped * (shape.rms / size).clamp(max=1)


def change_of(half: Tensor, patterns: Tensor, shape: Shape) -> Tensor:
    """Return what masks at half the side and keys' patterns add to photos, N×3×H×W."""
    return enlarged(half) + shape.pattern / GREY_LEVELS * spread(patterns)


def drawn_networks(shape: Shape, generator: torch.Generator) -> tuple[Generator, Restorer]:
    """Return untrained networks: He's weights, no mask and no correction yet."""
    networks = Generator(shape), Restorer(shape)
    for network in networks:
        for name, parameter in network.named_parameters():
            if name == "lock":
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("film.weight"):
                nn.init.normal_(parameter, std=0.02, generator=generator)
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
            if name.startswith("net.out.") or ".second." in name:
                parameter.data.mul_(0.1)
    return networks


def save_networks(generator: Generator, restorer: Restorer, path: Path) -> None:
    """Write both networks with their shape, in float16, which halves the file."""
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().half().contiguous()
        for part, network in (("generator", generator), ("restorer", restorer))
        for name, tensor in network.state_dict().items()
    }
    facts = json.dumps({"architecture": ARCHITECTURE, **asdict(generator.shape)})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # a kill leaves the earlier weights
    save_file(tensors, temporary, {"shape": facts})
    temporary.replace(path)


def load_networks(path: Path, device: torch.device) -> tuple[Generator, Restorer]:
    """Read both networks, ready to use.

    Raises:
        DataError: the file is missing, corrupt, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("shape", "{}"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Train it: bench train erasablemask.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as safetensors ({error}). Copy it again or train it again."
        ) from error
    networks = _networks_of(facts, path)
    for part, network in zip(("generator/", "restorer/"), networks, strict=True):
        own = {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise DataError(
                f"{path} does not fit its own shape {facts}: {error} Copy it again or train it again."
            ) from error
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.eval().requires_grad_(requires_grad=False)
    return networks


def _networks_of(facts: Any, path: Path) -> tuple[Generator, Restorer]:
    """Return networks of the shape that a file says it holds; `facts` is whatever JSON stood there."""
    try:
        own = dict(facts)
        if own.pop("architecture", None) == ARCHITECTURE:
            return Generator(Shape(**own)), Restorer(Shape(**own))
    except (TypeError, ValueError, RuntimeError):
        pass
    raise DataError(f"{path} does not hold the networks of {ARCHITECTURE}. Train it again.")
