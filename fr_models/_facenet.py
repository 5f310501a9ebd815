"""What the two backbones of facenet-pytorch share: the network, its key names and preprocessing.

timesler/facenet-pytorch: models/inception_resnet_v1.py (key names, shapes, addresses of the files), models/mtcnn.py
(`fixed_image_standardization`: (x − 127.5) / 128), README (accuracies).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.contracts import BackboneCard, Preprocessing
from fr_models._inception_resnet import EMBEDDING_DIM, SIDE, InceptionResNet
from fr_models._published import UNTESTED, CheckpointBackbone, warn_misnamed

RELEASE = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"

_HEAD = "logits."  # the classifier of its training, kept in the files


def facenet_card(name: str, file: str, training_data: str, lfw_accuracy: float) -> BackboneCard:
    """Return the card of one of the two published files."""
    return BackboneCard(
        name=name,
        file=f"weights/facenet/{file}",
        released="2018-04-10",  # davidsandberg/facenet, README, News; facenet-pytorch ported them
        licence="MIT (repository); nothing is stated of the training data",
        source=f"timesler/facenet-pytorch, release v2.2.9, {file}; ported from davidsandberg/facenet",
        training_data=training_data,
        family="facenet",
        embedding_dim=EMBEDDING_DIM,
        preprocessing=Preprocessing(height=SIDE, width=SIDE, mean=127.5, scale=1 / 128, channels="RGB"),
        lfw_accuracy=lfw_accuracy,
        note=(
            f"{UNTESTED}; trained on looser crops (MTCNN's box and a margin, not aligned): here it sees the aligned "
            "112×112 crop enlarged, so the stated accuracy need not hold"
        ),
    )


class FaceNet(CheckpointBackbone):
    """Base of the two: Inception-ResNet-v1, 512-D, RGB of 160×160, (x − 127.5) / 128.

    The file is a state_dict, with the classifier of its training under ``logits.``, which is left out.
    """

    accuracy_unlike = "it was measured on looser crops"
    paper = "Schroff et al., FaceNet, CVPR 2015; Szegedy et al., Inception-v4, AAAI 2017"

    def build(self) -> nn.Module:
        """Return Inception-ResNet-v1."""
        return InceptionResNet()

    def published_names(self, network: nn.Module) -> Mapping[str, str]:
        """Return each name: ours are facenet-pytorch's."""
        return {name: name for name in network.state_dict()}

    def own_tensors(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return all but the classifier."""
        return {name: value for name, value in tensors.items() if not name.startswith(_HEAD)}

    def load(self, device: torch.device) -> None:
        """Read the network, with its batch norm folded.

        Raises:
            DataError: the file is missing, cannot be read, or is not of this network.
        """
        warn_misnamed(self.card, self.params.weights)
        network = self.read().eval()
        assert isinstance(network, InceptionResNet)
        self._network = network.fold().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
