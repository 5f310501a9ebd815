"""A changed face goes back where it came from: seen there, faint, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.faces.alignment import TEMPLATE, align, estimate_similarity, invert_similarity
from bench.faces.paste_back import MARGIN, paste_back, paste_back_all, place_at, place_of, take_crop
from bench.faces.whole_photo import PhotoFile, turned


def noise(height, width, channels=3, seed=0, low=40, high=216):
    return np.random.default_rng(seed).integers(low, high, (height, width, channels)).astype(np.uint8)


def face_at(x, y, size, angle=0.0):
    """Return landmarks of a face whose 112×112 crop measures `size` pixels of the photo, turned by `angle`."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE - 55.5) * size / 112 @ turn.T + [x, y]


def soft_change(crop, amplitude=8, seed=1):
    """Return the crop with a change of a few pixels' grain."""
    signs = np.random.default_rng(seed).choice([-1, 1], (14, 14, 3)).repeat(8, 0).repeat(8, 1)
    return (crop.astype(int) + amplitude * signs).clip(0, 255).astype(np.uint8)


PLACES = st.tuples(
    st.floats(30, 270), st.floats(30, 220), st.floats(40, 260), st.floats(-0.6, 0.6), st.integers(0, 99)
)


@settings(max_examples=40)
@given(face=PLACES)
def test_nothing_changes_beyond_the_fading_border_and_nothing_by_more_than_was_asked(face):
    x, y, size, angle, seed = face
    before = noise(250, 300, seed=seed)
    photo = PhotoFile(before.copy())
    points = face_at(x, y, size, angle)
    place = place_at(points, 250, 300)
    crop = take_crop(photo, place)
    assert np.abs(crop.astype(int) - align(before, points)).max() <= 1
    wanted = soft_change(crop, seed=seed)
    paste_back(photo, place, wanted)
    change = np.abs(photo.pixels.astype(int) - before)
    matrix = estimate_similarity(points)
    rows, columns = np.nonzero(change.max(2))
    in_crop = np.column_stack([columns, rows, np.ones(len(rows))]) @ matrix.T
    assert in_crop.min(initial=0) > -0.5 - MARGIN
    assert in_crop.max(initial=0) < 111.5 + MARGIN
    assert change.max() <= np.abs(wanted.astype(int) - crop).max()


@pytest.mark.parametrize(("size", "lost"), [(60, 0.5), (112, 0.25), (140, 0.25), (300, 0.25), (700, 0.25)])
def test_who_crops_the_photo_sees_the_changed_crop(size, lost):
    photo = PhotoFile(noise(800, 800, low=90, high=170))
    place = place_at(face_at(400.3, 399.6, size, 0.2), 800, 800)
    crop = take_crop(photo, place)
    wanted = soft_change(crop)
    paste_back(photo, place, wanted)
    missing = np.linalg.norm(take_crop(photo, place).astype(float) - wanted)
    assert missing < lost * np.linalg.norm(wanted.astype(float) - crop)


def test_there_is_no_seam():
    photo = PhotoFile(np.full((400, 400, 3), 128, np.uint8))
    place = place_at(face_at(200, 200, 224), 400, 400)
    wanted = np.full((112, 112, 3), 148, np.uint8)
    paste_back(photo, place, wanted)
    steps = np.abs(np.diff(photo.pixels[200, :, 0].astype(int)))
    assert photo.pixels[200, 200, 0] == 148
    assert steps.max() <= 3
    assert (photo.pixels[:, :60] == 128).all()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_a_face_that_did_not_change_changes_nothing(seed):
    before = noise(200, 180, seed=seed)
    photo = PhotoFile(before.copy())
    place = place_at(face_at(90, 100, 77, 0.3), 200, 180)
    paste_back(photo, place, take_crop(photo, place))
    assert (photo.pixels == before).all()


@pytest.mark.parametrize("amplitude", [1, 2, 8])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("size", [80, 170])
def test_no_value_changes_by_more_than_the_attack_changed_one_of_the_crop(amplitude, deep, size):
    rng = np.random.default_rng(amplitude)
    before = rng.integers(0, 65536 if deep else 256, (260, 400, 3)).astype(np.uint16 if deep else np.uint8)
    for centres in ((130.3,), (130.3, 230.8)):
        photo = PhotoFile(before.copy())
        places = [place_at(face_at(x, 125, size, 0.1), 260, 400) for x in centres]
        wanted = [soft_change(take_crop(photo, place), amplitude) for place in places]
        paste_back_all(photo, places, wanted)
        seen, then = (values >> 8 if deep else values for values in (photo.pixels, before))
        assert np.abs(seen.astype(int) - then).max() == amplitude
        grain = 257 if deep else 1
        assert np.abs(photo.pixels.astype(int) - before).max() <= amplitude * grain


