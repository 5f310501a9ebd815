"""A whole photo as it is posted and scraped: the cloak pasted back, resized, compressed, the face found and aligned.

Faces are put back and found by the code that changes people's own photos (`bench.faces.paste_back`,
`bench.faces.search`). Pure functions of pixels; what is posted of whom is a protocol's.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence

import numpy as np

from bench.contracts import Posting, WholePhoto
from bench.errors import DataError, UsageError
from bench.faces.alignment import (
    TEMPLATE,
    Landmarks,
    Pixels,
    Points,
    align,
    estimate_similarity,
)
from bench.faces.paste_back import paste_back, place_at
from bench.faces.search import find_faces
from bench.faces.whole_photo import PhotoFile

_SAME_FACE = float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))
"""Pixels of the crop, the distance of its eyes: a face whose middle is found further off is another one."""


def check_detector() -> None:
    """Check that faces can be looked for, before any work.

    Raises:
        UsageError: the detector is not installed.
    """
    if importlib.util.find_spec("facenet_pytorch") is None:
        raise UsageError(
            "the face detector is not installed. Run pip install 'cloakbench[detector]', or leave detection out "
            "(detect=false)."
        )


def pasted(photo: WholePhoto, wanted: Pixels) -> Pixels:
    """Return the H×W×3 uint8 photo whose crop is as close to another as eight bits allow.

    Args:
        photo: as it was taken; it stays as it is.
        wanted: 112×112×3 uint8.

    Raises:
        DataError: its points determine no crop.
    """
    file = PhotoFile(photo.pixels.copy())
    paste_back(file, place_at(photo.points, *photo.pixels.shape[:2]), wanted)
    return file.pixels


def scraped(photo: WholePhoto, posting: Posting) -> Pixels | None:
    """Return the 112×112×3 uint8 crop that a tracker makes of a photo once it was posted; None where it finds no face.

    Args:
        photo: as its owner has it, with where the face lies.
        posting: what becomes of it.

    Raises:
        UsageError: the detector is not installed.
        DataError: the photo's own points determine no crop.
    """
    pixels, points = resized(photo, posting.scale)
    if posting.quality is not None:
        pixels = compressed(pixels, posting.quality)
    if not posting.detected:
        return align(pixels, points)
    try:
        found = own_face(find_faces(pixels), points)
        return None if found is None else align(pixels, found.points)
    except (
        DataError
    ):  # the detector stumbles where it finds nothing inside the photo, or its points are of no face
        return None


def resized(photo: WholePhoto, scale: float) -> tuple[Pixels, Points]:
    """Return a photo with its sides a share of what they were, by Lanczos' filter, and its points moved along."""
    if scale == 1:
        return photo.pixels, photo.points
    from PIL import Image

    height, width = photo.pixels.shape[:2]
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = np.asarray(Image.fromarray(photo.pixels).resize(size, Image.Resampling.LANCZOS))
    # Pillow's pixels are areas: the centre of the first is half a pixel from the edge, before and after.
    return small, (photo.points + 0.5) * (np.array(size) / (width, height)) - 0.5


def compressed(pixels: Pixels, quality: int) -> Pixels:
    """Return a photo after JPEG: colours halved both ways, as most encoders do by default."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))


def own_face(found: Sequence[Landmarks], points: Points) -> Landmarks | None:
    """Return that of several faces which lies where the photo's own does; None where none does.

    A tracker that scrapes photos of somebody has the name of a face in it, so a bystander's is not taken for it.

    Args:
        found: by the detector.
        points: 5×2, of the photo's own face.
    """
    to_crop = estimate_similarity(points)

    def off(face: Landmarks) -> float:
        middle = to_crop[:, :2] @ face.points.mean(0) + to_crop[:, 2]
        return float(np.linalg.norm(middle - TEMPLATE.mean(0)))

    nearest = min(found, key=off, default=None)
    return None if nearest is None or off(nearest) > _SAME_FACE else nearest
