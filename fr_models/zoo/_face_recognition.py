"""What the networks of yakhyo/face-recognition share: who trained them on what, when, and how well they do.

yakhyo/face-recognition, README: MS1MV2, accuracies, weights released 2025-01-03; onnx_export.py: 512-D each.
"""

from __future__ import annotations

from bench.contracts import BackboneCard
from fr_models.zoo._uniface import Release, UnifaceNetwork


def card_of(release: Release, name: str, family: str, lfw_accuracy: float) -> BackboneCard:
    """Return the card of one of its networks."""
    return release.card(
        name,
        licence="MIT (repository); nothing is stated for the weights or of the training data",
        training_data="MS1MV2",
        family=family,
        released="2025-01-03",
        lfw_accuracy=lfw_accuracy,
    )


class FaceRecognitionNetwork(UnifaceNetwork):
    """Base of them; a subclass gives `name`, `card`, `paper` and `recipes`."""

    accuracy_unlike = "it was measured on crops aligned by its publisher"
