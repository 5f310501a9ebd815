import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from attacks._feature_dropout import draw_kept
from attacks._gradient_smoothing import gaussian_kernel, smoothed
from attacks._input_diversity import LEAST_SIDE, diversified, draw_diversity
from attacks._landmark_cutout import cut_out, draw_cutout
from attacks.none import NoAttack
from attacks.pgd import PGD, accumulated
from bench.contracts import MICRO_BATCH, Context, Faces
from bench.data.files import VARIABLE, data_folder
from bench.errors import UsageError
from bench.plugins import factory
from bench.quality.metrics import linf, to_8_bits

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


def run_by_hand(
    faces, ctx, anchors, *, sign=1, steps=3, momentum=0.0, view=lambda image, _step: image, shape=lambda g: g
):
    """The defaults written out for one full micro-batch: ε 8, step 2, mean over surrogates of ‖e − a‖²."""
    clean, eps = faces.images, 8 / 255
    draws = torch.stack([torch.rand(clean.shape[1:], generator=ctx.generator("pgd", i)) for i in faces.ids])
    cloak = (clean + (draws * (2 * eps) - eps)).clamp(0, 1)
    velocity = torch.zeros_like(clean)
    for step in range(steps):
        cloak.requires_grad_()
        found = [F.normalize(b.embed(view(cloak, step)), dim=1) for b in ctx.backbones]
        losses = [(e - a).square().sum() for e, a in zip(found, anchors, strict=True)]
        gradient = shape(torch.autograd.grad(torch.stack(losses).mean(), cloak)[0])
        if momentum:
            norms = gradient.flatten(1).norm(p=1, dim=1).div(gradient[0].numel())
            velocity = momentum * velocity + gradient / norms.view(-1, 1, 1, 1)
            gradient = velocity
        offset = cloak.detach() - clean + sign * eps / 4 * gradient.sign()
        cloak = (clean + offset.clamp(-eps, eps)).clamp(0, 1)
    return cloak


def unit(backbones, images):
    return [F.normalize(b.embed(images), dim=1) for b in backbones]


def test_the_default_path_is_untargeted_without_momentum_to_the_byte(ctx, surrogates):
    faces = make_faces(MICRO_BATCH)
    expected = run_by_hand(faces, ctx, unit(surrogates, faces.images))
    assert torch.equal(stacked(PGD(PGD.Params(steps=3)).cloak(faces, ctx), faces), expected)
    assert (PGD.Params().goal, PGD.Params().momentum) == ("untargeted", 0)


def test_momentum_is_mi_fgsm(ctx, surrogates):
    faces = make_faces(MICRO_BATCH)
    expected = run_by_hand(faces, ctx, unit(surrogates, faces.images), momentum=0.8, steps=5)
    found = stacked(PGD(PGD.Params(steps=5, momentum=0.8)).cloak(faces, ctx), faces)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999  # signs of sums near zero may differ
    plain = stacked(PGD(PGD.Params(steps=5)).cloak(faces, ctx), faces)
    assert ((found - plain).abs() > 1e-3).float().mean() > 0.05


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_diversity_is_di_fgsm_with_one_draw_for_each_photo_and_step(ctx, surrogates, momentum):
    faces = make_faces(MICRO_BATCH)
    changed = []

    def view(images, step):
        drawn = draw_diversity([ctx.generator(f"pgd/diversity/{step}", name) for name in faces.ids], 0.6)
        changed.append((drawn != 0).any(1))
        return diversified(images, drawn)

    anchors = unit(surrogates, faces.images)
    expected = run_by_hand(faces, ctx, anchors, steps=5, momentum=momentum, view=view)
    found = stacked(PGD(PGD.Params(steps=5, momentum=momentum, diversity=0.6)).cloak(faces, ctx), faces)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999
    together = torch.stack(changed)
    assert 0.3 < together.float().mean() < 0.9
    assert not (together == together[:1]).all(), "every step changes the same photos"
    assert not (together == together[:, :1]).all(), "every photo is changed in the same steps"


