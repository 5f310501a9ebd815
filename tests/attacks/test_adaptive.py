import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from attacks._input_diversity import diversified, draw_diversity
from attacks.adaptive import POWER, Branch, Defended, Step, Views, branch_weights, straight_through
from attacks.lowkey import feature_gain, unit_features
from attacks.pgd import PGD
from bench.contracts import MICRO_BATCH, Backbone, Binding, Context, Faces, Hardening, Purifier
from bench.errors import MethodError, UsageError
from bench.plugins import factory
from bench.plugins import factory as methods
from bench.quality.metrics import dssim, linf, to_8_bits
from defenses.gaussian import Gaussian
from defenses.jpeg import JPEG
from defenses.noise import Noise

_spec = importlib.util.spec_from_file_location("attack_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)
make_faces, stacked = fixtures.make_faces, fixtures.stacked

CELL = Binding("synthetic", "synthetic", (), "tiny")
BLUR = Gaussian()


class Edges(Purifier):
    """What a blur takes away: a cloak made through it alone means little to a tracker that blurs."""

    name = "edges"
    differentiable = True

    def purify(self, faces, ctx):
        return (faces.images - BLUR.purify(faces, ctx) + 0.5).clamp(0, 1)


def adaptive(text=""):
    return factory.attack(f"adaptive:{text}" if text else "adaptive")


def context_of(attack, surrogates, *, seed=7, targets=None, advance=lambda _n: None):
    """What the pipeline hands over: surrogates for the attack, and a context for each part."""

    def of(method):
        return Context(seed=seed, parts=tuple(of(part) for part in method.parts()))

    return replace(of(attack), backbones=surrogates, targets=targets, advance=advance)


def cloaks_of(text, faces, surrogates, **keywords):
    attack = adaptive(text)
    return stacked(attack.cloak(faces, context_of(attack, surrogates, **keywords)), faces)


def seen_through(purifier, images):
    names = tuple(str(i) for i in range(len(images)))
    return purifier.purify(Faces(images, names, names), Context())


def moved(surrogates, purifier, cloaks, images):
    """Mean over surrogates of ‖e(p(x')) − e(p(x))‖² of unit embeddings, one value an image."""
    found = []
    for backbone in surrogates:
        views = (
            [cloaks, images] if purifier is None else [seen_through(purifier, x) for x in (cloaks, images)]
        )
        after, before = (F.normalize(backbone.embed(view), dim=1) for view in views)
        found.append((after - before).square().sum(1))
    return torch.stack(found).mean(0)


# -- one branch ------------------------------------------------------------------------------------------------


def run_by_hand(faces, seed, surrogates, defended, *, eps, steps):
    """PGD through `defended`, written out for one full micro-batch."""
    clean, eps = faces.images, eps / 255
    context = Context(seed=seed)
    draws = torch.stack(
        [torch.rand(clean.shape[1:], generator=context.generator("pgd", i)) for i in faces.ids]
    )
    cloak = (clean + (draws * (2 * eps) - eps)).clamp(0, 1)
    with torch.no_grad():
        anchors = [F.normalize(b.embed(defended(clean)), dim=1) for b in surrogates]
    for _ in range(steps):
        cloak.requires_grad_()
        found = [F.normalize(b.embed(defended(cloak)), dim=1) for b in surrogates]
        losses = [(e - a).square().sum() for e, a in zip(found, anchors, strict=True)]
        (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), cloak)
        offset = cloak.detach() - clean + eps / 4 * gradient.sign()
        cloak = (clean + offset.clamp(-eps, eps)).clamp(0, 1)
    return cloak


def test_pgd_through_a_differentiable_purifier_is_pgd_on_the_composed_function(surrogates):
    faces = make_faces(MICRO_BATCH)
    found = cloaks_of("attack=[pgd:eps=12,steps=3],defense=gaussian", faces, surrogates)
    expected = run_by_hand(faces, 7, surrogates, lambda x: seen_through(BLUR, x), eps=12, steps=3)
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.999  # signs of vanishing gradients may differ
    plain = stacked(
        PGD(PGD.Params(eps=12, steps=3)).cloak(faces, Context(seed=7, backbones=surrogates)), faces
    )
    assert ((found - plain).abs() > 1e-3).float().mean() > 0.05


