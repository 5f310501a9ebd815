"""The shapes of a synthetic face: outlines, relief, pose and alignment.

All coordinates are template units, whole at pixel centres (x right, y down, z to the camera), the face
centred on x = 56. Here: curves and maps as arrays. Not here: colours and pixels (`_face_renderer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bench.datasets._face_traits import Conditions, Traits

Points: TypeAlias = NDArray[np.float64]
"""K×2 points."""
Field: TypeAlias = NDArray[np.float32]
"""A value for each point of the canvas, CANVAS×CANVAS."""

CENTRE_X = 56.0
MARGIN = 16
CANVAS = 112 + 2 * MARGIN
"""The canvas reaches MARGIN units over the crop on every side, so that a turned head is still whole."""

ARCFACE_TEMPLATE: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Left eye, right eye, nose tip, left and right mouth corner in the aligned crop, as seen in the image
(Deng et al., ArcFace, CVPR 2019; the reference implementation's `arcface_src`)."""

_PIVOT_Y, _PIVOT_Z = 62.0, 8.0
_FACE_DEPTH = 34.0


def face_outline(traits: Traits, grow: float = 0.0) -> Points:
    """Return the head's outline, `grow` units larger; one curve above the cheekbones, one for the jaw."""
    angle = np.linspace(0.0, 2 * np.pi, 72, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    cheek_y = traits.eye_y + 8.0
    half = traits.half_width + grow
    up = half * cosine, cheek_y + (cheek_y - 2.0 + grow) * np.minimum(sine, 0.0)
    # Jaw: a superellipse whose exponent makes it square, narrowed linearly down to the mouth's height.
    exponent = 2.0 / traits.chin_width
    depth = np.abs(np.maximum(sine, 0.0)) ** exponent
    narrow = 1 - (1 - traits.jaw) * np.clip(depth * 1.15, 0.0, 1.0)
    down_x = half * np.sign(cosine) * np.abs(cosine) ** (2.0 / 2.3) * narrow
    down_y = cheek_y + (traits.chin + grow - cheek_y) * depth
    below = sine > 0
    return np.stack([CENTRE_X + np.where(below, down_x, up[0]), np.where(below, down_y, up[1])], axis=1)


def mouth_corners(traits: Traits, shot: Conditions) -> Points:
    """Return the left and right corner of the mouth with this expression, 2×2."""
    half = traits.mouth_width * (1 + 0.22 * shot.smile)
    y = traits.mouth_y - 2.6 * shot.smile
    return np.array([[CENTRE_X - half, y], [CENTRE_X + half, y]])


def landmarks(traits: Traits, shot: Conditions) -> Points:
    """Return the five landmarks before pose, in the template's order, 5×2."""
    eyes = [[CENTRE_X + side * traits.eye_spacing, traits.eye_y] for side in (-1, 1)]
    return np.concatenate([eyes, [[CENTRE_X, traits.nose_y]], mouth_corners(traits, shot)])


def _hill(x: Field, y: Field, centre: tuple[float, float], size: tuple[float, float]) -> Field:
    """Return a Gaussian of height 1."""
    hill: Field = np.exp(-(((x - centre[0]) / size[0]) ** 2) - ((y - centre[1]) / size[1]) ** 2)
    return hill


def relief(traits: Traits) -> Field:
    """Return z over the canvas: a paraboloid for the skull with the features' relief on it."""
    y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) - np.float32(MARGIN)
    radius = ((x - CENTRE_X) / (traits.half_width + 6)) ** 2 + ((y - 60) / 64) ** 2
    z = _FACE_DEPTH * (1 - np.minimum(radius, 1.25))
    bridge = np.clip((y - traits.eye_y + 6) / (traits.nose_y - traits.eye_y + 6), 0.0, 1.0)
    below = np.clip((traits.nose_y + 5 - y) / 5, 0.0, 1.0)
    width = traits.nose_bridge + 1.5 + (0.75 * traits.nose_width - traits.nose_bridge) * bridge**2
    z += traits.nose_depth * bridge * below * np.exp(-(((x - CENTRE_X) / width) ** 2))
    for side in (-1, 1):
        eye = CENTRE_X + side * traits.eye_spacing
        z -= 3.0 * _hill(x, y, (eye, traits.eye_y), (8.0, 5.0))
        z += traits.brow_ridge * _hill(x, y, (eye, traits.eye_y - traits.brow_gap), (11.0, 3.5))
        z += traits.cheekbone * _hill(x, y, (CENTRE_X + side * 0.66 * traits.half_width, 70.0), (9.0, 7.0))
        fold = CENTRE_X + side * (traits.mouth_width + 3)
        z -= 1.6 * traits.folds * _hill(x, y, (fold, traits.mouth_y - 10), (3.0, 8.0))
    z += 3.0 * _hill(x, y, (CENTRE_X, traits.mouth_y), (traits.mouth_width, 6.0))
    z += 2.0 * _hill(x, y, (CENTRE_X, traits.chin - 7), (8.0, 5.0))
    surface: Field = z.astype(np.float32)
    return surface


