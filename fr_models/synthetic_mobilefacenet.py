"""For rendered faces: a narrow, shallow MobileFaceNet, 128-D."""

from __future__ import annotations

from fr_models._torch_backbone import SHIPPED, TorchBackbone, read_card


class SyntheticMobileFaceNet(TorchBackbone):
    """For rendered faces: a narrow, shallow MobileFaceNet, 128-D.

    Trained on the embedded default and of no use for real faces; the card holds the command and what the
    weights reach.
    """

    name = "synthetic-mobilefacenet"
    paper = "Chen et al., MobileFaceNets, CCBR 2018; Deng et al., ArcFace, CVPR 2019"
    card = read_card(SHIPPED / "synthetic-mobilefacenet.json")
