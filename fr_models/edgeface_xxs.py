"""EdgeFace-XXS: convolutions and cross-covariance attention, a family of its own among the real backbones."""

from __future__ import annotations

from bench.contracts import BackboneCard, Preprocessing, Recipe, Source, Threshold
from fr_models._edgenext_onnx import convert
from fr_models._onnx_backbone import OnnxBackbone

CALIBRATED_BY = "bench models calibrate edgeface-xxs --dataset lfw"

CHECKPOINT = Source(
    name="edgeface_xxs_q.pt",
    url=(
        "https://raw.githubusercontent.com/yayoimizuha/face_recognition_train/"
        "3e631e35bf207a09aa2af79239961cfb14248c0a/checkpoints/edgeface_xxs_q.pt"
    ),
    sha256="46be7cc7e8d6e23501c0627fe5fbef101922ee9b85ccbef476987ab1a320b053",
    bytes=1_734_661,
)


class EdgeFaceXXS(OnnxBackbone):
    """EdgeFace-XXS: EdgeNeXt xx-small with convolutions and cross-covariance attention, 512-D, 1.24 M parameters.

    The published linear layers are quantised to 8 bits; here their weights are float32 again. It serves as a tracker
    of another family than the MobileFaceNets that the pool's attacks see.
    """

    name = "edgeface-xxs"
    paper = "George et al., EdgeFace, IEEE T-BIOM 2024"
    recipes = (Recipe(sources=(CHECKPOINT,), convert=convert),)
    card = BackboneCard(
        name="edgeface-xxs",
        file="weights/fr/edgeface-xxs.onnx",
        sha256="2072c76b1ea1d79b1d7fb5bf53d7e2b4190e739fe19f713f1da255b17e230811",
        equivalents=("2f5b023a436b2aa64378fee19a31e6ddf20057632b9c24eb2146b411d907db7a",),
        licence="BSD-3-Clause",
        source=(
            "yayoimizuha/face_recognition_train @ 3e631e35bf207a09aa2af79239961cfb14248c0a (a copy of Idiap's "
            "EdgeFace), checkpoints/edgeface_xxs_q.pt"
        ),
        training_data="WebFace, as the paper says; the file states none",
        family="edgeface",
        embedding_dim=512,
        preprocessing=Preprocessing(mean=127.5, scale=1 / 127.5),
        thresholds=(
            Threshold(
                far=0.1,
                cosine=0.1156,
                pairs=1_999_000,
                far_low=0.098161,
                far_high=0.101721,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.01,
                cosine=0.2049,
                pairs=1_999_000,
                far_low=0.009615,
                far_high=0.010345,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.001,
                cosine=0.2759,
                pairs=1_999_000,
                far_low=0.000908,
                far_high=0.001072,
                source=CALIBRATED_BY,
            ),
        ),
        lfw_accuracy=0.9957,
        embed_with="onnxruntime",
        note="the stated accuracy is that of the float network, of which this is the quantised one",
    )
