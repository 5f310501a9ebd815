"""A changed face put back into the photo it was cut from, at the photo's own resolution.

The change of the 112×112 crop, not the crop, goes back: enlarged or reduced to the face's size, it is added to the
photo's own pixels, so that the photo keeps its sharpness. It is corrected until who crops the photo as the crop was
made sees the changed crop, and fades out beyond the crop's border. Pure functions of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.contracts import CROP_SIZE
from bench.faces.alignment import (
    Pixels,
    Points,
    estimate_similarity,
    invert_similarity,
    similarity_scale,
    warp,
)
from bench.faces.whole_photo import PhotoFile, Samples, as_rgb

Change = NDArray[np.float32]

MARGIN = 8
"""Pixels of the crop over which the change fades out beyond its border."""

ROUNDS = 4
"""Times that what is missing of the change is added; more bring little (docs/tools.md)."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where a face lies in its upright photo.

    Attributes:
        matrix: 2×3, from pixels of the upright photo to pixels of the crop.
        top: first row that may change.
        left: first column.
        bottom: first row after it.
        right: first column after it.
    """

    matrix: Points
    top: int
    left: int
    bottom: int
    right: int

    @property
    def block(self) -> int:
        """How many pixels of the photo, across and down, one of the crop averages (`bench.faces.alignment.warp`)."""
        return max(1, int(1 / similarity_scale(self.matrix) + 1e-9))

    @property
    def own_matrix(self) -> Points:
        """The matrix from pixels of the part of the photo that may change."""
        offset = np.array([self.left, self.top], dtype=np.float64)
        return np.column_stack([self.matrix[:, :2], self.matrix[:, 2] + self.matrix[:, :2] @ offset])

    def overlaps(self, other: Place) -> bool:
        """Say whether the parts of the photo that may change meet."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def place_of(matrix: Points, height: int, width: int) -> Place:
    """Return where the crop of a transform lies in an upright photo of height×width pixels."""
    ends = np.array([-0.5 - MARGIN, CROP_SIZE - 0.5 + MARGIN])
    corners = np.array([[x, y, 1.0] for x in ends for y in ends])
    inside = corners @ invert_similarity(matrix).T
    k = max(1, int(1 / similarity_scale(matrix) + 1e-9))
    # Beginning at whole blocks, the part of the photo is averaged as the whole is.
    left, top = (int(np.floor((low - 1) / k)) * k for low in inside.min(0))
    right, bottom = (int(np.ceil((high + 2) / k)) * k for high in inside.max(0))
    return Place(
        matrix,
        min(max(0, top), height),
        min(max(0, left), width),
        max(0, min(height, bottom)),
        max(0, min(width, right)),
    )


def place_at(points: Points, height: int, width: int) -> Place:
    """Return where the crop of a face with these landmarks lies.

    Raises:
        DataError: the landmarks determine no transform.
    """
    return place_of(estimate_similarity(points), height, width)


def take_crop(photo: PhotoFile, place: Place) -> Pixels:
    """Return the 112×112×3 uint8 crop at a place, as `bench.faces.alignment.align` makes it of the whole photo."""
    part = _part(photo, place)
    if not part.size:  # wholly beyond the photo's edge
        return np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
    return warp(as_rgb(part), place.own_matrix)


def paste_back(photo: PhotoFile, place: Place, wanted: Pixels, rounds: int = ROUNDS) -> None:
    """Change a photo so that its crop at a place becomes another; nothing beyond the place's fading border changes.

    Args:
        photo: its pixels are written into.
        place: where.
        wanted: 112×112×3 uint8, what the crop is to be.
        rounds: times that what is missing is added.
    """
    part = _part(photo, place)
    if not part.size:
        return
    requested = np.abs(wanted.astype(np.int16) - take_crop(photo, place))
    most = int(requested.max())
    if not most:
        return
    colours = part[..., : part.shape[2] - photo.has_alpha]
    before = colours.copy()
    grain = photo.levels / 255
    base = colours.astype(np.float32) / np.float32(grain)
    share = _share(part, photo)
    fade = _fade(place)[..., None] * (share > 0)
    missing = wanted.astype(np.float32) - _crop(_shown(base, share), place)
    total, change = np.zeros_like(missing), np.zeros_like(base)
    for _ in range(rounds):
        total += missing
        change = _to_photo(total, place, base.shape[2]).clip(-most, most) * fade
        seen = _shown((base + change).clip(0, 255), share)
        missing = wanted.astype(np.float32) - _crop(seen, place)
    rounded = np.rint((base + change).clip(0, 255) * grain).astype(photo.pixels.dtype)
    # A change that is pale in the crop is to be pale in the photo, rounding and all.
    colours[...] = _within(rounded, before, most)