def test_diverse_views_are_defended_like_the_photo(surrogates):
    faces = make_faces(MICRO_BATCH + 1)
    text = "attack=[pgd:steps=3,diversity=0.5],defense=gaussian"
    found = cloaks_of(text, faces, surrogates)
    assert torch.equal(found, cloaks_of(text, faces, surrogates))
    assert torch.equal(found[-1:], cloaks_of(text, faces.subset([MICRO_BATCH]), surrogates))
    plain = cloaks_of("attack=[pgd:steps=3],defense=gaussian", faces, surrogates)
    assert ((found - plain).abs() > 1e-3).float().mean() > 0.05
    ctx = Context(seed=7)

    def defended(images):
        """What the surrogates see at steps 0, 1 and 2; the clean photos are asked about first, as they are."""
        step = calls.pop(0)
        if step is not None:
            names = [ctx.generator(f"pgd/diversity/{step}", name) for name in faces.ids[:MICRO_BATCH]]
            images = diversified(images, draw_diversity(names, 0.5))
        return seen_through(BLUR, images)

    calls = [None, None, 0, 0, 1, 1, 2, 2]  # two surrogates
    whole = faces.subset(range(MICRO_BATCH))
    expected = run_by_hand(whole, 7, surrogates, defended, eps=8, steps=3)
    assert ((found[:MICRO_BATCH] - expected).abs() < 1e-5).float().mean() > 0.999


def test_cloaks_through_a_defence_survive_it_and_plain_ones_do_not(surrogates, faces):
    plain = stacked(PGD(PGD.Params(eps=15)).cloak(faces, Context(seed=7, backbones=surrogates)), faces)
    through = cloaks_of("defense=gaussian", faces, surrogates)
    assert (
        moved(surrogates, BLUR, through, faces.images) > 3 * moved(surrogates, BLUR, plain, faces.images)
    ).all()


def gradient_at(function, images):
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(images), images)
    return gradient


@pytest.mark.parametrize("purifier", [JPEG(), factory.defense("median")], ids=lambda p: p.name)
def test_a_defence_without_gradient_gets_the_gradient_at_the_defended_image(surrogates, faces, purifier):
    (surrogate, _) = surrogates
    images = faces.images[:3]
    views = Views((Branch((Step(purifier, Context(), exact=False),), 1),))
    found = gradient_at(lambda x: Defended([surrogate], views, -POWER).embed(x).square().sum(), images)
    defended = seen_through(purifier, images)
    expected = gradient_at(lambda x: surrogate.embed(x).square().sum(), defended)
    assert not torch.equal(defended, images)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, expected)


def test_straight_through_is_the_defended_image_to_the_bit():
    images = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    other = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    through = straight_through(images, other)
    assert torch.equal(through, other)
    (gradient,) = torch.autograd.grad((through * other).sum(), images)
    assert torch.equal(gradient, other)


def test_grad_bpda_ignores_the_gradient_a_defence_has(surrogates, faces):
    own, straight = (
        cloaks_of(f"attack=[pgd:steps=2],defense=gaussian,grad={grad}", faces, surrogates)
        for grad in ("auto", "bpda")
    )
    assert not torch.equal(own, straight)
    exact = cloaks_of("attack=[pgd:steps=2],defense=gaussian,grad=exact", faces, surrogates)
    assert torch.equal(own, exact)


def test_images_beyond_the_range_are_defended_as_they_would_be_posted_and_keep_their_gradient(surrogates):
    images = make_faces(2).images * 1.5 - 0.25
    assert images.min() < 0
    assert images.max() > 1
    views = Views((Branch((Step(JPEG(), Context(), exact=False),), 1),))
    ((seen,),) = views(images)
    assert torch.equal(seen, seen_through(JPEG(), images.clamp(0, 1)))
    gradient = gradient_at(lambda x: Defended([surrogates[0]], views, -POWER).embed(x).square().sum(), images)
    torch.testing.assert_close(gradient, gradient_at(lambda x: surrogates[0].embed(x).square().sum(), seen))


# -- randomness ------------------------------------------------------------------------------------------------


class Watched(Noise):
    """Remembers the draws it made."""

    def __init__(self, params=None):
        super().__init__(params)
        self.ids, self.seeds = [], set()

    def purify(self, faces, ctx):
        self.ids.append(faces.ids)
        self.seeds.add(ctx.seed)
        return super().purify(faces, ctx)


