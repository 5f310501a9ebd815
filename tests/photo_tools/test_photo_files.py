"""Photo files of every kind: what goes in comes out, and what would be lost is said or refused."""

import base64
import builtins
import io
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bench.errors import DataError
from bench.faces.photos import read_photo
from bench.faces.whole_photo import PhotoFile, turned
from bench.photo_tools import photo_files
from bench.photo_tools.photo_files.png import chunk

NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
GREY = NOISE[..., 0]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image, kind, **options):
    sink = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(sink, kind, **options)
    return sink.getvalue()


def exif_of(orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "camera"
    exif[0x8769] = {0x9003: "2020:01:02 03:04:05", 0x927C: b"maker" * 40}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif.tobytes()


def reopened(payload):
    image = Image.open(io.BytesIO(payload))
    image.load()
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_seen_upright_and_stays_what_viewers_show(kind, orientation):
    payload = encoded(NOISE, kind, exif=exif_of(orientation))
    photo = photo_files.read(payload)
    np.testing.assert_array_equal(photo.seen(), read_photo(payload))
    for written in ("PNG", "WEBP"):
        np.testing.assert_array_equal(read_photo(photo_files.encode(photo, written)), read_photo(payload))
    # A value written into the upright view is where viewers show it.
    photo.upright()[2, 5] = (1, 2, 3)
    assert tuple(read_photo(photo_files.encode(photo, "PNG"))[2, 5]) == (1, 2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_agrees_with_pillow(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    image = reopened(encoded(NOISE, "PNG", exif=exif))
    np.testing.assert_array_equal(turned(NOISE, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("written", ["JPEG", "PNG", "WEBP"])
def test_profile_and_exif_are_kept_without_what_shows_or_hides_the_old_face(written):
    exif = Image.Exif()
    exif.load(exif_of(6))
    thumbnail = encoded(NOISE, "JPEG")
    # Pillow writes no thumbnail: put a second directory behind the first by hand.
    raw = bytearray(exif.tobytes()[6:])
    count = struct.unpack(">H", raw[8:10])[0]
    at = 10 + 12 * count
    raw[at : at + 4] = struct.pack(">I", len(raw))
    start = len(raw) + 2 + 24 + 4
    raw += struct.pack(">H", 2)
    raw += struct.pack(">HHII", 0x0201, 4, 1, start) + struct.pack(">HHII", 0x0202, 4, 1, len(thumbnail))
    raw += struct.pack(">I", 0) + thumbnail
    payload = encoded(NOISE, "JPEG", exif=b"Exif\0\0" + bytes(raw), icc_profile=SRGB, dpi=(72, 72))
    assert thumbnail in payload
    assert reopened(payload).getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    out = photo_files.encode(photo_files.read(payload), written)
    image = reopened(out)
    found = image.getexif()
    assert image.info["icc_profile"] == SRGB
    assert (found[0x0112], found[0x010F]) == (6, "camera")
    assert dict(found.get_ifd(0x8769)) == {0x9003: "2020:01:02 03:04:05"}
    assert found.get_ifd(0x8825)[1] == "N"
    assert thumbnail[:200] not in out
    if written != "WEBP":
        assert image.info["dpi"] == pytest.approx((72, 72), abs=0.01)


def test_the_place_is_left_out_where_asked():
    photo = photo_files.read(encoded(NOISE, "JPEG", exif=exif_of(3)))
    found = reopened(photo_files.encode(photo_files.without_location(photo), "JPEG")).getexif()
    assert not found.get_ifd(0x8825)
    assert (found[0x0112], found[0x010F], found.get_ifd(0x8769)[0x9003]) == (
        3,
        "camera",
        "2020:01:02 03:04:05",
    )
    bare = photo_files.read(encoded(NOISE, "PNG"))
    assert photo_files.without_location(bare) is bare


ALPHA = np.dstack([NOISE, GREY])


@pytest.mark.parametrize(
    ("payload", "channels", "dtype"),
    [
        (encoded(GREY, "PNG"), 1, np.uint8),
        (encoded(GREY, "JPEG"), 1, np.uint8),
        (encoded(ALPHA, "PNG"), 4, np.uint8),
        (encoded(ALPHA, "WEBP", lossless=True, exact=True), 4, np.uint8),
        (encoded(Image.fromarray(NOISE).quantize(200), "PNG"), 3, np.uint8),
        (encoded(Image.fromarray(NOISE).quantize(200), "PNG", transparency=3), 4, np.uint8),
        (encoded(NOISE, "BMP"), 3, np.uint8),
        (encoded(NOISE, "TIFF"), 3, np.uint8),
        (encoded(Image.fromarray(NOISE).quantize(64), "GIF"), 3, np.uint8),
        (encoded(np.dstack([GREY, 255 - GREY]), "PNG"), 2, np.uint8),
        (encoded(NOISE, "AVIF"), 3, np.uint8),
    ],
    ids=[
        "grey",
        "grey-jpeg",
        "rgba",
        "rgba-webp",
        "palette",
        "palette-alpha",
        "bmp",
        "tiff",
        "gif",
        "la",
        "avif",
    ],
)
def test_every_kind_keeps_its_channels_and_values(payload, channels, dtype):
    photo = photo_files.read(payload)
    assert (photo.pixels.shape, photo.pixels.dtype) == ((40, 30, channels), dtype)
    np.testing.assert_allclose(photo.seen(), read_photo(payload), atol=1)
    np.testing.assert_array_equal(photo_files.read(photo_files.encode(photo, "PNG")).pixels, photo.pixels)


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3), (40, 30, 4)])
@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_16_bits_stay_16_bits_with_profile_and_exif(shape, kind):
    deep = np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)
    photo = photo_files.read(cv2.imencode(kind, deep)[1].tobytes())
    assert photo.levels == 65535
    rgb = deep[..., None] if deep.ndim == 2 else deep[..., [2, 1, 0, 3][: shape[2]]]
    np.testing.assert_array_equal(photo.pixels, rgb)
    out = photo_files.encode(replace(photo, exif=exif_of(8), icc=SRGB, dpi=(300.0, 300.0)), "PNG")
    again = photo_files.read(out)
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert (again.orientation, again.icc) == (8, SRGB)
    assert again.dpi == pytest.approx((300, 300), abs=0.01)
    with pytest.raises(DataError, match="which JPEG cannot hold"):
        photo_files.encode(photo, "JPEG")


def test_cmyk_becomes_srgb_and_is_said():
    flat = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    photo = photo_files.read(encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100))
    assert photo.notes == ("CMYK became sRGB",)
    assert np.abs(photo.seen().astype(int) - flat).max() <= 4


