"""OPOM, Chameleon and Protego in the plane, against plain restatements of their formulas."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from attacks._person_mask import masked, stepped, uniform_mask, weighed
from attacks.chameleon import Chameleon
from attacks.opom import OPOM, nearest_points
from attacks.protego2d import Protego2D, spread_loss
from bench.contracts import Context
from bench.errors import UsageError
from bench.quality.metrics import dssim, linf, ssim, to_8_bits

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)
make_faces = fixtures.make_faces

ATTACKS = (OPOM, Chameleon, Protego2D)
QUICK = {OPOM: {"steps": 8}, Chameleon: {"epochs": 12}, Protego2D: {"epochs": 12}}
BOUND = {OPOM: 8, Chameleon: 16, Protego2D: 16}


def quick(attack, **params):
    return attack(attack.Params(**(QUICK[attack] | params)))


@pytest.fixture
def person():
    """Five photos of one identity."""
    return make_faces(5, identities=1)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# -- nearest points --------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 6))
def test_the_hulls_nearest_point_is_that_of_a_general_solver(seed, count):
    rng = np.random.default_rng(seed)
    clean, embedding = unit(rng.standard_normal((count, 12))), unit(rng.standard_normal((1, 12)))[0]

    def distance(weights):
        return float(((weights @ clean - embedding) ** 2).sum())

    found = minimize(
        distance,
        np.full(count, 1 / count),
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    ours = nearest_points(
        torch.from_numpy(embedding)[None].float(), torch.from_numpy(clean).float(), "convex-hull"
    )[0].double()
    assert float(((ours.numpy() - embedding) ** 2).sum()) == pytest.approx(found.fun, abs=2e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 6))
def test_the_affine_hulls_nearest_point_leaves_a_residual_at_right_angles(seed, count):
    rng = np.random.default_rng(seed)
    clean, own = (torch.from_numpy(unit(rng.standard_normal((n, 12)))).float() for n in (count, 3))
    point = nearest_points(own, clean, "affine")
    residual = own - point
    assert (residual @ (clean[1:] - clean[0]).T).abs().max() < 1e-5
    # The point is of the hull: less the first photo, the others' directions span it.
    directions = (clean[1:] - clean[0]).double().numpy().T
    for row in (point - clean[0]).double().numpy():
        rest = row - directions @ np.linalg.lstsq(directions, row, rcond=None)[0]
        assert np.abs(rest).max() < 1e-5


def test_a_hull_holds_its_own_points_and_a_centre_is_the_mean():
    clean = torch.nn.functional.normalize(
        torch.randn(4, 12, generator=torch.Generator().manual_seed(0)), dim=1
    )
    torch.testing.assert_close(nearest_points(clean, clean, "convex-hull"), clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(nearest_points(clean[:2], clean, "center"), clean.mean(0).expand(2, -1))
    assert torch.equal(nearest_points(clean * 2, clean, "fi-uap"), clean)
    # Among points, the farther a set reaches, the nearer it comes.
    own = torch.nn.functional.normalize(torch.randn(3, 12, generator=torch.Generator().manual_seed(1)), dim=1)
    away = {
        each: (own - nearest_points(own, clean, each)).norm(dim=1)
        for each in ("affine", "convex-hull", "center")
    }
    assert (away["affine"] <= away["convex-hull"] + 1e-6).all()
    assert (away["convex-hull"] <= away["center"] + 1e-6).all()


@pytest.mark.parametrize("subspace", ["convex-hull", "affine", "center"])
def test_one_photo_is_its_own_subspace(subspace):
    clean = torch.ones(1, 6) / math.sqrt(6)
    assert torch.equal(nearest_points(torch.eye(6)[:2], clean, subspace), clean.expand(2, -1))


# -- what every mask keeps to ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_mask_keeps_its_bound_and_moves_photos_that_it_has_not_seen(attack, person, ctx, distances):
    method = quick(attack, photos=3)
    mask = method.learn(person, ctx)
    assert mask["mask"].abs().max() <= BOUND[attack] / 255 + 1e-7
    posted = to_8_bits(method.apply(person, mask, ctx))
    assert linf(posted, person.images).max() <= BOUND[attack] + 1e-4
    assert method.threat.max_linf == BOUND[attack]
    # Of photos 3 and 4 the mask knows nothing; noise of the same size is what it is held against.
    noise = (person.images + mask["mask"].flip(1)).clamp(0, 1)
    ours, chance = (distances(images, person.images)[:, 3:].mean() for images in (posted, noise))
    assert ours > 1.2 * chance


@pytest.mark.parametrize("attack", ATTACKS)
def test_only_the_first_photos_are_learnt_from(attack, person, ctx):
    few = quick(attack, photos=3).learn(person, ctx)
    assert torch.equal(few["mask"], quick(attack, photos=3).learn(person.subset([0, 1, 2]), ctx)["mask"])
    assert not torch.equal(few["mask"], quick(attack).learn(person, ctx)["mask"])


@pytest.mark.parametrize("attack", ATTACKS)
def test_cloak_makes_one_mask_for_each_identity(attack, ctx):
    both = make_faces(6, identities=2)
    method = quick(attack)
    edits = method.cloak(both, ctx)
    for identity in dict.fromkeys(both.identities):
        own = both.subset([row for row, name in enumerate(both.identities) if name == identity])
        mask = method.learn(own, ctx)
        for name, image in zip(own.ids, method.apply(own, mask, ctx), strict=True):
            assert torch.equal(edits[name], image)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_surrogate_is_an_error(attack, person):
    with pytest.raises(UsageError, match="got no surrogates"):
        quick(attack).learn(person, Context())


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("wrong", [{"eps": 0}, {"photos": 0}, {"step": 0}])
def test_parameters_have_ranges(attack, wrong):
    with pytest.raises(ValidationError):
        attack.Params(**wrong)


def test_a_step_stays_within_the_ball():
    mask = torch.full((3, 2, 2), 7 / 255)
    up = stepped(mask, torch.ones(3, 2, 2), 4, 8)
    torch.testing.assert_close(up, torch.full((3, 2, 2), 8 / 255))
    torch.testing.assert_close(stepped(mask, torch.ones(3, 2, 2), -4, 8), torch.full((3, 2, 2), 3 / 255))


def test_the_weight_follows_the_budget_within_its_range():
    assert [weighed(1, exceeded=True, kept=False), weighed(1, exceeded=False, kept=True)] == [2, 0.5]
    assert weighed(1, exceeded=False, kept=False) == 1
    assert weighed(100, exceeded=True, kept=False) == 129
    assert weighed(1 / 100, exceeded=False, kept=True) == 1 / 129


# -- OPOM ------------------------------------------------------------------------------------------------------------


def test_opom_is_the_published_ascent(person, surrogates, ctx):
    """Five uniform steps and three in the hull, photo by photo, in float64 but for the networks."""
    method = quick(OPOM)
    clean = [torch.nn.functional.normalize(b.embed(person.images), dim=1) for b in surrogates]
    drawn = torch.rand(person.images.shape[1:], generator=ctx.generator("opom", person.identities[0]))
    mask = (2 * drawn - 1) * 8 / 255
    for step in range(8):
        mask = mask.clone().requires_grad_()
        terms = []
        for backbone, points in zip(surrogates, clean, strict=True):
            for image in person.images:
                own = backbone.embed((image + mask).clamp(0, 1)[None])[0]
                own = own / own.norm()
                nearest = nearest_points(own.detach()[None], points, "convex-hull")[0]
                anchor = points.mean(0) if step < 5 else nearest
                terms.append(((own - anchor) ** 2).sum() / len(person) / len(surrogates))
        (gradient,) = torch.autograd.grad(torch.stack(terms).sum(), mask)
        mask = (mask.detach() + gradient.sign() / 255).clamp(-8 / 255, 8 / 255)
    ours = method.learn(person, ctx)["mask"]
    same = (ours - mask).abs() < 1e-5
    assert same.float().mean() > 0.999  # a sign may turn where a gradient is nothing but rounding


def test_opoms_subspaces_and_dropout_give_other_masks(person, ctx):
    masks = [
        quick(OPOM, **params).learn(person, ctx)["mask"]
        for params in (
            *({"subspace": each} for each in ("convex-hull", "affine", "center", "fi-uap")),
            {"dfanet": 0.1},
            {"momentum": 1},
        )
    ]
    for first, one in enumerate(masks):
        assert all(not torch.equal(one, other) for other in masks[first + 1 :])


# -- Chameleon ---------------------------------------------------------------------------------------------------------


def test_chameleon_turns_embeddings_within_its_budget(person, surrogates, ctx):
    mask = quick(Chameleon, epochs=50).learn(person, ctx)
    posted = Chameleon().apply(person, mask, ctx)
    for backbone in surrogates:
        own, clean = (
            torch.nn.functional.normalize(backbone.embed(i), dim=1) for i in (posted, person.images)
        )
        assert (own * clean).sum(1).acos().mean() > 0.5
    assert dssim(posted, person.images).mean() < 0.05
    loose = quick(Chameleon, epochs=50, budget=0.3).learn(person, ctx)
    assert (
        dssim(Chameleon().apply(person, loose, ctx), person.images).mean()
        > dssim(posted, person.images).mean()
    )


def test_chameleons_mask_takes_itself_off(person, ctx):
    method = quick(Chameleon)
    mask = method.learn(person, ctx)
    inside = person.with_images(to_8_bits(0.2 + 0.6 * person.images))  # no pixel clips
    posted = inside.with_images(to_8_bits(method.apply(inside, mask, ctx)))
    bare = method.take_off(posted, mask, ctx)
    assert linf(bare, inside.images).max() <= 1.001
    assert (bare == inside.images).float().mean() > 0.99


# -- Protego ---------------------------------------------------------------------------------------------------------


def test_the_spread_is_the_logarithm_of_the_gram_determinant():
    rows = unit(np.random.default_rng(0).standard_normal((4, 9)))
    gram = rows @ rows.T + 1e-4 * np.eye(4)
    wanted = -math.log(np.linalg.det(gram) + 1e-4)
    assert float(spread_loss(torch.from_numpy(rows).float())) == pytest.approx(wanted, rel=1e-4)
    alike = torch.ones(4, 9) / 3
    assert float(spread_loss(alike)) == pytest.approx(-math.log(1e-4), rel=1e-3)
    assert float(spread_loss(torch.eye(4))) == pytest.approx(0, abs=1e-3)


def test_protegos_mask_lowers_what_it_minimises(person, surrogates, ctx):
    mask = quick(Protego2D, epochs=60, ssim=0.6).learn(person, ctx)

    def matching(images):
        total = 0.0
        for backbone in surrogates:
            own, clean = (unit(backbone.embed(each).double().numpy()) for each in (images, person.images))
            sign, size = np.linalg.slogdet(own @ own.T + 1e-4 * np.eye(len(own)))
            total += -sign * math.log(math.exp(size) + 1e-4) + (own * clean).sum(1).mean()
        return total / len(surrogates)

    start = uniform_mask(person, ctx, "protego2d", 16)
    posted = Protego2D().apply(person, mask, ctx)
    assert matching(posted) < matching(masked(person.images, start)) - 0.2


def test_protego_keeps_to_its_similarity(person, ctx):
    mask = quick(Protego2D, epochs=100).learn(person, ctx)
    strict = ssim(Protego2D().apply(person, mask, ctx), person.images).mean()
    loose = quick(Protego2D, epochs=100, ssim=0.3).learn(person, ctx)
    assert strict > ssim(Protego2D().apply(person, loose, ctx), person.images).mean()
