"""The hardened tracker: what its training does to natural and to cloaked photos, and what it may not depend on."""

import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.authoring.checks import training_faces
from bench.authoring.fakes import FakeBackbone
from bench.contracts import Backbone, Binding, Context, Faces, ThreatModel
from bench.datasets.synthetic import Synthetic
from bench.errors import MethodError, UsageError
from bench.plugins import factory
from bench.run.planning import Options, prepare
from bench.run.spec import make_spec
from bench.run.threat import Threats
from defenses import _hardened
from defenses.gaussian import gaussian_blur
from defenses.robust_extractor import Draw, blurred, distances, perturbed

CPU = torch.device("cpu")
QUICK = "robust-extractor:batch=4,steps=6"


@pytest.fixture
def tracker():
    """A fake backbone, loaded: its training takes no time."""
    backbone = FakeBackbone()
    backbone.load(CPU)
    return backbone


@pytest.fixture
def network(tracker):
    return tracker.trainable(CPU).eval().requires_grad_(False)


def train(text, tracker, ctx=None, faces=None):
    return factory.defense(text).train(tracker, faces or training_faces(), ctx or Context(seed=1))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- the perturbations of its training ---------------------------------------------------------------------


def drawn(images, sigma, eps=12 / 255):
    start = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return Draw(torch.arange(len(images)), eps, sigma, start)


def roughness(change):
    """Share of a change's energy that lies between neighbouring pixels."""
    steps = change.diff(dim=-1).square().mean() + change.diff(dim=-2).square().mean()
    return float(steps / change.square().mean())


@pytest.mark.parametrize("sigma", [0.0, 2.5])
def test_perturbations_stay_in_the_ball_and_move_embeddings_farther_than_their_start(network, sigma):
    natural = training_faces().images
    anchors = network(natural)
    draw = drawn(natural, sigma)
    attacked = perturbed(network, natural, anchors, draw, steps=3)
    started = perturbed(network, natural, anchors, draw, steps=0)
    assert float((attacked - natural).abs().max()) <= draw.eps + 1e-6
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    moved = [float(distances(network, images, anchors).mean()) for images in (started, attacked)]
    assert moved[1] > 3 * moved[0]


def test_smooth_perturbations_are_smooth(network):
    natural = 0.25 + training_faces().images / 2  # nothing is clipped
    anchors = network(natural)
    rough, smooth = (
        roughness(perturbed(network, natural, anchors, drawn(natural, sigma), 2) - natural)
        for sigma in (0.0, 2.5)
    )
    assert smooth < rough / 10


def test_the_blur_is_the_purifier_s_and_clips_nothing():
    images = training_faces().images
    assert torch.allclose(blurred(images, 1.7), gaussian_blur(images, 1.7), atol=1e-5)
    assert torch.allclose(blurred(-images, 1.7), -blurred(images, 1.7), atol=1e-6)


# -- what training does ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hardened():
    """The embedded tracker before and after forty steps, with photos of evaluated identities and their cloaks."""
    dataset = Synthetic()
    by_role = {
        role: [one for one in dataset.identities() if one.role == role] for role in ("training", "evaluation")
    }

    def faces(role, identities, photos):
        named = [(p, one.id) for one in by_role[role][:identities] for p in one.photos[:photos]]
        ids, owners = zip(*named, strict=True)
        return Faces(dataset.crops(ids).float() / 255, ids, owners)

    backbone, surrogate = (factory.backbone(f"synthetic-{name}") for name in ("mobilefacenet", "iresnet"))
    for each in (backbone, surrogate):
        each.load(CPU)
    defense = factory.defense("robust-extractor:steps=40,batch=8,learning_rate=0.001")
    shown = faces("evaluation", 6, 2)
    cloaked = factory.attack("pgd:eps=12").cloak(shown, Context(backbones=(surrogate,)))
    after = defense.harden(backbone, defense.train(backbone, faces("training", 40, 2), Context(seed=1)))
    return backbone, after, shown.images, torch.stack([cloaked[name] for name in shown.ids])


def moved(backbone, images, anchors):
    return float(1 - F.cosine_similarity(backbone.embed_batch(images), anchors).mean())


@pytest.mark.system
def test_natural_photos_keep_their_embedding_and_cloaked_ones_come_closer_to_it(hardened):
    before, after, natural, cloaked = hardened
    anchors = before.embed_batch(natural)
    assert moved(after, natural, anchors) < 0.1
    assert moved(after, cloaked, anchors) < 0.85 * moved(before, cloaked, anchors)


