"""For rendered faces: a wider MobileFaceNet, 192-D, trained from other draws."""

from __future__ import annotations

from fr_models._torch_backbone import SHIPPED, TorchBackbone, read_card


class SyntheticMobileFaceNetWide(TorchBackbone):
    """For rendered faces: a wider MobileFaceNet, 192-D, trained from other draws.

    Trained on the embedded default and of no use for real faces; the card holds the command and what the
    weights reach.
    """

    name = "synthetic-mobilefacenet-wide"
    paper = "Chen et al., MobileFaceNets, CCBR 2018; Deng et al., ArcFace, CVPR 2019"
    card = read_card(SHIPPED / "synthetic-mobilefacenet-wide.json")
