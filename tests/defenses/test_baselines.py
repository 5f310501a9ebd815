"""The baseline purifiers against Pillow, SciPy and their own definitions."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage

from bench.contracts import Context, Faces, Purifier
from bench.randomness import torch_generator
from defenses.gaussian import Gaussian, gaussian_kernel
from defenses.jpeg import JPEG
from defenses.median import Median
from defenses.none import NoDefense


def random_faces(count: int, seed: int = 0, side: int = 112) -> Faces:
    """Return `count` smooth random images on the 8-bit grid."""
    noise = torch.rand(count, 3, side // 4, side // 4, generator=torch_generator(seed, "test", "faces"))
    images = torch.nn.functional.interpolate(noise, size=side, mode="bicubic").clamp(0, 1)
    ids = tuple(f"photo-{i}" for i in range(count))
    return Faces(images.mul(255).round() / 255, ids, ids)


def to_pixels(image: torch.Tensor) -> np.ndarray:
    return image.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()


BASELINES: list[Purifier] = [NoDefense(), JPEG(), Gaussian(), Median()]


@pytest.mark.parametrize("purifier", BASELINES, ids=lambda p: p.name)
def test_shape_type_and_range(purifier: Purifier) -> None:
    faces = random_faces(3)
    purified = purifier.purify(faces, Context())
    assert purified.shape == faces.images.shape
    assert purified.dtype == torch.float32
    assert 0 <= float(purified.min()) <= float(purified.max()) <= 1


@pytest.mark.parametrize("purifier", BASELINES, ids=lambda p: p.name)
def test_bytes_do_not_depend_on_the_batch(purifier: Purifier) -> None:
    faces = random_faces(5)
    together = purifier.purify(faces, Context())
    for i in range(len(faces)):
        alone = purifier.purify(faces.subset([i]), Context())
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize("purifier", BASELINES, ids=lambda p: p.name)
def test_no_faces_give_no_images(purifier: Purifier) -> None:
    assert purifier.purify(random_faces(1).subset([]), Context()).shape == (0, 3, 112, 112)


@pytest.mark.parametrize("purifier", BASELINES, ids=lambda p: p.name)
def test_progress_counts_every_image(purifier: Purifier) -> None:
    finished: list[int] = []
    purifier.purify(random_faces(3), Context(advance=finished.append))
    assert sum(finished) == 3


@pytest.mark.parametrize("purifier", BASELINES, ids=lambda p: p.name)
def test_input_is_not_written_to(purifier: Purifier) -> None:
    faces = random_faces(2)
    before = faces.images.clone()
    purifier.purify(faces, Context())
    assert torch.equal(faces.images, before)


def test_none_returns_its_input() -> None:
    faces = random_faces(2)
    assert torch.equal(NoDefense().purify(faces, Context()), faces.images)


@pytest.mark.parametrize(
    ("subsampling", "pillow"), [("yuv444", "4:4:4"), ("yuv422", "4:2:2"), ("yuv420", "4:2:0")]
)
@pytest.mark.parametrize("quality", [10, 75, 95])
def test_jpeg_is_pillows(quality: int, subsampling: str, pillow: str) -> None:
    faces = random_faces(2)
    params = JPEG.Params.model_validate({"quality": quality, "subsampling": subsampling})
    purified = JPEG(params).purify(faces, Context())
    for original, result in zip(faces.images, purified, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(to_pixels(original)).save(buffer, "JPEG", quality=quality, subsampling=pillow)
        expected = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
        assert np.array_equal(to_pixels(result), expected)


def test_jpeg_default_is_pillows_default() -> None:
    faces = random_faces(1)
    buffer = io.BytesIO()
    Image.fromarray(to_pixels(faces.images[0])).save(buffer, "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
    assert np.array_equal(to_pixels(JPEG().purify(faces, Context())[0]), expected)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_gaussian_is_scipys(sigma: float) -> None:
    faces = random_faces(2)
    purified = Gaussian(Gaussian.Params(sigma=sigma)).purify(faces, Context())
    expected = ndimage.gaussian_filter(
        faces.images.double().numpy(), sigma=(0, 0, sigma, sigma), mode="nearest", truncate=4.0
    )
    np.testing.assert_allclose(purified.numpy(), expected, atol=1e-6)


@given(sigma=st.floats(0.05, 10))
def test_gaussian_kernel_is_normalised_and_symmetric(sigma: float) -> None:
    weights = gaussian_kernel(sigma)
    assert sum(weights) == pytest.approx(1)
    assert weights == pytest.approx(weights[::-1])
    assert len(weights) % 2 == 1


def test_gaussian_passes_gradients() -> None:
    faces = random_faces(1)
    images = faces.images.clamp(0.1, 0.9).requires_grad_()
    Gaussian().purify(faces.with_images(images), Context()).sum().backward()
    assert images.grad is not None
    # Every weight of the kernel lands on some output pixel, so an inner pixel's gradients sum to one.
    torch.testing.assert_close(images.grad[0, :, 50, 50], torch.ones(3))


def test_gaussian_of_zero_pixels_changes_nothing() -> None:
    faces = random_faces(1)
    assert torch.equal(Gaussian(Gaussian.Params(sigma=0)).purify(faces, Context()), faces.images)


@settings(deadline=None, max_examples=8)
@given(size=st.sampled_from([1, 3, 5, 7, 15]), seed=st.integers(0, 100))
def test_median_is_scipys(size: int, seed: int) -> None:
    faces = random_faces(1, seed, side=32)
    purified = Median(Median.Params(size=size)).purify(faces, Context())
    expected = ndimage.median_filter(faces.images.numpy(), size=(1, 1, size, size), mode="nearest")
    np.testing.assert_allclose(purified.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("purifier", "values"),
    [
        (JPEG, {"quality": 0}),
        (JPEG, {"quality": 101}),
        (JPEG, {"subsampling": "4:1:1"}),
        (Gaussian, {"sigma": -0.1}),
        (Gaussian, {"sigma": 10.1}),
        (Median, {"size": 17}),
        (Median, {"size": 0}),
    ],
)
def test_values_out_of_range_are_refused(purifier: type[Purifier], values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        purifier.Params.model_validate(values)


def test_an_even_median_names_its_neighbours() -> None:
    with pytest.raises(ValidationError, match=r"4 is even.*3 or 5"):
        Median.Params(size=4)
