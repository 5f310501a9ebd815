import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from skimage.metrics import structural_similarity

from attacks.fawkes import (
    VERSIONS,
    Fawkes,
    _Cloaking,
    adadelta,
    distance,
    from_tanh,
    next_weight,
    shrink_into_budget,
    to_tanh,
)
from bench.contracts import MICRO_BATCH, Context, Faces
from bench.errors import UsageError
from bench.quality.metrics import dssim, linf, to_8_bits

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)
make_faces, stacked, TinyBackbone = fixtures.make_faces, fixtures.stacked, fixtures.TinyBackbone


def cloaked(faces, ctx, **params):
    return stacked(Fawkes(Fawkes.Params(**params)).cloak(faces, ctx), faces)


def scikit_dssim(cloak, photo):
    _, full = structural_similarity(
        photo.numpy(),
        cloak.numpy(),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return (1 - full[:, 5:-5, 5:-5].mean()) / 2


@pytest.mark.parametrize(
    ("version", "mode"), [("1", "low"), ("1", "mid"), ("1", "high"), ("0.3", "min"), ("0.3", "ultra")]
)
@pytest.mark.parametrize("strict", [False, True])
def test_every_posted_cloak_keeps_its_budget_and_uses_it(faces, ctx, version, mode, strict):
    cloaks = cloaked(faces, ctx, version=version, mode=mode, strict=strict, steps=40)
    budget = VERSIONS[version].modes[mode].budget
    limit = budget * (1.0 if strict else 1.1)
    assert Fawkes(Fawkes.Params(version=version, mode=mode, strict=strict)).threat.max_dssim == limit
    measured = [scikit_dssim(c, p) for c, p in zip(to_8_bits(cloaks), faces.images, strict=True)]
    assert max(measured) <= limit + 2e-6
    assert min(measured) > 0.3 * budget
    assert cloaks.min() >= -1e-6
    assert cloaks.max() <= 1 + 1e-6


def test_version_1_changes_no_pixel_by_more_than_15_levels(faces, ctx):
    cloaks = cloaked(faces, ctx, steps=60)
    largest = linf(to_8_bits(cloaks), faces.images)
    assert (largest.round() <= 15).all()
    assert largest.max().round() == 15  # the bound is reached, so it was tested


def test_version_1_moves_every_image_away_on_every_surrogate(faces, ctx, distances):
    cloaks = to_8_bits(cloaked(faces, ctx, steps=40))
    noise = (cloaks - faces.images).abs() * torch.randn(
        cloaks.shape, generator=torch.Generator().manual_seed(5)
    ).sign()
    moved, by_chance = distances(cloaks, faces.images), distances(faces.images + noise, faces.images)
    assert (moved > 5 * by_chance).all()


def test_a_higher_mode_moves_further(faces, ctx, distances):
    low = distances(cloaked(faces, ctx, mode="low", steps=40), faces.images).sum(0)
    high = distances(cloaked(faces, ctx, mode="high", steps=40), faces.images).sum(0)
    assert (high > low).all()


def expected_target(faces, targets, surrogates):
    """Min-max choice by loops over NumPy arrays."""

    def features(images):
        return [F.normalize(b.embed(images)).numpy() for b in surrogates]

    mine = np.concatenate(features(faces.images), 1)
    best, best_distance, best_centre = None, -1.0, None
    for identity in sorted(set(targets.identities)):
        photos = targets.images[[i for i, p in enumerate(targets.identities) if p == identity]]
        centre = [e.mean(0) / np.linalg.norm(e.mean(0)) for e in features(photos)]
        nearest = min(np.linalg.norm(row - np.concatenate(centre)) for row in mine)
        if nearest > best_distance:
            best, best_distance, best_centre = identity, nearest, centre
    return best, best_centre


def test_version_03_moves_towards_the_farthest_identity(ctx, surrogates):
    faces = make_faces(4, identities=1)
    _, centre = expected_target(faces, ctx.targets, surrogates)
    cloaks = to_8_bits(cloaked(faces, ctx, version="0.3", mode="ultra", steps=60))

    def away(images):
        anchors = [torch.from_numpy(c).expand(len(images), -1) for c in centre]
        return distance([F.normalize(b.embed(images)) for b in surrogates], anchors, squared=False)

    assert (away(cloaks) < 0.98 * away(faces.images)).all()


def test_version_03_targets_of_each_person_are_chosen_by_all_their_photos(ctx, surrogates):
    faces = make_faces(6, identities=2)
    whole = Fawkes(Fawkes.Params(version="0.3", mode="min", steps=2)).cloak(faces, ctx)
    for identity in sorted(set(faces.identities)):
        rows = [i for i, p in enumerate(faces.identities) if p == identity]
        own = Fawkes(Fawkes.Params(version="0.3", mode="min", steps=2)).cloak(faces.subset(rows), ctx)
        assert all(torch.equal(own[i], whole[i]) for i in own)


def test_aims_are_whom_the_cloaks_of_version_03_move_towards(ctx, surrogates):
    attack = Fawkes(Fawkes.Params(version="0.3", mode="ultra", steps=60))
    faces = make_faces(6, identities=3)
    target_assignment = attack.assign_targets(faces, ctx)
    cloaks = to_8_bits(stacked(attack.cloak(faces, ctx), faces))
    for identity in sorted(set(faces.identities)):
        rows = [i for i, p in enumerate(faces.identities) if p == identity]
        best, centre = expected_target(faces.subset(rows), ctx.targets, surrogates)
        assert {target_assignment[faces.ids[i]] for i in rows} == {best}
        anchors = [torch.from_numpy(c).expand(len(rows), -1) for c in centre]
        before, after = (
            distance([F.normalize(b.embed(x[rows])) for b in surrogates], anchors, squared=False)
            for x in (faces.images, cloaks)
        )
        assert (after < before).all()


def test_version_1_has_no_aims(faces, ctx, surrogates):
    with pytest.raises(TypeError, match="has no assign_targets"):
        Fawkes().assign_targets(faces, ctx)
    with pytest.raises(UsageError, match="got no target faces"):
        Fawkes(Fawkes.Params(version="0.3")).assign_targets(faces, Context(backbones=surrogates))


def test_nobody_is_their_own_target(ctx, surrogates, faces):
    me = faces.subset([0])
    pool = Faces(
        torch.cat([1 - me.images, ctx.targets.images[:1]]),
        ("inverse", "other"),
        (me.identities[0], "other identity"),
    )
    with_me = Context(seed=7, backbones=surrogates, targets=pool)
    without_me = Context(seed=7, backbones=surrogates, targets=pool.subset([1]))
    first = cloaked(me, with_me, version="0.3", mode="min", steps=3)
    assert torch.equal(first, cloaked(me, without_me, version="0.3", mode="min", steps=3))


@pytest.mark.parametrize("version", ["1", "0.3"])
def test_cloaks_do_not_depend_on_the_batch(ctx, surrogates, version):
    faces = make_faces(MICRO_BATCH + 3)
    attack = Fawkes(Fawkes.Params(version=version, mode="low", steps=4))
    whole = attack.cloak(faces, ctx)
    backwards = attack.cloak(faces.subset(range(len(faces) - 1, -1, -1)), ctx)
    for i, name in enumerate(faces.ids):
        alone = attack.cloak(faces.subset([i]), ctx)
        assert torch.equal(alone[name], whole[name])
        assert torch.equal(backwards[name], whole[name])
    assert {size for b in surrogates for size in b.batches} == {MICRO_BATCH}


def test_seed_decides(faces, ctx, surrogates):
    again = cloaked(faces, ctx, steps=3)
    assert torch.equal(cloaked(faces, ctx, steps=3), again)
    assert not torch.equal(cloaked(faces, Context(seed=8, backbones=surrogates), steps=3), again)


def test_the_best_iterate_within_the_limit_wins():
    task = object.__new__(_Cloaking)
    task.budget = 0.01
    state = {"best": torch.zeros(4, 3, 2, 2), "best_score": torch.zeros(4)}
    #            rises   too large  falls   equal
    history = [
        ([0.5, 0.5, 0.5, 0.5], [0.01, 0.01, 0.01, 0.01]),
        ([0.6, 0.9, 0.4, 0.5], [0.0109, 0.0111, 0.001, 0.002]),
    ]
    for turn, (scores, dissimilarities) in enumerate(history, start=1):
        cloak = torch.full((4, 3, 2, 2), float(turn))
        task._keep_best(state, cloak, torch.tensor(dissimilarities), torch.tensor(scores))
    assert state["best"][:, 0, 0, 0].tolist() == [2, 1, 1, 1]
    assert state["best_score"].tolist() == pytest.approx([0.6, 0.5, 0.5, 0.5])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 500), scale=st.floats(1e-4, 10), rate=st.floats(0.5, 40))
