"""What makes a synthetic identity (traits) and what makes one photo of them (conditions).

Lengths are template units: pixels of the 112×112 ArcFace crop, before pose. Here: the two records and how
they are drawn at random. Not here: shapes (`_face_geometry`) and pixels (`_face_renderer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Colour: TypeAlias = tuple[float, float, float]
"""Red, green, blue in grey levels, 0 to 255."""

HairStyle: TypeAlias = Literal["bald", "short", "fringe", "parted", "long", "curly", "receding"]
Beard: TypeAlias = Literal["none", "stubble", "moustache", "goatee", "full"]

HAIR_STYLES: tuple[HairStyle, ...] = ("bald", "short", "fringe", "parted", "long", "curly", "receding")
_HAIR_SHARES = (0.03, 0.25, 0.15, 0.18, 0.19, 0.1, 0.1)
_BEARDS: tuple[Beard, ...] = ("none", "stubble", "moustache", "goatee", "full")
_BEARD_SHARES = (0.6, 0.14, 0.07, 0.07, 0.12)

_SKIN: tuple[Colour, ...] = (
    (243, 212, 194),
    (226, 182, 152),
    (198, 146, 112),
    (152, 104, 76),
    (104, 68, 50),
)
_HAIR: tuple[Colour, ...] = (
    (28, 24, 24),
    (58, 40, 30),
    (96, 64, 40),
    (150, 106, 62),
    (206, 172, 116),
    (146, 66, 36),
    (158, 156, 154),
)
_HAIR_COLOUR_SHARES = (0.24, 0.22, 0.18, 0.12, 0.1, 0.07, 0.07)
_DARK_SKIN_HAIR_COLOUR_SHARES = (0.55, 0.27, 0.08, 0.0, 0.0, 0.02, 0.08)
_IRIS: tuple[Colour, ...] = ((54, 34, 22), (92, 60, 32), (104, 106, 60), (88, 122, 150), (70, 110, 80))
_CLOTHES: tuple[Colour, ...] = ((40, 44, 60), (210, 208, 204), (120, 36, 40), (52, 84, 66), (88, 92, 100))


@dataclass(frozen=True)
class Traits:
    """One synthetic identity; every photo of them shares these.

    Attributes:
        skin: colour of lit skin.
        hair: colour of hair, brows and beard.
        iris: colour of the iris.
        lips: colour of the lips.
        half_width: of the face at the cheekbones.
        jaw: half width at the mouth's height as a share of `half_width`.
        chin: y of the chin.
        chin_width: exponent of the jaw's curve; larger is squarer.
        eye_spacing: half the distance between the pupils.
        eye_y: y of the pupils.
        eye_width: half the width of an eye.
        eye_height: half the height of an open eye.
        eye_slant: rise of the outer corner over its distance from the inner, as a slope.
        iris_radius: radius of the iris.
        lid: darkness of the upper lid's edge, 0 to 1.
        brow_gap: height of the brow over the pupil.
        brow_thickness: at its inner end.
        brow_arch: rise of the middle over the ends.
        brow_slant: fall from the middle of the face outwards (positive: outer end lower).
        brow_length: half the length.
        nose_y: y of the tip.
        nose_width: half the width at the nostrils.
        nose_bridge: half the width of the bridge.
        nose_depth: how far the tip stands out.
        mouth_y: y of the line between the lips.
        mouth_width: half the width at rest.
        upper_lip: thickness.
        lower_lip: thickness.
        cupid: depth of the upper lip's notch.
        cheekbone: how far the cheekbones stand out.
        brow_ridge: how far the brow ridge stands out.
        hair_style: cut.
        hairline: y of the hairline in the middle.
        hair_volume: how far the hair stands out over the skull.
        parting: x offset of the parting, from −1 (their right) to 1.
        beard: kind of beard.
        glasses: whether they always wear glasses.
        glasses_size: scale of the frame.
        blush: redness of the cheeks, 0 to 1.
        folds: depth of the lines from nose to mouth, 0 to 1.
        freckles: number of freckles.
        moles: (x, y, radius) of each mole.
        seed: seeds what has no name of its own: the place of each freckle and strand.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    half_width: float
    jaw: float
    chin: float
    chin_width: float
    eye_spacing: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_slant: float
    iris_radius: float
    lid: float
    brow_gap: float
    brow_thickness: float
    brow_arch: float
    brow_slant: float
    brow_length: float
    nose_y: float
    nose_width: float
    nose_bridge: float
    nose_depth: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    cupid: float
    cheekbone: float
    brow_ridge: float
    hair_style: HairStyle
    hairline: float
    hair_volume: float
    parting: float
    beard: Beard
    glasses: bool
    glasses_size: float
    blush: float
    folds: float
    freckles: int
    moles: tuple[tuple[float, float, float], ...]
    seed: int