def normals(z: Field) -> NDArray[np.float32]:
    """Return the unit normals of a relief, 3×CANVAS×CANVAS."""
    slope_y, slope_x = np.gradient(z)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    unit: NDArray[np.float32] = np.stack([-slope_x, -slope_y, np.ones_like(z)]) / length
    return unit


@dataclass(frozen=True)
class View:
    """From the face's own coordinates to the aligned crop: a turn of the head, then a similarity.

    Attributes:
        yaw: radians.
        pitch: radians.
        factor: complex factor of the similarity (scale and rotation), x + iy.
        offset: complex offset of the similarity.
    """

    yaw: float
    pitch: float
    factor: complex
    offset: complex

    def turn(self, points: Points, z: Points) -> Points:
        """Return where points with depths `z` come to lie after the turn, seen from the front, K×2."""
        x, y, z = points[:, 0] - CENTRE_X, points[:, 1] - _PIVOT_Y, z - _PIVOT_Z
        turned_z = -np.sin(self.yaw) * x + np.cos(self.yaw) * z
        turned_x = np.cos(self.yaw) * x + np.sin(self.yaw) * z
        turned_y = np.cos(self.pitch) * y - np.sin(self.pitch) * turned_z
        return np.stack([CENTRE_X + turned_x, _PIVOT_Y + turned_y], axis=1)

    def project(self, points: Points, z: Points) -> Points:
        """Return where points with depths `z` come to lie in the crop, K×2."""
        turned = self.turn(points, z)
        placed = self.factor * (turned[:, 0] + 1j * turned[:, 1]) + self.offset
        return np.stack([placed.real, placed.imag], axis=1)


def align(traits: Traits, shot: Conditions, z: Field) -> View:
    """Return the view that an aligner would give: least-squares similarity onto `ARCFACE_TEMPLATE`.

    The errors of `shot` (shift, zoom, roll) come on top, as a detector's would.
    """
    points = landmarks(traits, shot)
    turned = View(shot.yaw, shot.pitch, 1, 0).turn(points, depth_at(z, points))
    source = turned[:, 0] + 1j * turned[:, 1]
    target = ARCFACE_TEMPLATE[:, 0] + 1j * ARCFACE_TEMPLATE[:, 1]
    centred = source - source.mean()
    factor = np.vdot(centred, target) / np.vdot(centred, centred)
    error = shot.zoom * np.exp(1j * shot.roll)
    middle = target.mean() + complex(*shot.shift)
    factor = factor * error
    return View(shot.yaw, shot.pitch, complex(factor), complex(middle - factor * source.mean()))


def depth_at(z: Field, points: Points) -> Points:
    """Return the relief at the nearest canvas point of each of `points`, K."""
    column, row = (np.rint(points + MARGIN).astype(int).clip(0, CANVAS - 1)).T
    depth: Points = z[row, column].astype(np.float64)
    return depth