def test_adadelta_equals_torchs(seed, scale, rate):
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.double))
    optimiser = torch.optim.Adadelta([parameter], lr=rate, rho=0.95, eps=1e-7)
    ours, squares, deltas = (torch.zeros(2, 3, dtype=torch.double) for _ in range(3))
    for _ in range(6):
        gradient = scale * torch.randn(2, 3, generator=generator, dtype=torch.double)
        parameter.grad = gradient.clone()
        optimiser.step()
        ours -= rate * adadelta(gradient, squares, deltas, epsilon=1e-7)
        torch.testing.assert_close(ours, parameter.detach(), rtol=1e-10, atol=1e-12)


def scalar_weight_rule(weight, side, excess):
    """The published rule for one image, as nested conditions."""
    if excess <= 0.9 and weight <= 129:
        return (1.0 if side == -1 else weight * 2), 1
    if excess >= 1.1 and weight >= 1 / 129:
        return (1.0 if side == 1 else weight / 2), -1
    return 1.0, 0


@settings(max_examples=50, deadline=None)
@given(excesses=st.lists(st.sampled_from([0.2, 0.9, 1.0, 1.05, 1.11, 3.0]), min_size=1, max_size=25))
def test_weights_follow_the_published_rule(excesses):
    weight, side = torch.ones(1), torch.zeros(1)
    expected, expected_side = 1.0, 0
    for excess in excesses:
        weight, side = next_weight(weight, side, torch.tensor([excess]))
        expected, expected_side = scalar_weight_rule(expected, expected_side, excess)
        assert math.isclose(weight.item(), expected)
        assert side.item() == expected_side