def test_a_random_defence_is_averaged_over_its_draws(surrogates, faces):
    (surrogate, _) = surrogates
    noise = Watched(Noise.Params(sigma=20))
    views = Views((Branch((Step(noise, Context(seed=3), exact=True),), 5),))
    with torch.no_grad():
        found = F.normalize(Defended([surrogate], views, -POWER).embed(faces.images), dim=1)
        draws = []
        for names in list(noise.ids):
            view = noise.purify(Faces(faces.images, names, names), Context(seed=3))
            draws.append(F.normalize(surrogate.embed(view), dim=1))
    assert len(set(noise.ids[:5])) == 5
    assert (torch.stack(draws).std(0) > 0).any()
    torch.testing.assert_close(found, F.normalize(torch.stack(draws).mean(0), dim=1))


def test_more_draws_come_nearer_to_the_expected_embedding(surrogates, faces):
    (surrogate, _) = surrogates

    def mean_of(samples, seed):
        views = Views(
            (Branch((Step(Noise(Noise.Params(sigma=30)), Context(seed=seed), exact=True),), samples),)
        )
        with torch.no_grad():
            return F.normalize(Defended([surrogate], views, -POWER).embed(faces.images), dim=1)

    expected = mean_of(128, 1)
    few, many = ((mean_of(n, 2) - expected).norm(dim=1).mean() for n in (1, 16))
    assert many < few / 2


def test_draws_are_fresh_at_each_step_and_never_the_trackers(surrogates, faces, monkeypatch):
    attack = adaptive("attack=[pgd:steps=3],defense=noise,samples=2")
    noise = Watched()
    monkeypatch.setattr(attack, "_defenses", (noise,))
    monkeypatch.setattr(attack, "parts", lambda: (attack._inner, noise))
    attack.cloak(faces, context_of(attack, surrogates))
    # Anchors and three steps, two draws each, shared by the two surrogates; five photos fill the micro-batch.
    assert len(noise.ids) == (1 + 3) * 2
    rows = [dict.fromkeys(names) for names in noise.ids]
    assert [len(row) for row in rows] == [len(faces)] * len(rows)
    assert len({name for row in rows for name in row}) == len(rows) * len(faces)
    assert 7 not in noise.seeds
    assert len(noise.seeds) == 1


def test_a_random_defences_cloaks_do_not_depend_on_company_or_names(surrogates):
    faces = make_faces(3)
    text = "attack=[pgd:steps=3],defense=[noise & jpeg],mode=joint,samples=2"
    whole = cloaks_of(text, faces, surrogates)
    for row in (0, 2):
        assert torch.equal(cloaks_of(text, faces.subset([row]), surrogates)[0], whole[row])
    assert torch.equal(cloaks_of(text, faces.subset([2, 1, 0]), surrogates).flip(0), whole)
    assert not torch.equal(cloaks_of(text, faces, surrogates, seed=8), whole)


# -- several branches --------------------------------------------------------------------------------------------


def test_weights_sum_to_one_favour_the_nearest_and_pass_over_what_has_no_gradient():
    gradients = torch.zeros(3, 3, 4)
    gradients[0, :, 0] = torch.tensor([1.0, 2.0, 4.0])
    gradients[1, :, 1] = torch.tensor([0.0, 3.0, 3.0])
    weights = branch_weights(gradients, -4)
    share = torch.tensor([1.0, 1 / 16, 1 / 256])
    torch.testing.assert_close(weights[0], share / share.sum())
    torch.testing.assert_close(weights[1], torch.tensor([0.0, 0.5, 0.5]))
    assert torch.equal(weights[2], torch.zeros(3))
    aimed = branch_weights(gradients, 4)[0]
    torch.testing.assert_close(aimed, torch.tensor([1.0, 16.0, 256.0]) / 273)
    tiny = branch_weights(gradients * 1e-15, -4)
    torch.testing.assert_close(tiny, weights)


def two_branches():
    steps = [(Step(purifier, Context(), exact=True),) for purifier in (BLUR, Edges())]
    return tuple(Branch(step, 1) for step in steps)


