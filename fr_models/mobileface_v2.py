"""MobileFace identification V2: inverted residuals with ReLU6, a 256-D output."""

from __future__ import annotations

from bench.contracts import BackboneCard, Preprocessing, Recipe, Source, Threshold
from bench.data.converters import Converter
from fr_models._onnx_backbone import OnnxBackbone

PUBLISHED = (
    "https://raw.githubusercontent.com/becauseofAI/MobileFace/"
    "128cea33b928dc9bb6d1963202b57a97f5661ccf/MobileFace_Identification"
)
CALIBRATED_BY = "bench models calibrate mobileface-v2 --dataset lfw"


class MobileFaceV2(OnnxBackbone):
    """MobileFace identification V2: inverted residuals with ReLU6, a 256-D output."""

    name = "mobileface-v2"
    recipes = (
        Recipe(
            sources=(
                Source(
                    name="MobileFace_Identification_V2-symbol.json",
                    url=f"{PUBLISHED}/MobileFace_Identification_V2-symbol.json",
                    sha256="9d4f776ecb40772e3eb10338319e4a10a3cd68694dc6ef4e9042c8c4141e658f",
                    bytes=75_716,
                ),
                Source(
                    name="MobileFace_Identification_V2-0000.params",
                    url=f"{PUBLISHED}/MobileFace_Identification_V2-0000.params",
                    sha256="750057619a1eef8acb320339aebf0bbcf191497e1396a361c8aaba517bbe825e",
                    bytes=3_582_482,
                ),
            ),
            convert=Converter("fr_models._convert_mobileface:convert"),
        ),
    )
    card = BackboneCard(
        name="mobileface-v2",
        file="weights/fr/mobileface-v2.onnx",
        sha256="9f155bca956b3574826d3c9a0e532db18ce351194908f0c2d8250156fc35288e",
        equivalents=("65d0fb30a50f47b4fda9c56b4109899cfd0715ee4b01664b115e8f47212cd74a",),
        licence="MIT",
        source=(
            "becauseofAI/MobileFace @ 128cea33b928dc9bb6d1963202b57a97f5661ccf, "
            "MobileFace_Identification/MobileFace_Identification_V2-symbol.json and -0000.params"
        ),
        training_data="unknown",
        family="MobileFace",
        embedding_dim=256,
        preprocessing=Preprocessing(mean=127.5, scale=1 / 128),
        thresholds=(
            Threshold(
                far=0.1,
                cosine=0.1196,
                pairs=1_999_000,
                far_low=0.097781,
                far_high=0.102065,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.01,
                cosine=0.2509,
                pairs=1_999_000,
                far_low=0.009605,
                far_high=0.010397,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.001,
                cosine=0.3608,
                pairs=1_999_000,
                far_low=0.000914,
                far_high=0.001088,
                source=CALIBRATED_BY,
            ),
        ),
        lfw_accuracy=0.99033,
        embed_with="onnxruntime",
    )