def test_update_is_one_descent_step_of_the_stated_loss(ctx, surrogates):
    """The hand-made gradient through clip and tanh against autograd of the whole loss."""
    faces = make_faces(MICRO_BATCH)
    task = _Cloaking(Fawkes.Params(mode="low"), faces, ctx, ())
    state = task.start(range(MICRO_BATCH))
    generator = torch.Generator().manual_seed(4)
    state["modifier"] += 0.12 * torch.randn(state["modifier"].shape, generator=generator)
    state["step"] += 1  # past the first sign step
    modifier = state["modifier"].clone().requires_grad_()

    raw = from_tanh(to_tanh(faces.images) + modifier)
    cloak = faces.images + (raw - faces.images).clamp(-15 / 255, 15 / 255)
    away = sum(
        (F.normalize(b.embed(cloak)) - F.normalize(b.embed(faces.images))).square().sum(1) for b in surrogates
    )
    loss = 1e6 * (dssim(cloak, faces.images) - 0.004).clamp_min(0).square() - away
    (gradient,) = torch.autograd.grad(loss.sum(), modifier)
    stepper = torch.optim.Adadelta([modifier], lr=25, rho=0.95, eps=1e-7)
    modifier.grad = gradient
    stepper.step()

    task.update(state)
    torch.testing.assert_close(state["modifier"], modifier.detach(), rtol=1e-3, atol=2e-5)


def test_the_first_update_adds_a_sign_step(ctx):
    faces = make_faces(MICRO_BATCH)
    task = _Cloaking(Fawkes.Params(mode="low"), faces, ctx, ())
    first, later = task.start(range(MICRO_BATCH)), task.start(range(MICRO_BATCH))
    later["step"] += 1
    task.update(first)
    task.update(later)
    added = (first["modifier"] - later["modifier"]).abs()
    signed = (added - 0.01).abs() < 1e-5
    assert signed.float().mean() > 0.8
    assert (added[~signed] < 1e-5).all()  # border pixels no convolution reads have no gradient, so no sign


def test_tanh_space_is_finite_and_inverts():
    pixels = torch.arange(256.0).div(255).view(1, 1, 16, 16)
    coordinates = to_tanh(pixels)
    assert torch.isfinite(coordinates).all()
    torch.testing.assert_close(from_tanh(coordinates), pixels, atol=1e-6, rtol=0)


def test_cloaks_that_hold_are_not_touched_and_others_shrink_to_the_limit():
    photos = make_faces(3).images
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(1))
    amounts = torch.tensor([0.001, 0.05, 0.2]).view(3, 1, 1, 1)
    cloaks = (photos + amounts * noise).clamp(0, 1)
    kept = shrink_into_budget(photos, cloaks, 0.01)
    assert torch.equal(kept[0], cloaks[0])
    after = dssim(to_8_bits(kept), photos)
    assert (dssim(to_8_bits(cloaks), photos)[1:] > 0.02).all()
    assert (after <= 0.01).all()
    assert (after[1:] > 0.0095).all()


@pytest.mark.parametrize(("version", "mode"), [("1", "min"), ("1", "ultra")])
def test_a_mode_the_version_lacks_is_refused_with_the_valid_ones(version, mode):
    with pytest.raises(ValidationError, match="Valid: low, mid, high"):
        Fawkes.Params(version=version, mode=mode)