def sampling_map(view: View, z: Field, size: int) -> tuple[Field, Field]:
    """Return, for each pixel of the crop, the canvas column and row it shows (the inverse of the view).

    The point seen depends on its own depth; fixed-point iteration finds it, because the relief's slope
    times the sine of the turn stays under one.
    """
    import cv2

    grid = np.arange(size, dtype=np.float64)
    placed = ((grid[None, :] + 1j * grid[:, None]) - view.offset) / view.factor
    seen_x = (placed.real - CENTRE_X).astype(np.float32)
    seen_y = (placed.imag - _PIVOT_Y).astype(np.float32)
    sin_yaw, cos_yaw = np.float32(np.sin(view.yaw)), np.float32(np.cos(view.yaw))
    sin_pitch, cos_pitch = np.float32(np.sin(view.pitch)), np.float32(np.cos(view.pitch))
    to_column, to_row = np.float32(CENTRE_X + MARGIN), np.float32(_PIVOT_Y + MARGIN)
    x: Any = seen_x
    y: Any = seen_y
    for _ in range(4):
        depth: Any = cv2.remap(
            z, x + to_column, y + to_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        depth = depth - np.float32(_PIVOT_Z)
        x = (seen_x - sin_yaw * depth) / cos_yaw
        y = (seen_y + sin_pitch * (cos_yaw * depth - sin_yaw * x)) / cos_pitch
    return x + to_column, y + to_row


def eye_opening(traits: Traits, openness: float) -> Points:
    """Return the outline of the right eye (in the image) around its centre, mirrored for the left."""
    t = np.linspace(-1.0, 1.0, 15)
    bow = 1 - np.abs(t) ** 2.2
    height = traits.eye_height * openness
    slant = -traits.eye_slant * t * traits.eye_width
    upper = np.stack([t * traits.eye_width, slant - height * bow], axis=1)
    lower = np.stack([t * traits.eye_width, slant + 0.75 * height * bow], axis=1)
    return np.concatenate([upper, lower[::-1]])


def brow(traits: Traits) -> Points:
    """Return the outline of the right brow (in the image) around the eye's centre."""
    t = np.linspace(-1.0, 1.0, 13)
    line = -traits.brow_gap - traits.brow_arch * (1 - (t - 0.25) ** 2) + traits.brow_slant * t
    thick = traits.brow_thickness * np.clip(0.25 + 0.75 * (1 - t) / 1.2, 0.2, 1.0) / 2
    x = t * traits.brow_length + 0.6
    top, bottom = np.stack([x, line - thick], axis=1), np.stack([x, line + thick], axis=1)
    return np.concatenate([top, bottom[::-1]])


@dataclass(frozen=True)
class Mouth:
    """Outlines of a mouth.

    Attributes:
        lips: around both lips.
        opening: between them.
        line: where they meet, or the upper edge of the opening.
    """

    lips: Points
    opening: Points
    line: Points


def mouth(traits: Traits, shot: Conditions) -> Mouth:
    """Return the mouth with this expression."""
    left, right = mouth_corners(traits, shot)
    t = np.linspace(-1.0, 1.0, 17)
    bow = 1 - t**2
    x = (left[0] + right[0]) / 2 + t * (right[0] - left[0]) / 2
    sag = 2.6 * shot.smile * bow
    gap = 5.0 * shot.mouth_open * bow
    line = left[1] + sag - 0.35 * gap
    notch = traits.cupid * np.exp(-((t / 0.18) ** 2))
    top = line - traits.upper_lip * bow**0.7 + notch * bow
    bottom = line + gap + traits.lower_lip * bow**0.8
    lips = np.concatenate([np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]])
    edge = np.stack([x, line], axis=1)
    return Mouth(lips, np.concatenate([edge, np.stack([x, line + gap], axis=1)[::-1]]), edge)


def hairline(traits: Traits, shift: float) -> Points:
    """Return the lower edge of the hair from the left temple over the forehead to the right temple."""
    u = np.linspace(-1.0, 1.0, 41)
    side_y = {"long": 118.0, "bald": 30.0, "curly": 66.0}.get(traits.hair_style, 58.0)
    steep = {"fringe": 9.0, "long": 4.5, "receding": 3.0}.get(traits.hair_style, 5.0)
    y = traits.hairline + (side_y - traits.hairline) * np.abs(u) ** steep + 0.4 * shift
    if traits.hair_style == "receding":
        y -= 9.0 * np.exp(-(((np.abs(u) - 0.55) / 0.2) ** 2))
    if traits.hair_style == "fringe":
        y += 2.2 * np.sin(u * 23 + traits.parting * 6 + shift)
    if traits.hair_style in {"parted", "long"}:
        y += 9.0 * np.clip(np.abs(u - traits.parting * 0.6) / 0.9, 0.0, 1.0) ** 1.3 - 3.0
    reach = {"long": 0.86, "curly": 0.95}.get(traits.hair_style, 0.97)
    return np.stack([CENTRE_X + u * reach * traits.half_width, y], axis=1)


def hair_outline(traits: Traits, shift: float) -> Points:
    """Return the outline of the hair in front of the skull."""
    edge = hairline(traits, shift)
    volume = traits.hair_volume + 0.6 * shift
    start, end = edge[0], edge[-1]
    angle = np.linspace(0.0, np.pi, 41)
    half = traits.half_width + 1.0 + 0.55 * volume
    lumps = 1.6 * np.sin(angle * 17 + traits.parting * 9) if traits.hair_style == "curly" else 0.0 * angle
    over = np.stack(
        [CENTRE_X + (half + lumps) * np.cos(angle), 52 - (50 + volume + lumps) * np.sin(angle)], axis=1
    )
    sides = [[CENTRE_X + half, end[1]]], [[CENTRE_X - half, start[1]]]
    return np.concatenate([edge, sides[0], over, sides[1]])
