"""Photos and landmarks that cannot be what they are said to be: refused by name, before work, never waited for."""

import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from bench.faces import photos as photo_reading
from bench.faces.photos import FORMATS, photo_size, read_photo
from bench.plugins import factory

FACE = [(30.0, 40.0), (70.0, 40.0), (50.0, 60.0), (35.0, 80.0), (65.0, 80.0)]
"""Five landmarks inside a photo of 100×120 pixels."""


@pytest.fixture
def people(tmp_path):
    """Two identities of three photos of 100×120 pixels."""
    root = tmp_path / "people"
    for who in ("a", "b"):
        (root / who).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(hash((who, number)) % 1000).integers(
                0, 256, (120, 100, 3), np.uint8
            )
            Image.fromarray(pixels).save(root / who / f"{number}.png")
    return root


def landmarks(people, points=FACE, rows=None, also=""):
    """Write a file of landmarks for all photos; `rows` are the points of some of them."""
    path = people.parent / "points.csv"
    columns = "path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5" + (",detected" if also else "")
    lines = [columns]
    for photo in sorted(file.relative_to(people).as_posix() for file in people.rglob("*.png")):
        chosen = (rows or {}).get(photo, points)
        lines.append(
            ",".join([photo, *(f"{value}" for point in chosen for value in point), *([also] if also else [])])
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def folder(people, points, **more):
    extra = "".join(f",{key}={value}" for key, value in more.items())
    return factory.dataset(f"folder:path={people},landmarks={points}{extra}")


# -- landmarks -----------------------------------------------------------------------------------------------------


def test_landmarks_inside_the_photo_are_taken(people):
    assert len(folder(people, landmarks(people)).identities()) == 2


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(x + 5000, y) for x, y in FACE], "lie outside the photo of 100×120 pixels"),
        ([(x, y - 60) for x, y in FACE], "lie outside the photo of 100×120 pixels"),
        ([(x / 120, y / 120) for x, y in FACE], "are fractions of the photo, not pixels"),
        ([(100 - x, y) for x, y in FACE], "mirrored"),
        ([(float("nan"), y) for _, y in FACE], "not finite"),
        ([(50.0, 50.0)] * 5, "coincide"),
    ],
    ids=["beside", "above", "fractions", "mirrored", "nan", "one place"],
)
def test_points_that_are_of_no_face_in_the_photo_are_refused(people, points, message):
    given = landmarks(people, rows={"b/1.png": points})
    with pytest.raises(DataError, match=message) as caught:
        folder(people, given).identities()
    assert "points.csv" in str(caught.value)
    assert "b/1.png" in str(caught.value)


def test_such_a_photo_is_left_out_where_that_is_wanted(people):
    given = landmarks(people, rows={"b/1.png": [(x + 5000, y) for x, y in FACE]})
    dataset = folder(people, given, on_bad="skip", min_photos=2)
    assert [len(identity.photos) for identity in dataset.identities()] == [3, 2]
    (skipped,) = dataset.skipped
    assert "lie outside the photo" in skipped.reason


def test_points_of_a_photo_that_is_shown_turned_are_held_against_it_as_it_is_shown(people):
    exif = Image.Exif()
    exif[274] = 6  # a quarter clockwise
    file = people / "a" / "0.png"
    with Image.open(file) as image:
        image.save(file, exif=exif)
    assert photo_size(file) == (120, 100)
    assert read_photo(file).shape == (100, 120, 3)
    right = [(x + 45, y) for x, y in FACE]  # beyond 100, not beyond 120
    assert len(folder(people, landmarks(people, rows={"a/0.png": right})).identities()) == 2


def test_a_row_of_no_face_costs_its_photo_alone_where_that_is_wanted(people):
    given = landmarks(people, rows={"b/1.png": [(100 - x, y) for x, y in FACE]})
    with given.open("a") as file:
        file.write("elsewhere/0.png,1,1,1,1,1,1,1,1,1,1\n")  # of no photo here
    dataset = folder(people, given, on_bad="skip", min_photos=2)
    assert [len(identity.photos) for identity in dataset.identities()] == [3, 2]
    assert "mirrored" in dataset.skipped[0].reason


def test_a_large_png_is_not_decoded_for_its_size(people, monkeypatch):
    def decoded(*_arguments, **_more):
        raise AssertionError("its pixels were read")

    monkeypatch.setattr(Image.Image, "load", decoded)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decoded)
    assert photo_size(people / "a" / "0.png") == (100, 120)


def test_two_rows_for_one_photo_are_refused(people):
    path = landmarks(people)
    path.write_text(path.read_text() + path.read_text().splitlines()[2] + "\n")
    with pytest.raises(DataError, match=r"line 8: 'a/1.png' is on line 3 already"):
        folder(people, path).identities()