@pytest.mark.parametrize("strength", [0.02, 0.6])
def test_the_gradient_is_that_of_the_weighted_sum_of_distances(surrogates, faces, strength):
    """Also where the branches have moved far: a mean cosine below zero must not turn their order round."""
    (surrogate, _) = surrogates
    generator = torch.Generator().manual_seed(5)
    cloaks = (faces.images + strength * torch.randn(faces.images.shape, generator=generator)).clamp(0, 1)
    if strength > 0.5:
        cloaks = 1 - cloaks
    defended = Defended([surrogate] * 2, Views(two_branches()), -POWER)
    with torch.no_grad():
        anchor = F.normalize(defended.embed(faces.images), dim=1)
    found = gradient_at(lambda x: (F.normalize(defended.embed(x), dim=1) - anchor).square().sum(), cloaks)

    def distances(x):
        pairs = [(seen_through(p, x), seen_through(p, faces.images)) for p in (BLUR, Edges())]
        units = [
            (F.normalize(surrogate.embed(a), dim=1), F.normalize(surrogate.embed(b), dim=1)) for a, b in pairs
        ]
        return torch.stack([(a - b).square().sum(1) for a, b in units], 1)

    far = distances(cloaks).detach()
    if strength > 0.5:
        assert (far.amax(1) > 2).any()  # past 90°
    weights = far.sqrt() ** -POWER
    weights = weights / weights.sum(1, keepdim=True)
    expected = gradient_at(lambda x: (weights * distances(x)).sum(), cloaks)
    cosine = F.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert (cosine > 0.97).all()
    ratio = found.flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert ((ratio - 1).abs() < 0.15).all()


INNER = {
    "pgd": "pgd:eps=8,steps=6",
    "fawkes": "fawkes:steps=10",
    "lowkey": "lowkey:perceptual=dssim,steps=5,weight=0",
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_joint_raises_the_worse_of_defended_and_undefended(surrogates, inner, monkeypatch):
    """Through `Edges` alone a cloak hardly moves an undefended tracker."""
    faces = make_faces(4)
    worse = {}
    for mode in ("defended", "joint"):
        attack = adaptive(f"attack=[{inner}],defense=gaussian,mode={mode}")
        monkeypatch.setattr(attack, "_defenses", (Edges(),))
        cloaks = stacked(attack.cloak(faces, context_of(attack, surrogates)), faces)
        both = [moved(surrogates, p, to_8_bits(cloaks), faces.images) for p in (Edges(), None)]
        worse[mode] = torch.minimum(*both)
        assert linf(to_8_bits(cloaks), faces.images).round().max() <= attack.threat.max_linf
        if attack.threat.max_dssim:
            assert dssim(to_8_bits(cloaks), faces.images).max() <= attack.threat.max_dssim + 1e-6
    assert worse["joint"].mean() > 1.15 * worse["defended"].mean()


class EvenAndUnit(Backbone):
    """Sees an image and its mirror image alike, with embeddings of one length: nothing but the angle counts."""

    name = "even"

    def __init__(self, surrogate):
        super().__init__()
        self.surrogate, self.card = surrogate, surrogate.card

    def load(self, device):
        """Nothing to read."""

    def embed(self, images):
        return 3 * F.normalize(self.surrogate.embed(images) + self.surrogate.embed(images.flip(3)), dim=1)


def lowkeys_gain(backbone, images):
    """What LowKey weighs against its penalty, of unit-length features."""
    with torch.no_grad():
        clean = unit_features([backbone], images)
    return lambda x: feature_gain([backbone], x, clean).sum()


def squares_by_length(backbone, images):
    """Of embeddings as long as they are: an attack that does not normalise."""
    with torch.no_grad():
        clean = backbone.embed(images)
    return lambda x: ((backbone.embed(x) - clean).square().mean(1) / clean.norm(dim=1)).sum()


@pytest.mark.parametrize("objective", [lowkeys_gain, squares_by_length])
def test_attacks_with_a_penalty_meet_the_gradients_they_know_from_one_branch(surrogates, faces, objective):
    """LowKey weighs its gain against a penalty: two branches that are the same must be that one."""
    even, images = EvenAndUnit(surrogates[0]), faces.images
    branch = Branch((Step(BLUR, Context(), exact=True),), 1)
    cloaks = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))).clamp(
        0, 1
    )
    gradients = [
        gradient_at(objective(Defended([even] * len(branches), Views(branches), -POWER), images), cloaks)
        for branches in ((branch,), (branch, branch), (branch, branch, branch))
    ]
    for gradient in gradients[1:]:
        # On the sphere the gradient of a squared chord and that of one beside a long constant differ a little.
        assert (F.cosine_similarity(gradient.flatten(1), gradients[0].flatten(1)) > 0.99).all()
        ratio = gradient.flatten(1).norm(dim=1) / gradients[0].flatten(1).norm(dim=1)
        assert ((ratio - 1).abs() < 1.2 / surrogates[0].card.embedding_dim).all()


