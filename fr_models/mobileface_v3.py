"""MobileFace identification V3: a plain residual network with PReLU; weak, of one family with V2."""

from __future__ import annotations

from bench.contracts import BackboneCard, Preprocessing, Recipe, Source, Threshold
from bench.data.converters import Converter
from fr_models._onnx_backbone import OnnxBackbone

PUBLISHED = (
    "https://raw.githubusercontent.com/becauseofAI/MobileFace/"
    "128cea33b928dc9bb6d1963202b57a97f5661ccf/MobileFace_Identification"
)
CALIBRATED_BY = "bench models calibrate mobileface-v3 --dataset lfw"


class MobileFaceV3(OnnxBackbone):
    """MobileFace identification V3: a plain residual network with PReLU; weak, of one family with V2."""

    name = "mobileface-v3"
    recipes = (
        Recipe(
            sources=(
                Source(
                    name="MobileFace_Identification_V3-symbol.json",
                    url=f"{PUBLISHED}/MobileFace_Identification_V3-symbol.json",
                    sha256="bb1ecf5c7cea147070bff6b3917996297082e5ad3482dd1ce247603b1926727d",
                    bytes=19_441,
                ),
                Source(
                    name="MobileFace_Identification_V3-0000.params",
                    url=f"{PUBLISHED}/MobileFace_Identification_V3-0000.params",
                    sha256="452de400b2c9707613d41afdd2b56fe956113d8958dcfa1e4d2b0acc5dd13369",
                    bytes=2_187_516,
                ),
            ),
            convert=Converter("fr_models._convert_mobileface:convert"),
        ),
    )
    card = BackboneCard(
        name="mobileface-v3",
        file="weights/fr/mobileface-v3.onnx",
        sha256="230d1b228ecc9c9f8247805b0967c59d32e3ea5a45113f9d85e415a4ad2621c5",
        equivalents=("c8308bde692e0f305f5a47cd406803f78ede876c849ef721a7a9fa51fa744055",),
        licence="MIT",
        source=(
            "becauseofAI/MobileFace @ 128cea33b928dc9bb6d1963202b57a97f5661ccf, "
            "MobileFace_Identification/MobileFace_Identification_V3-symbol.json and -0000.params"
        ),
        training_data="unknown",
        family="MobileFace",
        embedding_dim=256,
        preprocessing=Preprocessing(mean=127.5, scale=1 / 128),
        thresholds=(
            Threshold(
                far=0.1,
                cosine=0.1596,
                pairs=1_999_000,
                far_low=0.097353,
                far_high=0.102753,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.01,
                cosine=0.2783,
                pairs=1_999_000,
                far_low=0.009427,
                far_high=0.010518,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.001,
                cosine=0.3645,
                pairs=1_999_000,
                far_low=0.000891,
                far_high=0.001108,
                source=CALIBRATED_BY,
            ),
        ),
        lfw_accuracy=0.93367,
    )
