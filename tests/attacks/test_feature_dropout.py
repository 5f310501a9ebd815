import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from attacks._feature_dropout import draw_kept, dropped_embeddings
from bench.errors import UsageError
from bench.randomness import torch_generator
from fr_models.synthetic_mobilefacenet import SyntheticMobileFaceNet

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)


def generators(*names):
    return [torch_generator(0, "pgd/dfanet/x/0", name) for name in names]


def pictures(count, side=fixtures.SIZE):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("share", [0, 0.05, 0.1, 0.5, 0.99])
def test_each_element_is_dropped_with_the_probability_asked_for(share):
    kept = draw_kept((24, 41, 37), share, generators("a", "b", "c"))
    assert kept.shape == (3, 24, 41, 37)
    count = kept.numel()
    # Five standard errors of a mean of independent draws.
    assert abs(float((~kept).float().mean()) - share) <= 5 * (share * (1 - share) / count) ** 0.5
    for dimension in (1, 2, 3):
        over = [d for d in (1, 2, 3) if d != dimension]
        spread = (~kept[0]).float().mean([d - 1 for d in over]).std()
        expected = (share * (1 - share) * kept.shape[dimension] / kept[0].numel()) ** 0.5
        assert spread <= 2 * expected + 1e-9, "elements of one row, column or channel are dropped together"


def test_a_draw_is_that_of_its_photo_in_any_company_and_goes_on_from_layer_to_layer():
    together = generators("a", "b", "c")
    first, second = (draw_kept((3, 5, 7), 0.5, together) for _ in range(2))
    assert not torch.equal(first, second)
    alone = generators("b")
    assert torch.equal(draw_kept((3, 5, 7), 0.5, alone)[0], first[1])
    assert torch.equal(draw_kept((3, 5, 7), 0.5, alone)[0], second[1])
    assert not torch.equal(first[0], first[1])


def test_without_dropout_the_embeddings_are_the_backbones():
    backbone, images = fixtures.TinyBackbone(1), pictures(4)
    assert torch.equal(dropped_embeddings(backbone, images, 0.0, generators(*"abcd")), backbone.embed(images))


def test_convolutions_are_dropped_within_and_never_after():
    backbone, images = fixtures.TinyBackbone(1), pictures(3)
    before = backbone.embed(images)
    dropped = dropped_embeddings(backbone, images, 0.3, generators("a", "b", "c"))
    streams = generators("a", "b", "c")
    x = F.conv2d(images - 0.5, backbone.first, stride=2)
    x = torch.tanh(torch.where(draw_kept(x.shape[1:], 0.3, streams), x / 0.7, 0))
    x = F.conv2d(x, backbone.second, stride=2)
    x = torch.tanh(torch.where(draw_kept(x.shape[1:], 0.3, streams), x / 0.7, 0))
    torch.testing.assert_close(dropped, F.linear(x.flatten(1), backbone.last))
    assert torch.equal(backbone.embed(images), before)


def test_the_gradient_is_that_of_the_network_that_was_drawn():
    backbone, images = fixtures.TinyBackbone(1), pictures(2).requires_grad_()
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))

    def loss(x):
        return (dropped_embeddings(backbone, x, 0.2, generators("a", "b")) * weight).sum()

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    moved = [float(loss(images.detach() + sign * 1e-3 * direction)) for sign in (1, -1)]
    assert (moved[0] - moved[1]) / 2e-3 == pytest.approx(float((gradient * direction).sum()), rel=1e-2)


def test_a_real_architecture_takes_it_and_other_draws_give_other_embeddings():
    backbone = SyntheticMobileFaceNet()
    backbone.load(torch.device("cpu"))
    images = pictures(2, 112)
    clean = F.normalize(backbone.embed(images))
    found = [
        F.normalize(dropped_embeddings(backbone, images, 0.05, generators(f"{k}", f"{k}'"))) for k in range(2)
    ]
    cosines = [(clean * e).sum(1) for e in found]
    assert all(((c > 0.3) & (c < 0.9999)).all() for c in cosines)
    assert not torch.equal(found[0], found[1])


def test_a_surrogate_without_convolutions_is_refused():
    class Linear(fixtures.TinyBackbone):
        def embed(self, images):
            return images.flatten(1)[:, :16]

    with pytest.raises(UsageError, match="surrogate 'tiny0' has no convolution"):
        dropped_embeddings(Linear(), pictures(1), 0.1, generators("a"))