def test_targeted_cloaks_come_near_their_aim_in_the_farther_branch_too(surrogates, monkeypatch):
    faces, targets = make_faces(4), make_faces(6, seed=99, identities=3)
    text = "attack=[pgd:goal=targeted,steps=6,eps=15],defense=gaussian"
    farther = {}
    for mode in ("defended", "joint"):
        attack = adaptive(f"{text},mode={mode}")
        monkeypatch.setattr(attack, "_defenses", (Edges(),))
        ctx = context_of(attack, surrogates, targets=targets)
        target_assignment = attack.assign_targets(faces, ctx)
        assert target_assignment == PGD(PGD.Params(goal="targeted")).assign_targets(faces, ctx)
        cloaks = stacked(attack.cloak(faces, ctx), faces)
        apart = []
        for purifier in (Edges(), None):
            rows = []
            for backbone in surrogates:
                view = cloaks if purifier is None else seen_through(purifier, cloaks)
                units = F.normalize(backbone.embed(view), dim=1)
                for row, name in enumerate(faces.ids):
                    photos = targets.images[
                        [i for i, p in enumerate(targets.identities) if p == target_assignment[name]]
                    ]
                    photos = photos if purifier is None else seen_through(purifier, photos)
                    aim = F.normalize(F.normalize(backbone.embed(photos), dim=1).mean(0), dim=0)
                    rows.append((units[row] - aim).square().sum())
            apart.append(torch.stack(rows).mean())
        farther[mode] = max(apart)
    assert farther["joint"] < farther["defended"]


# -- sharing -----------------------------------------------------------------------------------------------------


def test_surrogates_share_what_a_defence_makes_until_a_gradient_has_flowed(surrogates, faces):
    noise = Watched()
    views = Views((Branch((Step(noise, Context(), exact=True),), 1), Branch((), 1)))
    first, second = (Defended([backbone] * 2, views, -POWER) for backbone in surrogates)
    images = faces.images.clone().requires_grad_()
    (first.embed(images).sum() + second.embed(images).sum()).backward()
    assert len(noise.ids) == 1
    first.embed(images).sum().backward()  # the graph is gone; a stale one would raise
    assert len(noise.ids) == 2
    with torch.no_grad():
        first.embed(images)
        second.embed(images)
        assert len(noise.ids) == 3
        images.mul_(0.9)
        first.embed(images)
    assert len(noise.ids) == 4


def test_a_defended_backbone_says_how_long_its_embeddings_are(surrogates, faces):
    for backbone in surrogates:
        for branches in (two_branches()[:1], two_branches()):
            defended = Defended([backbone] * len(branches), Views(branches), -POWER)
            assert defended.embed_batch(faces.images).shape == (len(faces), defended.card.embedding_dim)


# -- what it says of itself, and what it refuses -------------------------------------------------------------------


def test_the_threat_and_the_scope_are_the_inner_attacks():
    inner = factory.attack("fawkes:version=0.3,mode=min")
    attack = adaptive("attack=[fawkes:version=0.3,mode=min],defense=[median & jpeg + gaussian]")
    assert attack.threat.adapts_to == ("median", "jpeg + gaussian")
    assert attack.threat.model_copy(update={"adapts_to": ()}) == inner.threat
    assert (attack.scope, attack.pool()) == ("identity", "auto")
    assert adaptive().threat.adapts_to == ("puface",)
    assert adaptive().threat.max_linf == 15
    names = [methods.canonical(part) for part in attack.parts()]
    assert names == [methods.canonical(inner), "median", "jpeg + gaussian"]


def test_its_name_is_written_with_brackets_and_read_again():
    text = "adaptive:attack=[pgd:steps=3,eps=15.0],defense=[jpeg:quality=75 + gaussian & noise],samples=4"
    attack = factory.attack(text)
    written = methods.canonical(attack)
    assert written == "adaptive:attack=[pgd:eps=15,steps=3],defense=[jpeg + gaussian & noise]"
    assert factory.attack(written).params == attack.params
    assert methods.canonical(adaptive("attack=[pgd:eps=15],defense=puface")) == "adaptive"