def huge():
    png = encoded(GREY, "PNG")
    header = png[12:16] + struct.pack(">II", 40000, 25000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


FRAMES = [Image.fromarray(255 - NOISE)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "it is empty"),
        (b"only words", "it is not an image"),
        (b"\x89PNG\r\n\x1a\n", "it is not an image"),
        (encoded(NOISE, "JPEG")[:900], "it cannot be decoded"),
        (encoded(NOISE, "PNG")[:900], "it cannot be decoded"),
        (encoded(NOISE, "GIF", save_all=True, append_images=FRAMES), r"it is animated \(2 frames\)"),
        (encoded(NOISE, "PNG", save_all=True, append_images=FRAMES), r"it is animated \(2 frames\)"),
        (encoded(NOISE, "WEBP", save_all=True, append_images=FRAMES), r"it is animated \(2 frames\)"),
        (encoded(NOISE, "TIFF", save_all=True, append_images=FRAMES), "it has 2 pages"),
        (encoded(GREY.astype(np.float32), "TIFF"), "pixels of the kind 'F'"),
        (encoded(Image.fromarray(NOISE).convert("LAB"), "TIFF"), "pixels of the kind 'LAB'"),
        (encoded(NOISE, "PPM"), "it is not an image of a format that is read"),
        (encoded(NOISE, "EPS"), "it is not an image of a format that is read"),
        (huge(), "1000000000 pixels.*exceeds limit"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "it cannot be decoded"),
    ],
)
def test_what_cannot_be_kept_whole_is_refused_in_one_sentence(payload, reason):
    with pytest.raises(DataError, match=reason):
        photo_files.read(payload)


