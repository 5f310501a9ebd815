"""Draws an aligned 112×112 photo of a synthetic identity.

The face is painted flat and from the front (polygons with antialiased edges, supersampled), lit by the
normals of its relief, turned by looking up each pixel of the crop in the painting, and put before a
background; then comes the camera: exposure, tone, blur, noise. Every photo is rendered alone, so its bytes
depend on nothing but its own traits and conditions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.datasets import _face_geometry as geometry
from bench.datasets._face_geometry import CANVAS, CENTRE_X, MARGIN, Points
from bench.datasets._face_traits import Colour, Conditions, Traits, mix

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 112
_SUPERSAMPLING = 3
_SUBPIXEL_BITS = 4
_WHITE: Colour = (236, 232, 228)
_DARK: Colour = (24, 16, 16)


class _Painting:
    """A canvas of premultiplied RGBA in template units; antialiasing against nothing gives the alpha."""

    def __init__(self, pixels: NDArray[np.uint8] | None = None) -> None:
        side = CANVAS * _SUPERSAMPLING
        self.pixels = np.zeros((side, side, 4), np.uint8) if pixels is None else pixels

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        place = (points + MARGIN) * _SUPERSAMPLING + (_SUPERSAMPLING - 1) / 2
        return np.rint(place * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def fill(self, points: Points, colour: Colour) -> None:
        """Fill a polygon."""
        import cv2

        cv2.fillPoly(self.pixels, [self._fixed(points)], (*colour, 255), cv2.LINE_AA, _SUBPIXEL_BITS)

    def line(self, points: Points | Sequence[Points], colour: Colour, width: float) -> None:
        """Draw one open line, or several, `width` units wide."""
        import cv2

        lines = [points] if isinstance(points, np.ndarray) else points
        thickness = max(1, round(width * _SUPERSAMPLING))
        fixed = [self._fixed(line) for line in lines]
        cv2.polylines(self.pixels, fixed, False, (*colour, 255), thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def ellipse(self, centre: tuple[float, float], radii: tuple[float, float], colour: Colour) -> None:
        """Fill an upright ellipse."""
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = np.stack([np.cos(angle) * radii[0], np.sin(angle) * radii[1]], axis=1)
        self.fill(ring + np.asarray(centre), colour)

    def tint(self, mask: NDArray[np.float32], colour: Colour, strength: float) -> None:
        """Mix `colour` in softly where the CANVAS×CANVAS `mask` (0 to 1) is high; alpha stays."""
        import cv2

        row, column = np.nonzero(mask > 1e-3)
        top, left, bottom, right = row.min(), column.min(), row.max() + 1, column.max() + 1
        scale = _SUPERSAMPLING
        part = self.pixels[top * scale : bottom * scale, left * scale : right * scale]
        size = ((right - left) * scale, (bottom - top) * scale)
        share: Any = cv2.resize(mask[top:bottom, left:right], size, interpolation=cv2.INTER_LINEAR)
        share = np.float32(strength) * share[..., None]
        target = np.asarray(colour, np.float32) * (part[..., 3:] / np.float32(255))
        part[..., :3] = np.rint(part[..., :3] + share * (target - part[..., :3])).clip(0, 255)


@dataclass(frozen=True)
class Head:
    """What all photos of one identity share, computed once.

    Attributes:
        traits: the identity.
        painting: skin, ears, beard and marks; no eyes, mouth, brows or hair yet.
        z: relief.
        normals: of the relief, 3×CANVAS×CANVAS.
    """

    traits: Traits
    painting: NDArray[np.uint8]
    z: geometry.Field
    normals: NDArray[np.float32]


def _mirrored(points: Points, side: int) -> Points:
    mirrored: Points = points * np.array([side, 1.0])
    return mirrored


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (float(min(channel * factor, 255.0)) for channel in colour)
    return red, green, blue


def _soft(points: Points, sigma: float) -> NDArray[np.float32]:
    """Return a polygon as a CANVAS×CANVAS mask with blurred edges."""
    import cv2

    mask = np.zeros((CANVAS, CANVAS), np.float32)
    cv2.fillPoly(mask, [np.rint((points + MARGIN) * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
    blurred: NDArray[np.float32] = cv2.GaussianBlur(mask, (0, 0), sigma).astype(np.float32)
    return blurred


def _paint_beard(painting: _Painting, traits: Traits) -> None:
    if traits.beard == "none":
        return
    outline = geometry.face_outline(traits)
    jaw = outline[outline[:, 1] > traits.nose_y + 4]
    lip_y = traits.mouth_y - traits.upper_lip
    upper = np.array(
        [
            [CENTRE_X + 1.25 * traits.mouth_width, traits.mouth_y + 3],
            [CENTRE_X + 0.8 * traits.mouth_width, lip_y - 5],
            [CENTRE_X - 0.8 * traits.mouth_width, lip_y - 5],
            [CENTRE_X - 1.25 * traits.mouth_width, traits.mouth_y + 3],
        ]
    )
    goatee = np.concatenate([upper, [[CENTRE_X - 12, traits.chin + 2], [CENTRE_X + 12, traits.chin + 2]]])
    full = np.concatenate([jaw, upper[::-1]])
    shapes = {"stubble": full, "moustache": upper, "goatee": goatee, "full": full}
    strength = {"stubble": 0.28, "moustache": 0.8, "goatee": 0.75, "full": 0.85}[traits.beard]
    painting.tint(_soft(shapes[traits.beard], 1.4), _shade(traits.hair, 0.8), strength)


def _paint_marks(painting: _Painting, traits: Traits) -> None:
    rng = np.random.default_rng(traits.seed)
    for side in (-1, 1):
        cheek = np.array([CENTRE_X + side * 0.55 * traits.half_width, traits.nose_y + 4])
        angle = np.linspace(0, 2 * np.pi, 16)
        disc = cheek + np.stack([np.cos(angle) * 9, np.sin(angle) * 7], axis=1)
        painting.tint(_soft(disc, 4.0), mix(traits.skin, (206, 70, 70), 0.5), 0.7 * traits.blush)
        fold = np.array(
            [
                [CENTRE_X + side * (traits.nose_width + 2), traits.nose_y + 2],
                [CENTRE_X + side * (traits.mouth_width + 3), traits.mouth_y - 5],
                [CENTRE_X + side * (traits.mouth_width + 4), traits.mouth_y + 1],
            ]
        )
        painting.line(fold, _shade(traits.skin, 1 - 0.12 * traits.folds), 0.7)
    for _ in range(traits.freckles):
        x, y = CENTRE_X + rng.normal(0, 17), traits.nose_y - 3 + rng.normal(0, 6)
        painting.ellipse((x, y), (0.6, 0.6), mix(traits.skin, (120, 62, 34), 0.4))
    for x, y, radius in traits.moles:
        painting.ellipse((x, y), (radius, radius), mix(traits.skin, (50, 28, 22), 0.75))


def _paint_nose(painting: _Painting, traits: Traits) -> None:
    width, y = traits.nose_width, traits.nose_y
    wing = np.array(
        [[0.62 * width, y - 4.5], [width, y - 1], [0.95 * width, y + 2.5], [0.5 * width, y + 3.6]]
    )
    for side in (-1, 1):
        centre = np.array([CENTRE_X, 0.0])
        painting.line(_mirrored(wing, side) + centre, _shade(traits.skin, 0.8), 0.8)
        nostril = CENTRE_X + side * 0.52 * width
        painting.ellipse((nostril, y + 3.0), (0.2 * width + 0.6, 1.1), mix(traits.skin, _DARK, 0.68))
    under = np.array([[CENTRE_X - 0.3 * width, y + 4.6], [CENTRE_X + 0.3 * width, y + 4.6]])
    painting.line(under, _shade(traits.skin, 0.84), 0.7)


def sculpt(traits: Traits) -> Head:
    """Return what all photos of an identity share."""
    painting = _Painting()
    neck_half = 0.62 * traits.half_width
    neck = CENTRE_X + np.array([-neck_half, neck_half, neck_half + 3, -neck_half - 3])
    painting.fill(np.stack([neck, np.array([80.0, 80.0, 140.0, 140.0])], axis=1), _shade(traits.skin, 0.68))
    for side in (-1, 1):
        ear = (CENTRE_X + side * (traits.half_width + 0.8), traits.eye_y + 11)
        painting.ellipse(ear, (4.5, 10.0), _shade(traits.skin, 0.9))
        painting.ellipse(ear, (2.2, 6.5), _shade(traits.skin, 0.72))
    painting.fill(geometry.face_outline(traits), traits.skin)
    if traits.hair_style in {"bald", "receding", "short"}:
        painting.tint(_soft(geometry.hair_outline(traits, 0.0), 3.0), traits.hair, 0.25)
    _paint_beard(painting, traits)
    _paint_marks(painting, traits)
    _paint_nose(painting, traits)
    z = geometry.relief(traits)
    return Head(traits, painting.pixels, z, geometry.normals(z))


def _paint_eyes(painting: _Painting, traits: Traits, shot: Conditions) -> None:
    outline = geometry.eye_opening(traits, shot.eye_open)
    middle = len(outline) // 2
    upper = outline[: middle + 1]
    lid = mix(_shade(traits.skin, 0.62), _DARK, traits.lid)
    for side in (-1, 1):
        eye = np.array([CENTRE_X + side * traits.eye_spacing, traits.eye_y])
        socket = eye + _mirrored(outline * np.array([1.12, 1.5]) + np.array([0.0, -0.8]), side)
        painting.fill(socket, _shade(traits.skin, 0.88))
        painting.fill(eye + _mirrored(outline, side), _WHITE)
        _paint_iris(painting, traits, shot, eye)
        # The iris reaches under the lids: paint the lids over it again.
        for edge, away in ((upper, -1.0), (outline[middle:], 1.0)):
            band = np.concatenate([edge, edge[::-1] + np.array([0.0, away * 2.4])])
            painting.fill(eye + _mirrored(band, side), _shade(traits.skin, 0.9))
        crease = upper * np.array([1.05, 1.0]) + np.array([0.0, -2.6])
        painting.line(eye + _mirrored(crease, side), _shade(traits.skin, 0.76), 0.6)
        painting.line(eye + _mirrored(upper, side), lid, 0.7 + 0.7 * traits.lid)
        painting.line(eye + _mirrored(outline[middle:], side), _shade(traits.skin, 0.7), 0.5)


def _paint_iris(painting: _Painting, traits: Traits, shot: Conditions, eye: Points) -> None:
    radius = traits.iris_radius
    x, y = float(eye[0]) + shot.gaze[0], float(eye[1]) + shot.gaze[1] - 0.2
    painting.ellipse((x, y), (radius, min(radius, traits.eye_height + 1.6)), traits.iris)
    painting.ellipse((x, y), (0.45 * radius, 0.45 * radius), _DARK)
    painting.ellipse((x + 2.2 * shot.light[0], y - 0.9), (0.55, 0.55), (250, 250, 250))


def _paint_brows(painting: _Painting, traits: Traits, shot: Conditions) -> None:
    colour = mix(_shade(traits.hair, 0.8), traits.skin, 0.18)
    for side in (-1, 1):
        eye = np.array([CENTRE_X + side * traits.eye_spacing, traits.eye_y - shot.brow_raise])
        painting.fill(eye + _mirrored(geometry.brow(traits), side), colour)


def _paint_mouth(painting: _Painting, traits: Traits, shot: Conditions) -> None:
    mouth = geometry.mouth(traits, shot)
    painting.fill(mouth.lips, traits.lips)
    if shot.mouth_open > 0.12:
        painting.fill(mouth.opening, (70, 26, 28))
        if shot.smile > 0.1:
            half = len(mouth.line)
            teeth = mouth.opening.copy()
            teeth[half:] = mouth.line[::-1] + 0.6 * (mouth.opening[half:] - mouth.line[::-1])
            painting.fill(teeth, (228, 222, 212))
    painting.line(mouth.line, _shade(traits.lips, 0.6), 0.6)


def _paint_hair(painting: _Painting, traits: Traits, shift: float) -> None:
    if traits.hair_style == "bald":
        return
    outline = geometry.hair_outline(traits, shift)
    painting.fill(outline, traits.hair)
    rng = np.random.default_rng(traits.seed + 1)
    edge = geometry.hairline(traits, shift)
    inner = edge[rng.integers(2, len(edge) - 2, size=26)]
    crown = np.stack([CENTRE_X + 0.6 * (inner[:, 0] - CENTRE_X) + 8 * traits.parting, np.full(26, 4.0)], 1)
    tips = inner + rng.uniform(0.25, 0.75, (26, 1)) * (crown - inner)
    for tone in (0.72, 1.32):
        chosen = slice(None, 13) if tone < 1 else slice(13, None)
        strands = [np.stack([a, b]) for a, b in zip(inner[chosen], tips[chosen], strict=True)]
        painting.line(strands, _shade(traits.hair, tone), 0.7)


def _paint_hair_behind(traits: Traits, shift: float) -> _Painting:
    """Return what lies behind the head: long hair."""
    painting = _Painting()
    if traits.hair_style == "long":
        half = traits.half_width + 3 + 0.8 * traits.hair_volume + shift
        angle = np.linspace(np.pi, 2 * np.pi, 30)
        over = np.stack([CENTRE_X + half * np.cos(angle), 52 + 52 * np.sin(angle)], axis=1)
        ends = np.array([[CENTRE_X + half + 3, 140.0], [CENTRE_X - half - 3, 140.0]])
        painting.fill(np.concatenate([over, ends]), _shade(traits.hair, 0.78))
    return painting


def _paint_glasses(painting: _Painting, traits: Traits) -> None:
    colour = mix((30, 28, 30), traits.iris, 0.25)
    angle = np.linspace(0, 2 * np.pi, 33)
    ring = np.stack([np.cos(angle) * 12.5, np.sin(angle) * 9.0], axis=1) * traits.glasses_size
    for side in (-1, 1):
        centre = np.array([CENTRE_X + side * (traits.eye_spacing + 0.6), traits.eye_y + 1.5])
        painting.line(ring + centre, colour, 1.3)
        outer = centre + np.array([side * 12.5 * traits.glasses_size, -1.5])
        painting.line(np.stack([outer, outer + np.array([side * 14.0, -1.5])]), colour, 1.3)
    inner = traits.eye_spacing + 0.6 - 12.5 * traits.glasses_size
    bridge = np.array([[CENTRE_X - inner, traits.eye_y], [CENTRE_X + inner, traits.eye_y]])
    painting.line(bridge, colour, 1.2)


def _paint(head: Head, shot: Conditions) -> NDArray[np.uint8]:
    """Return the identity with this expression, flat, CANVAS×CANVAS×4 premultiplied."""
    import cv2

    traits = head.traits
    painting = _Painting(head.painting.copy())
    painting.fill(np.array([[-16.0, 126], [128, 126], [128, 144], [-16, 144]]), shot.clothes)
    _paint_mouth(painting, traits, shot)
    _paint_eyes(painting, traits, shot)
    _paint_brows(painting, traits, shot)
    _paint_hair(painting, traits, shot.hair_shift)
    if traits.glasses:
        _paint_glasses(painting, traits)
    flat: Any = cv2.resize(painting.pixels, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
    if traits.hair_style == "long":
        behind = cv2.resize(
            _paint_hair_behind(traits, shot.hair_shift).pixels, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA
        )
        uncovered = 255 - flat[..., 3:].astype(np.uint16)
        flat = (flat + (behind * uncovered + 127) // 255).astype(np.uint8)
    painted: NDArray[np.uint8] = flat
    return painted


def _lit(head: Head, shot: Conditions) -> NDArray[np.float32]:
    """Return the factor and highlight of the light over the canvas: diffuse and specular, 2 planes."""
    light = np.asarray(shot.light, np.float32)
    facing = np.tensordot(light, head.normals, axes=1)
    diffuse = np.float32(shot.ambient) + np.float32(1.08 - shot.ambient) * np.maximum(facing, 0.0)
    halfway = light + np.array([0, 0, 1], np.float32)
    halfway /= np.float32(np.sqrt((halfway * halfway).sum()))
    glance = np.maximum(np.tensordot(halfway, head.normals, axes=1), 0.0)
    for _ in range(4):  # glance¹⁶, by multiplications alone so that every machine agrees
        glance = glance * glance
    return np.stack([diffuse, np.float32(60 * shot.shine) * glance], axis=2).astype(np.float32)


def _camera(linear: NDArray[np.float32], shot: Conditions) -> NDArray[np.uint8]:
    """Return what the camera makes of the scene (grey levels), as bytes."""
    import cv2

    tone: Any = np.clip(linear * np.float32(shot.exposure / 255), 0.0, 1.0)
    tone = 255 * tone ** np.float32(shot.contrast)
    if shot.blur > 0.3:
        tone = cv2.GaussianBlur(tone, (7, 7), shot.blur)
    noise = np.random.default_rng(shot.seed).standard_normal(tone.shape, dtype=np.float32)
    tone += np.float32(shot.noise) * noise
    pixels: NDArray[np.uint8] = np.rint(tone).clip(0, 255).astype(np.uint8)
    return pixels


def render(head: Head, shot: Conditions) -> NDArray[np.uint8]:
    """Return one photo, 3×112×112 RGB bytes, aligned to the ArcFace template."""
    import cv2

    view = geometry.align(head.traits, shot, head.z)
    column, row = geometry.sampling_map(view, head.z, SIZE)
    seen: Any = cv2.remap(_paint(head, shot), column, row, cv2.INTER_LINEAR).astype(np.float32)
    light: Any = cv2.remap(_lit(head, shot), column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    colours = np.asarray(shot.background, np.float32).reshape(4, 4, 3)
    behind = cv2.resize(colours, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    alpha = seen[..., 3:] / 255
    identity = seen[..., :3] * light[..., :1] + light[..., 1:] * alpha
    scene = identity * np.asarray(shot.light_colour, np.float32) + (1 - alpha) * behind
    return np.ascontiguousarray(_camera(scene, shot).transpose(2, 0, 1))
