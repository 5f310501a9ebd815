"""Inception-ResNet-v1 by facenet-pytorch, trained on VGGFace2 (.pt)."""

from __future__ import annotations

from fr_models._facenet import RELEASE, FaceNet, facenet_card
from fr_models._published import as_published

FILE = "20180402-114759-vggface2.pt"


class FaceNetVGGFace2(FaceNet):
    """Inception-ResNet-v1 by facenet-pytorch, trained on VGGFace2, 512-D, 160×160.

    Untested on the real file.
    """

    name = "facenet-vggface2"
    card = facenet_card(name, FILE, "VGGFace2", 0.9965)
    recipes = (as_published(f"{RELEASE}/{FILE}"),)
    how = f"Get {RELEASE}/{FILE} and put it there."
