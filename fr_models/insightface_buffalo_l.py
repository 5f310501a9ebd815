"""ResNet-50 of insightface's pack buffalo_l (w600k_r50.onnx), trained on WebFace600K."""

from __future__ import annotations

from fr_models._insightface_pack import InsightFacePack, pack_card, pack_recipe, pack_source
from fr_models.zoo._uniface import Release

_FILE = Release("w600k_r50.onnx", "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43")


class InsightFaceBuffaloL(InsightFacePack):
    """ResNet-50 of insightface's pack buffalo_l, trained on WebFace600K, 512-D.

    The same file alone is handed out by yakhyo/uniface, which states its digest. Untested on the real file.
    """

    name = "insightface-buffalo-l"
    card = pack_card(
        name,
        _FILE.file,
        "WebFace600K",
        "insightface-webface600k",
        released="2021-09-22",  # insightface's README: "add new MBF and IR50 models"
        lfw_accuracy=0.9983,
        sha256=_FILE.sha256,
    )
    recipes = (_FILE.recipe, pack_recipe("buffalo_l", _FILE.file))
    how = pack_source("buffalo_l", _FILE.file)
