"""A photo file with all that must survive a change of some of its pixels: size, colours, orientation, profile, EXIF.

What lives here: decoding without losing anything unsaid, and encoding again. What must not: the decoded photo itself
(`bench.faces.whole_photo`), faces and what is done to them.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np

from bench.errors import DataError
from bench.faces.photos import MAX_PIXELS, _opened
from bench.faces.whole_photo import PhotoFile, Samples

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

Kind = Literal["JPEG", "PNG", "WEBP"]
"""What is written."""

Format = Literal["keep", "png", "jpeg"]
"""What is requested."""

FORMATS: Final[tuple[str, ...]] = get_args(Format)

SUFFIX_OF: Mapping[Kind, str] = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
    | {".heic", ".heif", ".avif"}
)
"""File name endings of photos, in any case."""

JPEG_QUALITY = 95
"""With full colour resolution (4:4:4): what the cloak loses by it is measured in docs/tools.md."""

_READ = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF")
"""Formats that Pillow is let loose on; others are rare among photos, and one of them runs programs."""

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

_ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_GPS_IFD = 0x8825
_KEPT_TAGS = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, _ORIENTATION})
"""Of EXIF's first directory: description, camera, software, date, artist, copyright, orientation.

All else there says how a TIFF lies in its file, or holds a thumbnail of the photo as it was.
"""

_KEPT_DETAILS = frozenset(
    {
        0x829A,
        0x829D,
        0x8822,
        0x8827,
        0x8830,
        0x8831,
        0x8832,
        0x9000,
        0x9003,
        0x9004,
        0x9010,
        0x9011,
        0x9012,
        0x9101,
    }
    | {
        0x9102,
        0x9201,
        0x9202,
        0x9203,
        0x9204,
        0x9205,
        0x9206,
        0x9207,
        0x9208,
        0x9209,
        0x920A,
        0x9290,
        0x9291,
        0x9292,
    }
    | {
        0xA000,
        0xA001,
        0xA002,
        0xA003,
        0xA20E,
        0xA20F,
        0xA210,
        0xA217,
        0xA300,
        0xA301,
        0xA401,
        0xA402,
        0xA403,
        0xA404,
    }
    | {
        0xA405,
        0xA406,
        0xA407,
        0xA408,
        0xA409,
        0xA40A,
        0xA40C,
        0xA420,
        0xA430,
        0xA431,
        0xA432,
        0xA433,
        0xA434,
        0xA435,
    }
)
"""Of EXIF's second directory: exposure, dates, colour, camera, lens and owner.

Not maker's notes, comments and private tags, any of which may hold a smaller picture of the photo as it was.
"""

_KEPT_PLACE = frozenset(range(0x20))
"""Of the directory of the place: what EXIF 3.0 defines."""

_LONGEST_VALUE = 2_000
"""Bytes, or numbers, of a value that is kept of EXIF: a picture needs more."""

_JPEG_BEGIN = b"\xff\xd8\xff"

_PNG_COLOUR = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"})
"""Chunks that say, besides the profile, what colours a PNG's values mean."""

_PNG_KEPT = _PNG_COLOUR | {b"iCCP", b"tRNS", b"pHYs", b"bKGD", b"sBIT", b"hIST", b"sPLT"}
"""Chunks beside the pixels' own that hold neither a place nor a picture."""

_ROWS_OF = 4_000_000
"""Pixels that are copied out of Pillow at once."""

_MAX_EXIF = 65_000
"""Bytes of EXIF that fit into a JPEG."""


# -- reading ---------------------------------------------------------------------------------------------------


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
        with _opened_photo(payload, name) as image:
            photo = _decoded(image, payload, name)
    return replace(photo, sha256=sha256(payload).hexdigest())


