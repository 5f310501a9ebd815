"""SphereFace's networks as ONNX by yakhyo: Sphere20, Sphere36, plain residual convolutions with PReLU (MS1MV2)."""

from __future__ import annotations

from fr_models.zoo._face_recognition import FaceRecognitionNetwork, card_of
from fr_models.zoo._uniface import Release

_FAMILY = "uniface-sphereface"
_20 = Release("sphere20.onnx", "c02878cf658eb1861f580b7e7144b0d27cc29c440bcaa6a99d466d2854f14c9d")
_36 = Release("sphere36.onnx", "13b3890cd5d7dec2b63f7c36fd7ce07403e5a0bbb701d9647c0289e6cbe7bb20")


class _SphereFace(FaceRecognitionNetwork):
    paper = "Liu et al., SphereFace, CVPR 2017"


class Sphere20(_SphereFace):
    """Sphere20, 24.5 million parameters, trained on MS1MV2, 512-D. Untested on the real file."""

    name = "uniface-sphere20"
    card = card_of(_20, name, _FAMILY, 0.9967)
    recipes = (_20.recipe,)


class Sphere36(_SphereFace):
    """Sphere36, 34.6 million parameters, trained on MS1MV2, 512-D. Untested on the real file."""

    name = "uniface-sphere36"
    card = card_of(_36, name, _FAMILY, 0.9972)
    recipes = (_36.recipe,)
