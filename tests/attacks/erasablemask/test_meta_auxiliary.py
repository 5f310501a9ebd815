import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks._input_diversity import diversified
from attacks.erasablemask.meta_auxiliary import Aim, likeness, meta_auxiliary, plain_ensemble
from bench.contracts import Backbone, BackboneCard


class Linear(Backbone):
    """Embeds by a matrix; notes what it was asked about."""

    name = "linear"

    def __init__(self, weight, name="linear"):
        super().__init__()
        self.weight = torch.as_tensor(weight, dtype=torch.float64)
        self.card = BackboneCard(name=name, licence="none", embedding_dim=len(self.weight))
        self.requested = []

    def load(self, device):
        """Nothing to read."""

    def embed(self, images):
        self.requested.append(images.detach().clone())
        return images.flatten(1) @ self.weight.T


def same(images):
    return images


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(rows):
    return F.normalize(torch.as_tensor(rows, dtype=torch.float64), dim=-1)


def by_hand(weight, image, own, target, dodge):
    """Gradient of dodge·cos(We, own) − cos(We, target) for one image: Wᵀ(I − ûûᵀ)(dodge·own − target)/‖u‖."""
    u = weight @ image.flatten()
    length = u.norm()
    wanted = dodge * own - target
    return (weight.T @ (wanted - (u @ wanted) / length**2 * u) / length).view_as(image)


def setting(count, images=3, side=2, seed=0):
    size = 3 * side * side
    surrogates = [Linear(drawn(5 + k, size, seed=seed + k) - 0.5) for k in range(count)]
    masked = 0.2 + 0.6 * drawn(images, 3, side, side, seed=seed + 50)
    target_assignment = [
        Aim(
            unit(drawn(images, 5 + k, seed=seed + 70 + k) - 0.5),
            unit(drawn(images, 5 + k, seed=seed + 90 + k) - 0.5),
        )
        for k in range(count)
    ]
    return surrogates, masked, target_assignment


def gradients_by_hand(surrogates, masked, target_assignment, dodge):
    return [
        torch.stack([
            by_hand(s.weight, image, own, target, dodge)
            for image, own, target in zip(masked, aim.own, aim.target, strict=True)
        ])
        for s, aim in zip(surrogates, target_assignment, strict=True)
    ]  # fmt: skip


