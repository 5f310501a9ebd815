import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from bench.faces import photos
from bench.faces.photos import read_photo, verify_photo

RAMP = np.indices((24, 32)).sum(0).astype(np.uint8) * 4
COLOUR = np.dstack([RAMP, 255 - RAMP, RAMP // 2])


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.fromarray(COLOUR), "PNG"), COLOUR),
        (encoded(Image.fromarray(COLOUR), "BMP"), COLOUR),
        (encoded(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
        (encoded(Image.fromarray(RAMP), "PNG"), np.dstack([RAMP] * 3)),
        (encoded(Image.fromarray(RAMP.astype(np.uint16) * 256 + 200), "PNG"), np.dstack([RAMP] * 3)),
        (
            encoded(Image.fromarray(np.dstack([COLOUR, np.full_like(RAMP, 255)])), "PNG"),
            COLOUR,
        ),
        (
            encoded(Image.fromarray(np.dstack([COLOUR, np.zeros_like(RAMP)])), "PNG"),
            np.full_like(COLOUR, 255),
        ),
        (encoded(Image.fromarray(RAMP > 90), "PNG"), np.dstack([(RAMP > 90) * np.uint8(255)] * 3)),
    ],
    ids=["rgb", "bmp", "webp", "grey", "16-bit", "opaque", "transparent", "1-bit"],
)
def test_every_kind_becomes_rgb(content, expected):
    got = read_photo(content)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)
    verify_photo(content)


def test_16_bit_colour_keeps_the_high_byte():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = COLOUR.astype(">u2") * 256 + 77
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    header = struct.pack(">IIBBBBB", 32, 24, 16, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_photo(png), COLOUR)


def test_cmyk_keeps_the_colours():
    flat = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    content = encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(read_photo(content).astype(int) - flat).max() <= 4


def test_exif_orientation_is_respected():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90° clockwise to see it
    content = encoded(Image.fromarray(COLOUR), "PNG", exif=exif)
    np.testing.assert_array_equal(read_photo(content), np.rot90(COLOUR, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_truncated_photo_is_one_clear_error(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    file = tmp_path / "cut.jpg"
    file.write_bytes(whole[: len(whole) * 3 // 4])
    for read in (read_photo, verify_photo):
        with pytest.raises(DataError, match=r"cut\.jpg.*(cannot be decoded|not an image)"):
            read(file)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + b"\0" * 60])
def test_what_is_no_image_is_one_clear_error(content):
    for read in (read_photo, verify_photo):
        with pytest.raises(DataError, match=r"x\.png (is not an image|cannot be decoded)"):
            read(content, "x.png")


def test_a_missing_photo_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg is missing"):
        read_photo(tmp_path / "gone.jpg")


def test_a_huge_photo_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(photos, "MAX_PIXELS", 700)
    with pytest.raises(DataError, match=r"big is 32×24 pixels, the most is 700"):
        read_photo(encoded(Image.fromarray(COLOUR), "PNG"), "big")