@contextmanager
def _opened_photo(source: Path | bytes, name: str = "") -> Iterator[Image]:
    # Private, and left so: the source of `bench.faces.photos` is part of every dataset's cache addresses.
    with _opened(source, name) as image:
        if image.format not in _READ:
            raise DataError(
                f"{name or str(source)} is {image.format}, no kind of photo that is read. Save it as PNG or JPEG."
            )
        yield image


def is_heif(payload: bytes) -> bool:
    """Say whether a file begins as HEIC and HEIF files do; AVIF is of the same family and is not meant."""
    return payload[4:8] == b"ftyp" and payload[8:12] in _HEIF_BRANDS


def _decoded(image: Image, payload: bytes, name: str) -> PhotoFile:
    form = str(image.format)
    frames = int(getattr(image, "n_frames", 1))
    notes = []
    if frames > 1 and form == "MPO":  # phones put a gain map or a second view behind the photo
        notes.append(f"{frames - 1} more pictures inside the file are not kept")
    elif frames > 1:
        what = f"has {frames} pages" if form == "TIFF" else f"is animated ({frames} frames)"
        raise DataError(f"{name} {what}. Save the one you want as a photo of its own.")
    turned_tiff = form == "TIFF" and image.tag_v2.get(_ORIENTATION, 1) != 1  # type: ignore[attr-defined]
    image.load()  # turns a TIFF upright
    if turned_tiff and _bits(image, payload) == 16:
        raise DataError(f"{name} is a 16-bit TIFF that is to be shown turned. Save it upright.")
    pixels, converted, keeps_profile = _pixels(image, payload, name)
    orientation, exif, exif_notes = _exif(image)
    dpi = image.info.get("dpi")
    return PhotoFile(
        pixels=pixels,
        orientation=orientation,
        format=form,
        icc=(image.info.get("icc_profile") or b"") if keeps_profile else b"",
        exif=exif,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(value > 0 for value in dpi) else None,
        colour=b"".join(whole for kind, whole in _chunks(payload) if kind in _PNG_COLOUR)
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
    _, exif, exif_notes = _exif(image)
    return PhotoFile(
        pixels=pixels,
        format="HEIF",
        icc=(image.info.get("icc_profile") or b"") if keeps else b"",
        exif=exif,
        notes=(*notes, *converted, *exif_notes),
    )


def _exif(image: Image) -> tuple[int, bytes, list[str]]:
    """Return the orientation, what is kept of EXIF, and what is not.

    A thumbnail would show the face as it was, maker's notes may hold one and point to where they lay in the file.
    """
    from PIL import Image as Pillow

    try:
        found = image.getexif()
        orientation = 1 if _only_xmp_turns(image) else int(found.get(_ORIENTATION, 1))
    except (OSError, ValueError, TypeError, SyntaxError, struct.error):
        return 1, b"", ["its EXIF is damaged and is not kept"]
    orientation = orientation if 1 <= orientation <= 8 else 1
    kept = Pillow.Exif()
    for tag in _KEPT_TAGS:
        if tag in found and _is_harmless(found[tag]):
            kept[tag] = found[tag]
    if _ORIENTATION in kept:
        kept[_ORIENTATION] = orientation
    notes = _copy_directories(found, kept)
    return orientation, *_serialised(kept, orientation, notes)


def _copy_directories(found: Exif, kept: Exif) -> list[str]:
    try:
        details = _harmless(found.get_ifd(_EXIF_IFD), _KEPT_DETAILS)
        place = _harmless(found.get_ifd(_GPS_IFD), _KEPT_PLACE)
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, struct.error):
        return ["a part of its EXIF is damaged and is not kept"]
    if details:
        kept[_EXIF_IFD] = details
    if place:
        kept[_GPS_IFD] = place
    return []


def _harmless(directory: Mapping[int, Any], tags: frozenset[int]) -> dict[int, Any]:
    return {tag: value for tag, value in directory.items() if tag in tags and _is_harmless(value)}