def _within(now: Samples, before: Samples, most: int) -> Samples:
    """Return values no further than `most` grey levels from what they were; of 16 bits the high bytes too."""
    then = before.astype(np.int32)
    if now.dtype == np.uint8:
        low, high = then - most, then + most
    else:
        top = then >> 8
        low = np.maximum(then - 257 * most, (top - most) << 8)
        high = np.minimum(then + 257 * most, ((top + most) << 8) | 255)
    limit = int(np.iinfo(now.dtype).max)
    return now.clip(low.clip(0, None), high.clip(None, limit)).astype(now.dtype)


def paste_back_all(photo: PhotoFile, places: Sequence[Place], wanted: Sequence[Pixels]) -> None:
    """Put several faces back; where their borders meet, each is done again so that none undoes another.

    Where two faces want different values, neither gets more than the largest change that one of them asks for. A face
    that is to stay as it is is left alone.
    """
    requested = [
        int(np.abs(image.astype(np.int16) - take_crop(photo, place)).max())
        for place, image in zip(places, wanted, strict=True)
    ]
    places = [place for place, most in zip(places, requested, strict=True) if most]
    wanted = [image for image, most in zip(wanted, requested, strict=True) if most]
    if not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i]):
        for place, image in zip(places, wanted, strict=True):
            paste_back(photo, place, image)
        return
    before = photo.with_pixels(photo.pixels.copy())
    for _ in range(2):
        for place, image in zip(places, wanted, strict=True):
            paste_back(photo, place, image)
            now = _part(photo, place)
            now[...] = _within(now, _part(before, place), max(requested))


def _part(photo: PhotoFile, place: Place) -> Samples:
    return photo.upright()[place.top : place.bottom, place.left : place.right]


def _share(part: Samples, photo: PhotoFile) -> NDArray[np.float32]:
    """Return how much of each pixel is seen, H×W×1 in [0, 1]; a single 1 where all is opaque."""
    if not photo.has_alpha:
        return np.ones((1, 1, 1), np.float32)
    return np.asarray(part[..., -1:] / photo.levels, dtype=np.float32)


def _shown(colours: Change, share: NDArray[np.float32]) -> Change:
    """Return H×W×3 in [0, 255] as it is seen on white."""
    seen = colours if share.size == 1 else colours * share + 255 * (1 - share)
    return np.repeat(seen, 3, axis=2) if seen.shape[2] == 1 else seen


def _crop(pixels: Change, place: Place) -> Change:
    """Return what `bench.faces.alignment.warp` gives, without rounding."""
    import cv2

    matrix, k = place.own_matrix, place.block
    if k > 1:
        height, width = (-(-side // k) for side in pixels.shape[:2])
        filled = np.pad(
            pixels, ((0, height * k - pixels.shape[0]), (0, width * k - pixels.shape[1]), (0, 0)), mode="edge"
        )
        pixels = cv2.resize(filled, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        matrix = matrix @ np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]])
    moved = cv2.warpAffine(pixels, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR)
    return np.asarray(moved, dtype=np.float32)


def _to_photo(change: Change, place: Place, channels: int) -> Change:
    """Return a change of the crop as a change of the photo: bicubic where it grows, averaged where it shrinks."""
    import cv2

    if channels == 1:
        change = change.mean(2, keepdims=True)
    framed = np.pad(change, ((MARGIN + 2,) * 2, (MARGIN + 2,) * 2, (0, 0)), mode="reflect")
    n = max(1, int(np.ceil(similarity_scale(place.matrix) - 0.05)))
    to_crop = place.own_matrix @ np.array(
        [[1 / n, 0, (1 - n) / (2 * n)], [0, 1 / n, (1 - n) / (2 * n)], [0, 0, 1]]
    )
    to_frame = np.column_stack([to_crop[:, :2], to_crop[:, 2] + MARGIN + 2])
    height, width = place.bottom - place.top, place.right - place.left
    moved = cv2.warpAffine(
        framed,
        to_frame,
        (width * n, height * n),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    moved = moved.reshape(height, n, width, n, channels).mean((1, 3)) if n > 1 else moved
    result: Change = np.asarray(moved, dtype=np.float32).reshape(height, width, channels)
    return result


def _fade(place: Place) -> NDArray[np.float32]:
    """Return 1 inside the crop, 0 from `MARGIN` beyond its border on, smooth in between."""
    y, x = np.mgrid[0 : place.bottom - place.top, 0 : place.right - place.left].astype(np.float32)
    matrix = place.own_matrix.astype(np.float32)
    weight: NDArray[np.float32] = np.ones_like(x)
    for row in matrix:
        at = row[0] * x + row[1] * y + row[2]
        beyond = np.maximum(-0.5 - at, at - (CROP_SIZE - 0.5))
        ramp = (1 - beyond / MARGIN).clip(0, 1)
        weight = weight * ramp * ramp * (3 - 2 * ramp)
    return weight
