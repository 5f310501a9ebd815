"""ResNet-100 of insightface's pack antelopev2 (glintr100.onnx), trained on Glint360K."""

from __future__ import annotations

from fr_models._insightface_pack import InsightFacePack, pack_card, pack_recipe, pack_source


class InsightFaceAntelopeV2(InsightFacePack):
    """ResNet-100 of insightface's pack antelopev2, trained on Glint360K, 512-D.

    Untested on the real file.
    """

    name = "insightface-antelopev2"
    card = pack_card(name, "glintr100.onnx", "Glint360K", "insightface-glint360k", released="2021")
    recipes = (pack_recipe("antelopev2", "glintr100.onnx"),)
    how = pack_source("antelopev2", "glintr100.onnx")