@pytest.mark.parametrize(("sigma", "momentum"), [(1.0, 0.0), (1.5, 1.0)])
def test_smooth_is_a_gaussian_over_each_gradient_before_it_is_accumulated(ctx, surrogates, sigma, momentum):
    faces = make_faces(MICRO_BATCH)
    radius = {1.0: 3, 1.5: 5}[sigma]

    def shape(gradient):
        blurred = gaussian_filter(
            gradient.numpy(), sigma, axes=(2, 3), mode="constant", cval=0, radius=radius
        )
        return torch.from_numpy(blurred)

    anchors = unit(surrogates, faces.images)
    expected = run_by_hand(faces, ctx, anchors, steps=4, momentum=momentum, shape=shape)
    params = PGD.Params(steps=4, momentum=momentum, smooth=sigma)
    found = stacked(PGD(params).cloak(faces, ctx), faces)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999
    plain = run_by_hand(faces, ctx, anchors, steps=4, momentum=momentum)
    assert ((found - plain).abs() > 1e-3).float().mean() > 0.05


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_lgc_hides_other_patches_of_each_photo_in_each_step(ctx, surrogates, momentum):
    faces = make_faces(MICRO_BATCH)
    hidden = []

    def view(images, step):
        drawn = draw_cutout([ctx.generator(f"pgd/lgc/{step}", name) for name in faces.ids], 4)
        hidden.append(cut_out(torch.ones_like(images), drawn) == 0)
        return images.masked_fill(hidden[-1], 0)

    expected = run_by_hand(faces, ctx, unit(surrogates, faces.images), steps=4, momentum=momentum, view=view)
    found = stacked(PGD(PGD.Params(steps=4, momentum=momentum, lgc=4)).cloak(faces, ctx), faces)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999
    patches = torch.cat(hidden[:: len(surrogates)]).flatten(1)
    assert len(patches.unique(dim=0)) == 4 * MICRO_BATCH, "patches lie at the same places"


@pytest.mark.parametrize("least", [0.9, 0.6])
def test_resize_is_the_smallest_side_that_diversity_draws(ctx, surrogates, least):
    faces = make_faces(MICRO_BATCH)

    def view(images, step):
        drawn = draw_diversity([ctx.generator(f"pgd/diversity/{step}", name) for name in faces.ids], 1)
        sides = 1 - (1 - least) * drawn[:, :1]
        shrink = (1 - sides) / (1 - LEAST_SIDE)
        return diversified(images, torch.cat([shrink, drawn[:, 1:]], dim=1))

    expected = run_by_hand(faces, ctx, unit(surrogates, faces.images), steps=4, view=view)
    found = stacked(PGD(PGD.Params(steps=4, diversity=1, resize=least)).cloak(faces, ctx), faces)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999
    default = stacked(PGD(PGD.Params(steps=4, diversity=1)).cloak(faces, ctx), faces)
    assert ((found - default).abs() > 1e-3).float().mean() > 0.05


