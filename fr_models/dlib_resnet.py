"""dlib's face recognition network: a ResNet of 29 convolutions, trained with a metric loss; 128-D."""

from __future__ import annotations

from bench.contracts import BackboneCard, Preprocessing, Recipe, Source, Threshold
from bench.data.converters import Converter
from fr_models._onnx_backbone import OnnxBackbone

CALIBRATED_BY = "bench models calibrate dlib-resnet --dataset lfw"

FILE = "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
COMMIT = "2a61575dd45d818271c085ff8cd747613a48f20d"


class DlibResNet(OnnxBackbone):
    """dlib's face recognition network: a ResNet of 29 convolutions, trained with a metric loss; 128-D.

    dlib compares its embeddings by their distance (two faces are one person's below 0.6); here, as for all,
    their cosine counts. It was trained on dlib's own, looser crops, which a part of the aligned crop imitates;
    so it does not reach the 99.38 % on LFW that its author states.
    """

    name = "dlib-resnet"
    paper = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016; King, Dlib-ml, JMLR 2009"
    recipes = (
        Recipe(
            sources=(
                Source(
                    name=FILE,
                    sha256=SHA256,
                    bytes=22_466_066,
                    package=f"face_recognition_models:models/{FILE}",
                ),
            ),
            convert=Converter("fr_models._convert_dlib_resnet:convert"),
        ),
        Recipe(
            sources=(
                Source(
                    name=f"{FILE}.bz2",
                    url=f"https://github.com/davisking/dlib-models/raw/{COMMIT}/{FILE}.bz2",
                ),
            ),
            convert=Converter("fr_models._convert_dlib_resnet:convert"),
        ),
    )
    card = BackboneCard(
        name="dlib-resnet",
        file="weights/fr/dlib-resnet-v1.onnx",
        sha256="04dd4ee4b62bf481a18162601c6ca131f4674394794e8a5751005ef88d97057e",
        equivalents=("923e26e0415622856e410ef457b79d771e0b6b7173b0faafbed4f91b35140d32",),
        released="2017-02-12",
        licence="CC0-1.0 (public domain, as its author and the package state)",
        source=(
            f"davisking/dlib-models @ {COMMIT}, {FILE}.bz2; the package face_recognition_models 0.3.0 carries the "
            "same network"
        ),
        training_data="VGG-Face, FaceScrub and photos from the web; identities of LFW left out, as its author states",
        family="dlib",
        embedding_dim=128,
        preprocessing=Preprocessing(height=150, width=150, crop=(20, 6, 92, 100), mean=0, scale=1),
        thresholds=(
            Threshold(
                far=0.1,
                cosine=0.8885,
                pairs=1_999_000,
                far_low=0.094987,
                far_high=0.104385,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.01,
                cosine=0.9164,
                pairs=1_999_000,
                far_low=0.009318,
                far_high=0.01072,
                source=CALIBRATED_BY,
            ),
            Threshold(
                far=0.001,
                cosine=0.9332,
                pairs=1_999_000,
                far_low=0.00086,
                far_high=0.00114,
                source=CALIBRATED_BY,
            ),
        ),
        lfw_accuracy=0.98333,
        embed_with="onnxruntime",
    )
