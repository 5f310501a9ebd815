"""IResNet of 18, 34, 50 and 100 layers (Deng et al., CVPR 2019, Sec. 3.1) as insightface, AdaFace and MagFace build it.

The units are those of `_iresnet`, the numbers of units are those of the publishers' code; the publishers differ in the
first shortcut, the epsilon of batch norm and the names of the tensors, all of which are parameters here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from fr_models._layers import Convolution, Normalisation, Projection

UNITS: Mapping[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
}
"""Depth → units in each of the four stages."""

EMBEDDING_DIM = 512

_CHANNELS = (64, 128, 256, 512)
_FINAL_SIDE = 7


class _Subsampling(nn.Module):
    """Every second pixel: a maximum over 1×1 with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


class _Unit(nn.Module):
    """BN–Conv–BN–PReLU–Conv–BN beside a shortcut; the second convolution has the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, subsample: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Normalisation(inputs),
            Convolution(inputs, outputs, 3),
            Convolution(outputs, outputs, 3, stride=stride, linear=True),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs == outputs and stride == 2 and subsample:
            self.shortcut = _Subsampling()
        elif inputs != outputs or stride != 1:
            self.shortcut = Convolution(inputs, outputs, 1, stride=stride, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)  # type: ignore[no-any-return]


class IResNet(nn.Module):
    """IResNet for 112×112 faces, 512-D.

    Args:
        depth: 18, 34, 50 or 100.
        epsilon: of every batch norm.
        subsample: whether the first unit's shortcut takes every second pixel (AdaFace) instead of a strided 1×1
            convolution (insightface, MagFace).
    """

    def __init__(self, depth: int, *, epsilon: float = 1e-5, subsample: bool = False) -> None:
        super().__init__()
        channels = _CHANNELS[0]
        self.stem = Convolution(3, channels, 3)
        stages: list[nn.Sequential] = []
        for outputs, repeats in zip(_CHANNELS, UNITS[depth], strict=True):
            units = []
            for place in range(repeats):
                units.append(_Unit(channels, outputs, 2 if place == 0 else 1, subsample=subsample))
                channels = outputs
            stages.append(nn.Sequential(*units))
        self.stages = nn.Sequential(*stages)
        self.units = tuple(len(stage) for stage in stages)
        self.projection = Projection(channels, _FINAL_SIDE, EMBEDDING_DIM)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.eps = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return N×512 embeddings of N×3×112×112 standardised pixels."""
        return self.projection(self.stages(self.stem(x)))  # type: ignore[no-any-return]


_IN_UNIT = re.compile(r"stages\.(\d)\.(\d+)\.(.+)")
_INSIGHTFACE = {
    "layers.0.normalisation": "bn1",
    "layers.1.convolution": "conv1",
    "layers.1.normalisation": "bn2",
    "layers.1.activation": "prelu",
    "layers.2.convolution": "conv2",
    "layers.2.normalisation": "bn3",
    "shortcut.convolution": "downsample.0",
    "shortcut.normalisation": "downsample.1",
    "stem.convolution": "conv1",
    "stem.normalisation": "bn1",
    "stem.activation": "prelu",
    "projection.before": "bn2",
    "projection.linear": "fc",
    "projection.after": "features",
}
_ADAFACE = {
    "layers.0.normalisation": "res_layer.0",
    "layers.1.convolution": "res_layer.1",
    "layers.1.normalisation": "res_layer.2",
    "layers.1.activation": "res_layer.3",
    "layers.2.convolution": "res_layer.4",
    "layers.2.normalisation": "res_layer.5",
    "shortcut.convolution": "shortcut_layer.0",
    "shortcut.normalisation": "shortcut_layer.1",
    "stem.convolution": "input_layer.0",
    "stem.normalisation": "input_layer.1",
    "stem.activation": "input_layer.2",
    "projection.before": "output_layer.0",
    "projection.linear": "output_layer.3",
    "projection.after": "output_layer.4",
}


def insightface_names(network: IResNet) -> dict[str, str]:
    """Return own name → insightface's (its recognition/arcface_torch/backbones/iresnet.py); MagFace has the same."""
    return {
        own: _published(own, _INSIGHTFACE, lambda stage, unit: f"layer{stage + 1}.{unit}.")
        for own in network.state_dict()
    }


def adaface_names(network: IResNet) -> dict[str, str]:
    """Return own name → AdaFace's (its net.py), which numbers the units of all stages in one row.

    The last batch norm of AdaFace has no factor and offset, so ours are not among the names.
    """
    first = [sum(network.units[:place]) for place in range(len(_CHANNELS))]
    return {
        own: _published(own, _ADAFACE, lambda stage, unit: f"body.{first[stage] + unit}.")
        for own in network.state_dict()
        if own not in ("projection.after.weight", "projection.after.bias")
    }


def _published(own: str, parts: Mapping[str, str], unit_name: Callable[[int, int], str]) -> str:
    """Return the publisher's name of a tensor: those of its unit, of its part, and e.g. weight."""
    inside = _IN_UNIT.fullmatch(own)
    prefix = unit_name(int(inside[1]), int(inside[2])) if inside else ""
    part, _, tensor = (inside[3] if inside else own).rpartition(".")
    # A PReLU's slopes are its weight in torch.
    return f"{prefix}{parts[part]}.{'weight' if tensor == 'slope' else tensor}"
