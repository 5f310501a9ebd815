import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks._input_diversity import draw_diversity
from attacks.erasablemask.meta_auxiliary import Aim, likeness, meta_auxiliary, plain_ensemble
from attacks.erasablemask.networks import Shape, change_of, enlarged, key_pattern, spread, within_bounds
from attacks.erasablemask.refinement import (
    DODGE,
    MOMENTUM,
    STRIDE,
    Draws,
    Surrogates,
    drawn_meta_train,
    refined,
)

_path = Path(__file__).parents[2] / "plugins" / "tiny_methods.py"
_spec = importlib.util.spec_from_file_location("tiny_methods_of_refinement", _path)
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

SHAPE = Shape(condition=1, psnr=28, linf=40, pattern=2)


def drawn(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def backbones():
    made = (tiny.TinyA(), tiny.TinyC())
    for backbone in made:
        backbone.load(torch.device("cpu"))
    return made


@pytest.fixture(scope="module")
def setting(backbones):
    photos = F.interpolate(drawn(3, 3, 7, 7), (112, 112), mode="bilinear") * 0.8 + 0.1
    others = F.interpolate(drawn(3, 3, 7, 7, seed=1), (112, 112), mode="bilinear")
    target_assignment = [Aim(F.normalize(b.embed(photos)), F.normalize(b.embed(others))) for b in backbones]
    patterns = torch.stack([key_pattern(bytes([k + 1])) for k in range(3)])
    return photos, patterns, target_assignment


def draws(steps, count, surrogates=2, probability=0.7, seed=0):
    generators = [torch.Generator().manual_seed(100 * seed + k) for k in range(count)]
    split = torch.Generator().manual_seed(seed)
    return [
        Draws(
            [draw_diversity(generators, probability) for _ in range(surrogates)],
            drawn_meta_train(surrogates, split),
        )
        for _ in range(steps)
    ]


# -- bounds ----------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1000),
    gain=st.floats(0, 1),
    decibels=st.floats(15, 45),
    linf=st.floats(1, 120),
)
@settings(max_examples=15, deadline=None)
def test_bounds_hold_of_the_enlarged_mask_and_spare_what_is_within(seed, gain, decibels, linf):
    shape = Shape(condition=1, psnr=decibels, linf=linf)
    half = gain * (2 * drawn(2, 3, 14, 14, seed=seed) - 1)
    bounded = within_bounds(half, shape)
    full = enlarged(bounded)
    assert float(full.abs().max()) <= linf / 255 + 1e-6
    assert (-10 * full.double().square().mean((1, 2, 3)).log10() >= decibels - 1e-3).all()
    torch.testing.assert_close(within_bounds(bounded, shape), bounded, rtol=1e-4, atol=1e-7)
    within = half * min(1.0, linf / 255 / max(float(half.abs().max()), 1e-9)) * 0.01 * shape.rms
    torch.testing.assert_close(within_bounds(within, shape), within)


def test_what_is_posted_is_the_mask_enlarged_and_the_key_on_top():
    half, pattern = drawn(1, 3, 56, 56) - 0.5, key_pattern(b"k")[None]
    expected = F.interpolate(half, (112, 112), mode="bilinear") + 2 / 255 * spread(pattern)
    torch.testing.assert_close(change_of(half, pattern, SHAPE), expected)


# -- the steps -------------------------------------------------------------------------------------------------


def by_hand(half, photos, patterns, backbones, target_assignment, given, *, ensemble):
    """The same steps with the loss differentiated down to the mask."""
    velocity = torch.zeros_like(half)
    for draw in given:
        leaf = half.clone().requires_grad_()
        grown = F.interpolate(leaf, scale_factor=2, mode="bilinear") + 2 / 255 * spread(patterns)
        masked = (photos + grown).clamp(0, 1)
        requested = Surrogates(backbones, ensemble=ensemble)
        gradient, _ = requested.gradient(
            masked.detach(), target_assignment, DODGE, draw.diversity, draw.trained
        )
        (gradient * masked).sum().backward()
        back = leaf.grad
        velocity = MOMENTUM * velocity + back / back.abs().mean((1, 2, 3), keepdim=True)
        step = velocity / velocity.square().mean((1, 2, 3), keepdim=True).sqrt()
        stepped = (half - STRIDE / 255 * step).clamp(-40 / 255, 40 / 255)
        size = (
            F.interpolate(stepped, scale_factor=2, mode="bilinear")
            .square()
            .mean((1, 2, 3), keepdim=True)
            .sqrt()
        )
        half = stepped * torch.minimum(torch.ones(()), 10 ** (-28 / 20) / size)
    return half