def test_a_single_frame_and_a_phones_second_picture_are_no_animation():
    mpo = encoded(NOISE, "MPO", save_all=True, append_images=FRAMES)
    photo = photo_files.read(mpo)
    assert photo.notes == ("1 more pictures inside the file are not kept",)
    np.testing.assert_array_equal(photo.seen(), read_photo(mpo))


HEIC = """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA
ADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAHsAAgAAAAACZwABAAAAAAAAADYAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA
AAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAA
kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq
5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xh
cAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEA
AQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAALltZGF0AAAAdygBrwngOSMkv//2d///+RbuQ/T02cF//PoB9/YV
d//tOPUV2Vfe7f9ghYcD31vxKlsnsePTc/0v/FyVqBnCI//0l2EELJrA10xXSH/rt8jq+eOrcB/91Z9zwVp6iALolI9a62eaBnmo
FA3RO/X81SYV03AdNxY8AAAABkV4aWYAAE1NACoAAAAIAAIBDwACAAAABgAAACYBEgADAAAAAQAGAAAAAAAAcGhvbmUA
"""
"""Red left, blue right, 64×48 pixels, to be turned by 90° clockwise (orientation 6); made with libheif's x265."""


def test_a_phones_photo_is_read_upright_with_its_exif():
    pytest.importorskip("pi_heif", reason="extra 'heic' is not installed")
    photo = photo_files.read(base64.b64decode(HEIC))
    assert (photo.format, photo.pixels.shape, photo.orientation) == ("HEIF", (64, 48, 3), 1)
    assert np.abs(photo.seen()[8, 24].astype(int) - (200, 60, 40)).max() < 12
    assert np.abs(photo.seen()[56, 24].astype(int) - (40, 80, 180)).max() < 12
    found = reopened(photo_files.encode(photo, "JPEG"))
    assert found.size == (48, 64)
    assert (found.getexif().get(0x0112, 1), found.getexif()[0x010F]) == (1, "phone")


def test_heic_without_its_package_names_the_command(monkeypatch):
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pi_heif":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'cloakbench\[heic\]'"):
        photo_files.read(b"\0\0\0\x18ftypheic")


@pytest.mark.parametrize(
    ("name", "payload", "wanted", "expected"),
    [
        ("a.JPG", encoded(NOISE, "JPEG"), "keep", ("JPEG", ".JPG")),
        ("a.jpg", encoded(NOISE, "JPEG"), "png", ("PNG", ".png")),
        ("a.png", encoded(NOISE, "PNG"), "jpeg", ("JPEG", ".jpg")),
        ("a.jpg", encoded(NOISE, "PNG"), "keep", ("PNG", ".png")),
        ("a.webp", encoded(NOISE, "WEBP"), "keep", ("WEBP", ".webp")),
        ("a.bmp", encoded(NOISE, "BMP"), "keep", ("PNG", ".png")),
        ("a.heic", b"\0\0\0\x18ftypheic", "keep", ("JPEG", ".jpg")),
        ("a.jpeg", b"words", "keep", ("PNG", ".png")),
        ("gone.jpeg", None, "keep", ("PNG", ".png")),
    ],
)
def test_the_content_decides_what_is_written(tmp_path, name, payload, wanted, expected):
    if payload is not None:
        (tmp_path / name).write_bytes(payload)
    assert photo_files.kind_of(tmp_path / name, wanted) == expected


def test_transparency_is_never_flattened():
    with pytest.raises(DataError, match="transparency, which JPEG cannot hold"):
        photo_files.encode(photo_files.read(encoded(ALPHA, "PNG")), "JPEG")


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    kind=st.sampled_from(["PNG", "WEBP"]),
)
def test_lossless_kinds_keep_every_value(seed, height, width, kind):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8)
    again = photo_files.read(photo_files.encode(PhotoFile(pixels), kind))
    if again.has_alpha:
        np.testing.assert_array_equal(again.pixels, pixels)
    else:  # fully opaque by chance
        assert (pixels[..., 3] == 255).all()


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="1,2N"/></rdf:RDF></x:xmpmeta>'
    ).encode()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_photo_that_only_xmp_turns_is_not_turned(kind):
    photo = photo_files.read(encoded(NOISE, kind, xmp=xmp(6)))
    assert (photo.orientation, photo.seen().shape) == (1, NOISE.shape)
    assert reopened(photo_files.encode(photo, "PNG")).getexif().get(0x0112, 1) == 1
    both = photo_files.read(encoded(NOISE, kind, xmp=xmp(6), exif=exif_of(3)))
    assert both.orientation == 3


