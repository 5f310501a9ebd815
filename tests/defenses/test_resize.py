"""Resizing against torch's own antialiased interpolation."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bench.contracts import Context, Faces
from defenses.resize import Resize


def resized(faces, **params):
    return Resize(Resize.Params(**params)).purify(faces, Context())


def by_torch(images, side, mode):
    """Return images shrunk and enlarged by torch, rounded to 8 bits in between."""
    settings = {"mode": mode, "antialias": True, "align_corners": False}
    small = torch.nn.functional.interpolate(images, size=side, **settings)
    small = small.clamp(0, 1).mul(255).round() / 255
    return torch.nn.functional.interpolate(small, size=images.shape[-1], **settings).clamp(0, 1)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [96, 56, 20])
def test_it_is_torchs_antialiased_resizing(images, side, mode):
    faces = images.random(3)
    # Away from black and white: Pillow clips what bicubic weights overshoot after each pass, torch at the end.
    faces = faces.with_images((63 + faces.images * 127).round() / 255)
    result = resized(faces, side=side, filter=mode)
    difference = (result - by_torch(faces.images, side, mode)).abs() * 255
    # The small copy may round the other way, by one grey level.
    assert float(difference.max()) < 2.5
    assert float(difference.mean()) < 0.5


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
def test_the_full_side_changes_nothing(images, mode):
    faces = images.random()
    assert torch.equal(resized(faces, side=112, filter=mode), faces.images)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
def test_a_flat_image_stays_flat(mode):
    flat = torch.full((1, 3, 112, 112), 77 / 255)
    assert torch.equal(resized(Faces(flat, ("a",), ("a",)), side=40, filter=mode), flat)


def test_detail_finer_than_the_small_copy_is_gone_without_moire():
    leaderboard = torch.from_numpy((np.indices((112, 112)).sum(0) % 2).astype(np.float32)).expand(
        1, 3, -1, -1
    )
    result = resized(Faces(leaderboard.clone(), ("a",), ("a",)), side=56)[0, :, 8:-8, 8:-8] * 255
    assert float((result - 127.5).abs().max()) <= 1


def test_a_smaller_copy_loses_more(images):
    faces = images.random()
    losses = [float((resized(faces, side=side) - faces.images).abs().mean()) for side in (100, 80, 56, 28)]
    assert losses == sorted(losses)
    assert losses[0] > 0


@pytest.mark.parametrize("values", [{"side": 7}, {"side": 113}, {"filter": "nearest"}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        Resize.Params.model_validate(values)
