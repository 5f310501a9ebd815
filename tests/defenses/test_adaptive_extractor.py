"""The tracker that trains on public cloaks: what it learns from, what it then recognises, what its rows say."""

import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.authoring.checks import training_faces
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Attack, Context, Faces, ThreatModel
from bench.datasets.synthetic import Synthetic
from bench.errors import UsageError
from bench.plugins import factory
from bench.run.planning import Options, prepare
from bench.run.spec import make_spec
from bench.run.threat import Threats
from defenses import _hardened
from defenses.adaptive_extractor import AdaptiveExtractor, Photos, Prototypes, class_means

CPU = torch.device("cpu")
QUICK = "adaptive-extractor:attacks=[pgd:steps=1],batch=4,steps=6"


def fake(seed):
    backbone = FakeBackbone(FakeBackbone.Params(seed=seed))
    backbone.load(CPU)
    return backbone


def context(seed=1, **fields):
    return Context(seed=seed, parts=(Context(seed=9, backbones=(fake(5),)),), **fields)


def train(text, ctx=None, faces=None):
    return factory.defense(text).train(fake(0), faces or training_faces(), ctx or context())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- what it learns from -----------------------------------------------------------------------------------


def test_identities_photos_versions_and_mirror_images_are_drawn_alike():
    # Three photos of one identity, one of another; a photo's grey level names it, its left half is one brighter.
    levels = torch.tensor([10, 20, 30, 40], dtype=torch.uint8)
    natural = levels.view(4, 1, 1, 1).repeat(1, 3, 4, 4)
    natural[..., :2] += 1
    photos = Photos((natural, natural + 100), ((0, 1, 2), (3,)))
    count = 6000
    images, classes = photos.draw(count, torch.Generator().manual_seed(0))
    assert (images.shape, images.dtype) == ((count, 3, 4, 4), torch.float32)
    grey = images[:, 0, 0].mul(255).round()
    level = grey.min(dim=1).values
    seen = {
        "identity": classes == 1,
        "version": level > 99,
        "mirrored": grey[:, 0] < grey[:, -1],
        "third photo of the first": (level % 100 == 30)[classes == 0],
    }
    shares = {what: float(found.float().mean()) for what, found in seen.items()}
    assert shares == pytest.approx(
        {"identity": 0.5, "version": 0.5, "mirrored": 0.5, "third photo of the first": 1 / 3}, abs=0.04
    )
    assert bool(((level % 100 == 40) == (classes == 1)).all())


class Halving(Attack):
    """Halves every second photo and leaves the others alone."""

    name = "halving"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        return {name: faces.images[i] / 2 for i, name in enumerate(faces.ids) if i % 2}


def test_it_trains_on_photos_as_posted_natural_where_an_attack_left_them_alone(monkeypatch):
    defense = factory.defense(QUICK)
    monkeypatch.setattr(defense, "_attacks", (Halving(),))
    faces = training_faces()
    natural, cloaked = defense._versions(faces, context(), images=4)
    assert torch.equal(natural, faces.images.mul(255).round().byte())
    assert torch.equal(cloaked[::2], natural[::2])
    assert torch.equal(cloaked[1::2], faces.images[1::2].mul(127.5).round().byte())


def test_the_softmax_starts_at_the_mean_embeddings_and_does_not_ask_for_length():
    network = fake(0).trainable(CPU).eval()
    faces = training_faces()
    natural = faces.images.mul(255).round().byte()
    means = class_means(network, Photos((natural,), ((0, 1), (2,))))
    unit = F.normalize(network(natural[:3].float() / 255)).detach()
    assert torch.allclose(means, torch.stack([(unit[0] + unit[1]) / 2, unit[2]]), atol=1e-5)
    scores = Prototypes(means)(3 * unit).detach()
    assert float(scores[2, 1]) == pytest.approx(32, abs=1e-3)


# -- what training does ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.system
def test_cloaked_photos_of_others_are_recognised_better_than_before():
    dataset = Synthetic()

    def faces(role, identities, photos):
        chosen = [one for one in dataset.identities() if one.role == role][:identities]
        ids, owners = zip(*((p, one.id) for one in chosen for p in one.photos[:photos]), strict=True)
        return Faces(dataset.crops(ids).float() / 255, ids, owners)

    tracker, surrogate = (factory.backbone(f"synthetic-{name}") for name in ("mobilefacenet", "iresnet"))
    for each in (tracker, surrogate):
        each.load(CPU)
    ctx = Context(seed=1, parts=(Context(seed=2, backbones=(surrogate,)),))
    defense = factory.defense("adaptive-extractor:steps=40,batch=12,learning_rate=0.001")
    hardened = defense.harden(tracker, defense.train(tracker, faces("training", 30, 3), ctx))
    shown = faces("evaluation", 8, 2)
    edits = factory.attack("pgd:eps=12").cloak(shown, Context(seed=3, backbones=(surrogate,)))
    gallery = torch.stack([edits[name] for name in shown.ids[::2]])

    def margin(backbone):
        """Mean cosine of a clean probe to its own cloaked photo, less that to the nearest other one."""
        probes, known = (F.normalize(backbone.embed_batch(each)) for each in (shown.images[1::2], gallery))
        cosines = probes @ known.T
        others = cosines.masked_fill(torch.eye(len(cosines), dtype=torch.bool), -1)
        return float((cosines.diag() - others.amax(1)).mean())

    assert margin(hardened) > margin(tracker) + 0.1


