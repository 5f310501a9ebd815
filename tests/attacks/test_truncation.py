import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attacks._truncation import truncated, truncated_reach
from bench.quality.metrics import to_8_bits

LEVELS = torch.arange(256, dtype=torch.float32) / 255


def test_whole_levels_stay_what_they_are():
    assert torch.equal((truncated(LEVELS) * 255).round(), torch.arange(256.0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=20))
def test_pixels_are_clipped_and_cut_down(values):
    images = torch.tensor(values, dtype=torch.float32)
    cast = (np.clip(images.numpy(), 0, 1) * np.float32(255)).astype(np.uint8)
    found = truncated(images)
    assert np.array_equal((found.numpy() * 255).round().astype(np.uint8), cast)
    assert torch.equal(to_8_bits(found), found)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.1, 40), st.integers(0, 2**31))
@example(17 - 2**-20, 0)
def test_no_truncated_change_is_above_the_reach(levels, seed):
    generator = torch.Generator().manual_seed(seed)
    changes = (2 * torch.rand(256, generator=generator) - 1).sign() * levels / 255
    found = (truncated(LEVELS + changes) - LEVELS).abs().max() * 255
    assert found.round() <= truncated_reach(levels)
