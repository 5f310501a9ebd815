"""Dropout inside surrogates: every step meets another network, so that a cloak does not hang on one's features.

Zhong, Deng, "Towards Transferable Adversarial Attack against Deep Face Recognition" (IEEE TIFS 2021, arXiv
2004.05790), DFANet: elements of the convolutions' outputs are dropped at random. No backbone needs to know: torch hands
every `conv2d` that runs below a `TorchFunctionMode` to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.contracts import Backbone
from bench.errors import UsageError

_LEVELS = 2**16
"""Distinct draws; an element is dropped where its own is among the lowest."""

_IN_ONE_WORD = 4
"""Draws in one 64-bit word: a third of the time of drawing floats."""


def dropped_embeddings(
    backbone: Backbone, images: Tensor, share: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """Return the embeddings of N×3×H×W images by `backbone`, some of its features dropped: N×D, differentiable.

    Args:
        backbone: loaded; one that convolves by torch.
        images: likewise.
        share: how many elements of each convolution's output are dropped; the others grow by 1/(1 − share).
        generators: one for each image, read in the order of the convolutions.

    Raises:
        UsageError: nothing was convolved.
    """
    with _Dropout(share, generators) as dropout:
        embeddings = backbone.embed(images)
    if not dropout.layers:
        raise UsageError(
            f"surrogate '{backbone.card.name}' has no convolution whose output could be dropped. Choose another, or "
            "leave dropout inside surrogates off."
        )
    return embeddings


def draw_kept(shape: Sequence[int], share: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Return N×C×H×W booleans, False for about `share` of them; each image's from its own generator.

    Args:
        shape: C, H, W.
        share: in [0, 1), to 1/65,536.
        generators: one for each image.
    """
    channels, height, width = shape
    count = channels * height * width
    words = [
        torch.empty(-(-count // _IN_ONE_WORD), dtype=torch.int64).random_(-(2**63), None, generator=generator)
        for generator in generators
    ]
    draws = torch.stack(words).view(torch.int16)[:, :count]
    kept = draws >= round(share * _LEVELS) - _LEVELS // 2
    # In the order in which pixels lie in memory (channels_last).
    return kept.view(len(generators), height, width, channels).permute(0, 3, 1, 2)


class _Dropout(TorchFunctionMode):
    """Drops elements of what every two-dimensional convolution within returns; see `dropped_embeddings`."""

    def __init__(self, share: float, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.share, self.generators, self.layers = share, generators, 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is not torch.conv2d:
            return made
        self.layers += 1
        kept = draw_kept(made.shape[1:], self.share, self.generators)
        return made * kept.to(made.device).to(made.dtype).div_(1 - self.share)
