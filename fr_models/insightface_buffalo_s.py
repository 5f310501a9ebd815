"""MobileFaceNet of insightface's pack buffalo_s (w600k_mbf.onnx), trained on WebFace600K; the user brings the file."""

from __future__ import annotations

from fr_models._insightface_pack import InsightFacePack, pack_card, pack_source


class InsightFaceBuffaloS(InsightFacePack):
    """MobileFaceNet of insightface's pack buffalo_s, trained on WebFace600K, 512-D.

    Untested on the real file.
    """

    name = "insightface-buffalo-s"
    card = pack_card(name, "w600k_mbf.onnx", "WebFace600K", "insightface-webface600k", 0.9970)
    how = pack_source("buffalo_s", "w600k_mbf.onnx")