@pytest.mark.parametrize("no", ["0", "0.0", "False", "false", "no"])
def test_a_guess_is_no_landmark_however_no_is_written(people, no):
    with pytest.raises(DataError, match=r"has no row 'a/0\.png' with a detected face"):
        folder(people, landmarks(people, also=no)).identities()


@pytest.mark.parametrize("yes", ["1", "1.0", "True", "yes"])
def test_a_detected_face_is_one_however_yes_is_written(people, yes):
    assert len(folder(people, landmarks(people, also=yes)).identities()) == 2


def test_a_word_that_is_neither_is_refused(people):
    with pytest.raises(DataError, match=r"detected is 'maybe'\. Valid: 1, 0, true, false"):
        folder(people, landmarks(people, also="maybe")).identities()


# -- files that are no photos --------------------------------------------------------------------------------------


def named_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    where = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(where)


def a_device(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [named_pipe, a_socket, a_device, loop])
def test_what_is_no_file_is_refused_by_name_and_not_waited_for(people, make):
    odd = people / "a" / "9.png"
    make(odd)
    with pytest.raises(DataError, match=r"9\.png"):
        factory.dataset(f"folder:path={people}").identities()
    with pytest.raises(DataError, match=r"9\.png"):
        read_photo(odd)


def test_a_postscript_file_named_as_a_photo_starts_no_program(people, monkeypatch):
    def started(*_arguments, **_more):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(subprocess, "check_call", started)
    odd = people / "a" / "9.jpg"
    odd.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\nshowpage\n")
    with pytest.raises(DataError, match=r"9\.jpg is not an image of a format that is read \(JPEG, "):
        read_photo(odd)


def test_formats_that_photos_have_are_known_to_pillow():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    assert "EPS" in Image.OPEN
    assert "EPS" not in FORMATS


@pytest.mark.parametrize(
    "error", [RuntimeError("avif"), TypeError(), KeyError(1), MemoryError(), ZeroDivisionError()]
)
def test_whatever_a_decoder_raises_names_the_photo(people, monkeypatch, error):
    def broken(*_arguments, **_more):
        raise error

    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(DataError, match=r"0\.png cannot be decoded"):
        read_photo(people / "a" / "0.png")
    assert photo_reading.FORMATS is FORMATS


# -- mutants -------------------------------------------------------------------------------------------------------

SAVED = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
CHANGES = 6
"""Bytes that differ in a mutant, at most."""

READER = """
import sys
from pathlib import Path

from bench.errors import DataError
from bench.faces.photos import photo_size, read_photo, verify_photo
from bench.photo_tools.photo_files import read

for path in map(Path, sys.argv[1:]):
    for reads in (read_photo, verify_photo, photo_size, lambda file: read(file.read_bytes(), str(file))):
        try:
            reads(path)
        except DataError as error:
            assert str(path) in str(error), (path, error)
            assert len(str(error)) < 2500 and "\\n" not in str(error), (path, error)
"""


def mutants(folder, count, seed):
    """Write mutants of photos in every format: bytes changed, cut short, repeated, or the header of another."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    whole = {}
    for form in SAVED:
        path = folder / f"whole.{form.lower()}"
        Image.fromarray(pixels).save(path, form)
        whole[form] = path.read_bytes()
    made = []
    for number in range(count):
        form = SAVED[number % len(SAVED)]
        payload = bytearray(whole[form])
        kind = rng.integers(0, 4)
        if kind == 0:
            del payload[int(rng.integers(1, len(payload))) :]
        elif kind == 1:
            other = whole[SAVED[int(rng.integers(0, len(SAVED)))]]
            payload[: int(rng.integers(1, 40))] = other[: int(rng.integers(1, 40))]
        else:
            # Headers first: that is where lies are.
            reach = min(len(payload), 200) if kind == 2 else len(payload)
            for _ in range(int(rng.integers(1, CHANGES + 1))):
                payload[int(rng.integers(0, reach))] = int(rng.integers(0, 256))
        path = folder / f"{number:05d}.{form.lower()}"
        path.write_bytes(payload)
        made.append(path)
    return made


@pytest.mark.system
@pytest.mark.parametrize(
    ("count", "seed"), [(140, 0), *(pytest.param(2100, seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_no_mutant_of_a_photo_crashes_or_hangs_a_reader(bounded, tmp_path, count, seed):
    made = mutants(tmp_path, count, seed)
    for start in range(0, count, 420):
        some = made[start : start + 420]
        done = bounded(READER, some, "-W", "error")
        assert done.returncode == 0, done.stderr[-2000:]