def _is_harmless(value: object) -> bool:
    """Say whether a value of EXIF cannot be a picture."""
    if isinstance(value, str):
        value = value.encode("utf-8", "replace") if not value.isascii() else value.encode()
    if isinstance(value, bytes):
        return len(value) <= _LONGEST_VALUE and _JPEG_BEGIN not in value
    return not isinstance(value, tuple) or len(value) <= _LONGEST_VALUE // 8


def _only_xmp_turns(image: Image) -> bool:
    """Say whether the orientation that Pillow gives is XMP's, by which viewers turn no photo."""
    from PIL import Image as Pillow

    info = image.info
    if image.format == "TIFF" or not {"xmp", "XML:com.adobe.xmp"} & info.keys():
        return False
    if "Raw profile type exif" in info:
        return False
    own = Pillow.Exif()
    if info.get("exif"):
        own.load(info["exif"])
    return _ORIENTATION not in own


def _serialised(kept: Exif, orientation: int, notes: list[str]) -> tuple[bytes, list[str]]:
    from PIL import Image as Pillow

    if not dict(kept):
        return b"", notes
    try:
        content = kept.tobytes()
    except (OSError, ValueError, TypeError, KeyError, OverflowError, struct.error, AttributeError):
        content = b""
    if content and len(content) <= _MAX_EXIF:
        return content, notes
    why = "is too long" if content else "cannot be written again"
    only = Pillow.Exif()
    only[_ORIENTATION] = orientation
    return only.tobytes(), [*notes, f"its EXIF {why}; only the orientation is kept"]


def without_location(photo: PhotoFile) -> PhotoFile:
    """Return the photo without the place where it was taken."""
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    if photo.exif:
        exif.load(photo.exif)
    if not dict(exif.get_ifd(_GPS_IFD)):
        return photo
    kept = Pillow.Exif()
    for tag, value in exif.items():
        if tag not in {_EXIF_IFD, _GPS_IFD}:
            kept[tag] = value
    if details := dict(exif.get_ifd(_EXIF_IFD)):
        kept[_EXIF_IFD] = details
    return replace(photo, exif=kept.tobytes() if dict(kept) else b"")


