"""MobileNets for faces as ONNX by yakhyo: V1 (width 0.25), V2, V3 small and large (MS1MV2)."""

from __future__ import annotations

from fr_models.zoo._face_recognition import FaceRecognitionNetwork, card_of
from fr_models.zoo._uniface import Release

_FAMILY = "uniface-mobilenet"
_V1 = Release("mobilenetv1_0.25.onnx", "eeda7d23d9c2b40cf77fa8da8e895b5697465192648852216074679657f8ee8b")
_V2 = Release("mobilenetv2.onnx", "38b148284dd48cc898d5d4453104252fbdbcacc105fe3f0b80e78954d9d20d89")
_V3_SMALL = Release(
    "mobilenetv3_small.onnx", "d4acafa1039a82957aa8a9a1dac278a401c353a749c39df43de0e29cc1c127c3"
)
_V3_LARGE = Release(
    "mobilenetv3_large.onnx", "0e48f8e11f070211716d03e5c65a3db35a5e917cfb5bc30552358629775a142a"
)


class MobileNetV1(FaceRecognitionNetwork):
    """MobileNetV1 of width 0.25, 0.36 million parameters, trained on MS1MV2, 512-D. Untested on the real file."""

    name = "uniface-mobilenetv1"
    paper = "Howard et al., MobileNets, arXiv:1704.04861, 2017"
    card = card_of(_V1, name, _FAMILY, 0.9876)
    recipes = (_V1.recipe,)


class MobileNetV2(FaceRecognitionNetwork):
    """MobileNetV2, 2.29 million parameters, trained on MS1MV2, 512-D. Untested on the real file."""

    name = "uniface-mobilenetv2"
    paper = "Sandler et al., MobileNetV2, CVPR 2018"
    card = card_of(_V2, name, _FAMILY, 0.9955)
    recipes = (_V2.recipe,)


class MobileNetV3Small(FaceRecognitionNetwork):
    """MobileNetV3 small, 1.25 million parameters, trained on MS1MV2, 512-D. Untested on the real file."""

    name = "uniface-mobilenetv3-small"
    paper = "Howard et al., Searching for MobileNetV3, ICCV 2019"
    card = card_of(_V3_SMALL, name, _FAMILY, 0.9930)
    recipes = (_V3_SMALL.recipe,)


class MobileNetV3Large(FaceRecognitionNetwork):
    """MobileNetV3 large, 3.52 million parameters, trained on MS1MV2, 512-D. Untested on the real file."""

    name = "uniface-mobilenetv3-large"
    paper = "Howard et al., Searching for MobileNetV3, ICCV 2019"
    card = card_of(_V3_LARGE, name, _FAMILY, 0.9953)
    recipes = (_V3_LARGE.recipe,)