def test_all_of_the_pack_at_once_is_cutout_then_diversity_then_smoothing_then_momentum(ctx, surrogates):
    faces = make_faces(MICRO_BATCH)
    kernel = gaussian_kernel(1.0)

    def view(images, step):
        def streams(use):
            return [ctx.generator(f"pgd/{use}/{step}", name) for name in faces.ids]

        patched = cut_out(images, draw_cutout(streams("lgc"), 4))
        drawn = draw_diversity(streams("diversity"), 1) * torch.tensor([0.1 / 0.125, 1, 1])
        return diversified(patched, drawn)

    expected = run_by_hand(
        faces,
        ctx,
        unit(surrogates, faces.images),
        steps=5,
        momentum=1,
        view=view,
        shape=lambda gradient: smoothed(gradient, kernel),
    )
    params = PGD.Params(steps=5, momentum=1, diversity=1, resize=0.9, smooth=1, lgc=4)
    found = stacked(PGD(params).cloak(faces, ctx), faces)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_dfanet_drops_features_of_each_photo_in_each_step(ctx, surrogates, momentum):
    faces, share = make_faces(MICRO_BATCH), 0.2

    class ByHand(fixtures.TinyBackbone):
        """Dropout after both convolutions, drawn photo by photo; the clean photos are embedded first, whole."""

        calls = 0

        def embed(self, images):
            self.calls += 1
            step = self.calls - 2
            if step < 0:
                return super().embed(images)
            streams = [ctx.generator(f"pgd/dfanet/{self.card.name}/{step}", name) for name in faces.ids]

            def dropped(x):
                masks = [draw_kept(x.shape[1:], share, [stream])[0] for stream in streams]
                return x * torch.stack(masks) / (1 - share)

            x = torch.tanh(dropped(F.conv2d(images - 0.5, self.first, stride=2)))
            x = torch.tanh(dropped(F.conv2d(x, self.second, stride=2)))
            return F.linear(x.flatten(1), self.last)

    by_hand = Context(seed=7, backbones=(ByHand(1), ByHand(2, dim=24)))
    expected = run_by_hand(faces, by_hand, unit(by_hand.backbones, faces.images), steps=4, momentum=momentum)
    found = stacked(PGD(PGD.Params(steps=4, momentum=momentum, dfanet=share)).cloak(faces, ctx), faces)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999
    plain = stacked(PGD(PGD.Params(steps=4, momentum=momentum)).cloak(faces, ctx), faces)
    assert ((found - plain).abs() > 1e-3).float().mean() > 0.05


class Noted(Context):
    """Notes every stream that is drawn from."""

    def generator(self, stage, item):
        self.__dict__.setdefault("streams", []).append((stage, item))
        return super().generator(stage, item)


def test_without_diversity_nothing_more_is_drawn_and_the_bytes_are_those_of_before(ctx, surrogates):
    faces = make_faces(MICRO_BATCH)
    noted = Noted(seed=7, backbones=surrogates)
    off = PGD.Params(steps=3, diversity=0, smooth=0, lgc=0, dfanet=0)
    found = stacked(PGD(off).cloak(faces, noted), faces)
    assert set(noted.streams) == {("pgd", name) for name in faces.ids}
    assert torch.equal(found, run_by_hand(faces, ctx, unit(surrogates, faces.images)))
    diverse = Noted(seed=7, backbones=surrogates)
    changed = stacked(PGD(PGD.Params(steps=3, diversity=1)).cloak(faces, diverse), faces)
    assert set(diverse.streams) - set(noted.streams) == {
        (f"pgd/diversity/{step}", name) for name in faces.ids for step in range(3)
    }
    assert ((found - changed).abs() > 1e-3).float().mean(dim=(1, 2, 3)).min() > 0.05
    off = PGD.Params(diversity=0, resize=0.875, smooth=0, lgc=0, dfanet=0, targets=0)
    assert factory.canonical(PGD(off)) == "pgd"


def test_draws_of_one_kind_do_not_move_those_of_another(ctx, surrogates):
    faces = make_faces(2)
    noted = Noted(seed=7, backbones=surrogates)
    PGD(PGD.Params(steps=2, diversity=1, lgc=4, smooth=1, dfanet=0.1)).cloak(faces, noted)
    uses = ("diversity", "lgc", "dfanet/tiny1", "dfanet/tiny2")
    assert set(noted.streams) == {
        *(("pgd", name) for name in faces.ids),
        *((f"pgd/{use}/{step}", name) for name in faces.ids for use in uses for step in range(2)),
    }


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_diverse_cloaks_are_the_same_each_time_and_in_any_batch(ctx, goal):
    faces = make_faces(MICRO_BATCH + 3)
    attack = PGD(PGD.Params(steps=3, diversity=0.7, momentum=1, smooth=1.5, lgc=4, dfanet=0.1, goal=goal))
    whole = attack.cloak(faces, ctx)
    backwards = attack.cloak(faces.subset(range(len(faces) - 1, -1, -1)), ctx)
    again = attack.cloak(faces, ctx)
    for i, name in enumerate(faces.ids):
        assert torch.equal(again[name], whole[name])
        assert torch.equal(backwards[name], whole[name])
        assert torch.equal(attack.cloak(faces.subset([i]), ctx)[name], whole[name])
    assert (linf(to_8_bits(stacked(whole, faces)), faces.images).round() <= 8).all()