def test_no_picture_is_kept_in_exif():
    preview = encoded(NOISE, "JPEG")
    exif = Image.Exif()
    exif[0x010F] = "camera"
    exif[0x010E] = preview.decode("latin-1")
    exif[0x8769] = {
        0x9003: "2020:01:02 03:04:05",
        0x9286: b"ASCII\0\0\0" + preview,
        0xC000: preview,
        0xA420: b"x" * 30_000,
        0xA434: preview,
        0x829A: 0.5,
    }
    exif[0x8825] = {1: "N", 0x1B: b"ASCII\0\0\0" + preview}
    made = photo_files.encode(photo_files.read(encoded(NOISE, "JPEG", exif=exif.tobytes())), "PNG")
    kept = reopened(made).getexif()
    assert kept[0x010F] == "camera"
    assert kept.get_ifd(0x8769) == {0x9003: "2020:01:02 03:04:05", 0x829A: 0.5}
    assert kept.get_ifd(0x8825) == {1: "N"}
    assert b"\xff\xd8\xff" not in made


def test_what_a_png_says_of_its_colours_is_kept_or_named():
    plain = encoded(NOISE, "PNG")
    said = chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sRGB", b"\0")
    payload = plain[:33] + said + plain[33:]
    photo = photo_files.read(payload)
    assert photo.colour == said
    made = photo_files.encode(photo, "PNG")
    assert reopened(made).info["gamma"] == 1.0
    assert (np.asarray(reopened(made)) == NOISE).all()
    assert photo_files.notes_as(photo, "PNG") == ()
    assert photo_files.notes_as(photo, "JPEG") == ("what gAMA say of its colours is not kept in JPEG",)
    deep = photo_files.read(cv2.imencode(".png", NOISE.astype(np.uint16) * 257)[1].tobytes())
    assert said in photo_files.encode(replace(deep, colour=said), "PNG")


@given(seed=st.integers(0, 2**32 - 1))
def test_16_bit_grey_with_transparency_stays_what_it_is(seed):
    pixels = np.random.default_rng(seed).integers(0, 65536, (7, 5, 2)).astype(np.uint16)
    payload = photo_files.encode(PhotoFile(pixels), "PNG")
    assert (payload[24], payload[25]) == (16, 4)
    bgra = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (bgra[..., [0, 3]] == pixels).all()
    again = photo_files.read(payload)
    assert (again.pixels == pixels).all()
    assert photo_files.encode(again, "PNG") == payload


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 80}),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": 0}),
        ("JPEG", {"restart_marker_blocks": 1}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 70}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_place_is_taken_out_of_a_copy_and_no_pixel_changes(kind, options, mode):
    image = Image.fromarray(NOISE).convert(mode)
    more = {"comment": b"at home"} if kind == "JPEG" else {}
    more |= {"xmp": xmp(1)} if kind != "PNG" else {}
    told = encoded(image, kind, exif=exif_of(6), icc_profile=SRGB, **options, **more)
    stripped, notes = photo_files.copy_without_location(told + (b"" if kind == "WEBP" else b"GPS behind"))
    made = reopened(stripped)
    assert (np.asarray(made) == np.asarray(reopened(told))).all()
    assert made.getexif().get_ifd(0x8825) == {}
    assert (made.getexif()[0x0112], made.getexif()[0x010F]) == (6, "camera")
    assert made.info["icc_profile"] == SRGB
    assert notes
    for gone in (b"GPS", b"at home", b"maker"):
        assert gone not in stripped
    assert photo_files.copy_without_location(stripped)[0] == stripped
    plain = encoded(image, kind, **options)
    assert photo_files.copy_without_location(plain) == (plain, ())


def test_the_place_is_not_taken_out_of_other_kinds():
    told = encoded(NOISE, "TIFF", exif=exif_of(1))
    with pytest.raises(DataError, match="not taken out of TIFF files"):
        photo_files.copy_without_location(told)
    for kind in ("TIFF", "BMP", "GIF"):
        plain = encoded(NOISE, kind)
        assert photo_files.copy_without_location(plain) == (plain, ())
