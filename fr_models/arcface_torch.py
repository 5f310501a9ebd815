"""IResNet of 18, 34, 50 or 100 layers by insightface's arcface_torch (.pth), by hand.

Key names, shapes and preprocessing are those of deepinsight/insightface, recognition/arcface_torch
(backbones/iresnet.py, inference.py). Untested on the real files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import nn

from bench.contracts import BackboneCard, Preprocessing
from fr_models._iresnet_deep import EMBEDDING_DIM, IResNet, insightface_names
from fr_models._published import UNTESTED, CheckpointBackbone, WeightsParams

Data = Literal["ms1mv3", "glint360k"]

_FOLDERS: Mapping[Data, str] = {
    "ms1mv3": "ms1mv3_arcface_r{}_fp16",
    "glint360k": "glint360k_cosface_r{}_fp16_0.1",
}
_TRAINED_ON: Mapping[Data, str] = {
    "ms1mv3": "MS1MV3 (MS1M-RetinaFace)",
    "glint360k": "Glint360K",
}


def card_of(depth: int, data: Data) -> BackboneCard:
    """Return the card of the published network of a depth, trained on `data`."""
    return BackboneCard(
        name="arcface-torch",
        file=f"weights/arcface-torch/{_FOLDERS[data].format(depth)}/backbone.pth",
        licence="non-commercial research purposes only (insightface, recognition/arcface_torch/README.md)",
        released="2021",  # insightface's README: 2021-03-13
        source="deepinsight/insightface, recognition/arcface_torch, Model Zoo",
        training_data=_TRAINED_ON[data],
        family=f"insightface-{data}",
        embedding_dim=EMBEDDING_DIM,
        preprocessing=Preprocessing(mean=127.5, scale=1 / 127.5, channels="RGB"),
        note=UNTESTED,
    )


class ArcFaceTorch(CheckpointBackbone):
    """IResNet trained with a margin loss, as insightface's arcface_torch publishes it, 512-D.

    The file is ``backbone.pth``: the network's state_dict and nothing else. It sees RGB, (x − 127.5) / 127.5.
    """

    name = "arcface-torch"
    paper = "Deng et al., ArcFace, CVPR 2019"
    card = card_of(50, "ms1mv3")
    how = (
        "It is on OneDrive or BaiduDrive only, which hand it to a browser: get backbone.pth from the Model Zoo of "
        "recognition/arcface_torch in https://github.com/deepinsight/insightface and put it there."
    )

    class Params(WeightsParams):
        """Which of the published networks."""

        depth: Literal[18, 34, 50, 100] = Field(
            50, description="layers", json_schema_extra={"unit": "layers"}
        )
        data: Data = Field("ms1mv3", description="what it was trained on")

    params: Params

    def make_card(self) -> BackboneCard:
        """Return the card of the depth and training data requested."""
        return card_of(self.params.depth, self.params.data)

    def build(self) -> nn.Module:
        """Return IResNet of the depth requested."""
        return IResNet(self.params.depth)

    def published_names(self, network: nn.Module) -> Mapping[str, str]:
        """Return own name → arcface_torch's."""
        assert isinstance(network, IResNet)
        return insightface_names(network)
