"""Inception-ResNet-v1 by facenet-pytorch, trained on CASIA-WebFace (.pt); the user brings the file."""

from __future__ import annotations

from fr_models._facenet import RELEASE, FaceNet, facenet_card

FILE = "20180408-102900-casia-webface.pt"


class FaceNetCasia(FaceNet):
    """Inception-ResNet-v1 by facenet-pytorch, trained on CASIA-WebFace, 512-D, 160×160.

    Untested on the real file.
    """

    name = "facenet-casia"
    card = facenet_card(name, FILE, "CASIA-WebFace", 0.9905)
    how = f"Get {RELEASE}/{FILE} and put it there."
