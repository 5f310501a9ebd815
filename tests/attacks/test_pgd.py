import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from attacks.none import NoAttack
from attacks.pgd import PGD
from bench.contracts import MICRO_BATCH, Context, Faces
from bench.data_files import VARIABLE, data_folder
from bench.errors import UsageError
from bench.image_quality import linf, to_8_bits

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)
make_faces, stacked = fixtures.make_faces, fixtures.stacked


@pytest.mark.parametrize("eps", [1, 8, 15])
def test_cloaks_stay_in_the_ball_and_in_range_and_use_it(faces, ctx, eps):
    cloaks = stacked(PGD(PGD.Params(eps=eps)).cloak(faces, ctx), faces)
    assert cloaks.dtype == torch.float32
    assert cloaks.min() >= 0
    assert cloaks.max() <= 1
    posted = linf(to_8_bits(cloaks), faces.images)
    assert (posted.round() == eps).all()


def test_every_surrogate_moves_and_far_more_than_by_noise(faces, ctx, distances):
    cloaks = stacked(PGD().cloak(faces, ctx), faces)
    noise = 8 / 255 * torch.randn(faces.images.shape, generator=torch.Generator().manual_seed(1)).sign()
    moved = distances(cloaks, faces.images)
    assert (moved > 4 * distances((faces.images + noise).clamp(0, 1), faces.images)).all()


def test_one_step_is_the_signed_gradient_of_the_mean_squared_distance(faces, ctx, surrogates):
    cloaks = stacked(PGD(PGD.Params(eps=20, step=3, steps=1)).cloak(faces, ctx), faces)
    for i, name in enumerate(faces.ids):
        clean = faces.images[i : i + 1]
        draw = torch.rand(clean.shape[1:], generator=ctx.generator("pgd", name))
        start = (clean + (2 * draw - 1) * 20 / 255).clamp(0, 1).requires_grad_()
        cosines = [F.cosine_similarity(b.embed(start), b.embed(clean)) for b in surrogates]
        (gradient,) = torch.autograd.grad(-sum(cosines), start)
        stepped = (start + 3 / 255 * gradient.sign() - clean).clamp(-20 / 255, 20 / 255) + clean
        expected = stepped.clamp(0, 1)[0]
        agrees = (cloaks[i] - expected).abs() < 1e-5
        assert agrees.float().mean() > 0.999  # signs of vanishing gradients may differ


def test_more_steps_move_further(faces, ctx, distances):
    short = stacked(PGD(PGD.Params(steps=2)).cloak(faces, ctx), faces)
    long = stacked(PGD(PGD.Params(steps=20)).cloak(faces, ctx), faces)
    assert distances(long, faces.images).mean() > distances(short, faces.images).mean()


def test_default_step_is_a_quarter_of_eps(faces, ctx):
    default = PGD(PGD.Params(eps=12, steps=3)).cloak(faces, ctx)
    given = PGD(PGD.Params(eps=12, steps=3, step=3)).cloak(faces, ctx)
    other = PGD(PGD.Params(eps=12, steps=3, step=2)).cloak(faces, ctx)
    assert all(torch.equal(default[i], given[i]) for i in faces.ids)
    assert not any(torch.equal(default[i], other[i]) for i in faces.ids)


def test_cloaks_do_not_depend_on_the_batch(ctx, surrogates):
    faces = make_faces(MICRO_BATCH + 3)
    attack = PGD(PGD.Params(steps=3))
    whole = attack.cloak(faces, ctx)
    backwards = attack.cloak(faces.subset(range(len(faces) - 1, -1, -1)), ctx)
    for i, name in enumerate(faces.ids):
        alone = attack.cloak(faces.subset([i]), ctx)
        assert torch.equal(alone[name], whole[name])
        assert torch.equal(backwards[name], whole[name])
    assert {size for b in surrogates for size in b.batches} == {MICRO_BATCH}


def test_seed_decides(faces, ctx, surrogates):
    attack = PGD(PGD.Params(steps=2))
    again = attack.cloak(faces, ctx)
    other = attack.cloak(faces, Context(seed=8, backbones=surrogates))
    for name, cloak in attack.cloak(faces, ctx).items():
        assert torch.equal(cloak, again[name])
        assert not torch.equal(cloak, other[name])


def test_progress_counts_every_image(surrogates):
    done = []
    PGD(PGD.Params(steps=1)).cloak(make_faces(11), Context(backbones=surrogates, advance=done.append))
    assert sum(done) == 11


def test_without_surrogates_the_message_says_what_to_do(faces):
    with pytest.raises(UsageError, match=r"pgd:surrogates="):
        PGD().cloak(faces, Context())


def test_a_surrogate_without_gradient_is_refused(faces):
    class Frozen(fixtures.TinyBackbone):
        differentiable = False

    with pytest.raises(UsageError, match="'tiny3' has no gradient"):
        PGD().cloak(faces, Context(backbones=(Frozen(3),)))


@pytest.mark.parametrize("bad", [{"eps": 0}, {"eps": 256}, {"step": 0}, {"steps": 0}, {"epsilon": 3}])
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(ValidationError):
        PGD.Params(**bad)


def test_pool_is_the_parameter():
    assert PGD().pool() == "auto"
    assert PGD(PGD.Params(surrogates="a|b")).pool() == "a|b"


def test_no_attack_edits_nothing(faces):
    done = []
    assert NoAttack().cloak(faces, Context(advance=done.append)) == {}
    assert done == [5]
    assert NoAttack.threat.goal == "none"
    assert NoAttack().pool() is None


@pytest.mark.real_data
@pytest.mark.skipif(
    not (data_folder() / "lfw").exists(), reason=f"{VARIABLE} names no folder with lfw and the real backbones"
)
def test_real_backbones_give_the_same_bytes_one_by_one():
    from bench.datasets.lfw import LFW
    from fr_models.mobileface_v2 import MobileFaceV2
    from fr_models.mobileface_v3 import MobileFaceV3

    lfw = LFW()
    ids = tuple(person.photos[0] for person in lfw.identities()[: MICRO_BATCH + 2])
    faces = Faces(lfw.crops(ids).float() / 255, ids, ids)
    backbones = (MobileFaceV3(), MobileFaceV2())
    for backbone in backbones:
        backbone.load(torch.device("cpu"))
    attack = PGD(PGD.Params(eps=15, steps=3))
    ctx = Context(backbones=backbones)
    whole = attack.cloak(faces, ctx)
    for i in (0, MICRO_BATCH - 1, MICRO_BATCH + 1):
        assert torch.equal(attack.cloak(faces.subset([i]), ctx)[ids[i]], whole[ids[i]])
    before, after = (
        F.normalize(backbones[1].embed_batch(images))
        for images in (faces.images, to_8_bits(stacked(whole, faces)))
    )
    assert ((before * after).sum(1) < 0.5).all()
