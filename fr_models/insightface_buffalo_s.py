"""MobileFaceNet of insightface's pack buffalo_s (w600k_mbf.onnx), trained on WebFace600K."""

from __future__ import annotations

from fr_models._insightface_pack import InsightFacePack, pack_card, pack_recipe, pack_source
from fr_models.zoo._uniface import Release

_FILE = Release("w600k_mbf.onnx", "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f")


class InsightFaceBuffaloS(InsightFacePack):
    """MobileFaceNet of insightface's pack buffalo_s, trained on WebFace600K, 512-D.

    The same file alone is handed out by yakhyo/uniface, which states its digest. Untested on the real file.
    """

    name = "insightface-buffalo-s"
    card = pack_card(
        name,
        _FILE.file,
        "WebFace600K",
        "insightface-webface600k",
        released="2021-09-22",  # insightface's README: "add new MBF and IR50 models"
        lfw_accuracy=0.9970,
        sha256=_FILE.sha256,
    )
    recipes = (_FILE.recipe, pack_recipe("buffalo_s", _FILE.file))
    how = pack_source("buffalo_s", _FILE.file)