def test_the_first_targets_alone_are_imitated(ctx):
    faces = make_faces(60)
    pool = list(dict.fromkeys(ctx.targets.identities))
    assert len(pool) == 4
    for count, expected in ((1, pool[:1]), (3, pool[:3]), (4, pool), (9, pool), (0, pool)):
        target_assignment = PGD(PGD.Params(goal="targeted", targets=count)).assign_targets(faces, ctx)
        assert set(target_assignment.values()) == set(expected)
    turned = ctx.targets.subset(range(len(ctx.targets) - 1, -1, -1))
    first = turned.identities[0]
    again = Context(seed=7, backbones=ctx.backbones, targets=turned)
    assert set(PGD(PGD.Params(goal="targeted", targets=1)).assign_targets(faces, again).values()) == {first}
    # Cloaks go where the aims say.
    few = faces.subset(range(4))
    attack = PGD(PGD.Params(goal="targeted", targets=1))
    only = ctx.targets.subset([i for i, name in enumerate(ctx.targets.identities) if name == pool[0]])
    alone = Context(seed=7, backbones=ctx.backbones, targets=only)
    plain = PGD(PGD.Params(goal="targeted"))
    assert torch.equal(stacked(attack.cloak(few, ctx), few), stacked(plain.cloak(few, alone), few))


def test_the_first_target_cannot_imitate_themself(ctx):
    me = ctx.targets.subset([0])
    with pytest.raises(UsageError, match="nobody to imitate"):
        PGD(PGD.Params(goal="targeted", targets=1)).assign_targets(me, ctx)
    assert PGD(PGD.Params(goal="targeted", targets=2)).assign_targets(me, ctx).keys() == {me.ids[0]}


