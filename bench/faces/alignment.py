"""Five landmarks → aligned 112×112 face crop, and back.

The template is ArcFace's (Deng et al., CVPR 2019, five points on 112×112). The transform is the least-squares
similarity of Umeyama (IEEE TPAMI 13(4), 1991). Pixel coordinates are (x, y), the centre of the top left pixel
is (0, 0), as in OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.contracts import CROP_SIZE
from bench.errors import DataError

Points = NDArray[np.float64]
Pixels = NDArray[np.uint8]

ALIGNMENT_VERSION = "arcface-112/1"
"""Part of every dataset's fingerprint: raise it when the same photo would give another crop."""

TEMPLATE: Points = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Left eye, right eye, nose, left and right mouth corner in the crop (left = left in the image)."""
TEMPLATE.setflags(write=False)

_FLAT = 1e-6
"""Points are on one line when they spread less than this across it, as a share of their spread along it."""


@dataclass(frozen=True)
class Landmarks:
    """Five points of one face.

    Attributes:
        points: 5×2 (x, y) in pixels of the photo, in the order of `TEMPLATE`.
        score: the detector's face probability in [0, 1].
    """

    points: Points
    score: float = 1.0


def estimate_similarity(source: Points, target: Points = TEMPLATE) -> Points:
    """Return the 2×3 matrix [c·R | t] that minimises Σ‖target − (c·R·source + t)‖².

    Umeyama (1991), equations 34–42. With Σ = U·D·Vᵀ the covariance of target with source:
    R = U·S·Vᵀ, c = tr(D·S)/σ², t = μ_target − c·R·μ_source.

    Args:
        source: N×2 points, N ≥ 2, in pixels.
        target: N×2 points they should come to lie on.

    Raises:
        DataError: the points are not finite, coincide, lie on one line or are mirrored.
    """
    source = np.asarray(source, dtype=np.float64)
    _refuse_degenerate(source, target.shape)
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    covariance = (target - target_mean).T @ centred / len(source)
    # Umeyama's S would turn a reflection into the nearest rotation, which for a face is upside down or
    # collapsed: landmarks given right to left are a mistake in the input, so say so.
    if np.linalg.det(covariance) <= 0:
        raise DataError(
            "the landmarks are mirrored; give left eye, right eye, nose, left and right mouth corner, "
            "left being left in the image"
        )
    u, d, vt = np.linalg.svd(covariance)
    rotation = u @ vt
    scale = d.sum() / centred.var(0).sum()
    translation = target_mean - scale * rotation @ source_mean
    return np.column_stack([scale * rotation, translation])


def _refuse_degenerate(points: Points, shape: tuple[int, ...]) -> None:
    if points.shape != shape:
        raise DataError(f"landmarks have shape {points.shape}, expected {shape}")
    if not np.isfinite(points).all():
        raise DataError(f"landmarks are not finite numbers: {points.tolist()}")
    along, across = np.linalg.svd(points - points.mean(0), compute_uv=False)
    if across <= _FLAT * max(along, 1.0):
        raise DataError(f"landmarks coincide or lie on one line: {points.tolist()}")


def similarity_scale(matrix: Points) -> float:
    """Return the scale c of a similarity: target pixels per source pixel."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def invert_similarity(matrix: Points) -> Points:
    """Return the 2×3 matrix of the inverse, e.g. from crop back to photo."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def warp(image: Pixels, matrix: Points, height: int = CROP_SIZE, width: int = CROP_SIZE) -> Pixels:
    """Return height×width×3 uint8: `image` moved by `matrix`, bilinear, zero outside.

    Where the result is less than half as large, the photo is first averaged over k×k blocks, k = ⌊1/scale⌋;
    otherwise bilinear sampling would look at a few of many pixels and alias.

    Args:
        image: H×W×3 uint8.
        matrix: 2×3, from pixels of `image` to pixels of the result.
        height: of the result, in pixels.
        width: of the result, in pixels.
    """
    import cv2

    if (k := int(1 / similarity_scale(matrix) + 1e-9)) >= 2:
        image, matrix = _reduce(image, matrix, k)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.asarray(moved, dtype=np.uint8)


def _reduce(image: Pixels, matrix: Points, k: int) -> tuple[Pixels, Points]:
    """Average over k×k blocks; the centre of small pixel i is at k·i + (k − 1)/2 of the large image."""
    from PIL import Image

    small = np.asarray(Image.fromarray(image).reduce(k))
    to_large = np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]])
    return small, matrix @ to_large


def align(image: Pixels, points: Points) -> Pixels:
    """Return the 112×112×3 uint8 crop of the face with these five landmarks.

    Args:
        image: H×W×3 uint8 RGB.
        points: 5×2 (x, y) in pixels of `image`, in the order of `TEMPLATE`.

    Raises:
        DataError: the landmarks determine no transform.
    """
    return warp(image, estimate_similarity(points))
