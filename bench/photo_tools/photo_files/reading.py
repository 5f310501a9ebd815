"""A photo file → its pixels and all that goes back into the file; nothing is lost unsaid."""

from __future__ import annotations

import io
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import DataError
from bench.faces.photos import MAX_PIXELS, opened
from bench.faces.whole_photo import PhotoFile, Samples
from bench.photo_tools.photo_files.exif import ORIENTATION, kept_exif
from bench.photo_tools.photo_files.kinds import is_heif
from bench.photo_tools.photo_files.png import COLOUR_CHUNKS, chunks

if TYPE_CHECKING:
    from PIL.Image import Image

_ROWS_OF = 4_000_000
"""Pixels that are copied out of Pillow at once."""


def read(payload: bytes, name: str = "it") -> PhotoFile:
    """Return a photo with all that goes back into its file.

    Args:
        payload: the file's content.
        name: what to call it in an error.

    Raises:
        DataError: empty, no image, truncated, animated, of several pages, too large, or of a depth or colour space
            that could not be kept.
    """
    if not payload:
        raise DataError(f"{name} is empty. Replace or remove it.")
    if is_heif(payload):
        photo = _read_heif(payload, name)
    else:
        with opened(payload, name) as image:
            photo = _decoded(image, payload, name)
    return replace(photo, sha256=sha256(payload).hexdigest())


def _decoded(image: Image, payload: bytes, name: str) -> PhotoFile:
    form = str(image.format)
    frames = int(getattr(image, "n_frames", 1))
    notes = []
    if frames > 1 and form == "MPO":  # phones put a gain map or a second view behind the photo
        notes.append(f"{frames - 1} more pictures inside the file are not kept")
    elif frames > 1:
        what = f"has {frames} pages" if form == "TIFF" else f"is animated ({frames} frames)"
        raise DataError(f"{name} {what}. Save the one you want as a photo of its own.")
    turned_tiff = form == "TIFF" and image.tag_v2.get(ORIENTATION, 1) != 1  # type: ignore[attr-defined]
    image.load()  # turns a TIFF upright
    if turned_tiff and _bits(image, payload) == 16:
        raise DataError(f"{name} is a 16-bit TIFF that is to be shown turned. Save it upright.")
    pixels, converted, keeps_profile = _pixels(image, payload, name)
    orientation, exif, exif_notes = kept_exif(image)
    dpi = image.info.get("dpi")
    return PhotoFile(
        pixels=pixels,
        orientation=orientation,
        format=form,
        icc=(image.info.get("icc_profile") or b"") if keeps_profile else b"",
        exif=exif,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(value > 0 for value in dpi) else None,
        colour=b"".join(whole for kind, whole in chunks(payload) if kind in COLOUR_CHUNKS)
        if form == "PNG"
        else b"",
        notes=(*notes, *converted, *exif_notes),
    )


def _pixels(image: Image, payload: bytes, name: str) -> tuple[Samples, list[str], bool]:
    """Return the pixels, what was converted, and whether the profile still says what they mean."""
    if _bits(image, payload) == 16:
        return _sixteen_bits(image, payload, name), [], True
    mode = image.mode
    if mode in {"L", "LA", "RGB", "RGBA"} and not (mode in {"L", "RGB"} and image.has_transparency_data):
        return _array(image), [], True
    if mode == "1":
        return _array(image.convert("L")), ["1 bit a pixel became 8"], True
    if mode in {"P", "PA", "L", "RGB", "RGBa", "La"}:
        alpha = image.has_transparency_data
        grey = mode in {"L", "La"}
        return _array(image.convert(("LA" if grey else "RGBA") if alpha else "RGB")), [], True
    if mode == "CMYK":
        return _array(_from_cmyk(image)), ["CMYK became sRGB"], False
    if mode == "YCbCr":
        return _array(image.convert("RGB")), ["YCbCr became RGB"], True
    raise DataError(
        f"{name} has pixels of the kind '{mode}', which would lose by the change. Save it as 8-bit RGB."
    )


def _array(image: Image) -> Samples:
    """Return the pixels, to be written into; row by row, since Pillow would copy a large photo three times."""
    pixels = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    rows = max(1, _ROWS_OF // image.width)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        part = np.asarray(image.crop((0, top, image.width, bottom)))
        pixels[top:bottom] = part if part.ndim == 3 else part[..., None]
    return pixels


def _bits(image: Image, payload: bytes) -> int:
    """Return the bits of one value; Pillow itself reads 16-bit colours as 8."""
    if image.mode.startswith("I;16"):
        return 16
    if image.format == "PNG" and len(payload) > 24:
        return payload[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (8,))))  # type: ignore[attr-defined]
    return 8


def _sixteen_bits(image: Image, payload: bytes, name: str) -> Samples:
    import cv2

    # Without turning and without conversion; colours come as BGR.
    read = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
    size = (image.height, image.width)
    if read is None or read.dtype != np.uint16 or read.shape[:2] != size:
        raise DataError(f"{name} has 16 bits a channel in a layout that is not read. Save it as 8-bit RGB.")
    pixels = read if read.ndim == 3 else read[..., None]
    is_grey = image.mode.startswith("LA") or (image.format == "PNG" and payload[25] == 4)
    if is_grey and pixels.shape[2] == 4:
        return np.ascontiguousarray(pixels[..., 2:])
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2])
    if order is None:
        raise DataError(f"{name} has {pixels.shape[2]} channels of 16 bits. Save it as 8-bit RGB.")
    return np.ascontiguousarray(pixels[..., order])


def _from_cmyk(image: Image) -> Image:
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            found = None
        if found is not None:
            return found
    return image.convert("RGB")


def _read_heif(payload: bytes, name: str) -> PhotoFile:
    try:
        import pi_heif  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise DataError(
            f"{name} is a HEIC photo, which this installation does not read. Run pip install 'cloakbench[heic]'."
        ) from error
    try:
        container = pi_heif.open_heif(io.BytesIO(payload))
        width, height = container.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{name} is {width}×{height} pixels, the most is {MAX_PIXELS:,}. Scale it down.")
        pictures, depth = len(container), int(container.info.get("bit_depth", 8))
        image = container[container.primary_index].to_pillow()  # turned upright, as the file says
    except (OSError, ValueError, EOFError, RuntimeError, IndexError, SyntaxError) as error:
        raise DataError(f"{name} cannot be decoded ({error}). Replace or remove it.") from error
    notes = [f"{pictures - 1} more pictures inside the file are not kept"] if pictures > 1 else []
    notes += [f"{depth} bits a channel became 8"] if depth > 8 else []
    pixels, converted, keeps = _pixels(image, b"", name)
    _, exif, exif_notes = kept_exif(image)
    return PhotoFile(
        pixels=pixels,
        format="HEIF",
        icc=(image.info.get("icc_profile") or b"") if keeps else b"",
        exif=exif,
        notes=(*notes, *converted, *exif_notes),
    )
