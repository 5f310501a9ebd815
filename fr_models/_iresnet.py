"""IResNet-18: the residual network of ArcFace (Deng et al., CVPR 2019, Sec. 3.1).

Units are BN–Conv–BN–PReLU–Conv–BN, the stem keeps 112×112, and BN–FC–BN makes the embedding.
"""

from __future__ import annotations

from torch import Tensor, nn

from fr_models._layers import Convolution, Normalisation, Projection, scaled

_CHANNELS = (64, 128, 256, 512)
_REPEATS = 2
_FINAL_SIDE = 7


class _Unit(nn.Module):
    """Improved residual unit; the second convolution has the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Normalisation(inputs),
            Convolution(inputs, outputs, 3),
            Convolution(outputs, outputs, 3, stride=stride, linear=True),
        )
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            Convolution(inputs, outputs, 1, stride=stride, linear=True) if changes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)  # type: ignore[no-any-return]


class IResNet18(nn.Module):
    """IResNet-18 for 112×112 faces; width 1 and 512 dimensions are the paper's.

    Args:
        width: factor on all channels (rounded to multiples of 8, at least 16).
        embedding_dim: D of the embedding.
        stem_stride: 1 is the paper's; 2 quarters the work.
    """

    def __init__(self, width: float = 1.0, embedding_dim: int = 512, stem_stride: int = 1) -> None:
        super().__init__()
        channels = scaled(_CHANNELS[0], width)
        layers: list[nn.Module] = [Convolution(3, channels, 3, stride=stem_stride)]
        for place, full in enumerate(_CHANNELS):
            outputs = scaled(full, width)
            for repeat in range(_REPEATS):
                # A strided stem has done the first stage's halving.
                stride = 2 if repeat == 0 and not (place == 0 and stem_stride == 2) else 1
                layers.append(_Unit(channels, outputs, stride))
                channels = outputs
        self.body = nn.Sequential(*layers)
        self.projection = Projection(channels, _FINAL_SIDE, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×D embeddings of N×3×112×112 standardised pixels."""
        return self.projection(self.body(x))  # type: ignore[no-any-return]