def test_accumulated_gradients_have_mean_magnitude_one_and_survive_a_zero():
    gradient = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    gradient[1] = 0
    first = accumulated(torch.zeros_like(gradient), gradient, 0.5)
    torch.testing.assert_close(first.abs().mean((1, 2, 3)), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(accumulated(first, 7 * gradient, 0.5), 1.5 * first)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_targeted_cloaks_are_steps_towards_the_aims_mean_embedding(ctx, surrogates, momentum):
    faces = make_faces(MICRO_BATCH, identities=3)
    attack = PGD(PGD.Params(goal="targeted", steps=4, momentum=momentum))
    target_assignment = attack.assign_targets(faces, ctx)
    anchors = []
    for backbone in surrogates:
        rows = []
        for name in faces.ids:
            photos = [
                i for i, identity in enumerate(ctx.targets.identities) if identity == target_assignment[name]
            ]
            rows.append(F.normalize(backbone.embed(ctx.targets.images[photos]), dim=1).mean(0))
        anchors.append(F.normalize(torch.stack(rows), dim=1))
    cloaks = stacked(attack.cloak(faces, ctx), faces)
    expected = run_by_hand(faces, ctx, anchors, sign=-1, steps=4, momentum=momentum)
    assert ((cloaks - expected).abs() < 1e-5).float().mean() > 0.999
    for backbone, anchor in zip(surrogates, anchors, strict=True):
        before, after = (
            (F.normalize(backbone.embed(x), dim=1) * anchor).sum(1) for x in (faces.images, cloaks)
        )
        assert (after > before).all()
    assert (linf(to_8_bits(cloaks), faces.images).round() <= 8).all()


def test_aims_are_one_for_each_person_by_the_seed_and_never_the_person(ctx, surrogates):
    attack = PGD(PGD.Params(goal="targeted"))
    faces = make_faces(40, identities=20)
    target_assignment = attack.assign_targets(faces, ctx)
    by_identity = {}
    for image, identity in zip(faces.ids, faces.identities, strict=True):
        assert by_identity.setdefault(identity, target_assignment[image]) == target_assignment[image]
        assert attack.assign_targets(faces.subset([faces.ids.index(image)]), ctx) == {
            image: target_assignment[image]
        }
    assert set(by_identity.values()) == set(ctx.targets.identities)
    other_seed = Context(seed=8, backbones=surrogates, targets=ctx.targets)
    assert attack.assign_targets(faces, other_seed) != target_assignment
    own = Context(seed=7, targets=ctx.targets)
    assert all(aim != image for image, aim in attack.assign_targets(ctx.targets, own).items())
    for image, aim in attack.assign_targets(ctx.targets, own).items():
        assert aim != ctx.targets.identities[ctx.targets.ids.index(image)]


def test_targeted_cloaks_do_not_depend_on_the_batch(ctx):
    faces = make_faces(MICRO_BATCH + 3, identities=5)
    attack = PGD(PGD.Params(steps=3, goal="targeted", momentum=1))
    whole = attack.cloak(faces, ctx)
    backwards = attack.cloak(faces.subset(range(len(faces) - 1, -1, -1)), ctx)
    for i, name in enumerate(faces.ids):
        assert torch.equal(attack.cloak(faces.subset([i]), ctx)[name], whole[name])
        assert torch.equal(backwards[name], whole[name])


def test_nobody_to_imitate_is_explained(faces, ctx, surrogates):
    attack = PGD(PGD.Params(goal="targeted"))
    for call in (attack.cloak, attack.assign_targets):
        with pytest.raises(UsageError, match=r"got no target faces.*goal=untargeted"):
            call(faces, Context(backbones=surrogates))
    me = faces.subset([0])
    with pytest.raises(UsageError, match="only identity among the target faces"):
        attack.assign_targets(me, Context(backbones=surrogates, targets=me))
    with pytest.raises(TypeError, match="has no assign_targets"):
        PGD().assign_targets(faces, ctx)


@pytest.mark.parametrize(("eps", "bound"), [(8, 8), (2.4, 2.4), (2.6, 3), (255, 255)])
def test_the_declared_bound_holds_of_posted_cloaks(faces, ctx, eps, bound):
    attack = PGD(PGD.Params(eps=eps, steps=3))
    assert (attack.threat.max_linf, attack.threat.max_dssim) == (bound, None)
    posted = linf(to_8_bits(stacked(attack.cloak(faces, ctx), faces)), faces.images).round()
    assert (posted <= bound).all()


def test_the_declared_threat_follows_the_goal():
    aimed = PGD(PGD.Params(goal="targeted")).threat
    assert (aimed.goal, aimed.needs_targets, aimed.surrogates) == ("targeted", True, 1)
    assert (PGD().threat.goal, PGD().threat.needs_targets) == ("untargeted", False)


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


@pytest.mark.parametrize(
    "bad",
    [
        {"eps": 0},
        {"eps": 256},
        {"step": 0},
        {"steps": 0},
        {"epsilon": 3},
        {"diversity": 1.1},
        {"diversity": -0.1},
        {"resize": 0},
        {"resize": 1},
        {"smooth": -1},
        {"smooth": 17},
        {"lgc": -1},
        {"lgc": 52},
        {"dfanet": 1},
        {"dfanet": -0.1},
        {"targets": -1},
    ],
)
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
    ids = tuple(identity.photos[0] for identity in lfw.identities()[: MICRO_BATCH + 2])
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
