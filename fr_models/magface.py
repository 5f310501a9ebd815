"""IResNet of 50 or 100 layers by MagFace (.pth, Meng et al., CVPR 2021), from Google Drive or BaiduDrive by hand.

Key names, shapes and preprocessing are those of IrvingMeng/MagFace (models/iresnet.py, inference/network_inf.py,
inference/gen_feat.py). Untested on the real files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from bench.contracts import BackboneCard, Preprocessing
from fr_models._iresnet_deep import EMBEDDING_DIM, IResNet, insightface_names
from fr_models._published import UNTESTED, CheckpointBackbone, WeightsParams

EPSILON = 2e-5
"""Of every batch norm in its models/iresnet.py."""

PREFIXES = ("features.module.", "module.features.")
"""Where data-parallel training of one sort or the other puts the network."""

_FILES: Mapping[int, str] = {100: "magface_epoch_00025.pth", 50: "magface_iresnet50_MS1MV2_ddp_fp32.pth"}

_RELEASED: Mapping[int, str] = {100: "2021-03-12", 50: "2021-03-31"}
"""Its README, Logs."""


def card_of(depth: int) -> BackboneCard:
    """Return the card of the published network of a depth."""
    return BackboneCard(
        name="magface",
        file=f"weights/magface/{_FILES[depth]}",
        licence=(
            "Apache-2.0 as reported of the present repository, MIT in its first commit; nothing is stated for the "
            "weights or of the training data"
        ),
        released=_RELEASED[depth],
        source="IrvingMeng/MagFace, README, Model Zoo",
        training_data="MS1MV2",
        family="magface",
        embedding_dim=EMBEDDING_DIM,
        preprocessing=Preprocessing(mean=0, scale=1 / 255, channels="BGR"),
        note=UNTESTED,
    )


class MagFace(CheckpointBackbone):
    """IResNet trained with MagFace's magnitude-aware margin, 512-D; the embedding's norm is the face's quality.

    The file is a training checkpoint: ``state_dict`` holds the network under ``features.module.`` (or
    ``module.features.``) and the loss's head, which is left out. It sees BGR in [0, 1].
    """

    name = "magface"
    paper = "Meng et al., MagFace, CVPR 2021"
    card = card_of(100)
    how = (
        "It is on Google Drive or BaiduDrive only, which hand it to a browser: get it from the Model Zoo in the "
        "README of https://github.com/IrvingMeng/MagFace and put it there."
    )

    class Params(WeightsParams):
        """Which of the published networks."""

        depth: Literal[50, 100] = Field(100, description="layers", json_schema_extra={"unit": "layers"})

    params: Params

    def make_card(self) -> BackboneCard:
        """Return the card of the depth requested."""
        return card_of(self.params.depth)

    def build(self) -> nn.Module:
        """Return IResNet of the depth requested."""
        return IResNet(self.params.depth, epsilon=EPSILON)

    def published_names(self, network: nn.Module) -> Mapping[str, str]:
        """Return own name → MagFace's."""
        assert isinstance(network, IResNet)
        return insightface_names(network)

    def own_tensors(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what is under either prefix, as MagFace's own loader does."""
        return {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            for prefix in PREFIXES
            if name.startswith(prefix)
        }
