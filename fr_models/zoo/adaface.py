"""AdaFace as ONNX by yakhyo: IR-18 (WebFace4M), IR-101 (WebFace12M)."""

from __future__ import annotations

from bench.contracts import BackboneCard
from fr_models.zoo._uniface import Release, UnifaceNetwork

_IR_18 = Release(
    file="adaface_ir_18.onnx",
    sha256="6b6a35772fb636cdd4fa86520c1a259d0c41472a76f70f802b351837a00d9870",
    repository="adaface-onnx",
)
_IR_101 = Release(
    file="adaface_ir_101.onnx",
    sha256="f2eb07d03de0af560a82e1214df799fec5e09375d43521e2868f9dc387e5a43e",
    repository="adaface-onnx",
)


def _card(release: Release, name: str, training_data: str, lfw_accuracy: float) -> BackboneCard:
    return release.card(
        name,
        licence="MIT (both repositories, as others report AdaFace's); nothing is stated for the weights",
        training_data=training_data,
        family="adaface",
        released="2022",  # AdaFace's README has both beside its news of NeurIPS 2022
        channels="BGR",
        lfw_accuracy=lfw_accuracy,
        note="the stated accuracy is AdaFace's, of a photo's embedding and its mirror image's, fused",
    )


class _AdaFaceOnnx(UnifaceNetwork):
    paper = "Kim, Jain, Liu, AdaFace, CVPR 2022"
    accuracy_fuses_mirrored = True


class AdaFaceIR18(_AdaFaceOnnx):
    """IResNet-18 trained with AdaFace's quality-adaptive margin on WebFace4M, 512-D, BGR.

    Untested on the real file.
    """

    name = "uniface-adaface-ir18"
    card = _card(_IR_18, name, "WebFace4M", 0.9953)
    recipes = (_IR_18.recipe,)


class AdaFaceIR101(_AdaFaceOnnx):
    """IResNet-101 trained with AdaFace's quality-adaptive margin on WebFace12M, 512-D, BGR.

    Untested on the real file.
    """

    name = "uniface-adaface-ir101"
    card = _card(_IR_101, name, "WebFace12M", 0.9982)
    recipes = (_IR_101.recipe,)
