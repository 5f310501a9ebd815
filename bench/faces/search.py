"""All faces of a photo, found on a small copy and placed to the pixel on the photo itself.

`bench.faces.detection` finds the one face that a dataset's crop is made of; its source is part of datasets' cache
addresses, so that what only identities' own photos need is here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError
from bench.faces import detection
from bench.faces.alignment import Landmarks, Pixels

MAX_SIDE = 2048
"""A larger photo is searched at no more than this along its longer side: memory and time stay bounded."""

MIN_SCORE = 0.8
"""Face probability from which a find counts. A face that is missed stays unprotected, so it is low."""

_REFINED_FACE = 160
"""Pixels a face measures at least in the copy on which its landmarks are placed."""

_AROUND = 2.5
"""Side of the part that is searched again, in sides of the face."""

_MOVED = 0.35
"""A find further from where it was, in sides of the face, is another face."""


def find_faces(pixels: Pixels) -> tuple[Landmarks, ...]:
    """Return the landmarks of every face, the largest first; () where there is none.

    Args:
        pixels: H×W×3 uint8 RGB, upright.

    Raises:
        UsageError: the detector is not installed.
        DataError: the detector failed on this photo.
    """
    k = -(-max(pixels.shape[:2]) // MAX_SIDE)
    boxes, found = _search(_reduced(pixels, k), k)
    if k > 1:
        found = [_refined(pixels, box, face) for box, face in zip(boxes, found, strict=True)]
    sizes = np.array([box[2] - box[0] + box[3] - box[1] for box in boxes])
    return tuple(found[i] for i in np.argsort(-sizes, kind="stable"))


def _search(pixels: Pixels, k: int) -> tuple[list[NDArray[np.float64]], list[Landmarks]]:
    """Return boxes and landmarks in the pixels of a photo that is k times as large."""
    if min(pixels.shape[:2]) < detection.MIN_FACE:
        return [], []
    try:
        boxes, scores, points = detection.detector()._mtcnn.detect(pixels, landmarks=True)
    except (RuntimeError, IndexError) as error:
        # The package stumbles where every candidate box lies outside the photo.
        raise DataError(f"the face detector failed on it ({error})") from error
    if boxes is None:
        return [], []
    sure = [i for i, score in enumerate(scores) if float(score) >= MIN_SCORE]
    # Small pixel i is the mean of k large ones around k·i + (k − 1)/2.
    large = [np.asarray(boxes[i], dtype=np.float64) * k + (k - 1) / 2 for i in sure]
    marks = [
        Landmarks(np.asarray(points[i], dtype=np.float64) * k + (k - 1) / 2, float(scores[i])) for i in sure
    ]
    return large, marks


def _refined(pixels: Pixels, box: NDArray[np.float64], face: Landmarks) -> Landmarks:
    """Return the landmarks as found again nearer to the photo's own size; as they were where it is not found."""
    side = float(max(box[2] - box[0], box[3] - box[1]))
    middle = (box[:2] + box[2:]) / 2
    k = max(1, int(side / _REFINED_FACE))
    height, width = pixels.shape[:2]
    left, top = (max(0, int(value)) for value in middle - _AROUND * side / 2)
    right, bottom = (int(value) + 1 for value in middle + _AROUND * side / 2)
    part = pixels[top : min(bottom, height), left : min(right, width)]
    boxes, found = _search(_reduced(part, k), k)
    if not found:
        return face
    offset = np.array([left, top], dtype=np.float64)
    distances = [float(np.linalg.norm((one[:2] + one[2:]) / 2 + offset - middle)) for one in boxes]
    nearest = int(np.argmin(distances))
    if distances[nearest] > _MOVED * side:
        return face
    return Landmarks(found[nearest].points + offset, found[nearest].score)


def _reduced(pixels: Pixels, k: int) -> Pixels:
    if k == 1:
        return np.ascontiguousarray(pixels)
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(k))