def lengths(gradient):
    return gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def test_likeness_is_the_weighted_difference_of_two_cosines():
    aim = Aim(unit([[1.0, 0.0], [0.0, 1.0]]), unit([[0.0, 1.0], [0.0, -1.0]]))
    embeddings = torch.tensor([[3.0, 4.0], [5.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([0.5 * 0.6 - 0.8, 0.0], dtype=torch.float64)
    torch.testing.assert_close(likeness(embeddings, aim, 0.5), expected)
    torch.testing.assert_close(likeness(7 * embeddings, aim, 0.5), expected)


def test_the_ensemble_is_the_mean_gradient_of_the_mean_loss():
    surrogates, masked, target_assignment = setting(3)
    leaf = masked.clone().requires_grad_()
    cosines = [
        0.7 * F.cosine_similarity(s.embed(leaf), aim.own) - F.cosine_similarity(s.embed(leaf), aim.target)
        for s, aim in zip(surrogates, target_assignment, strict=True)
    ]
    mean = torch.stack(cosines).mean(0)
    (expected,) = torch.autograd.grad(mean.sum(), leaf)
    gradient, losses = plain_ensemble(surrogates, [same] * 3, masked, target_assignment, 0.7)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(losses, mean.detach())
    torch.testing.assert_close(
        gradient, torch.stack(gradients_by_hand(surrogates, masked, target_assignment, 0.7)).mean(0)
    )


def test_views_are_differentiated_through():
    surrogates, masked, target_assignment = setting(2, side=8)
    views = [
        partial(diversified, drawn=torch.tensor([[1.0, 0.2, 0.8]] * 3)),
        partial(diversified, drawn=torch.tensor([[0.5, 1.0, 0.0]] * 3)),
    ]
    leaf = masked.clone().requires_grad_()
    losses = [
        likeness(s.embed(view(leaf)), aim, 1.0)
        for s, view, aim in zip(surrogates, views, target_assignment, strict=True)
    ]  # fmt: skip
    (expected,) = torch.autograd.grad(torch.stack(losses).mean(0).sum(), leaf)
    torch.testing.assert_close(plain_ensemble(surrogates, views, masked, target_assignment, 1.0)[0], expected)
    (alone,) = torch.autograd.grad(
        likeness(surrogates[0].embed(views[0](leaf)), target_assignment[0], 1.0).sum(), leaf
    )
    found, _ = meta_auxiliary(
        surrogates[:1], views[:1], masked, target_assignment[:1], 1.0, trained=[True], stride=0.1
    )
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("trained", [True, False])
def test_of_one_surrogate_it_is_the_plain_gradient(trained):
    surrogates, masked, target_assignment = setting(1)
    (expected,) = gradients_by_hand(surrogates, masked, target_assignment, 0.5)
    gradient, losses = meta_auxiliary(
        surrogates, [same], masked, target_assignment, 0.5, trained=[trained], stride=0.3
    )
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(losses, likeness(surrogates[0].embed(masked), target_assignment[0], 0.5))


def test_two_surrogates_worked_out():
    """Two pixels' worth: gradients of lengths 1 and 4 at 120°, balanced to 2.5, the conflict removed."""
    embedding = unit([1.0, 0.0])
    # With u = e₁ and own = target of dodge 0, the gradient is −Wᵀ(target − (u·target)u)/‖u‖.
    side = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    side[0, 0] = 1.0
    first = Linear([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    angle = 2 * math.pi / 3
    second = Linear([[1.0, 0.0, 0.0], [0.0, 4 * math.cos(angle), 4 * math.sin(angle)]])
    aim = Aim(embedding[None], unit([[0.0, 1.0]]))
    gradient, _ = meta_auxiliary(
        [first, second], [same] * 2, side, [aim, aim], 0.0, trained=[True, True], stride=0.0
    )
    # First: (0, −1, 0)·2.5. Second, of that length: −2.5·(0, −1/2, √3/2); against the first it has (0, 1.25, 0).
    expected = torch.tensor([0.0, -2.5, -2.5 * math.sqrt(3) / 2], dtype=torch.float64) / 2
    torch.testing.assert_close(gradient.flatten(), expected)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 4), stride=st.sampled_from([0.0, 1e-3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_balanced_and_without_conflict_for_any_surrogates(seed, count, stride):
    surrogates, masked, target_assignment = setting(count, seed=seed)
    every = [True] * count
    found, _ = meta_auxiliary(
        surrogates, [same] * count, masked, target_assignment, 1.0, trained=every, stride=0.1
    )
    gradients = gradients_by_hand(surrogates, masked, target_assignment, 1.0)
    mean = torch.stack([lengths(g) for g in gradients]).mean(0)
    balanced = [g * mean / lengths(g) for g in gradients]
    primary = balanced[0].flatten(1)
    united = primary.clone()
    for auxiliary in (g.flatten(1) for g in balanced[1:]):
        for row in range(len(masked)):
            product = auxiliary[row] @ primary[row]
            kept = auxiliary[row]
            if product < 0:
                kept = kept - product / (primary[row] @ primary[row]) * primary[row]
                assert abs(float(kept @ primary[row])) < 1e-9 * float(primary[row] @ primary[row])
            united[row] += kept
    torch.testing.assert_close(found.flatten(1), united / count)
    towards = (found.flatten(1) * primary).sum(1)
    assert (towards >= 0.999 * primary.square().sum(1) / count).all()
    # Where nobody is left to ask at its end, the inner step does not matter.
    again, _ = meta_auxiliary(
        surrogates, [same] * count, masked, target_assignment, 1.0, trained=every, stride=stride
    )
    torch.testing.assert_close(again, found)


def test_the_inner_step_goes_along_the_meta_train_gradients_and_is_a_constant():
    surrogates, masked, target_assignment = setting(4)
    trained = [False, True, False, True]
    for s in surrogates:
        s.requested.clear()
    stride = 0.03
    found, losses = meta_auxiliary(
        surrogates, [same] * 4, masked, target_assignment, 1.0, trained=trained, stride=stride
    )
    before = gradients_by_hand(surrogates, masked, target_assignment, 1.0)
    size = masked[0].numel()
    directions = [before[k] / (lengths(before[k]) / math.sqrt(size)) for k in (1, 3)]
    inner = (masked - stride * (directions[0] + directions[1]) / 2).clamp(0, 1)
    assert float((inner - masked).abs().max()) > 0.01
    for s, flag in zip(surrogates, trained, strict=True):
        assert len(s.requested) == 1, "asked more often than an ensemble would"
        torch.testing.assert_close(s.requested[0], masked if flag else inner)
    after = gradients_by_hand(surrogates, inner, target_assignment, 1.0)
    gradients = [after[0], before[1], after[2], before[3]]
    mean = torch.stack([lengths(g) for g in gradients]).mean(0)
    balanced = [(g * mean / lengths(g)).flatten(1) for g in gradients]
    primary = balanced[0]
    union = primary
    for auxiliary in balanced[1:]:
        against = (auxiliary * primary).sum(1, keepdim=True).clamp(max=0)
        union = union + auxiliary - against / primary.square().sum(1, keepdim=True) * primary
    torch.testing.assert_close(found.flatten(1), union / 4)
    points = [inner, masked, inner, masked]
    expected = [
        likeness(s.embed(x), a, 1.0) for s, x, a in zip(surrogates, points, target_assignment, strict=True)
    ]
    torch.testing.assert_close(losses, torch.stack(expected).mean(0))


def test_the_inner_step_lowers_the_meta_train_losses_and_stays_a_photo():
    surrogates, masked, target_assignment = setting(2)
    edge = (masked - 0.5).sign().clamp(0, 1)
    for images in (masked, edge):
        surrogates[1].requested.clear()
        meta_auxiliary(
            surrogates, [same] * 2, images, target_assignment, 1.0, trained=[True, False], stride=0.02
        )
        (inner,) = surrogates[1].requested
        assert 0 <= float(inner.min()) <= float(inner.max()) <= 1
        assert not torch.equal(inner, images)
        if images is masked:
            before, after = (
                likeness(surrogates[0].embed(x), target_assignment[0], 1.0) for x in (masked, inner)
            )
            assert (after < before).all()


def test_a_vanishing_gradient_is_no_nan():
    surrogates, masked, target_assignment = setting(2)
    blind = Linear(torch.zeros(5, masked[0].numel()))
    for order in ([surrogates[0], blind], [blind, surrogates[0]]):
        aim = [target_assignment[0], target_assignment[0]]
        gradient, losses = meta_auxiliary(
            order, [same] * 2, masked, aim, 1.0, trained=[True, False], stride=0.1
        )
        assert gradient.isfinite().all()
        assert losses.isfinite().all()


def test_no_image_looks_at_another():
    surrogates, masked, target_assignment = setting(3)
    arguments = {"trained": [True, False, True], "stride": 0.05}
    whole, losses = meta_auxiliary(surrogates, [same] * 3, masked, target_assignment, 1.0, **arguments)
    for row in range(len(masked)):
        one = slice(row, row + 1)
        alone = [Aim(a.own[one], a.target[one]) for a in target_assignment]
        gradient, loss = meta_auxiliary(surrogates, [same] * 3, masked[one], alone, 1.0, **arguments)
        torch.testing.assert_close(gradient, whole[one])
        torch.testing.assert_close(loss, losses[one])