def test_declared_threat_and_scope_follow_the_version():
    one, three = Fawkes(), Fawkes(Fawkes.Params(version="0.3"))
    assert (one.scope, one.threat.goal, one.threat.needs_targets) == ("image", "untargeted", False)
    assert (three.scope, three.threat.goal, three.threat.needs_targets) == ("identity", "targeted", True)
    assert "1.1 ×" in one.threat.constraint
    strict = Fawkes(Fawkes.Params(strict=True, mode="low")).threat
    assert "1 ×" in strict.constraint
    assert (one.threat.max_linf, three.threat.max_linf) == (15, None)
    assert (strict.max_dssim, one.threat.max_dssim) == (0.004, pytest.approx(1.1 * 0.017))
    assert three.threat.max_dssim == pytest.approx(1.1 * 0.008)


@pytest.mark.parametrize(("version", "strict"), [("1", False), ("1", True), ("0.3", False)])
def test_a_budget_asked_for_is_kept_and_used(faces, ctx, version, strict):
    params = {"version": version, "strict": strict, "steps": 25}
    cloaks = cloaked(faces, ctx, budget=0.04, **params)
    threat = Fawkes(Fawkes.Params(budget=0.04, **params)).threat
    assert threat.max_dssim == pytest.approx(0.04 if strict else 0.044)
    measured = [scikit_dssim(c, p) for c, p in zip(to_8_bits(cloaks), faces.images, strict=True)]
    assert max(measured) <= threat.max_dssim + 2e-6
    assert min(measured) > 1.1 * VERSIONS[version].modes["high"].budget  # more than the mode would allow


@pytest.mark.parametrize(
    ("version", "mode"), [(version, mode) for version in VERSIONS for mode in VERSIONS[version].modes]
)
def test_a_mode_is_its_three_numbers(faces, ctx, version, mode):
    published = VERSIONS[version].modes[mode]
    absent = Fawkes.Params(version=version, mode=mode)
    assert absent.setting == published
    other = "low" if mode != "low" else "mid"
    own = {"budget": published.budget, "learning_rate": published.learning_rate}
    first = cloaked(faces, ctx, version=version, mode=mode, steps=3)
    assert torch.equal(cloaked(faces, ctx, version=version, mode=other, steps=3, **own), first)
    spelt_out = Fawkes.Params(version=version, mode=other, steps=published.steps, **own)
    assert (spelt_out.setting, spelt_out.limit) == (published, absent.limit)


@pytest.mark.parametrize("mode", ["low", "high"])
def test_a_learning_rate_asked_for_scales_the_first_step(ctx, mode):
    faces = make_faces(MICRO_BATCH)
    moved = []
    for rate in (5.0, 50.0):
        task = _Cloaking(Fawkes.Params(mode=mode, learning_rate=rate), faces, ctx, ())
        state = task.start(range(MICRO_BATCH))
        state["step"] += 1  # past the first sign step
        before = state["modifier"].clone()
        task.update(state)
        moved.append(state["modifier"] - before)
    torch.testing.assert_close(10 * moved[0], moved[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("field", "value"),
    [("budget", 0), ("budget", -0.1), ("budget", 0.51), ("learning_rate", 0), ("learning_rate", 1001)],
)
def test_a_strength_out_of_range_is_refused(field, value):
    with pytest.raises(ValidationError, match=field):
        Fawkes.Params(**{field: value})


def test_missing_surrogates_and_targets_are_explained(faces, surrogates):
    with pytest.raises(UsageError, match="no surrogates"):
        Fawkes().cloak(faces, Context())
    with pytest.raises(UsageError, match="got no target faces"):
        Fawkes(Fawkes.Params(version="0.3")).cloak(faces, Context(backbones=surrogates))


def test_progress_counts_every_image(surrogates):
    done = []
    attack = Fawkes(Fawkes.Params(steps=1))
    attack.cloak(make_faces(11), Context(backbones=surrogates, advance=done.append))
    assert sum(done) == 11


def test_black_and_white_images_are_cloaked_without_nans(ctx):
    flat = torch.stack([torch.zeros(3, 40, 40), torch.ones(3, 40, 40)])
    faces = Faces(flat, ("black", "white"), ("a", "b"))
    cloaks = cloaked(faces, ctx, steps=5)
    assert torch.isfinite(cloaks).all()
    assert (dssim(to_8_bits(cloaks), flat) <= 1.1 * 0.017).all()
