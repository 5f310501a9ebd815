"""For rendered faces: a narrow IResNet-18, 64-D."""

from __future__ import annotations

from fr_models._torch_backbone import SHIPPED, TorchBackbone, read_card


class SyntheticIResNet(TorchBackbone):
    """For rendered faces: a narrow IResNet-18, 64-D.

    Trained on the embedded default and of no use for real faces; the card holds the command and what the
    weights reach.
    """

    name = "synthetic-iresnet"
    paper = "Deng et al., ArcFace, CVPR 2019"
    card = read_card(SHIPPED / "synthetic-iresnet.json")
