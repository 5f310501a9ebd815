import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from bench.contracts import Identity
from bench.datasets import _face_geometry as geometry
from bench.datasets import synthetic
from bench.datasets._face_renderer import render, sculpt
from bench.datasets._face_traits import draw_conditions, draw_traits
from bench.datasets.synthetic import Synthetic
from bench.errors import UsageError
from bench.randomness import numpy_generator


@pytest.fixture(scope="module")
def dataset() -> Synthetic:
    return Synthetic(Synthetic.Params(identities=24, photos=14))


@pytest.fixture(scope="module")
def photos(dataset: Synthetic) -> dict[str, torch.Tensor]:
    ids = [photo for identity in dataset.identities()[:8] for photo in identity.photos[:6]]
    return dict(zip(ids, dataset.crops(ids), strict=True))


def test_counts_ids_and_roles() -> None:
    identities = Synthetic(Synthetic.Params(identities=3, photos=2, training_identities=2)).identities()
    assert identities[2] == Identity(
        "synthetic-eval-0002", ("synthetic-eval-0002/00", "synthetic-eval-0002/01"), "evaluation"
    )
    assert [(p.id, p.role, len(p.photos)) for p in identities[3:]] == [
        ("synthetic-train-0000", "training", 16),
        ("synthetic-train-0001", "training", 16),
    ]
    ids = [p.id for p in identities]
    assert ids == sorted(ids)


def test_crops_are_bytes_of_the_crop_size(photos: dict[str, torch.Tensor]) -> None:
    for image in photos.values():
        assert image.dtype == torch.uint8
        assert image.shape == (3, 112, 112)
        assert image.float().std() > 8, "a flat image shows nobody"


def test_bytes_depend_on_neither_order_nor_batch(dataset: Synthetic, photos: dict[str, torch.Tensor]) -> None:
    shuffled = list(photos)
    np.random.default_rng(3).shuffle(shuffled)
    again = Synthetic(Synthetic.Params(identities=24, photos=14)).crops(shuffled)
    for name, image in zip(shuffled, again, strict=True):
        assert torch.equal(image, photos[name])
        assert torch.equal(dataset.crops([name])[0], photos[name])


def test_bytes_do_not_depend_on_how_many_there_are() -> None:
    few = Synthetic(Synthetic.Params(identities=2, photos=1))
    many = Synthetic(Synthetic.Params(identities=900, photos=90, training_identities=3))
    assert torch.equal(few.crops(["synthetic-eval-0001/00"]), many.crops(["synthetic-eval-0001/00"]))
    assert few.fingerprint() != many.fingerprint()
    assert few.fingerprint() == Synthetic(Synthetic.Params(identities=2, photos=1)).fingerprint()


# fmt: off
PIXELS = {
    1: {
        "synthetic-eval-0000/00": [
            [37.1, 23.4, 35.6, 61.8, 41.2, 109.8, 99.1, 43.8, 73.6, 111.3, 108.8, 61.2, 66.0, 85.6, 78.9, 100.4],
            [33.6, 19.4, 26.9, 51.0, 32.8, 86.1, 77.6, 56.2, 61.7, 82.5, 81.2, 57.0, 74.8, 62.4, 61.5, 92.3],
            [31.1, 19.8, 31.4, 72.2, 29.8, 67.7, 61.8, 49.6, 52.6, 64.5, 63.8, 51.8, 60.7, 50.2, 52.6, 72.8],
        ],
        "synthetic-eval-0007/03": [
            [140.0, 69.6, 68.6, 90.5, 84.9, 66.5, 96.1, 63.7, 94.6, 67.3, 104.8, 55.1, 95.2, 52.3, 83.6, 51.5],
            [153.8, 60.7, 49.4, 83.5, 82.8, 48.2, 73.2, 44.9, 85.5, 47.9, 74.6, 36.8, 93.2, 37.0, 59.8, 37.0],
            [145.3, 58.5, 46.2, 74.6, 94.8, 41.1, 64.5, 47.4, 76.6, 40.1, 63.1, 32.8, 103.0, 32.7, 50.5, 35.1],
        ],
    }
}
# fmt: on
"""RENDERER_VERSION → photo → mean grey level of the 16 squares of 28×28 pixels of each channel, row by row."""


def squares(image: torch.Tensor) -> list[list[float]]:
    means = image.float().reshape(3, 4, 28, 4, 28).mean((2, 4)).flatten(1)
    return [[round(value, 1) for value in channel] for channel in means.tolist()]


