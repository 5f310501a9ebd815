"""Images for tests of purifiers."""

from types import SimpleNamespace

import pytest
import torch

from bench.contracts import Faces
from bench.randomness import torch_generator


@pytest.fixture
def images():
    """Return functions that make smooth random faces on the 8-bit grid, and give an image's pixels."""

    def random(count=2, seed=0, side=112):
        noise = torch.rand(count, 3, side // 4, side // 4, generator=torch_generator(seed, "test", "faces"))
        smooth = torch.nn.functional.interpolate(noise, size=side, mode="bicubic").clamp(0, 1)
        ids = tuple(f"photo-{i}" for i in range(count))
        return Faces(smooth.mul(255).round() / 255, ids, ids)

    def pixels(image):
        return image.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()

    return SimpleNamespace(random=random, pixels=pixels)
