from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.transform import SimilarityTransform
from skimage.transform import warp as skimage_warp

from bench.errors import DataError
from bench.faces.alignment import (
    TEMPLATE,
    align,
    estimate_similarity,
    invert_similarity,
    similarity_scale,
    warp,
)
from bench.faces.landmark_files import read_landmarks

HEADER = "path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5,score,detected"


def similarity(scale: float, angle: float, x: float, y: float) -> np.ndarray:
    return SimilarityTransform(scale=scale, rotation=angle, translation=(x, y)).params[:2]


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).random((height, width, 3))
    smooth = gaussian_filter(noise, (4, 4, 0))
    return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))


@given(arrays(np.float64, (5, 2), elements=st.floats(-9, 9)))
def test_estimate_agrees_with_scikit_image_on_jittered_faces(jitter):
    source = moved(TEMPLATE + jitter, similarity(2.3, 0.4, 31, -7))
    theirs = SimilarityTransform.from_estimate(source, TEMPLATE)
    np.testing.assert_allclose(estimate_similarity(source), theirs.params[:2], rtol=1e-9, atol=1e-9)


@given(scale=st.floats(0.05, 20), angle=st.floats(-3.1, 3.1), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_an_exact_similarity_is_recovered_and_inverted(scale, angle, x, y):
    matrix = similarity(scale, angle, x, y)
    source = moved(TEMPLATE, invert_similarity(matrix))
    found = estimate_similarity(source)
    np.testing.assert_allclose(found, matrix, rtol=1e-6, atol=1e-6)
    assert similarity_scale(found) == pytest.approx(scale)
    np.testing.assert_allclose(moved(moved(source, found), invert_similarity(found)), source, atol=1e-6)


def test_no_nearby_similarity_has_a_smaller_error():
    rng = np.random.default_rng(3)
    source = moved(TEMPLATE, similarity(1.4, 0.2, 40, 30)) + rng.normal(0, 4, (5, 2))
    best = estimate_similarity(source)

    def error(matrix):
        return ((moved(source, matrix) - TEMPLATE) ** 2).sum()

    a, b, x, y = best[0, 0], best[1, 0], best[0, 2], best[1, 2]
    for delta in rng.normal(0, 1e-3, (200, 4)):
        da, db, dx, dy = np.array([a, b, x, y]) + delta
        assert error(best) < error(np.array([[da, -db, dx], [db, da, dy]]))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((5, 2), 7.0), "coincide or lie on one line"),
        (np.outer(np.arange(5.0), [1.0, 2.0]), "coincide or lie on one line"),
        (np.full((5, 2), np.nan), "not finite"),
        (np.zeros((4, 2)), r"shape \(4, 2\), expected \(5, 2\)"),
        (TEMPLATE * [-1, 1] + [112, 0], "mirrored"),
    ],
)
def test_degenerate_landmarks_are_refused(points, message):
    with pytest.raises(DataError, match=message):
        estimate_similarity(points)


def test_crop_agrees_with_scikit_image_and_is_black_outside():
    image = smooth_image(200, 180)
    matrix = similarity(0.8, 0.3, 5, -10)
    crop = align(image, moved(TEMPLATE, invert_similarity(matrix)))
    inverse = SimilarityTransform(np.vstack([invert_similarity(matrix), [0, 0, 1]]))
    theirs = skimage_warp(image, inverse, output_shape=(112, 112), order=1, preserve_range=True)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    outside = (theirs == 0).all(2)
    assert outside.any()
    assert not crop[outside].any()
    # OpenCV keeps 5 bits of the sub-pixel position: within 1/32 pixel of a smooth image's slope.
    assert np.abs(crop - theirs).max() <= 3
    assert np.abs(crop - theirs).mean() < 0.4


def test_landmarks_on_the_template_leave_the_image_alone():
    image = smooth_image(112, 112)
    np.testing.assert_array_equal(align(image, TEMPLATE), image)


def test_a_large_photo_is_averaged_not_sampled():
    # A checkerboard of single pixels: sampling would give black or white, averaging gives grey.
    leaderboard = np.indices((896, 896)).sum(0) % 2 * 255
    image = np.repeat(leaderboard[..., None], 3, 2).astype(np.uint8)
    crop = warp(image, similarity(1 / 8, 0, 0, 0))
    inner = crop[2:-2, 2:-2]
    assert inner.min() >= 126
    assert inner.max() <= 129


@pytest.mark.parametrize("size", [901, 1800])
def test_averaging_first_does_not_shift_the_face(size):
    _y, x = np.indices((size, size))
    image = np.repeat((x * 255 / size)[..., None], 3, 2).astype(np.uint8)
    matrix = similarity(112 / size, 0, 0, 0)
    crop = warp(image, matrix).astype(float)[10:-10, 10:-10, 0]
    expected = np.arange(10, 102) * size / 112 * 255 / size - 0.5  # truncated to 8 bits: half a level less
    # Forgetting the centres of the blocks would be off by one level on average.
    assert abs((crop - expected).mean()) < 0.15


def test_crop_put_back_gives_the_photo_again():
    image = smooth_image(112, 112)
    matrix = similarity(1.5, 0.2, -20, -40)
    there = warp(image, matrix, 160, 160)
    back = warp(there, invert_similarity(matrix), 112, 112)
    middle = (slice(45, 65), slice(45, 65))
    assert np.abs(back[middle].astype(int) - image[middle]).max() <= 4


def test_landmark_file_round_trip(tmp_path: Path):
    numbers = ",".join(str(v) for v in TEMPLATE.ravel())
    file = tmp_path / "points.csv"
    file.write_text(f"{HEADER}\na/1.jpg,{numbers},0.75,1\na/2.jpg,{numbers},0.1,0\n")
    found = read_landmarks(file)
    assert list(found) == ["a/1.jpg"]
    np.testing.assert_array_equal(found["a/1.jpg"].points, TEMPLATE)
    assert found["a/1.jpg"].score == 0.75


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,x1\na,1\n", "lacks the columns y1, x2"),
        (f"{HEADER}\na,1,2,3\n", "line 2"),
        (f"{HEADER}\na,1,2,3,4,5,six,7,8,9,10,1,1\n", "line 2.*six"),
        ("", "lacks the columns path"),
    ],
)
def test_broken_landmark_file_is_named(tmp_path, text, message):
    file = tmp_path / "points.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_landmarks(file)
    assert str(file) in str(caught.value)


def test_missing_landmark_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_landmarks(tmp_path / "nowhere.csv")
