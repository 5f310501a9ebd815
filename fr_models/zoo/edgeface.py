"""EdgeFace as ONNX by yakhyo: XXS, XS (γ 0.6), S (γ 0.5), Base; EdgeNeXt, convolution and attention (Idiap)."""

from __future__ import annotations

from bench.contracts import BackboneCard
from fr_models.zoo._uniface import Release, UnifaceNetwork

_XXS = Release(
    file="edgeface_xxs.onnx",
    sha256="dc674de4cbc77fa0bf9a82d5149558ab8581d82a2cd3bb60f28fd1a5d3ff8a2f",
    repository="edgeface-onnx",
)
_XS = Release(
    file="edgeface_xs_gamma_06.onnx",
    sha256="9206e2eb13a2761d7b5b76e13016d4b9acd3fa3535a9a09939f3adacd139a5ff",
    repository="edgeface-onnx",
)
_S = Release(
    file="edgeface_s_gamma_05.onnx",
    sha256="b850767cf791bda585600b5c4c7d7432b2f998ccd862caae34ef1afa967d2e54",
    repository="edgeface-onnx",
)
_BASE = Release(
    file="edgeface_base.onnx",
    sha256="b56942f072c67385f44734b9458b0ccc4a2226888a113f77e0c802ad0c77b4c3",
    repository="edgeface-onnx",
)


def _card(release: Release, name: str, lfw_accuracy: float) -> BackboneCard:
    return release.card(
        name,
        licence="CC BY-NC-SA 4.0 (Idiap's model pages); BSD-3-Clause (Idiap's repository)",
        training_data="WebFace260M (subsets of 4M and 12M)",
        family="edgeface",
        lfw_accuracy=lfw_accuracy,
    )


class _EdgeFaceOnnx(UnifaceNetwork):
    paper = "George et al., EdgeFace, IEEE T-BIOM 6(2), 2024"
    terms = (
        "Idiap's model pages state CC BY-NC-SA 4.0 for EdgeFace's weights: attribution, no commercial use, changes "
        "under the same licence. Its repository states BSD-3-Clause."
    )
    accuracy_unlike = "Idiap measured it on its own crops"


class EdgeFaceXXS(_EdgeFaceOnnx):
    """EdgeFace-XXS, 1.24 million parameters, 512-D. Untested on the real file."""

    name = "uniface-edgeface-xxs"
    card = _card(_XXS, name, 0.9957)
    recipes = (_XXS.recipe,)


class EdgeFaceXS(_EdgeFaceOnnx):
    """EdgeFace-XS with linear layers of low rank (γ = 0.6), 1.77 million parameters, 512-D.

    Untested on the real file.
    """

    name = "uniface-edgeface-xs"
    card = _card(_XS, name, 0.9973)
    recipes = (_XS.recipe,)


class EdgeFaceS(_EdgeFaceOnnx):
    """EdgeFace-S with linear layers of low rank (γ = 0.5), 3.65 million parameters, 512-D.

    Untested on the real file.
    """

    name = "uniface-edgeface-s"
    card = _card(_S, name, 0.9978)
    recipes = (_S.recipe,)


class EdgeFaceBase(_EdgeFaceOnnx):
    """EdgeFace-Base, 18.2 million parameters, 512-D. Untested on the real file."""

    name = "uniface-edgeface-base"
    card = _card(_BASE, name, 0.9983)
    recipes = (_BASE.recipe,)
