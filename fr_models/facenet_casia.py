"""Inception-ResNet-v1 by facenet-pytorch, trained on CASIA-WebFace (.pt)."""

from __future__ import annotations

from fr_models._facenet import RELEASE, FaceNet, facenet_card
from fr_models._published import as_published

FILE = "20180408-102900-casia-webface.pt"


class FaceNetCasia(FaceNet):
    """Inception-ResNet-v1 by facenet-pytorch, trained on CASIA-WebFace, 512-D, 160×160.

    Untested on the real file.
    """

    name = "facenet-casia"
    card = facenet_card(name, FILE, "CASIA-WebFace", 0.9905)
    recipes = (as_published(f"{RELEASE}/{FILE}"),)
    how = f"Get {RELEASE}/{FILE} and put it there."
