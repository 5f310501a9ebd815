"""A backbone whose network is a torch module: embedding, and a copy that can be trained.

Here: what the backbones this project trained and those read from published checkpoints share. Where weights come from
is each one's own.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from bench.contracts import Backbone, MethodParams
from fr_models._onnx_backbone import Prepared, prepare


class TorchNetwork(Backbone):
    """Base of backbones that hold a torch module; a subclass reads it, folded for `load`, unfolded for training."""

    def __init__(self, params: MethodParams | None = None) -> None:
        super().__init__(params)
        self._network: nn.Module | None = None

    @abstractmethod
    def read(self) -> nn.Module:
        """Return the network as it was trained, on the CPU, in training mode.

        Raises:
            DataError: the file is missing, cannot be read, or is not of this network.
        """

    def embed(self, images: Tensor) -> Tensor:
        """Return N×D float32 embeddings, differentiable with respect to `images` (N×3×112×112 in [0, 1])."""
        if self._network is None:
            raise RuntimeError(f"backbone '{self.name}' is used before load()")
        pixels = prepare(images, self.card.preprocessing)
        return self._network(pixels.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    def trainable(self, device: torch.device) -> nn.Module:
        """Return the network as it was trained, batch norm not folded; see `Backbone.trainable`.

        Raises:
            DataError: as `read`.
        """
        network = self.read().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Prepared(network, self.card.preprocessing).train()
