"""MobileFaceNet with PReLU (Chen et al. 2018), trained on CASIA-WebFace; input 112 high, 96 wide."""

from __future__ import annotations

from bench.contracts import BackboneCard, Preprocessing, Recipe, Source, Threshold
from bench.data.converters import Converter
from fr_models._onnx_backbone import OnnxBackbone

PUBLISHED = (
    "https://raw.githubusercontent.com/Xiaoccer/MobileFaceNet_Pytorch/"
    "26bd8d262017e472a3c7f56d62929e2138a70aeb/model/best"
)
CALIBRATED_BY = "bench models calibrate mobilefacenet-casia --dataset lfw"


class MobileFaceNetCasia(OnnxBackbone):
    """MobileFaceNet with PReLU (Chen et al. 2018), trained on CASIA-WebFace; input 112 high, 96 wide."""

    name = "mobilefacenet-casia"
    paper = "Chen et al., MobileFaceNets, CCBR 2018"
    recipes = (
        Recipe(
            sources=(
                Source(
                    name="068.ckpt",
                    url=f"{PUBLISHED}/068.ckpt",
                    sha256="e839247cdbdfc023fb7cadeaf53a4549d50c8fc24ad154c02e35920ea8910d99",
                    bytes=4_130_855,
                ),
            ),
            convert=Converter("fr_models._convert_mobilefacenet_casia:convert"),
        ),
    )
    card = BackboneCard(
        name="mobilefacenet-casia",
        file="weights/fr/mobilefacenet-casia.onnx",
        sha256="c9c0b4a0a7c491ea9239209f268cf277f4b2c6e2014cbd071b2406d3fbb139dc",
        equivalents=("ad4fad34957a55ac35201eb2fcc2e06e659101fb14a9589c0e1bffc3d2f7f986",),
        licence="none stated (no licence file in the repository)",
        source=(
            "Xiaoccer/MobileFaceNet_Pytorch @ 26bd8d262017e472a3c7f56d62929e2138a70aeb, model/best/068.ckpt"
        ),
        training_data="CASIA-WebFace",
        family="mobilefacenet-casia",
        embedding_dim=128,
        preprocessing=Preprocessing(width=96, crop=(0, 8, 112, 96), mean=127.5, scale=1 / 128),
        thresholds=(
            Threshold(
                far=0.1,
                cosine=0.1538,
                pairs=1_999_000,
                far_low=0.096807,
                far_high=0.103534,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.01,
                cosine=0.293,
                pairs=1_999_000,
                far_low=0.009196,
                far_high=0.01079,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.001,
                cosine=0.4033,
                pairs=1_999_000,
                far_low=0.000875,
                far_high=0.001139,
                source=CALIBRATED_BY,
            ),
        ),
        lfw_accuracy=0.9885,
    )
