"""A whole photo from the cloak to the crop that is scraped: drawn photos, and a detector that is told what to find."""

import numpy as np
import pytest
from PIL import Image

from bench.contracts import Posting, WholePhoto
from bench.errors import DataError, UsageError
from bench.faces import posting
from bench.faces.alignment import TEMPLATE, Landmarks, align
from bench.faces.posting import compressed, own_face, pasted, resized, scraped

POINTS = TEMPLATE * 0.9 + [40, 30]
"""A face of about its crop's size."""


def drawn(seed, size=(200, 180), cells=9):
    """Return a smooth H×W×3 photo."""
    small = np.random.default_rng(seed).integers(40, 215, (cells, cells, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def mean_difference(one, other):
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.fixture
def photo():
    return WholePhoto(drawn(0), POINTS)


def finding(monkeypatch, *faces):
    """Let the detector find faces, and keep what it was shown."""
    seen = []

    def find(pixels):
        seen.append(pixels)
        if any(isinstance(face, Exception) for face in faces):
            raise faces[0]
        return tuple(Landmarks(points) for points in faces)

    monkeypatch.setattr(posting, "find_faces", find)
    return seen


def test_a_photo_posted_as_it_is_has_the_crop_it_had(photo):
    before = photo.pixels.copy()
    np.testing.assert_array_equal(scraped(photo, Posting()), align(photo.pixels, POINTS))
    np.testing.assert_array_equal(photo.pixels, before)


def test_a_cloak_pasted_back_is_nearly_what_is_scraped(photo):
    crop = align(photo.pixels, POINTS)
    cloak = np.clip(crop.astype(int) + (drawn(1, (112, 112), 28).astype(int) - 128) // 10, 0, 255).astype(
        "u1"
    )
    posted = WholePhoto(pasted(photo, cloak), POINTS)
    seen = scraped(posted, Posting())
    assert mean_difference(seen, cloak) < 0.3 * mean_difference(crop, cloak)
    # Nothing but the face and its border moves, and the photo as its owner has it does not.
    assert (posted.pixels[:20] == photo.pixels[:20]).all()
    np.testing.assert_array_equal(align(photo.pixels, POINTS), crop)


@pytest.mark.parametrize("scale", [0.5, 0.4, 0.6])
def test_a_resized_photo_shows_the_same_face(photo, scale):
    pixels, points = resized(photo, scale)
    assert pixels.shape == (round(180 * scale), round(200 * scale), 3)
    whole, small = align(photo.pixels, POINTS), align(pixels, points)
    assert mean_difference(whole, small) < 1
    off_by_half = align(pixels, POINTS * scale)
    assert mean_difference(whole, off_by_half) > 1.5 * mean_difference(whole, small)


def test_jpeg_is_the_encoders(photo):
    coarse, fine = compressed(photo.pixels, 10), compressed(photo.pixels, 95)
    assert mean_difference(photo.pixels, coarse) > mean_difference(photo.pixels, fine) > 0
    np.testing.assert_array_equal(
        scraped(photo, Posting(quality=30)), align(compressed(photo.pixels, 30), POINTS)
    )


def test_steps_follow_one_another_and_the_detector_sees_what_was_posted(photo, monkeypatch):
    found_at = POINTS * 0.5 - 0.25 + [1, 2]
    seen = finding(monkeypatch, found_at)
    crop = scraped(photo, Posting(scale=0.5, quality=40, detected=True))
    posted = compressed(resized(photo, 0.5)[0], 40)
    np.testing.assert_array_equal(seen[0], posted)
    np.testing.assert_array_equal(crop, align(posted, found_at))


MIRRORED = POINTS * [-1, 1] + [2 * POINTS[:, 0].mean(), 0]


@pytest.mark.parametrize(
    "faces", [(), (POINTS + np.array((120, 0)),), (MIRRORED,), (DataError("the detector stumbled"),)]
)
def test_a_photo_is_missed_where_its_own_face_is_not_found(photo, monkeypatch, faces):
    finding(monkeypatch, *faces)
    assert scraped(photo, Posting(detected=True)) is None


def test_without_a_detector_it_says_what_to_install(photo, monkeypatch):
    finding(monkeypatch, UsageError("pip install"))
    with pytest.raises(UsageError, match="pip install"):
        scraped(photo, Posting(detected=True))
    monkeypatch.setattr(posting.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"cloakbench\[detector\].*detect=false"):
        posting.check_detector()


def test_of_several_faces_the_own_one_counts():
    own, bystander = Landmarks(POINTS + np.array((3, -2))), Landmarks(TEMPLATE * 2 + [150, 30])
    assert own_face([bystander, own], POINTS) is own
    assert own_face([bystander], POINTS) is None


def test_own_points_that_determine_no_crop_are_an_error(monkeypatch):
    photo = WholePhoto(drawn(0), MIRRORED)
    with pytest.raises(DataError, match="mirrored"):
        scraped(photo, Posting())
