"""MobileFaceNet (Chen, Liu, Gao, Han, CCBR 2018, arXiv 1804.07573), Table 1, with width and depth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fr_models._layers import Convolution, scaled


@dataclass(frozen=True)
class _Stage:
    """A row of Table 1: `repeats` bottlenecks, the first at `stride`."""

    expansion: int
    channels: int
    repeats: int
    stride: int


TABLE_1 = (
    _Stage(2, 64, 5, 2),
    _Stage(4, 128, 1, 2),
    _Stage(2, 128, 6, 1),
    _Stage(4, 128, 1, 2),
    _Stage(2, 128, 2, 1),
)
_STEM, _LAST = 64, 512
_FINAL_SIDE = 7


class _Bottleneck(nn.Module):
    """Inverted residual: expand, depthwise 3×3, linear projection (MobileNetV2), with PReLU."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            Convolution(inputs, hidden, 1),
            Convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            Convolution(hidden, outputs, 1, linear=True),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileFaceNet(nn.Module):
    """MobileFaceNet for 112×112 faces; width 1 and depth 1 are the paper's.

    Args:
        width: factor on all channels (rounded to multiples of 8, at least 16).
        depth: factor on the repeats of each stage (at least one stays).
        embedding_dim: D of the embedding.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0, embedding_dim: int = 128) -> None:
        super().__init__()
        channels = scaled(_STEM, width)
        layers: list[nn.Module] = [
            Convolution(3, channels, 3, stride=2),
            Convolution(channels, channels, 3, groups=channels),
        ]
        for stage in TABLE_1:
            outputs = scaled(stage.channels, width)
            for repeat in range(max(1, round(stage.repeats * depth))):
                stride = stage.stride if repeat == 0 else 1
                layers.append(_Bottleneck(channels, outputs, stage.expansion, stride))
                channels = outputs
        last = scaled(_LAST, width)
        self.body = nn.Sequential(*layers, Convolution(channels, last, 1))
        # Global depthwise convolution (Sec. 3.1): each unit of the 7×7 map has its own weight.
        self.global_depthwise = Convolution(last, last, _FINAL_SIDE, groups=last, padding=0, linear=True)
        self.projection = Convolution(last, embedding_dim, 1, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×D embeddings of N×3×112×112 standardised pixels."""
        return self.projection(self.global_depthwise(self.body(x))).flatten(1)  # type: ignore[no-any-return]
