"""IResNet of 18, 50 or 101 layers by AdaFace (.ckpt, Kim et al., CVPR 2022), from Google Drive by hand.

Key names, shapes and preprocessing are those of mk-minchul/AdaFace (net.py, inference.py), accuracies those of its
README. Untested on the real files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.contracts import BackboneCard, Preprocessing
from fr_models._iresnet_deep import EMBEDDING_DIM, IResNet, adaface_names
from fr_models._published import UNTESTED, CheckpointBackbone, WeightsParams

Depth = Literal[18, 50, 101]
Data = Literal["casia", "vggface2", "ms1mv2", "ms1mv3", "webface4m", "webface12m"]

LFW: Mapping[tuple[Depth, Data], float] = {
    (18, "casia"): 0.9913,
    (18, "vggface2"): 0.9947,
    (18, "webface4m"): 0.9953,
    (50, "casia"): 0.9942,
    (50, "ms1mv2"): 0.9982,
    (50, "webface4m"): 0.9978,
    (101, "ms1mv2"): 0.9982,
    (101, "ms1mv3"): 0.9978,
    (101, "webface4m"): 0.9980,
    (101, "webface12m"): 0.9982,
}
"""The published networks → LFW accuracy as AdaFace's README states it; its R100 is ir_101 in its code."""

_DRIVE: Mapping[tuple[Depth, Data], str] = {
    (18, "casia"): "1BURBDplf2bXpmwOL1WVzqtaVmQl9NpPe",
    (18, "vggface2"): "1k7onoJusC0xjqfjB-hNNaxz9u6eEzFdv",
    (18, "webface4m"): "1J17_QW1Oq00EhSWObISnhWEYr2NNrg2y",
    (50, "casia"): "1g1qdg7_HSzkue7_VrW64fnWuHl0YL2C2",
    (50, "ms1mv2"): "1eUaSHG4pGlIZK7hBkqjyp2fc2epKoBvI",
    (50, "webface4m"): "1BmDRrhPsHSbXcWZoYFPJg2KJn1sd3QpN",
    (101, "ms1mv2"): "1m757p4-tUU5xlSHLaO04sqnhvqankimN",
    (101, "ms1mv3"): "1hRI8YhlfTx2YMzyDwsqLTOxbyFVOqpSI",
    (101, "webface4m"): "18jQkqB0avFqWa0Pas52g54xNshUOQJpQ",
    (101, "webface12m"): "1dswnavflETcnAuplZj1IOKKP0eM8ITgT",
}
"""Where its README, table Pretrained Models, sends for them."""

_TRAINED_ON: Mapping[Data, str] = {
    "casia": "CASIA-WebFace",
    "vggface2": "VGGFace2",
    "ms1mv2": "MS1MV2",
    "ms1mv3": "MS1MV3",
    "webface4m": "WebFace4M",
    "webface12m": "WebFace12M",
}
_IN_FILES: Mapping[Data, str] = {"vggface2": "vgg2"}  # the others are called alike
_BLOCKS: Mapping[Depth, int] = {18: 18, 50: 50, 101: 100}  # IR_101 of net.py has the units of 100 layers
_PREFIX = "model."


def card_of(depth: Depth, data: Data) -> BackboneCard:
    """Return the card of a published network."""
    return BackboneCard(
        name="adaface",
        file=f"weights/adaface/adaface_ir{depth}_{_IN_FILES.get(data, data)}.ckpt",
        licence="MIT (repository, as others report it); nothing is stated for the weights or of the training data",
        released="2022",  # its README has them all beside its news of NeurIPS 2022
        source=(
            "mk-minchul/AdaFace, README, Pretrained Models: "
            f"https://drive.google.com/file/d/{_DRIVE[depth, data]}/view"
        ),
        training_data=_TRAINED_ON[data],
        family="adaface",
        embedding_dim=EMBEDDING_DIM,
        preprocessing=Preprocessing(mean=127.5, scale=1 / 127.5, channels="BGR"),
        lfw_accuracy=LFW[depth, data],
        note=f"{UNTESTED}; the stated accuracy is of a photo's embedding and its mirror image's, fused",
    )


class AdaFace(CheckpointBackbone):
    """IResNet trained with AdaFace's quality-adaptive margin, 512-D.

    The file is a checkpoint of PyTorch Lightning: ``state_dict`` holds the network under ``model.`` and the loss's
    head, which is left out. It sees BGR, (x − 127.5) / 127.5. AdaFace divides the embedding by its norm; here it is
    not divided, which cosines do not see.
    """

    name = "adaface"
    paper = "Kim, Jain, Liu, AdaFace, CVPR 2022"
    card = card_of(50, "ms1mv2")
    # train_val.py, validation_step; the sum of embeddings is its average weighted by norms.
    accuracy_fuses_mirrored = True
    how = (
        "It is on Google Drive only, which hands it to a browser: get it from the table Pretrained Models in the "
        "README of https://github.com/mk-minchul/AdaFace (`bench list` prints the address) and put it there."
    )

    class Params(WeightsParams):
        """Which of the published networks."""

        depth: Depth = Field(
            50, description="layers, as AdaFace counts them", json_schema_extra={"unit": "layers"}
        )
        data: Data = Field("ms1mv2", description="what it was trained on")

        @model_validator(mode="after")
        def _published(self) -> Self:
            if (self.depth, self.data) not in LFW:
                valid = ", ".join(f"depth={depth},data={data}" for depth, data in LFW)
                raise ValueError(f"no such network is published; valid: {valid}")
            return self

    params: Params

    def make_card(self) -> BackboneCard:
        """Return the card of the depth and training data requested."""
        return card_of(self.params.depth, self.params.data)

    def build(self) -> nn.Module:
        """Return IResNet of the depth requested, whose first shortcut takes every second pixel."""
        return IResNet(_BLOCKS[self.params.depth], subsample=True)

    def published_names(self, network: nn.Module) -> Mapping[str, str]:
        """Return own name → AdaFace's."""
        assert isinstance(network, IResNet)
        return adaface_names(network)

    def own_tensors(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what is under ``model.``, as AdaFace's own loader does."""
        return {name.removeprefix(_PREFIX): v for name, v in tensors.items() if name.startswith(_PREFIX)}