def test_a_compositions_members_get_each_their_own_gradient(surrogates, faces):
    (surrogate, _) = surrogates
    attack = adaptive("attack=pgd,defense=[jpeg + gaussian]")
    ctx = context_of(attack, surrogates)
    (view, _) = attack._inner_context(ctx).backbones
    found = gradient_at(lambda x: view.embed(x).square().sum(), faces.images)
    coded = seen_through(JPEG(), faces.images)
    expected = gradient_at(lambda x: surrogate.embed(seen_through(BLUR, x)).square().sum(), coded)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attack=none", "'none' has no surrogates, so it follows no gradient.*attack=pgd"),
        ("defense=none", "'none' does nothing.*mode=joint"),
        ("defense=[gaussian & none]", "'none' does nothing"),
        ("attack=nothing-like-it", "unknown attack 'nothing-like-it'"),
        ("defense=jpg", "unknown defen[cs]e 'jpg'.*'jpeg'"),
        ("mode=both", "'defended' or 'joint'"),
        ("samples=0", "samples"),
    ],
)
def test_what_cannot_be_done_is_refused_when_it_is_named(text, message):
    with pytest.raises(UsageError, match=message):
        adaptive(text)


PLUGIN = """
from bench.contracts import Attack, Hardening, ThreatModel


class Learnt(Attack):
    name = "learnt"
    requires_fit = True
    threat = ThreatModel(goal="untargeted", surrogates=1, constraint="none")

    def pool(self):
        return "auto"

    def cloak(self, faces, ctx):
        return {}


class Hard(Hardening):
    name = "hard"

    def train(self, tracker, faces, ctx):
        return {}

    def harden(self, tracker, state):
        return tracker
"""