@pytest.mark.parametrize("ensemble", [True, False])
def test_steps_are_those_written_out(backbones, setting, ensemble):
    photos, patterns, target_assignment = setting
    start = within_bounds(0.1 * (drawn(3, 3, 56, 56, seed=2) - 0.5), SHAPE)
    given = draws(4, 3)
    found = refined(start, photos, patterns, Surrogates(backbones, ensemble), target_assignment, SHAPE, given)
    assert not found.requires_grad
    expected = by_hand(start, photos, patterns, backbones, target_assignment, given, ensemble=ensemble)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert torch.equal(
        refined(start, photos, patterns, Surrogates(backbones), target_assignment, SHAPE, []), start
    )


def test_gradients_are_put_together_as_asked(backbones, setting):
    photos, _, target_assignment = setting
    still = [torch.zeros(3, 3)] * 2
    split = [True, False]
    views = [lambda images: images] * 2
    mean = plain_ensemble(backbones, views, photos, target_assignment, 0.5)
    meta = meta_auxiliary(backbones, views, photos, target_assignment, 0.5, trained=split, stride=3 / 255)
    for ensemble, expected in ((True, mean), (False, meta)):
        found = Surrogates(backbones, ensemble).gradient(photos, target_assignment, 0.5, still, split, 3.0)
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("ensemble", [True, False])
def test_refining_brings_every_photo_nearer_to_its_target_within_the_bounds(backbones, setting, ensemble):
    photos, patterns, target_assignment = setting
    start = torch.zeros(3, 3, 56, 56)
    half = refined(
        start, photos, patterns, Surrogates(backbones, ensemble), target_assignment, SHAPE, draws(10, 3)
    )
    full = enlarged(half)
    assert float(full.abs().max()) <= 40 / 255 + 1e-6
    assert (-10 * full.square().mean((1, 2, 3)).log10() >= 28 - 1e-3).all()
    before, after = (
        torch.stack([
            likeness(b.embed((photos + change_of(h, patterns, SHAPE)).clamp(0, 1)), aim, DODGE)
            for b, aim in zip(backbones, target_assignment, strict=True)
        ])
        for h in (start, half)
    )  # fmt: skip
    assert (after < before).all()
    assert float((before - after).mean()) > 0.05


def test_no_photo_looks_at_another(backbones, setting):
    photos, patterns, target_assignment = setting
    start, given = torch.zeros(3, 3, 56, 56), draws(3, 3)
    whole = refined(start, photos, patterns, Surrogates(backbones), target_assignment, SHAPE, given)
    for row in range(3):
        one = slice(row, row + 1)
        alone = refined(
            start[one],
            photos[one],
            patterns[one],
            Surrogates(backbones),
            [Aim(a.own[one], a.target[one]) for a in target_assignment],
            SHAPE,
            [Draws([d[one] for d in draw.diversity], draw.trained) for draw in given],
        )
        torch.testing.assert_close(alone, whole[one], atol=1e-4, rtol=0)


def test_a_vanishing_gradient_is_no_nan(backbones, setting):
    photos, patterns, target_assignment = setting
    saturated = torch.full_like(photos, 2.0)  # clamped everywhere: nothing that is done shows
    half = refined(
        torch.zeros(3, 3, 56, 56),
        saturated,
        patterns,
        Surrogates(backbones),
        target_assignment,
        SHAPE,
        draws(2, 3),
    )
    assert torch.equal(half, torch.zeros_like(half))


# -- the split -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_some_surrogates_are_meta_train_and_not_all(count):
    draw = torch.Generator().manual_seed(0)
    splits = [drawn_meta_train(count, draw) for _ in range(60)]
    assert all(len(split) == count for split in splits)
    if count == 1:
        assert splits == [[True]] * 60
        return
    assert all(0 < sum(split) < count for split in splits)
    assert {tuple(split) for split in splits} >= {tuple(k == j for k in range(count)) for j in range(count)}