@dataclass(frozen=True)
class Conditions:
    """One photo: pose, expression, light, place and camera.

    Attributes:
        yaw: head turned to its left, radians.
        pitch: head raised, radians.
        roll: what the aligner left of the tilt, radians.
        shift: error of the aligner in x and y, pixels.
        zoom: error of the aligner in scale, as a factor.
        smile: −0.4 (sad) to 1 (broad smile).
        mouth_open: 0 (closed) to 1.
        eye_open: opening of the eyes as a share of the open eye.
        brow_raise: pixels.
        gaze: offset of the pupils in x and y, pixels.
        hair_shift: how the hair fell that day, pixels.
        light: unit vector towards the light (x right, y down, z to the camera).
        ambient: share of light that comes from everywhere.
        light_colour: factor for red, green and blue.
        shine: strength of the highlight on skin, 0 to 1.
        exposure: factor on all pixels.
        contrast: exponent of the tone curve.
        blur: σ of the lens blur, pixels.
        noise: σ of the sensor's noise, grey levels.
        clothes: colour below the chin.
        background: 4×4 colours, row by row.
        seed: seeds the noise.
    """

    yaw: float
    pitch: float
    roll: float
    shift: tuple[float, float]
    zoom: float
    smile: float
    mouth_open: float
    eye_open: float
    brow_raise: float
    gaze: tuple[float, float]
    hair_shift: float
    light: tuple[float, float, float]
    ambient: float
    light_colour: Colour
    shine: float
    exposure: float
    contrast: float
    blur: float
    noise: float
    clothes: Colour
    background: tuple[Colour, ...]
    seed: int


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from a bell over [low, high] (mean of two uniforms): extremes are rarer, none lies outside."""
    return float(low + (high - low) * (rng.random() + rng.random()) / 2)


def _bell(rng: np.random.Generator, deviation: float, limit: float) -> float:
    """Draw from N(0, deviation²), clipped to ±limit."""
    return float(min(max(rng.normal(0.0, deviation), -limit), limit))


def _varied(rng: np.random.Generator, colour: Colour, deviation: float) -> Colour:
    """Move a colour: all channels together, and each a third as much alone."""
    together = rng.normal(0.0, deviation)
    red, green, blue = (
        float(min(max(channel + together + rng.normal(0.0, deviation / 3), 0.0), 255.0)) for channel in colour
    )
    return red, green, blue


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Return (1 − share) · one + share · other."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(one, other, strict=True))
    return red, green, blue


def _skin(rng: np.random.Generator) -> Colour:
    place = rng.random() * (len(_SKIN) - 1)
    lower = int(place)
    return _varied(rng, mix(_SKIN[lower], _SKIN[lower + 1], place - lower), 6.0)


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw an identity.

    Args:
        rng: the generator of this identity and of nothing else.
    """
    skin = _skin(rng)
    style = HAIR_STYLES[int(rng.choice(len(HAIR_STYLES), p=_HAIR_SHARES))]
    # Long hair and a beard together are rare enough to leave out.
    beard = _BEARDS[int(rng.choice(len(_BEARDS), p=_BEARD_SHARES))] if style != "long" else "none"
    low, high = {"fringe": (30.0, 40.0), "receding": (12.0, 20.0)}.get(style, (17.0, 30.0))
    shares = _DARK_SKIN_HAIR_COLOUR_SHARES if skin[1] < 130 else _HAIR_COLOUR_SHARES
    return Traits(
        skin=skin,
        hair=_varied(rng, _HAIR[int(rng.choice(len(_HAIR), p=shares))], 9.0),
        iris=_varied(rng, _IRIS[int(rng.choice(len(_IRIS)))], 8.0),
        lips=mix(skin, _varied(rng, (172, 72, 78), 14.0), _between(rng, 0.25, 0.85)),
        half_width=_between(rng, 35.0, 46.0),
        jaw=_between(rng, 0.62, 0.96),
        chin=_between(rng, 105.0, 120.0),
        chin_width=_between(rng, 1.7, 3.6),
        eye_spacing=_between(rng, 15.2, 20.0),
        eye_y=_between(rng, 49.5, 54.0),
        eye_width=_between(rng, 5.6, 9.2),
        eye_height=_between(rng, 1.9, 4.5),
        eye_slant=_between(rng, -0.22, 0.3),
        iris_radius=_between(rng, 2.4, 3.7),
        lid=_between(rng, 0.1, 1.0),
        brow_gap=_between(rng, 6.0, 12.5),
        brow_thickness=_between(rng, 0.8, 4.0),
        brow_arch=_between(rng, -0.6, 4.0),
        brow_slant=_between(rng, -2.6, 2.6),
        brow_length=_between(rng, 7.0, 12.0),
        nose_y=_between(rng, 67.0, 78.0),
        nose_width=_between(rng, 4.2, 10.4),
        nose_bridge=_between(rng, 2.0, 5.0),
        nose_depth=_between(rng, 6.0, 15.0),
        mouth_y=_between(rng, 88.0, 97.0),
        mouth_width=_between(rng, 10.0, 18.5),
        upper_lip=_between(rng, 0.9, 4.6),
        lower_lip=_between(rng, 1.5, 6.0),
        cupid=_between(rng, 0.0, 1.8),
        cheekbone=_between(rng, 0.0, 4.5),
        brow_ridge=_between(rng, 0.0, 4.0),
        hair_style=style,
        hairline=_between(rng, low, high),
        hair_volume=_between(rng, 2.0, 11.0),
        parting=_between(rng, -0.9, 0.9),
        beard=beard,
        glasses=bool(rng.random() < 0.16),
        glasses_size=_between(rng, 0.85, 1.25),
        blush=_between(rng, 0.0, 0.8),
        folds=_between(rng, 0.0, 1.0),
        freckles=int(rng.integers(15, 50)) if rng.random() < 0.15 else 0,
        moles=tuple(
            (float(rng.uniform(26, 86)), float(rng.uniform(40, 104)), float(rng.uniform(0.7, 1.5)))
            for _ in range(int(rng.integers(0, 3)))
        ),
        seed=int(rng.integers(0, 2**62)),
    )