def test_attacks_that_learn_or_have_hardened_surrogates_of_their_own_are_refused(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(PLUGIN)
    with pytest.raises(UsageError, match=r"'learnt' learns its cloaks.*attack=pgd"):
        adaptive(f"attack=[{mine}:Learnt]")
    with pytest.raises(
        UsageError, match=r"hardened surrogates of its own.*Name all defences in one adaptive"
    ):
        adaptive(f"attack=[adaptive:attack=pgd,defense=[{mine}:Hard]],defense=jpeg")


# -- hardenings ----------------------------------------------------------------------------------------------------


class Shaken(Backbone):
    """A hardened surrogate: the same network behind a photo that is mirrored."""

    name = "shaken"

    def __init__(self, surrogate, *, differentiable=True, extra=0):
        super().__init__()
        self.surrogate, self.differentiable = surrogate, differentiable
        dimension = surrogate.card.embedding_dim + extra
        self.card = surrogate.card.model_copy(update={"embedding_dim": dimension})

    def load(self, device):
        """Nothing to read."""

    def embed(self, images):
        return self.surrogate.embed(images.flip(3) * 0.7 + 0.1)


def recipe(tmp_path, text):
    """The attack, its hardening from a file, and the place of the file in its text."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    return adaptive(text.replace("HARD", f"{tmp_path / 'mine.py'}:Hard"))


def hardened_context(attack, surrogates, hardened):
    def of(method, ctx):
        parts = tuple(of(part, own) for part, own in zip(method.parts(), ctx.parts, strict=True))
        ctx = replace(ctx, parts=parts)
        return replace(ctx, hardened=hardened) if isinstance(method, Hardening) else ctx

    return of(attack, context_of(attack, surrogates))


@pytest.mark.parametrize("inner", [*INNER.values(), "pgd:eps=15,steps=3,smooth=1.5"])
def test_on_one_hardening_it_is_the_inner_attack_on_the_hardened_surrogates(
    surrogates, faces, tmp_path, inner
):
    attack = recipe(tmp_path, f"attack=[{inner}],defense=[HARD]")
    hardened = tuple(Shaken(each) for each in surrogates)
    found = stacked(attack.cloak(faces, hardened_context(attack, surrogates, hardened)), faces)
    direct = factory.attack(inner)
    expected = stacked(direct.cloak(faces, Context(seed=7, backbones=hardened)), faces)
    assert torch.equal(found, expected)
    undefended = stacked(direct.cloak(faces, Context(seed=7, backbones=surrogates)), faces)
    assert not torch.equal(found, undefended)


def test_targeted_cloaks_imitate_on_the_hardened_surrogates(surrogates, faces, tmp_path):
    attack = recipe(tmp_path, "attack=[pgd:goal=targeted,steps=3],defense=[HARD]")
    targets = make_faces(6, seed=99, identities=3)
    hardened = tuple(Shaken(each) for each in surrogates)
    ctx = replace(hardened_context(attack, surrogates, hardened), targets=targets)
    direct, own = factory.attack("pgd:goal=targeted,steps=3"), Context(7, backbones=hardened, targets=targets)
    assert attack.assign_targets(faces, ctx) == direct.assign_targets(faces, own)
    assert torch.equal(stacked(attack.cloak(faces, ctx), faces), stacked(direct.cloak(faces, own), faces))


def test_purifiers_hardenings_and_the_undefended_tracker_are_branches_each(surrogates, faces, tmp_path):
    """The gradient is that of the weighed distances of the three, written out."""
    attack = recipe(tmp_path, "attack=pgd,defense=[gaussian & HARD],mode=joint")
    hardened = tuple(Shaken(each) for each in surrogates)
    views = attack._inner_context(hardened_context(attack, surrogates, hardened)).backbones
    generator = torch.Generator().manual_seed(5)
    cloaks = (faces.images + 0.1 * torch.randn(faces.images.shape, generator=generator)).clamp(0, 1)
    for defended, plain, hard in zip(views, surrogates, hardened, strict=True):
        assert defended.backbones == (plain, hard, plain)
        with torch.no_grad():
            anchor = F.normalize(defended.embed(faces.images), dim=1)
        found = gradient_at(
            lambda x, d=defended, a=anchor: (F.normalize(d.embed(x), dim=1) - a).square().sum(), cloaks
        )

        def distances(x, plain=plain, hard=hard):
            seen = [(plain, seen_through(BLUR, x)), (hard, x), (plain, x)]
            clean = [seen_through(BLUR, faces.images), faces.images, faces.images]
            units = [
                (F.normalize(b.embed(v), dim=1), F.normalize(b.embed(c), dim=1))
                for (b, v), c in zip(seen, clean, strict=True)
            ]
            return torch.stack([(after - before).square().sum(1) for after, before in units], 1)

        weights = distances(cloaks).detach().sqrt() ** -POWER
        weights = weights / weights.sum(1, keepdim=True)
        expected = gradient_at(lambda x, w=weights, d=distances: (w * d(x)).sum(), cloaks)
        assert (F.cosine_similarity(found.flatten(1), expected.flatten(1)) > 0.97).all()


def test_purifiers_before_a_hardening_are_looked_through_by_the_hardened_surrogates(
    surrogates, faces, tmp_path
):
    attack = recipe(tmp_path, "attack=[pgd:steps=3],defense=[gaussian + HARD]")
    hardened = tuple(Shaken(each) for each in surrogates)
    found = stacked(attack.cloak(faces, hardened_context(attack, surrogates, hardened)), faces)
    alone = adaptive("attack=[pgd:steps=3],defense=gaussian")
    expected = stacked(alone.cloak(faces, context_of(alone, hardened)), faces)
    assert torch.equal(found, expected)
    assert attack.threat.adapts_to == ("gaussian + hard",)


def test_each_view_that_a_tracker_keeps_is_a_branch(surrogates, tmp_path):
    known = "views:members=[none & gaussian & noise] + HARD & views:members=[none & jpeg]"
    attack = recipe(tmp_path, f"attack=[pgd:steps=2],defense=[{known}],samples=3")
    hardened = tuple(Shaken(each) for each in surrogates)
    ctx = hardened_context(attack, surrogates, hardened)
    for defended, plain, hard in zip(attack._inner_context(ctx).backbones, surrogates, hardened, strict=True):
        assert defended.backbones == (hard, hard, hard, plain, plain)
        names = [[step.purifier.name for step in branch.steps] for branch in defended.views.branches]
        assert names == [[], ["gaussian"], ["noise"], [], ["jpeg"]]
    assert attack.passes == 2 * (1 + 1 + 3 + 1 + 1)
    faces = make_faces(3)
    whole = stacked(attack.cloak(faces, ctx), faces)
    assert torch.equal(stacked(attack.cloak(faces.subset([1]), ctx), faces.subset([1]))[0], whole[1])


def test_joint_moves_the_worse_of_hardened_and_undefended(surrogates, faces, tmp_path):
    hardened = tuple(Shaken(each) for each in surrogates)
    worse = {}
    for mode in ("defended", "joint"):
        attack = recipe(tmp_path, f"attack=[pgd:steps=6],defense=[HARD],mode={mode}")
        cloaks = stacked(attack.cloak(faces, hardened_context(attack, surrogates, hardened)), faces)
        worse[mode] = torch.minimum(
            *(moved(those, None, cloaks, faces.images) for those in (surrogates, hardened))
        )
    assert worse["joint"].mean() > 1.05 * worse["defended"].mean()


def test_a_hardened_surrogates_cloak_does_not_depend_on_company(surrogates, tmp_path):
    faces = make_faces(MICRO_BATCH + 2)
    attack = recipe(tmp_path, "attack=[pgd:steps=2],defense=[HARD & jpeg],mode=joint")
    ctx = hardened_context(attack, surrogates, tuple(Shaken(each) for each in surrogates))
    whole = stacked(attack.cloak(faces, ctx), faces)
    for row in (0, MICRO_BATCH + 1):
        assert torch.equal(
            stacked(attack.cloak(faces.subset([row]), ctx), faces.subset([row]))[0], whole[row]
        )


def test_what_it_says_of_itself_with_a_hardening(tmp_path):
    attack = recipe(tmp_path, "attack=[pgd:steps=7],defense=[HARD & noise],samples=3,mode=joint")
    assert attack.threat.adapts_to == ("hard", "noise")
    assert attack.passes == 7 * (1 + 3 + 1)
    assert attack.core_seconds == pytest.approx(
        factory.attack("pgd:steps=7").core_seconds + 2.5 * 7 * 3 * Noise().core_seconds
    )
    strongest = factory.attack(
        "adaptive:attack=[pgd:eps=15,steps=20,smooth=1.5],defense=[robust-extractor:steps=700]"
    )
    written = factory.canonical(strongest)
    assert written == "adaptive:attack=[pgd:eps=15,smooth=1.5,steps=20],defense=robust-extractor"
    assert factory.attack(written).params == strongest.params


@pytest.mark.parametrize("grad", ["exact", "bpda", "eot"])
def test_the_gradient_of_a_hardening_is_no_question(tmp_path, grad):
    with pytest.raises(UsageError, match=rf"grad={grad} is about purifiers.*Leave grad out"):
        recipe(tmp_path, f"defense=[HARD],grad={grad}").files(CELL)
    assert recipe(tmp_path, "defense=[HARD & jpeg],grad=bpda").files(CELL) == ()


def test_hardened_surrogates_that_are_missing_or_unfit_are_refused(surrogates, faces, tmp_path):
    attack = recipe(tmp_path, "defense=[HARD]")
    with pytest.raises(MethodError, match=r"0 surrogates hardened by 'hard' for 2 surrogates.*hardened"):
        attack.cloak(faces, context_of(attack, surrogates))
    black = tuple(Shaken(each, differentiable=False) for each in surrogates)
    with pytest.raises(UsageError, match="'tiny1' has no gradient once 'hard' has hardened it"):
        attack.cloak(faces, hardened_context(attack, surrogates, black))
    joint = recipe(tmp_path, "defense=[HARD],mode=joint")
    longer = tuple(Shaken(each, extra=3) for each in surrogates)
    with pytest.raises(UsageError, match=r"length 19 under one defence and 16 under another"):
        joint.cloak(faces, hardened_context(joint, surrogates, longer))


# -- refusals at the plan, and the context ---------------------------------------------------------------------------


def test_a_gradient_that_is_not_there_is_refused_by_the_plan():
    with pytest.raises(
        UsageError, match=r"grad=exact, and 'jpeg' of defence 'jpeg \+ gaussian'.*auto or grad=bpda"
    ):
        adaptive("defense=[gaussian & jpeg + gaussian],grad=exact").files(CELL)
    with pytest.raises(UsageError, match=r"grad=eot.*'median' draws nothing.*grad=auto"):
        adaptive("defense=median,grad=eot").files(CELL)
    for fine in (
        "defense=gaussian,grad=exact",
        "defense=[jpeg & median],grad=bpda",
        "defense=noise,grad=eot",
    ):
        assert adaptive(fine).files(CELL) == ()


def test_surrogates_are_asked_for_and_images_reported(surrogates, faces):
    attack = adaptive("attack=[pgd:steps=1],defense=jpeg")
    with pytest.raises(UsageError, match="attack 'adaptive' got no surrogates"):
        attack.cloak(faces, context_of(attack, ()))
    steps = []
    attack.cloak(faces, context_of(attack, surrogates, advance=steps.append))
    assert sum(steps) == len(faces)
