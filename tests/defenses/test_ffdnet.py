"""FFDNet against slices and convolutions written out; what it shares with DnCNN is in `test_dncnn`."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from bench.contracts import Context, Faces
from bench.randomness import torch_generator
from defenses import ffdnet
from defenses.ffdnet import FFDNet, denoise


def random_images(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch_generator(0, "faces"))


def blocks(image):
    """Return the 12×H/2×W/2 sub-images of a 3×H×W image: channel, row and column of the block, in this order."""
    return np.stack([image[c, row::2, column::2] for c in range(3) for row in (0, 1) for column in (0, 1)])


def test_blocks_and_level_go_in_and_blocks_come_out():
    seen = []

    def first_twelve(inputs):
        seen.append(inputs)
        return inputs[:, :12]

    images = random_images(2, 6, 10)
    assert torch.equal(denoise(first_twelve, images, 30), images)
    (inputs,) = seen
    for given, image in zip(inputs.numpy(), images.numpy(), strict=True):
        np.testing.assert_array_equal(given[:12], blocks(image))
        np.testing.assert_allclose(given[12], np.full((3, 5), 30 / 255), rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(7, 10), (6, 9), (5, 5)])
def test_odd_sides_are_replicated_and_cut_off_again(height, width):
    seen = []

    def first_twelve(inputs):
        seen.append(inputs)
        return inputs[:, :12]

    images = random_images(1, height, width)
    assert torch.equal(denoise(first_twelve, images, 15), images)
    even = np.pad(images[0].numpy(), ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    np.testing.assert_array_equal(seen[0][0, :12].numpy(), blocks(even))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file of random weights and their tensors."""
    generator = torch_generator(0, "test", "ffdnet")
    channels = ffdnet.WEIGHTS.channels
    tensors = {}
    for layer, (inputs, outputs) in enumerate(pairwise(channels)):
        draw = torch.randn(outputs, inputs, 3, 3, generator=generator)
        tensors[f"model.{2 * layer}.weight"] = draw * (2 / (9 * inputs)) ** 0.5
        tensors[f"model.{2 * layer}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    path = tmp_path_factory.mktemp("weights") / "ffdnet.safetensors"
    save_file(tensors, path)
    return path, tensors


def correlated(x, weight, bias):
    """Return O×H×W from C×H×W by SciPy's correlation, channel by channel, zeros outside."""
    out = np.empty((len(weight), *x.shape[1:]))
    for o, kernels in enumerate(weight):
        planes = (
            scipy.ndimage.correlate(plane, kernel, mode="constant")
            for plane, kernel in zip(x, kernels, strict=True)
        )
        out[o] = sum(planes) + bias[o]
    return out


def test_it_returns_what_a_chain_of_convolutions_gives(weights):
    sigma = 40
    path, tensors = weights
    image = random_images(1, 5, 6)
    found = FFDNet(FFDNet.Params(sigma=sigma)).purify(Faces(image, ("a",), ("a",)), Context(files=(path,)))
    even = np.pad(image[0].double().numpy(), ((0, 0), (0, 1), (0, 0)), mode="edge")
    x = np.concatenate([blocks(even), np.full((1, 3, 3), sigma / 255)])
    for layer in range(12):
        names = (f"model.{2 * layer}.weight", f"model.{2 * layer}.bias")
        x = correlated(x, *(tensors[name].double().numpy() for name in names))
        x = np.maximum(x, 0) if layer < 11 else x
    expected = np.empty((3, 6, 6))
    for k, plane in enumerate(x):
        expected[k // 4, k // 2 % 2 :: 2, k % 2 :: 2] = plane
    clipped = np.clip(expected[:, :5], 0, 1)
    assert ((clipped > 0) & (clipped < 1)).mean() > 0.1
    np.testing.assert_allclose(found[0].numpy(), clipped, atol=2e-5)


@pytest.mark.parametrize("sigma", [0, -1, 75.5])
def test_levels_out_of_range_are_refused(sigma):
    with pytest.raises(ValidationError):
        FFDNet.Params(sigma=sigma)
