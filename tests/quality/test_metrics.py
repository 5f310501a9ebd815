import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from bench.quality.metrics import SsimReference, changed, dssim, linf, psnr, ssim, to_8_bits


def photos(n=4, height=40, width=36, seed=0):
    """Smooth images with some detail, quantised to 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return to_8_bits(smooth + 0.02 * torch.randn(smooth.shape, generator=generator))


def noisy(images, sigma, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return to_8_bits(images + sigma * torch.randn(images.shape, generator=generator))


@pytest.mark.parametrize("sigma", [0.004, 0.05, 0.4])
def test_ssim_equals_scikit_image_over_valid_windows(sigma):
    a = photos()
    b = noisy(a, sigma)
    expected = []
    for x, y in zip(a.numpy(), b.numpy(), strict=True):
        _, similarity = structural_similarity(
            x,
            y,
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        expected.append(similarity[:, 5:-5, 5:-5].mean())
    np.testing.assert_allclose(ssim(a, b).numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(dssim(a, b).numpy(), (1 - np.array(expected)) / 2, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.004, 0.05, 0.4])
def test_ssim_equals_torchmetrics_over_valid_windows(sigma):
    a = photos().double()
    b = noisy(a, sigma)
    _, similarity = structural_similarity_index_measure(
        a, b, data_range=1.0, sigma=1.5, reduction="none", return_full_image=True
    )
    expected = similarity[:, :, 5:-5, 5:-5].mean((1, 2, 3))
    torch.testing.assert_close(ssim(a, b), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_psnr_equals_scikit_image(sigma):
    a = photos()
    b = noisy(a, sigma)
    expected = [
        peak_signal_noise_ratio(x, y, data_range=1.0)
        for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(psnr(a, b).numpy(), expected, rtol=1e-9)


def test_identical_images():
    a = photos()
    torch.testing.assert_close(ssim(a, a), torch.ones(4), atol=1e-5, rtol=0)
    assert torch.isinf(psnr(a, a)).all()
    assert (psnr(a, a) > 0).all()
    assert torch.equal(linf(a, a), torch.zeros(4))
    assert not changed(a, a).any()


def test_linf_is_in_grey_levels_and_changed_counts_8_bit_changes_only():
    a = photos(3)
    b = a.clone()
    b[1, 2, 5, 5] = a[1, 2, 5, 5] + (17 / 255 if a[1, 2, 5, 5] < 0.5 else -17 / 255)
    b[2] = b[2] + 0.3 / 255
    np.testing.assert_allclose(linf(b, a).numpy(), [0, 17, 0.3], atol=1e-4)
    assert changed(b, a).tolist() == [False, True, False]


def test_psnr_of_a_known_error():
    a = torch.zeros(1, 3, 12, 12)
    assert psnr(a + 0.1, a).item() == pytest.approx(20.0, abs=1e-5)


def test_to_8_bits_matches_integer_rounding():
    values = torch.tensor([-0.2, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.7]).view(1, 1, 1, 6)
    assert (to_8_bits(values) * 255).flatten().tolist() == pytest.approx([0, 0, 0, 1, 255, 255])


def test_gradient_of_ssim_is_right():
    a = photos(2, 13, 12).double()
    b = noisy(a, 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: SsimReference.of(a).ssim(y), (b,), atol=1e-6)


def plain_ssim(images, reference):
    """SSIM as its formula says, by one convolution with the whole window."""
    offsets = torch.arange(11, dtype=images.dtype) - 5
    line = torch.exp(-offsets.square() / 4.5)
    window = torch.outer(line, line) / line.sum() ** 2

    def mean(values):
        return torch.nn.functional.conv2d(values.flatten(0, 1)[:, None], window[None, None]).unflatten(
            0, values.shape[:2]
        )

    x, y = mean(images), mean(reference)
    xx, yy, xy = mean(images**2) - x**2, mean(reference**2) - y**2, mean(images * reference) - x * y
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * x * y + c1) * (2 * xy + c2) / ((x**2 + y**2 + c1) * (xx + yy + c2))
    return found.flatten(1).mean(1)


@pytest.mark.parametrize("shape", [(112, 112), (11, 11), (112, 96), (45, 57), (300, 20)])
def test_values_and_gradients_equal_the_formulas(shape):
    a = photos(3, *shape).double()
    weights = torch.tensor([1.0, -2.0, 0.0]).double()
    found, expected = noisy(a, 0.05).requires_grad_(), noisy(a, 0.05).requires_grad_()
    torch.testing.assert_close(ssim(found, a), plain_ssim(expected, a), atol=1e-12, rtol=0)
    ours = torch.autograd.grad((weights * ssim(found, a)).sum(), found)[0]
    theirs = torch.autograd.grad((weights * plain_ssim(expected, a)).sum(), expected)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def test_gradients_of_both_images_equal_the_formulas():
    a, b = photos(2, 40, 31).double(), noisy(photos(2, 40, 31), 0.1).double()
    found, expected = (
        (a.clone().requires_grad_(), b.clone().requires_grad_()),
        (a.requires_grad_(), b.requires_grad_()),
    )
    ours = torch.autograd.grad(ssim(*found).sum(), found)
    theirs = torch.autograd.grad(plain_ssim(*expected).sum(), expected)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def test_memory_layout_changes_no_value():
    a = photos(3)
    b = noisy(a, 0.1)
    moved = b.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ssim(a, b), ssim(a.contiguous(memory_format=torch.channels_last), moved))


def test_windows_first_made_in_inference_mode_serve_gradients_later():
    with torch.inference_mode():
        ssim(photos(1, 61, 61), photos(1, 61, 61))
    a = photos(1, 61, 61)
    b = noisy(a, 0.1).requires_grad_()
    assert torch.autograd.grad(ssim(b, a).sum(), b)[0].abs().max() > 0


def test_an_image_counts_alone():
    a = photos(6)
    b = noisy(a, 0.1)
    whole = ssim(a, b)
    for i in range(6):
        torch.testing.assert_close(ssim(a[i : i + 1], b[i : i + 1])[0], whole[i], atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), sigma=st.floats(0.002, 0.5))
def test_ssim_is_symmetric_bounded_and_falls_with_more_noise(seed, sigma):
    a = photos(1, 24, 24, seed)
    b = noisy(a, sigma, seed + 1)
    value = ssim(a, b).item()
    assert -1 <= value <= 1 + 1e-6
    assert math.isclose(value, ssim(b, a).item(), abs_tol=1e-5)
    half = a + (b - a) / 2
    assert ssim(a, half).item() >= value - 1e-6


@pytest.mark.parametrize("measure", [psnr, ssim, dssim, linf, changed])
def test_shapes_must_agree(measure):
    with pytest.raises(ValueError, match="differ"):
        measure(torch.zeros(1, 3, 20, 20), torch.zeros(2, 3, 20, 20))


def test_an_image_smaller_than_the_window_is_refused():
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(1, 3, 20, 10), torch.zeros(1, 3, 20, 10))
