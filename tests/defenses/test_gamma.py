"""Gamma against scikit-image on every grey level."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage.exposure import adjust_gamma

from bench.contracts import Context, Faces
from defenses.gamma import Gamma

GREYS = torch.arange(256, dtype=torch.float32).reshape(1, 1, 16, 16).expand(1, 3, 16, 16) / 255


def toned(images, value):
    return Gamma(Gamma.Params(value=value)).purify(Faces(images, ("a",), ("a",)), Context())


@pytest.mark.parametrize("value", [0.2, 0.8, 1.25, 2.2, 5])
def test_it_is_scikit_images_on_every_grey_level(value):
    expected = adjust_gamma(GREYS.double().numpy(), value)
    np.testing.assert_allclose(toned(GREYS, value).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("value", [0.2, 0.8, 1.25, 5])
def test_black_and_white_stay_and_order_is_kept(value):
    levels = toned(GREYS, value)[0, 0].flatten()
    assert (float(levels[0]), float(levels[-1])) == (0, 1)
    assert bool((levels.diff() > 0).all())
    middle = float(levels[128])
    assert (middle < 128 / 255) == (value > 1)


def test_one_changes_nothing():
    assert torch.equal(toned(GREYS, 1), GREYS)


def test_the_inverse_brings_the_grey_levels_back():
    back = toned(toned(GREYS, 0.8), 1.25)
    torch.testing.assert_close(back, GREYS, atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [0.2, 0.8, 1.25])
def test_the_slope_is_that_of_the_power_and_finite_at_black(value):
    images = GREYS.clone().requires_grad_()
    toned(images, value).sum().backward()
    inner = GREYS[0, 0].flatten()[1:-1].double()
    torch.testing.assert_close(
        images.grad[0, 0].flatten()[1:-1].double(), value * inner ** (value - 1), rtol=1e-4, atol=0
    )
    assert bool(images.grad.isfinite().all())


@pytest.mark.parametrize("value", [0.1, 5.1])
def test_values_out_of_range_are_refused(value):
    with pytest.raises(ValidationError):
        Gamma.Params(value=value)
