import math

import pytest
import torch

from attacks._landmark_cutout import REACH, cut_out, draw_cutout
from bench.faces.alignment import TEMPLATE
from bench.randomness import torch_generator

SIDE = 112


def generators(*names):
    return [torch_generator(0, "pgd/lgc/0", name) for name in names]


def pictures(count):
    return 0.1 + 0.9 * torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def by_hand(image, drawn):
    """The same, pixel by pixel."""
    image = image.clone()
    for which, right, down in drawn.tolist():
        x, y = TEMPLATE[math.floor(5 * which)]
        column, row = round(x + REACH * (2 * right - 1)), round(y + REACH * (2 * down - 1))
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                image[:, row + i, column + j] = 0
    return image


@pytest.mark.parametrize("patches", [1, 4, 51])
def test_it_blackens_three_by_three_pixels_about_each_point_and_nothing_else(patches):
    images = pictures(3)
    drawn = draw_cutout(generators("a", "b", "c"), patches)
    expected = torch.stack([by_hand(image, rows) for image, rows in zip(images, drawn, strict=True)])
    assert torch.equal(cut_out(images, drawn), expected)
    hidden = (expected == 0).all(1).sum((1, 2))
    assert ((hidden >= 9) & (hidden <= 9 * patches)).all()


def test_patches_lie_near_every_landmark_and_never_elsewhere():
    drawn = draw_cutout(generators(*(f"photo{k}" for k in range(500))), 1)
    hidden = cut_out(torch.ones(500, 3, SIDE, SIDE), drawn)[:, 0] == 0
    centres = hidden.nonzero().view(500, 9, 3)[:, 4, 1:].flip(1).double()
    distances = (centres[:, None] - torch.tensor(TEMPLATE)).abs().amax(2)
    nearest = distances.min(1)
    assert (nearest.values <= REACH + 0.5).all()
    assert nearest.values.max() > REACH - 1
    assert (nearest.indices.bincount(minlength=5) > 60).all()


def test_no_gradient_comes_back_from_a_patch():
    images = pictures(2).requires_grad_()
    drawn = draw_cutout(generators("a", "b"), 4)
    seen = cut_out(images, drawn)
    (gradient,) = torch.autograd.grad(seen.sum(), images)
    assert torch.equal(gradient, (seen != 0).float())


def test_landmarks_scale_with_the_crop():
    middle = torch.full((1, 1, 3), 0.5)
    middle[..., 0] = 0.5  # the nose
    rows, columns = (cut_out(torch.ones(1, 3, 56, 224), middle)[0, 0] == 0).nonzero().unbind(1)
    assert (int(columns.min()), int(columns.max())) == (111, 113)
    assert (int(rows.min()), int(rows.max())) == (35, 37)


def test_a_draw_is_that_of_its_photo_in_any_company():
    together = draw_cutout(generators("a", "b", "c"), 4)
    assert torch.equal(draw_cutout(generators("c", "a"), 4), together[[2, 0]])
    assert not torch.equal(together[0], together[1])