@pytest.mark.parametrize("photo", PIXELS[1])
def test_a_renderer_with_other_pixels_has_another_version(photo: str) -> None:
    """Squares, as OpenCV's kernels round single pixels differently on different processors."""
    found = squares(Synthetic(Synthetic.Params(photos=5)).crops([photo])[0])
    assert np.allclose(found, PIXELS[synthetic.RENDERER_VERSION][photo], atol=0.15), (
        "photos have other pixels: raise RENDERER_VERSION, then record these"
    )


def test_the_version_of_the_renderer_is_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Synthetic().fingerprint()
    monkeypatch.setattr(synthetic, "RENDERER_VERSION", synthetic.RENDERER_VERSION + 1)
    assert Synthetic().fingerprint() != before


def test_another_world_has_other_people() -> None:
    name = ["synthetic-eval-0000/00"]
    here, there = Synthetic().crops(name), Synthetic(Synthetic.Params(world=1)).crops(name)
    assert not torch.equal(here, there)


def test_people_differ_more_than_photos_of_one(photos: dict[str, torch.Tensor]) -> None:
    """Even in raw pixels, standardised per image, an identity's own photos are nearer than other identities'."""
    flat = torch.stack([image.float().mean(0).flatten() for image in photos.values()])
    flat = torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True))
    cosine = (flat @ flat.T).numpy()
    identity = np.array([name.split("/")[0] for name in photos])
    same = identity[:, None] == identity[None, :]
    np.fill_diagonal(same, False)
    other = identity[:, None] != identity[None, :]
    assert cosine[same].mean() > cosine[other].mean() + 0.1
    assert cosine[same].mean() < 0.97, "photos of one identity must not be copies"


@pytest.mark.parametrize(
    "wrong",
    [
        "synthetic-eval-0024/00",
        "synthetic-eval-0000/14",
        "synthetic-eval-0000",
        "synthetic-eval-0/0",
        "ann/00",
    ],
)
def test_unknown_image_is_refused(dataset: Synthetic, wrong: str) -> None:
    with pytest.raises(UsageError, match=r"Valid: synthetic-eval-0000/00 to synthetic-eval-0023/13"):
        dataset.crops([wrong])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_aligned_to_the_template_by_least_squares(seed: int) -> None:
    """Without an aligner's error the landmarks lie where skimage's Umeyama fit would put them."""
    traits = draw_traits(numpy_generator(seed, "person"))
    shot = dataclasses.replace(
        draw_conditions(numpy_generator(seed, "photo")), shift=(0.0, 0.0), zoom=1.0, roll=0.0
    )
    z = geometry.relief(traits)
    points = geometry.landmarks(traits, shot)
    view = geometry.align(traits, shot, z)
    placed = view.project(points, geometry.depth_at(z, points))
    turned = geometry.View(shot.yaw, shot.pitch, 1, 0).turn(points, geometry.depth_at(z, points))
    fitted = SimilarityTransform.from_estimate(turned, geometry.ARCFACE_TEMPLATE)
    np.testing.assert_allclose(placed, fitted(turned), atol=1e-9)
    assert np.linalg.norm(placed - geometry.ARCFACE_TEMPLATE, axis=1).max() < 12


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_sampling_map_inverts_the_view(seed: int) -> None:
    traits = draw_traits(numpy_generator(seed, "person"))
    shot = draw_conditions(numpy_generator(seed, "photo"))
    z = geometry.relief(traits)
    view = geometry.align(traits, shot, z)
    column, row = geometry.sampling_map(view, z, 112)
    for y, x in ((52, 38), (52, 74), (92, 56), (40, 56)):
        seen = np.array([[column[y, x], row[y, x]]], dtype=np.float64) - geometry.MARGIN
        back = view.project(seen, geometry.depth_at(z, seen))
        np.testing.assert_allclose(back, [[x, y]], atol=1.0)


def test_eyes_are_where_the_template_has_them() -> None:
    """Irises painted green are found, by their colour alone, near the template's eyes."""
    for seed in range(30):
        traits = dataclasses.replace(
            draw_traits(numpy_generator(seed, "person")),
            iris=(0.0, 255.0, 0.0),
            glasses=False,
            eye_height=4.0,
        )
        drawn = draw_conditions(numpy_generator(seed, "photo"))
        shot = dataclasses.replace(drawn, gaze=(0.0, 0.0), eye_open=1.1, noise=0.0, blur=0.0, shine=0.0)
        red, green, blue = render(sculpt(traits), shot).astype(float)
        face = np.s_[36:68, 22:90]
        row, column = np.nonzero((green - np.maximum(red, blue))[face] > 0.25 * green.max())
        for x, half in ((38.3, column < 34), (73.5, column >= 34)):
            assert abs(column[half].mean() + 22 - x) < 7
            assert abs(row[half].mean() + 36 - 51.6) < 7
