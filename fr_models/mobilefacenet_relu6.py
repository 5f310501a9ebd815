"""MobileFaceNet with ReLU and ReLU6 activations (Chen et al. 2018), as shipped by photo_analyze."""

from __future__ import annotations

from bench.contracts import BackboneCard, Preprocessing, Recipe, Source, Threshold
from bench.data.converters import Converter
from fr_models._onnx_backbone import OnnxBackbone

PUBLISHED = (
    "https://raw.githubusercontent.com/diandianti/photo_analyze/"
    "2715cee6d1f39fc63b431a4fa14b0fc4f8334309/models"
)
CALIBRATED_BY = "bench models calibrate mobilefacenet-relu6 --dataset lfw"


class MobileFaceNetRelu6(OnnxBackbone):
    """MobileFaceNet with ReLU and ReLU6 activations (Chen et al. 2018), as shipped by photo_analyze."""

    name = "mobilefacenet-relu6"
    paper = "Chen et al., MobileFaceNets, CCBR 2018"
    recipes = (
        Recipe(
            sources=(
                Source(
                    name="mobilefacenet.onnx",
                    url=f"{PUBLISHED}/mobilefacenet.onnx",
                    sha256="f055d9c9a4d826d198c42666590fdefa0fdc1374a75ccb6306c3d1b1bf8f74c5",
                    bytes=3_973_728,
                ),
            ),
            convert=Converter("fr_models._convert_mobilefacenet_relu6:convert"),
        ),
    )
    card = BackboneCard(
        name="mobilefacenet-relu6",
        file="weights/fr/mobilefacenet-relu6.onnx",
        sha256="965a80baac76d4711c756eb0b833456851a9570326e8eefe569a7c017804f2a5",
        licence="none stated (no licence file in the repository)",
        source=(
            "diandianti/photo_analyze @ 2715cee6d1f39fc63b431a4fa14b0fc4f8334309, models/mobilefacenet.onnx"
        ),
        training_data="unknown",
        family="mobilefacenet-relu6",
        embedding_dim=128,
        preprocessing=Preprocessing(mean=127.0, scale=1 / 128),
        thresholds=(
            Threshold(
                far=0.1,
                cosine=0.1458,
                pairs=1_999_000,
                far_low=0.098019,
                far_high=0.101987,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.01,
                cosine=0.2583,
                pairs=1_999_000,
                far_low=0.009589,
                far_high=0.010408,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.001,
                cosine=0.3424,
                pairs=1_999_000,
                far_low=0.000911,
                far_high=0.001094,
                source=CALIBRATED_BY,
            ),
        ),
        lfw_accuracy=0.99267,
        embed_with="onnxruntime",
    )
