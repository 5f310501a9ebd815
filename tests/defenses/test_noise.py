"""Noise against the normal distribution and its own generators."""

import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from bench.contracts import Context, Faces
from bench.randomness import torch_generator
from defenses.noise import STREAM, Noise


def noisy(faces, seed=0, **params):
    return Noise(Noise.Params(**params)).purify(faces, Context(seed=seed))


def grey(count=1):
    ids = tuple(f"photo-{i}" for i in range(count))
    return Faces(torch.full((count, 3, 112, 112), 0.5), ids, ids)


@pytest.mark.parametrize("sigma", [1, 8, 20])
def test_the_noise_is_normal_with_the_deviation_asked_for(sigma):
    noise = ((noisy(grey(), sigma=sigma) - 0.5) * 255 / sigma).flatten().double()
    assert stats.kstest(noise.numpy(), "norm").pvalue > 0.01
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)


def test_photos_pixels_and_channels_have_noise_of_their_own():
    noise = noisy(grey(2)) - 0.5
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.03
    channels = torch.corrcoef(noise[0].flatten(1))
    assert float((channels - torch.eye(3)).abs().max()) < 0.05
    neighbours = torch.stack([noise[0, :, :, :-1].flatten(), noise[0, :, :, 1:].flatten()])
    assert abs(float(torch.corrcoef(neighbours)[0, 1])) < 0.03


def test_the_noise_is_drawn_from_seed_and_photo(images):
    faces = images.random()
    draw = torch.randn(3, 112, 112, generator=torch_generator(5, STREAM, "photo-1"))
    expected = (faces.images[1] + draw * 8 / 255).clamp(0, 1)
    torch.testing.assert_close(noisy(faces, seed=5)[1], expected)
    assert not torch.equal(noisy(faces, seed=6), noisy(faces, seed=5))


def test_a_photo_gets_the_same_noise_cloaked_or_not():
    brighter = Faces(torch.full((1, 3, 112, 112), 0.55), ("photo-0",), ("photo-0",))
    torch.testing.assert_close(noisy(brighter) - 0.55, noisy(grey()) - 0.5, atol=1e-6, rtol=0)


def test_no_noise_changes_nothing(images):
    faces = images.random()
    assert torch.equal(noisy(faces, sigma=0), faces.images)


def test_gradients_pass_where_nothing_is_clipped():
    values = torch.full((1, 3, 112, 112), 0.5, requires_grad=True)
    noisy(Faces(values, ("a",), ("a",))).sum().backward()
    assert torch.equal(values.grad, torch.ones_like(values))


@pytest.mark.parametrize("sigma", [-1, 129])
def test_values_out_of_range_are_refused(sigma):
    with pytest.raises(ValidationError):
        Noise.Params(sigma=sigma)