def test_of_two_faces_that_touch_the_one_that_did_not_change_is_left_alone():
    before = noise(250, 400, low=90, high=170)
    photo, alone = PhotoFile(before.copy()), PhotoFile(before.copy())
    places = [place_at(face_at(x, 125, 150), 250, 400) for x in (140, 250)]
    crops = [take_crop(photo, place) for place in places]
    wanted = soft_change(crops[0])
    paste_back_all(photo, places, [wanted, crops[1]])
    paste_back(alone, places[0], wanted)
    assert (photo.pixels == alone.pixels).all()
    assert (photo.pixels != before).any()


def test_an_aligned_crop_becomes_what_is_wanted_to_the_bit():
    photo, wanted = PhotoFile(noise(112, 112)), noise(112, 112, seed=5, low=0, high=256)
    place = place_of(np.eye(2, 3), 112, 112)
    assert (take_crop(photo, place) == photo.pixels).all()
    paste_back(photo, place, wanted)
    assert (photo.pixels == wanted).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_changes_as_it_is_seen(orientation):
    upright = PhotoFile(noise(180, 240))
    stored = turned(upright.pixels, {6: 8, 8: 6}.get(orientation, orientation)).copy()
    lying = PhotoFile(stored.copy(), orientation=orientation)
    assert (lying.upright() == upright.pixels).all()
    place = place_at(face_at(120, 90, 100, 0.1), 180, 240)
    wanted = soft_change(take_crop(upright, place))
    paste_back(upright, place, wanted)
    paste_back(lying, place, wanted)
    assert (lying.upright() == upright.pixels).all()
    assert (lying.pixels != stored).any()


def test_transparency_stays_and_what_is_invisible_is_left():
    pixels = np.dstack([noise(200, 200), np.full((200, 200), 255, np.uint8)])
    pixels[:, :100, 3] = 0
    pixels[:, 100:130, 3] = 128
    photo = PhotoFile(pixels.copy())
    place = place_at(face_at(100, 100, 120), 200, 200)
    paste_back(photo, place, soft_change(take_crop(photo, place)))
    assert (photo.pixels[..., 3] == pixels[..., 3]).all()
    assert (photo.pixels[:, :100] == pixels[:, :100]).all()
    assert (photo.pixels[60:140, 135:150, :3] != pixels[60:140, 135:150, :3]).mean() > 0.5


def test_grey_stays_grey_and_gets_the_mean_of_the_change():
    photo = PhotoFile(noise(200, 200, channels=1, low=90, high=160))
    place = place_at(face_at(100, 100, 130), 200, 200)
    crop = take_crop(photo, place)
    change = np.zeros((112, 112, 3), int)
    change[..., 0] = 12
    paste_back(photo, place, (crop + change).astype(np.uint8))
    assert photo.pixels.shape == (200, 200, 1)
    seen = take_crop(photo, place).astype(int) - crop
    assert seen[10:-10, 10:-10].mean() == pytest.approx(4, abs=0.3)


def test_16_bits_keep_their_low_bits_outside_and_change_in_fine_steps():
    deep = np.random.default_rng(0).integers(20000, 40000, (200, 200, 3)).astype(np.uint16)
    photo = PhotoFile(deep.copy())
    place = place_at(face_at(100, 100, 90), 200, 200)
    paste_back(photo, place, soft_change(take_crop(photo, place)))
    outside = np.ones((200, 200), bool)
    outside[place.top : place.bottom, place.left : place.right] = False
    assert (photo.pixels[outside] == deep[outside]).all()
    change = photo.pixels.astype(int) - deep
    assert 0 < np.abs(change).max() <= 10 * 257
    assert len(np.unique(change)) > 200


def test_faces_that_touch_are_both_seen_and_neither_doubles_the_change():
    before = noise(250, 400, low=90, high=170)
    photo = PhotoFile(before.copy())
    places = [place_at(face_at(x, 125, 150), 250, 400) for x in (140, 250)]
    crops = [take_crop(photo, place) for place in places]
    wanted = [soft_change(crop, seed=seed) for seed, crop in enumerate(crops)]
    assert places[0].overlaps(places[1])
    paste_back_all(photo, places, wanted)
    assert np.abs(photo.pixels.astype(int) - before).max() <= 8
    for place, crop, image in zip(places, crops, wanted, strict=True):
        missing = np.linalg.norm(take_crop(photo, place).astype(float) - image)
        assert missing < 0.8 * np.linalg.norm(image.astype(float) - crop)


def test_a_face_at_the_edge_or_outside_is_no_error():
    photo = PhotoFile(noise(120, 120))
    for x in (0, 119, 300):
        place = place_at(face_at(x, 10, 90), 120, 120)
        paste_back(photo, place, soft_change(take_crop(photo, place)))
    assert photo.pixels.shape == (120, 120, 3)


def test_the_place_covers_what_may_change():
    points = face_at(150, 100, 80, 0.4)
    place = place_at(points, 400, 400)
    ends = np.array([-0.5 - MARGIN, 111.5 + MARGIN])
    corners = np.array([[x, y, 1] for x in ends for y in ends]) @ invert_similarity(place.matrix).T
    assert place.left <= corners[:, 0].min()
    assert place.right >= corners[:, 0].max()
    assert place.top <= corners[:, 1].min()
    assert place.bottom >= corners[:, 1].max()