@pytest.mark.system
def test_an_attacker_with_the_weights_moves_it_less_as_well(hardened):
    before, after, natural, _ = hardened
    ids = tuple(map(str, range(len(natural))))
    found = []
    for backbone in (before, after):
        cloaks = factory.attack("pgd:eps=12").cloak(Faces(natural, ids, ids), Context(backbones=(backbone,)))
        found.append(moved(backbone, torch.stack([cloaks[i] for i in ids]), backbone.embed_batch(natural)))
    assert found[1] < 0.8 * found[0]


def test_the_loss_falls(tracker, caplog):
    caplog.set_level(logging.DEBUG, "bench")
    train("robust-extractor:steps=60,batch=8,learning_rate=0.003", tracker)
    losses = [float(record.args[3]) for record in caplog.records if "loss" in record.msg]
    assert len(losses) == 60
    assert sum(losses[-15:]) < 0.8 * sum(losses[:15])


def test_the_seed_decides_and_nothing_else(tracker):
    first = train(QUICK, tracker)
    assert same(first, train(QUICK, tracker))
    assert not same(first, train(QUICK, tracker, Context(seed=2)))
    assert not same(first, tracker.trainable(CPU).state_dict())


def test_every_photo_counts_once_whatever_the_steps(tracker):
    for text in (QUICK, "robust-extractor:batch=4,steps=3"):
        counted = []
        train(text, tracker, Context(seed=1, advance=counted.append))
        assert sum(counted) == len(training_faces())


def test_a_batch_is_no_larger_than_the_photos_there_are(tracker):
    few = training_faces().subset([0, 1, 2])
    assert train("robust-extractor:batch=16,steps=1", tracker, faces=few)


def test_a_training_that_diverges_says_what_to_lower(tracker):
    broken = training_faces()
    broken = broken.with_images(broken.images * float("nan"))
    with pytest.raises(
        MethodError, match=r"diverged at step 1: its loss is nan. Lower learning_rate, now 0.0003"
    ):
        train(QUICK, tracker, faces=broken)


def test_a_black_box_cannot_be_hardened():
    class BlackBox(FakeBackbone):
        trainable = Backbone.trainable

    with pytest.raises(UsageError, match="'fake-0' cannot be trained"):
        train(QUICK, BlackBox())


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(UsageError, match="eps_min=20 is above eps_max=16"):
        factory.defense("robust-extractor:eps_min=20")


# -- the hardened backbone ---------------------------------------------------------------------------------


def test_the_hardened_backbone_says_nothing_that_was_measured_of_other_weights(tracker):
    tracker.card = tracker.card.model_copy(update={"sha256": "0" * 64, "lfw_accuracy": 0.9})
    card = factory.defense(QUICK).harden(tracker, train(QUICK, tracker)).card
    assert (card.name, card.sha256, card.lfw_accuracy, card.thresholds) == (tracker.card.name, "", None, ())


class SharesWhatIsNotTrained(Backbone):
    """Its trainable copy shares a constant with it, as copies of networks read from ONNX do."""

    name = "shares"

    def __init__(self, tracker):
        super().__init__()
        self.card, self.tracker, self.offset = tracker.card, tracker, torch.full((1,), 0.25)

    def load(self, device):
        """Nothing to read."""

    def embed(self, images):
        return self.tracker.embed(images) + self.offset

    def trainable(self, device):
        network = self.tracker.trainable(device)
        network.register_buffer("offset", self.offset)
        return network


def test_hardening_writes_nothing_into_what_the_trackers_copy_shares_with_it(tracker):
    shares = SharesWhatIsNotTrained(tracker)
    state = {name: value + 1 for name, value in shares.trainable(CPU).state_dict().items()}
    before = shares.offset._version
    factory.defense(QUICK).harden(shares, state)
    assert (shares.offset.item(), shares.offset._version) == (0.25, before)


def test_training_the_hardened_backbone_further_leaves_it_as_it_is(tracker):
    backbone = factory.defense(QUICK).harden(tracker, train(QUICK, tracker))
    images = training_faces().images
    before = backbone.embed_batch(images)
    copy = backbone.trainable(CPU)
    assert torch.allclose(copy(images), before)
    copy(images).sum().backward()
    torch.optim.SGD(copy.parameters(), 1.0).step()
    assert not torch.allclose(copy(images), before)
    assert torch.equal(backbone.embed_batch(images), before)


# -- going on ----------------------------------------------------------------------------------------------


class KilledError(Exception):
    """Stands for a kill."""


def killed_after(photos):
    counted = []

    def advance(count):
        counted.append(count)
        if sum(counted) > photos:
            raise KilledError

    return advance


