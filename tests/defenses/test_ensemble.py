"""The ensemble against its members, one photo at a time."""

from collections import Counter

import pytest
import torch

from bench.contracts import Context, Faces
from bench.plugins import factory
from defenses.ensemble import STREAM

TEXT = "ensemble:defenses=[gamma:value=0.5 & gaussian & noise]"


def context(seed=0):
    return Context(seed=seed, parts=tuple(Context(seed=100 + index) for index in range(3)))


@pytest.fixture
def faces():
    images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return Faces(images, tuple(f"photo-{i}" for i in range(12)), ("one",) * 12)


def test_each_photo_is_what_the_member_drawn_for_it_gives_back(faces):
    made, ctx = factory.defense(TEXT), context()
    found = made.purify(faces, ctx)
    members = [factory.defense(text) for text in ("gamma:value=0.5", "gaussian", "noise")]
    met = []
    for row, name in enumerate(faces.ids):
        choice = int(torch.randint(3, (1,), generator=ctx.generator(STREAM, name)))
        alone = members[choice].purify(faces.subset([row]), Context(seed=100 + choice))
        assert torch.allclose(found[row], alone[0], atol=1e-6)
        met.append(choice)
    assert set(met) == {0, 1, 2}


def test_every_member_is_drawn_as_often():
    ids = tuple(f"p{i}" for i in range(3000))
    counts = Counter(factory.defense(TEXT).drawn(ids, context()))
    # Six standard deviations of a binomial with n = 3000, p = 1/3.
    assert all(abs(counts[index] - 1000) < 6 * (3000 * 2 / 9) ** 0.5 for index in range(3))


def test_another_seed_draws_otherwise_and_the_same_seed_the_same():
    ids = tuple(f"p{i}" for i in range(100))
    made = factory.defense(TEXT)
    assert made.drawn(ids, context(1)) == made.drawn(ids, context(1)) != made.drawn(ids, context(2))


def test_images_counted_once_and_an_empty_batch_stays_empty(faces):
    counted = []
    ctx = Context(parts=context().parts, advance=counted.append)
    made = factory.defense(TEXT)
    assert made.purify(faces.subset([]), ctx).shape == (0, 3, 16, 16)
    made.purify(faces, ctx)
    assert sum(counted) == 12


def test_gradients_reach_every_photo(faces):
    images = faces.images.clone().requires_grad_()
    factory.defense(TEXT).purify(faces.with_images(images), context()).sum().backward()
    assert all(float(row.abs().max()) > 0 for row in images.grad)
