import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from attacks._gradient_smoothing import gaussian_kernel, smoothed


def gradients(count=2, channels=3, height=40, width=28):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("sigma", "length", "published"), [(1, 7, 7), (7 / 3, 15, 15)])
def test_the_kernels_are_those_of_the_published_codes(sigma, length, published):
    # Dong et al. and Yang et al.: the normal density at `length` points from -3 to 3, the outer product's sum 1.
    density = norm.pdf(np.linspace(-3, 3, published))
    expected = np.outer(density, density) / np.outer(density, density).sum()
    kernel = gaussian_kernel(sigma)
    assert len(kernel) == length
    np.testing.assert_allclose(torch.outer(kernel, kernel), expected, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.3, 1, 1.5, 4, 16])
def test_it_is_scipys_gaussian_filter_with_zeros_beyond_the_edges(sigma):
    images = gradients()
    radius = len(gaussian_kernel(sigma)) // 2
    expected = gaussian_filter(
        images.double().numpy(), sigma, axes=(2, 3), mode="constant", cval=0, radius=radius
    )
    found = smoothed(images, gaussian_kernel(sigma))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert radius == np.ceil(3 * sigma)


def test_it_is_linear_keeps_a_flat_middle_and_no_photo_or_channel_reaches_another():
    images, kernel = gradients(), gaussian_kernel(1.5)
    torch.testing.assert_close(smoothed(-3 * images, kernel), -3 * smoothed(images, kernel))
    flat = smoothed(torch.ones(1, 3, 30, 30), kernel)
    torch.testing.assert_close(flat[..., 5:-5, 5:-5], torch.ones(1, 3, 20, 20))
    assert flat[0, 0, 0, 0] < 0.5
    one = torch.zeros_like(images)
    one[1, 2, 20, 14] = 1
    reached = smoothed(one, kernel) != 0
    assert reached[1, 2, 15:26, 9:20].all()
    assert int(reached.sum()) == 11 * 11