@pytest.mark.parametrize("photos", [0, 3, 5])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(tracker, tmp_path, monkeypatch, photos):
    monkeypatch.setattr(_hardened, "_CHECKPOINT_STEPS", 2)
    whole = train(QUICK, tracker)
    ctx = Context(seed=1, checkpoint=tmp_path / "kept")
    with pytest.raises(KilledError):
        train(QUICK, tracker, replace(ctx, advance=killed_after(photos)))
    assert ctx.checkpoint.is_file() == (photos > 0)
    counted = []
    assert same(whole, train(QUICK, tracker, replace(ctx, advance=counted.append)))
    assert sum(counted) == len(training_faces())
    assert counted[0] > 0 or photos == 0


def test_a_damaged_checkpoint_is_reported_and_not_used(tracker, tmp_path, caplog):
    path = tmp_path / "kept"
    path.write_bytes(b"no tensors")
    assert same(train(QUICK, tracker), train(QUICK, tracker, Context(seed=1, checkpoint=path)))
    assert "'robust-extractor' starts anew: checkpoint" in caplog.text


# -- in a run ----------------------------------------------------------------------------------------------


def fit_of(tmp_path, **fields):
    spec = make_spec({"defenses": ("robust-extractor:steps=10",), **fields})
    prepared = prepare(spec, Options(store=tmp_path, out=tmp_path / "out", threads=1))
    (name,) = (name for name in prepared.run.defenses if name != "none")
    return prepared, prepared.pipeline.method("defenses", name, "synthetic-mobilefacenet", 0).fitted


def test_it_learns_from_training_identities_whoever_is_evaluated(tmp_path):
    prepared, few = fit_of(tmp_path, identities=4)
    _, more = fit_of(tmp_path, identities=12)
    roles = {one.id: one.role for one in prepared.run.dataset.identities()}
    assert {roles[name] for name in few.faces.identities} == {"training"}
    assert few.address == more.address


def test_no_more_photos_are_made_ready_than_its_steps_look_at(tmp_path):
    _, short = fit_of(tmp_path)
    _, long = fit_of(tmp_path, defenses=("robust-extractor:steps=1000,photos=700",))
    assert (short.images, long.images) == (160, 700)


def test_its_time_is_declared_by_its_steps(tmp_path):
    fits = [fit_of(tmp_path, defenses=(f"robust-extractor:photos=100,steps={n}",))[1] for n in (100, 1000)]
    more = fits[1].core_seconds - fits[0].core_seconds
    a_step = 16 * (
        1 + 2 * 2.5 + 2 * 2.5
    )  # anchors; two steps of the ascent; the loss of natural and perturbed photos
    assert more == pytest.approx(900 * a_step * fits[0].tracker.core_seconds)


def test_rows_say_that_it_met_pgd_of_other_parameters_and_no_other_attack(tmp_path):
    attacks = ("pgd:eps=15", "fawkes", "adaptive:defense=gaussian")
    prepared, _ = fit_of(tmp_path, attacks=attacks)
    threats = Threats(prepared.run)
    found = {
        cell.attack: threats.of(cell) for cell in prepared.run.cells if cell.defense.startswith("robust")
    }
    seen = {name: each.attack_seen_by_defense for name, each in found.items()}
    assert seen == {
        "none": "",
        "pgd:eps=15": "seen-with-other-parameters",
        "fawkes": "unseen",
        "adaptive:defense=gaussian": "seen-with-other-parameters",
    }
    assert not any(each.attack_adapts_to_defense or each.attack_adapts_in_part for each in found.values())
    assert {each.identity_overlap for each in found.values()} == {"no"}


@pytest.mark.parametrize(
    ("known", "adapts"), [("robust-extractor:steps=10", True), ("robust-extractor", False)]
)
def test_an_attack_adapts_to_it_only_if_it_declares_this_very_hardening(tmp_path, monkeypatch, known, adapts):
    threat = ThreatModel(goal="untargeted", surrogates=1, adapts_to=(known,))
    monkeypatch.setattr(type(factory.attack("pgd")), "threat", threat)
    prepared, _ = fit_of(tmp_path, attacks=("pgd",))
    threats = Threats(prepared.run)
    found = {cell.defense: threats.of(cell) for cell in prepared.run.cells if cell.attack == "pgd"}
    assert found["robust-extractor:steps=10"].attack_adapts_to_defense == adapts
    assert not found["none"].attack_adapts_to_defense


def test_what_it_was_trained_on_is_a_text_that_the_registry_reads():
    (text,) = factory.defense("robust-extractor").trained_on(
        Binding("synthetic", "synthetic", (), "synthetic-iresnet")
    )
    assert factory.canonical(factory.attack(text)) == text