def _light(rng: np.random.Generator) -> tuple[float, float, float]:
    x, y, z = rng.normal(0.0, 0.6), -abs(rng.normal(0.25, 0.4)), 1.0
    length = float((x * x + y * y + z * z) ** 0.5)
    return float(x / length), float(y / length), z / length


def draw_conditions(rng: np.random.Generator) -> Conditions:
    """Draw the circumstances of one photo.

    Args:
        rng: the generator of this image and of nothing else.
    """
    warmth, tint = _bell(rng, 0.07, 0.16), _bell(rng, 0.02, 0.05)
    scene = (float(rng.uniform(25, 225)),) * 3
    return Conditions(
        yaw=_bell(rng, 0.22, 0.5),
        pitch=_bell(rng, 0.12, 0.28),
        roll=_bell(rng, 0.025, 0.07),
        shift=(_bell(rng, 0.8, 2.0), _bell(rng, 0.8, 2.0)),
        zoom=1 + _bell(rng, 0.02, 0.05),
        smile=float(rng.choice([0.0, 0.0, 1.0]) * rng.uniform(0.3, 1.0) + rng.uniform(-0.25, 0.2)),
        mouth_open=float(max(0.0, rng.uniform(-0.8, 0.9))),
        eye_open=_between(rng, 0.5, 1.2),
        brow_raise=_bell(rng, 0.9, 2.2),
        gaze=(_bell(rng, 1.1, 2.4), _bell(rng, 0.4, 0.9)),
        hair_shift=_bell(rng, 1.4, 3.0),
        light=_light(rng),
        ambient=float(rng.uniform(0.3, 0.75)),
        light_colour=(1 + warmth, 1 + tint, 1 - warmth),
        shine=float(rng.uniform(0.0, 0.35)),
        exposure=float(rng.uniform(0.75, 1.22)),
        contrast=float(rng.uniform(0.8, 1.3)),
        blur=float(rng.uniform(0.0, 1.1)),
        noise=float(rng.uniform(1.0, 6.5)),
        clothes=_varied(rng, _CLOTHES[int(rng.choice(len(_CLOTHES)))], 14.0),
        background=tuple(_varied(rng, scene, 34.0) for _ in range(16)),
        seed=int(rng.integers(0, 2**62)),
    )
