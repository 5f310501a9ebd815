"""Cropping against scikit-image's resizing and hand-worked bounds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from skimage.transform import resize

from bench.contracts import Context
from defenses.crop import Crop, kept_pixels


def cropped(faces, **params):
    return Crop(Crop.Params(**params)).purify(faces, Context())


@pytest.mark.parametrize(
    ("share", "kept"), [(1, (0, 112)), (0.95, (3, 109)), (0.9, (6, 106)), (0.5, (28, 84)), (0.25, (42, 70))]
)
def test_what_is_kept_of_112_pixels(share, kept):
    assert kept_pixels(112, share) == kept


@given(st.integers(12, 300), st.floats(0.25, 1))  # shorter ones keep two or three pixels whatever the share
def test_the_kept_part_is_centred_and_of_the_share_asked_for(length, share):
    first, after = kept_pixels(length, share)
    assert first == length - after
    assert 2 <= after - first <= length
    assert abs((after - first) - share * length) <= 2


@pytest.mark.parametrize("share", [0.95, 0.9, 0.6])
def test_it_is_scikit_images_enlarging_of_the_centre(images, share):
    faces = images.random()
    first, after = kept_pixels(112, share)
    for image, result in zip(faces.images, cropped(faces, share=share, filter="bilinear"), strict=True):
        centre = image[:, first:after, first:after].permute(1, 2, 0).numpy()
        expected = resize(centre, (112, 112), order=1, mode="edge", anti_aliasing=False)
        # Pillow rounds after each of its two passes.
        assert np.abs(images.pixels(result) / 255 - expected).max() < 1.6 / 255


def test_everything_kept_changes_nothing(images):
    faces = images.random()
    assert torch.equal(cropped(faces, share=1), faces.images)


def test_the_middle_stays_the_middle(images):
    faces = images.random()
    mirrored = faces.with_images(faces.images.flip(-1).flip(-2))
    # Fixed-point weights need not round alike from both ends.
    difference = (cropped(mirrored, share=0.7).flip(-1).flip(-2) - cropped(faces, share=0.7)).abs()
    assert float(difference.max()) * 255 <= 1.001


@pytest.mark.parametrize("values", [{"share": 0.2}, {"share": 1.01}, {"filter": "nearest"}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        Crop.Params.model_validate(values)
