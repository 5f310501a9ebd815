"""Random resizing and padding against OpenCV's bilinear resize and the uniform distribution."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from bench.contracts import CROP_SIZE, Context, Faces
from bench.randomness import torch_generator
from defenses.randompad import STREAM, RandomPad, draw_placement, place


def padded(faces, seed=0, **params):
    return RandomPad(RandomPad.Params(**params)).purify(faces, Context(seed=seed))


def noisy_faces(count, seed=0):
    ids = tuple(f"photo-{i}" for i in range(count))
    images = torch.rand(count, 3, CROP_SIZE, CROP_SIZE, generator=torch_generator(seed, "faces"))
    return Faces(images, ids, ids)


@pytest.mark.parametrize("min_side", [56, 96])
def test_it_is_a_bilinear_copy_on_a_plain_canvas_where_the_draw_says(min_side):
    faces = noisy_faces(4)
    found = padded(faces, seed=3, min_side=min_side, pad=60)
    for image, image_id, result in zip(faces.images, faces.ids, found, strict=True):
        side, top, left = draw_placement(min_side, torch_generator(3, STREAM, image_id))
        small = cv2.resize(image.permute(1, 2, 0).numpy(), (side, side), interpolation=cv2.INTER_LINEAR)
        canvas = np.full((CROP_SIZE, CROP_SIZE, 3), 60 / 255, np.float32)
        canvas[top : top + side, left : left + side] = small
        np.testing.assert_allclose(result.permute(1, 2, 0).numpy(), canvas, atol=5e-5)


@given(st.integers(56, CROP_SIZE), st.integers(0, 2**32))
def test_the_copy_lies_inside_the_canvas(min_side, seed):
    side, top, left = draw_placement(min_side, torch_generator(seed, "test"))
    assert min_side <= side <= CROP_SIZE
    assert 0 <= top <= CROP_SIZE - side
    assert 0 <= left <= CROP_SIZE - side


def test_every_size_and_place_is_equally_likely():
    draws = [draw_placement(110, torch_generator(i, "test")) for i in range(3000)]
    sides = np.bincount([side - 110 for side, _, _ in draws], minlength=3)
    assert stats.chisquare(sides).pvalue > 0.001
    places = np.bincount([3 * top + left for side, top, left in draws if side == 110], minlength=9)
    assert len(places) == 9
    assert stats.chisquare(places).pvalue > 0.001


def test_photos_and_seeds_have_places_of_their_own():
    def where(seed, ids):
        return [draw_placement(96, torch_generator(seed, STREAM, name)) for name in ids]

    names = [f"photo-{i}" for i in range(20)]
    assert len(set(where(0, names))) > 15
    faces = noisy_faces(2)
    assert not torch.equal(padded(faces, seed=1), padded(faces, seed=2))
    assert torch.equal(padded(faces, seed=1), padded(faces, seed=1))


def test_a_photo_gets_the_same_place_cloaked_or_not_and_in_any_company():
    white, black = (
        Faces(torch.full((5, 3, 112, 112), v), tuple("abcde"), tuple("abcde")) for v in (1.0, 0.0)
    )
    assert torch.equal(padded(white, pad=128) > 0.9, padded(black, pad=128) < 0.1)
    faces = noisy_faces(5)
    together = padded(faces)
    assert torch.equal(padded(faces.subset([4, 2, 0])), together[[4, 2, 0]])


def test_the_full_side_leaves_images_as_they_are():
    faces = noisy_faces(3)
    assert torch.equal(padded(faces, min_side=CROP_SIZE), faces.images)


def test_no_images_give_none_and_each_is_reported():
    assert padded(noisy_faces(0)).shape == (0, 3, CROP_SIZE, CROP_SIZE)
    steps = []
    RandomPad().purify(noisy_faces(3), Context(advance=steps.append))
    assert sum(steps) == 3


def test_the_gradient_is_the_adjoint_of_the_placing():
    faces = noisy_faces(2)
    images = faces.images.clone().requires_grad_()
    weights = torch.randn(images.shape, generator=torch_generator(0, "test", "weights"))
    (gradient,) = torch.autograd.grad((padded(faces.with_images(images)) * weights).sum(), images)
    # The placing is affine in the image, so that the gradient tells every difference exactly.
    other = noisy_faces(2, seed=1)
    change = (padded(other) - padded(faces)).double()
    expected = (change * weights).flatten(1).sum(1)
    found = (gradient.double() * (other.images - faces.images)).flatten(1).sum(1)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


def test_nothing_leaves_the_range_of_images():
    full = place(torch.ones(3, CROP_SIZE, CROP_SIZE), 97, 3, 4, 1.0).clamp(0, 1)
    assert torch.equal(full, torch.ones_like(full)) or float((full - 1).abs().max()) < 1e-6
    assert float(padded(Faces(torch.ones(1, 3, 112, 112), ("a",), ("a",)), pad=255).max()) <= 1


@pytest.mark.parametrize("params", [{"min_side": 55}, {"min_side": 113}, {"pad": -1}, {"pad": 256}])
def test_values_out_of_range_are_refused(params):
    with pytest.raises(ValidationError):
        RandomPad.Params(**params)
