"""Backbones of the project's own architectures: what is stored of one, how it is read, how it embeds.

Weights are ``.safetensors`` with the card beside them as ``.json``; `backbone_training` writes both. Here:
the card, reading and writing, `TorchBackbone`. Not here: architectures and their training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.contracts import BackboneCard, Binding, Frozen
from bench.data.files import sha256_of
from bench.errors import DataError
from fr_models._iresnet import IResNet18
from fr_models._layers import fold
from fr_models._mobilefacenet import MobileFaceNet
from fr_models._torch_network import TorchNetwork

SHIPPED = Path(__file__).parent / "weights"
"""Folder of the weights that come with the package."""


class Architecture(Frozen):
    """All that is needed to build a network before its weights are read."""

    arch: Literal["mobilefacenet", "iresnet18"] = Field(description="which network")
    width: float = Field(gt=0, le=8, description="factor on the paper's channels")
    depth: float = Field(gt=0, le=8, description="factor on the repeats of each stage (MobileFaceNet)")
    embedding_dim: int = Field(gt=0, description="dimension of the embedding")
    stem_stride: int = Field(1, ge=1, le=2, description="stride of the first convolution (IResNet-18)")

    def build(self) -> nn.Module:
        """Return the network with weights as torch draws them."""
        if self.arch == "mobilefacenet":
            return MobileFaceNet(self.width, self.depth, self.embedding_dim)
        return IResNet18(self.width, self.embedding_dim, self.stem_stride)


class TrainingRecord(Frozen):
    """How weights were made and what they reach on identities they were not trained on."""

    command: str = Field(description="trains them again")
    seed: int
    steps: int = Field(gt=0)
    identities: int = Field(gt=0, description="identities trained on")
    images: int = Field(gt=0, description="photos trained on")
    dataset_fingerprint: str = Field(description="of the dataset when it was trained on")
    held_out_identities: int = Field(gt=0, description="training identities kept for the two measures below")
    rank1: float = Field(
        ge=0, le=1, description="share of held-out probes whose nearest gallery photo is theirs"
    )
    eer: float = Field(ge=0, le=1, description="equal error rate over all pairs of held-out photos")
    seconds: float = Field(ge=0, description="time it took")
    torch: str = Field(description="version of torch")


class TrainedCard(BackboneCard):
    """A backbone's card with its architecture and training."""

    architecture: Architecture
    training: TrainingRecord


def read_card(path: Path) -> TrainedCard:
    """Read a card.

    Raises:
        DataError: it is missing or not a card.
    """
    try:
        return TrainedCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"the card {path} cannot be read: {error.strerror}. Train it: bench train backbone."
        ) from error
    except ValidationError as error:
        raise DataError(f"{path} is not the card of a trained backbone: {error}") from error


def write_card(card: TrainedCard, path: Path) -> dict[str, Any]:
    """Write a card and return what was written."""
    content = card.model_dump(mode="json")
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return content


def write_weights(network: nn.Module, path: Path, dtype: torch.dtype) -> None:
    """Write a network's weights and batch-norm statistics; `dtype` holds the floating ones."""
    state = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(state, path)


def read_network(card: TrainedCard, path: Path, device: torch.device) -> nn.Module:
    """Return the network of `card`, folded, for evaluation.

    Raises:
        DataError: the weights are missing, not those of the card, or do not fit its architecture.
    """
    network = fold(read_unfolded(card, path).eval())
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def read_unfolded(card: TrainedCard, path: Path) -> nn.Module:
    """Return the network of `card` as it was trained, on the CPU, in training mode.

    Raises:
        DataError: the weights are missing, not those of the card, or do not fit its architecture.
    """
    fix = f"Restore it, or train it again: {card.training.command}"
    if not path.is_file():
        raise DataError(f"the weights {path} of backbone '{card.name}' are missing. {fix}")
    if (found := sha256_of(path)) != card.sha256:
        raise DataError(f"{path} has SHA-256 {found}, its card says {card.sha256}. {fix}")
    network = card.architecture.build()
    try:
        state = load_file(path)
        network.load_state_dict({name: _as_float32(value) for name, value in state.items()})
    except (SafetensorError, RuntimeError) as error:
        raise DataError(f"{path} does not fit {card.architecture}: {error}") from error
    return network


def _as_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


class TorchBackbone(TorchNetwork):
    """Base of backbones with trained weights; a subclass gives `name`, `card` and, if not shipped, `folder`.

    Attributes:
        folder: where `card.file` lies.
    """

    core_seconds: ClassVar[float] = 0.002
    card: TrainedCard
    folder: Path = SHIPPED

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the weights: their digest enters the key."""
        del binding
        return (self.folder / self.card.file,)

    def load(self, device: torch.device) -> None:
        """Read the network.

        Raises:
            DataError: the weights are missing, not those of the card, or do not fit its architecture.
        """
        self._network = read_network(self.card, self.folder / self.card.file, device)

    def read(self) -> nn.Module:
        """Return the network as it was trained, on the CPU, in training mode.

        Raises:
            DataError: the weights are missing, not those of the card, or do not fit its architecture.
        """
        return read_unfolded(self.card, self.folder / self.card.file)