def test_the_loss_falls(caplog):
    caplog.set_level(logging.DEBUG, "bench")
    train("adaptive-extractor:attacks=[pgd:steps=1],batch=8,steps=40,learning_rate=0.003")
    losses = [float(record.args[3]) for record in caplog.records if "loss" in record.msg]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_seed_decides_and_nothing_else():
    first = train(QUICK)
    assert same(first, train(QUICK))
    assert not same(first, train(QUICK, context(seed=2)))


def test_every_photo_counts_once_cloaking_and_training_together():
    counted = []
    train("adaptive-extractor:attacks=[pgd:steps=1],batch=4,steps=3", context(advance=counted.append))
    assert sum(counted) == len(training_faces())


class KilledError(Exception):
    """Stands for a kill."""


def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(_hardened, "_CHECKPOINT_STEPS", 2)
    counted = []

    def advance(count):
        counted.append(count)
        if sum(counted) >= 7:  # four of cloaking, and five of six steps
            raise KilledError

    ctx = context(checkpoint=tmp_path / "kept")
    with pytest.raises(KilledError):
        train(QUICK, replace(ctx, advance=advance))
    assert ctx.checkpoint.is_file()
    assert same(train(QUICK), train(QUICK, ctx))


# -- what it refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "why"),
    [("none", "changes no photo"), ("pgd:goal=targeted", "imitates others, of whom a tracker has no pool")],
)
def test_attacks_that_a_tracker_cannot_run_are_refused(attack, why):
    with pytest.raises(UsageError, match=f"cannot train on cloaks of '{attack}': it {why}"):
        factory.defense(f"adaptive-extractor:attacks=[pgd & {attack}]")


def test_an_attack_that_learns_first_is_refused(monkeypatch):
    monkeypatch.setattr(type(factory.attack("pgd")), "requires_fit", True)
    with pytest.raises(UsageError, match="'pgd:eps=15': it has to learn first"):
        AdaptiveExtractor()


def test_one_identity_is_no_softmax():
    faces = training_faces().subset([0, 1])
    with pytest.raises(UsageError, match="got 2 photos of one training identity"):
        train(QUICK, faces=faces)


# -- in a run ----------------------------------------------------------------------------------------------


def planned(tmp_path, defense, **fields):
    spec = make_spec({"defenses": (defense,), **fields})
    prepared = prepare(spec, Options(store=tmp_path, out=tmp_path / "out", threads=1))
    return prepared, prepared.pipeline.method("defenses", defense, "synthetic-mobilefacenet", 0)


def test_rows_say_what_it_was_trained_on_and_through_which_surrogates(tmp_path):
    defense = "adaptive-extractor:attacks=[pgd:eps=15 & fawkes:steps=40]"
    attacks = ("pgd:eps=15", "pgd", "lowkey:perceptual=dssim", "pgd:surrogates=synthetic-iresnet")
    prepared, _ = planned(tmp_path, defense, attacks=attacks)
    threats = Threats(prepared.run)
    found = {c.attack: threats.of(c) for c in prepared.run.cells if c.defense == defense}
    assert {name: each.attack_seen_by_defense for name, each in found.items()} == {
        "none": "",
        "pgd:eps=15": "seen",
        "pgd": "seen-with-other-parameters",
        "lowkey:perceptual=dssim": "unseen",
        "pgd:surrogates=synthetic-iresnet": "seen-with-other-parameters",
    }
    others = "synthetic-iresnet|synthetic-mobilefacenet-wide"
    assert {each.extractors for each in found.values()} == {others}
    assert all(each.extractors_are_surrogates for name, each in found.items() if name != "none")
    assert not any(each.extractor_is_tracker for each in found.values())
    assert {each.identity_overlap for each in found.values()} == {"no"}


def test_cloaks_made_through_the_trackers_own_backbone_are_reported(tmp_path):
    defense = "adaptive-extractor:attacks=[pgd:surrogates=synthetic-mobilefacenet]"
    prepared, _ = planned(tmp_path, defense)
    threats = Threats(prepared.run)
    assert all(
        threats.of(cell).extractor_is_tracker for cell in prepared.run.cells if cell.defense == defense
    )


def test_it_learns_from_training_identities_whoever_is_evaluated(tmp_path):
    defense = "adaptive-extractor:photos=40"
    prepared, few = planned(tmp_path, defense, identities=4)
    _, more = planned(tmp_path, defense, identities=12)
    roles = {one.id: one.role for one in prepared.run.dataset.identities()}
    assert {roles[name] for name in few.fitted.faces.identities} == {"training"}
    assert len(few.fitted.faces.ids) == 40
    assert few.fitted.address == more.fitted.address


def test_its_time_is_declared_by_its_steps_and_its_cloaks(tmp_path):
    dear, cheap, plain = (
        planned(tmp_path, f"adaptive-extractor:photos=100,{text}")[1].fitted.core_seconds
        for text in ("attacks=[pgd:eps=15,steps=100]", "attacks=[pgd:eps=15,steps=50]", "steps=1000")
    )
    helpers = sum(factory.backbone(f"synthetic-{n}").core_seconds for n in ("iresnet", "mobilefacenet-wide"))
    assert dear - cheap == pytest.approx(100 * 50 * 2.5 * helpers)
    assert 0 < plain < cheap
