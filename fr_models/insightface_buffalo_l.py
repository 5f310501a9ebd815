"""ResNet-50 of insightface's pack buffalo_l (w600k_r50.onnx), trained on WebFace600K; the user brings the file."""

from __future__ import annotations

from fr_models._insightface_pack import InsightFacePack, pack_card, pack_source


class InsightFaceBuffaloL(InsightFacePack):
    """ResNet-50 of insightface's pack buffalo_l, trained on WebFace600K, 512-D.

    Untested on the real file.
    """

    name = "insightface-buffalo-l"
    card = pack_card(name, "w600k_r50.onnx", "WebFace600K", "insightface-webface600k", 0.9983)
    how = pack_source("buffalo_l", "w600k_r50.onnx")