def copy_without_location(payload: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a photo's file without the place where it was taken, its pixels as they are, and what else is gone.

    What is kept of EXIF is what `read` keeps; XMP, IPTC and comments, which may say the place too, are not, nor what
    lies behind the photo in its file.

    Args:
        payload: the file's content, of a photo that `read` reads.

    Raises:
        DataError: it may say the place, and is of a kind that would have to be saved again without it.
    """
    if is_heif(payload):
        form, tells = "HEIC", b"Exif" in payload or b"application/rdf+xml" in payload
        exif = b""
    else:
        with _opened_photo(payload) as image:
            image.load()  # some formats say at their end what there is
            form, tells = str(image.format), _may_tell_the_place(image)
            _, exif, _ = _exif(image)
    exif = without_location(PhotoFile(np.zeros((1, 1, 1), np.uint8), exif=exif)).exif
    strip = {"JPEG": _stripped_jpeg, "MPO": _stripped_jpeg, "PNG": _stripped_png, "WEBP": _stripped_webp}.get(
        form
    )
    if strip is None:
        if tells:
            raise DataError(
                f"it shows no face and may say where it was taken, which is not taken out of {form} files. Save it as "
                "JPEG or PNG"
            )
        return payload, ()
    stripped = strip(payload, exif)
    if stripped == payload:
        return payload, ()
    return stripped, ("thumbnail, maker's notes, XMP, IPTC and comments are not kept",)


def _may_tell_the_place(image: Image) -> bool:
    exif = image.getexif()
    told = {"xmp", "XML:com.adobe.xmp", "comment", "photoshop"} & image.info.keys()
    return bool(told or dict(exif.get_ifd(_GPS_IFD)) or {700, 33723, 34377} & set(exif))


_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""A JPEG marker among coded pixels."""


def _stripped_jpeg(payload: bytes, exif: bytes) -> bytes:
    """Return a JPEG with its pixels, colour profile and this EXIF alone (ITU T.81, annex B)."""
    kept, position = [payload[:2]], 2
    placed = not exif
    while found := _MARKER.search(payload, position):
        kind = payload[found.start() + 1]
        if kind == 0xD9:  # the photo ends
            kept.append(payload[position : found.end()])
            break
        end = found.end() + int.from_bytes(payload[found.end() : found.end() + 2], "big")
        content = payload[found.end() + 2 : end]
        coded = (
            payload[position : found.start()].rstrip(b"\xff")
            if kind != 0xDA
            else payload[position : found.start()]
        )
        kept.append(coded)
        if not placed and kind != 0xE0:
            kept.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
            placed = True
        is_told = 0xE1 <= kind <= 0xEF or kind == 0xFE
        if not is_told or kind == 0xEE or (kind == 0xE2 and content.startswith(b"ICC_PROFILE\0")):
            kept.append(payload[found.start() : end])
        position = end
    return b"".join(kept)


def _stripped_png(payload: bytes, exif: bytes) -> bytes:
    """Return a PNG with its pixels, colours and this EXIF alone."""
    kept = [payload[:8]]
    for kind, whole in _chunks(payload):
        if kind[:1].isupper() or kind in _PNG_KEPT:  # capital: critical
            kept.append(whole)
        if kind == b"IHDR" and exif:
            kept.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    return b"".join(kept)


def _stripped_webp(payload: bytes, exif: bytes) -> bytes:
    """Return a WebP with its pixels, colour profile and this EXIF alone (RFC 9649)."""
    kept, position = b"", 12
    while position + 8 <= len(payload):
        kind = payload[position : position + 4]
        end = position + 8 + int.from_bytes(payload[position + 4 : position + 8], "little")
        whole = payload[position : end + end % 2]
        if kind == b"VP8X":
            told, has_exif = 0x0C, 0x08
            whole = whole[:8] + bytes([whole[8] & ~told | (has_exif if exif else 0)]) + whole[9:]
            tail = exif
        if kind in {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP"}:
            kept += whole
        position = end + end % 2
    if kept[:4] == b"VP8X" and tail:
        kept += b"EXIF" + struct.pack("<I", len(tail)) + tail + b"\0" * (len(tail) % 2)
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + kept


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and bytes of each chunk of a PNG, to its end."""
    position = 8
    while position + 12 <= len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        kind = png[position + 4 : position + 8]
        yield kind, png[position:end]
        if kind == b"IEND":
            return
        position = end


# -- writing ---------------------------------------------------------------------------------------------------


def kind_of(path: Path, wanted: Format) -> tuple[Kind, str]:
    """Say as what a photo would be written, and with which ending.

    ``keep`` keeps JPEG, PNG and WebP (as lossless WebP) with their own endings. HEIC and AVIF, which lose as JPEG
    does, become JPEG; all others PNG. The content counts, not the name. What cannot be opened is PNG.

    Args:
        path: the file; only its beginning is read.
        wanted: what is requested.
    """
    form = _form(path)
    own = path.suffix
    if wanted == "jpeg":
        return "JPEG", own if form in {"JPEG", "MPO"} and _fits("JPEG", own) else ".jpg"
    if wanted == "png" or form in {"", "BMP", "DIB", "GIF", "TIFF"}:
        return "PNG", ".png"
    kind: Kind = "PNG" if form == "PNG" else "WEBP" if form == "WEBP" else "JPEG"
    return kind, own if _fits(kind, own) else SUFFIX_OF[kind]


def _fits(kind: Kind, suffix: str) -> bool:
    return kind_by_suffix(suffix) == kind


def kind_by_suffix(suffix: str) -> Kind | None:
    """Return what is written under a file name ending, in any case; None for an ending that is never written."""
    endings: Mapping[str, Kind] = {
        ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP",
    }  # fmt: skip
    return endings.get(suffix.lower())


def _form(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            if is_heif(file.read(12)):
                return "HEIF"
        with _opened_photo(path) as image:
            return str(image.format)
    except (OSError, DataError):
        return ""


def encode(photo: PhotoFile, kind: Kind) -> bytes:
    """Return the photo as a file, with profile, EXIF and resolution; pixels lie as they lay, orientation is said.

    JPEG is of quality `JPEG_QUALITY` with full colour resolution; PNG and WebP keep every value.

    Raises:
        DataError: JPEG or WebP cannot hold it (transparency, 16 bits, size).
    """
    if kind == "JPEG" and photo.has_alpha:
        raise DataError("it has transparency, which JPEG cannot hold. Write it with --format png.")
    if kind != "PNG" and photo.levels > 255:
        raise DataError(f"it has 16 bits a channel, which {kind} cannot hold. Write it with --format png.")
    if photo.levels > 255:
        return _with_chunks(_sixteen_bit_png(photo), photo)
    from PIL import Image as Pillow

    sink = io.BytesIO()
    options: dict[str, Any] = {"exif": photo.exif} if photo.exif else {}
    options |= {"icc_profile": photo.icc} if photo.icc else {}
    options |= {"dpi": photo.dpi} if photo.dpi and kind != "WEBP" else {}
    own: Mapping[Kind, dict[str, Any]] = {
        "JPEG": {"quality": JPEG_QUALITY, "subsampling": 0, "optimize": photo.pixels.size < 30_000_000},
        "PNG": {},
        "WEBP": {"lossless": True, "exact": True, "quality": 60},
    }
    pixels = photo.pixels[..., 0] if photo.pixels.shape[2] == 1 else photo.pixels
    try:
        Pillow.fromarray(pixels).save(sink, format=kind, **own[kind], **options)
    except (OSError, ValueError) as error:
        raise DataError(f"it cannot be written as {kind} ({error}). Write it with --format png.") from error
    return _behind_header(sink.getvalue(), photo.colour) if kind == "PNG" else sink.getvalue()


def notes_as(photo: PhotoFile, kind: Kind) -> tuple[str, ...]:
    """Return what will not be as it was in a photo that is written as JPEG, PNG or WebP, one sentence each."""
    lost = sorted(chunk.decode() for chunk, _ in _chunks(b"\0" * 8 + photo.colour) if chunk != b"sRGB")
    if kind == "PNG" or not lost:
        return photo.notes
    return (*photo.notes, f"what {', '.join(lost)} say of its colours is not kept in {kind}")


def _sixteen_bit_png(photo: PhotoFile) -> bytes:
    import cv2

    pixels = photo.pixels
    if pixels.shape[2] == 2:  # OpenCV writes no grey with alpha
        return _grey_alpha_png(pixels)
    if pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    done, content = cv2.imencode(".png", np.ascontiguousarray(pixels))
    if not done:
        raise DataError("it cannot be written as a 16-bit PNG. Save the original as 8-bit RGB.")
    return content.tobytes()


def _grey_alpha_png(pixels: Samples) -> bytes:
    """Return H×W×2 uint16 as a PNG, each row as its difference from the one above (filter 2)."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, 4 * width)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.column_stack([np.full((height, 1), 2, np.uint8), rows - above])
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _with_chunks(png: bytes, photo: PhotoFile) -> bytes:
    """Return a PNG file with profile, resolution and EXIF behind its header (PNG specification, chapter 11)."""
    chunks = b""
    if photo.icc:
        chunks += _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(photo.icc))
    if photo.dpi:
        across, down = (round(value / 0.0254) for value in photo.dpi)
        chunks += _chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if photo.exif:
        chunks += _chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    return _behind_header(png, photo.colour + chunks)


def _behind_header(png: bytes, chunks: bytes) -> bytes:
    header_end = 8 + 12 + 13
    return png[:header_end] + chunks + png[header_end:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
