"""Training ErasableMask on rendered faces and tiny backbones: whose photos, exact resumption, what the card says."""

import importlib.util
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from attacks.erasablemask import training
from attacks.erasablemask.attack import SHELF, ErasableMask, MaskCard
from attacks.erasablemask.curriculum import Curriculum
from attacks.erasablemask.meta_auxiliary import meta_auxiliary
from attacks.erasablemask.networks import Generator, Restorer, key_pattern, load_networks
from attacks.erasablemask.training import ErasableMaskTrainer
from bench.contracts import Binding, Context, Faces, TrainRequest
from bench.data.files import sha256_of
from bench.errors import DataError, MethodError, UsageError
from bench.plugins import factory, syntax
from bench.quality.metrics import psnr, to_8_bits
from bench.run.photo_sets import shown_photos, target_identities

_path = Path(__file__).parents[2] / "plugins" / "tiny_methods.py"
_spec = importlib.util.spec_from_file_location("tiny_methods_of_training", _path)
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

CPU = torch.device("cpu")
IDENTITIES = tiny.TinyFaces.Params(training_identities=12, training_photos=3)
SMALL = ErasableMaskTrainer.Params(
    steps=10,
    batch=4,
    width=4,
    blocks=1,
    targets=2,
    photos=8,
    holdout=3,
    checkpoint_every=2,
    precision="float32",
    refinement=2,
    refined_share=0.5,
)


class Watched(tiny.TinyFaces):
    """Remembers which photos were read."""

    name = "tiny"

    def __init__(self, params=IDENTITIES):
        super().__init__(params)
        self.read = []

    def crops(self, ids):
        self.read.append(tuple(ids))
        return super().crops(ids)


def loaded(*backbones):
    for backbone in backbones:
        backbone.load(CPU)
    return backbones


def request(out, **changes):
    parts = {"dataset": Watched(), "backbones": loaded(tiny.TinyA(), tiny.TinyB()), "seed": 3}
    return TrainRequest(out=out, **(parts | changes))


def changed(**fields):
    return ErasableMaskTrainer(SMALL.model_copy(update=fields))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed training: its weights and what `train` returned."""
    out = tmp_path_factory.mktemp("whole") / "w.safetensors"
    return out, ErasableMaskTrainer(SMALL).train(request(out))


def steps_of(noted):
    """A progress callback that notes the training steps."""

    def note(what, done, total):
        if what == "train":
            assert total == SMALL.steps
            noted.append(done)

    return note


def dying(at):
    def die(what, done, _total):
        if what == "train" and done == at:
            raise KeyboardInterrupt

    return die


# -- the same weights ------------------------------------------------------------------------------------------


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(tmp_path, whole):
    torch.manual_seed(11)
    again = ErasableMaskTrainer(SMALL).train(request(tmp_path / "w.safetensors"))
    assert again["sha256"] == whole[1]["sha256"] == sha256_of(whole[0])
    assert again["quality"] == whole[1]["quality"]
    other = ErasableMaskTrainer(SMALL).train(request(tmp_path / "o.safetensors", seed=4))
    assert other["sha256"] != again["sha256"]


@pytest.mark.slow
def test_the_order_of_the_auxiliary_backbones_does_not_matter_and_the_primary_does(tmp_path, whole):
    turned = request(tmp_path / "w.safetensors", backbones=loaded(tiny.TinyB(), tiny.TinyA()))
    other = ErasableMaskTrainer(SMALL).train(turned)
    assert other["primary"] == "tiny-b"
    named = changed(primary="tiny-a").train(replace(turned, out=tmp_path / "n.safetensors"))
    assert named["surrogates"] == other["surrogates"] == ["tiny-a", "tiny-b"]
    assert named["sha256"] == whole[1]["sha256"] != other["sha256"]


@pytest.mark.parametrize(
    "killed_at", [5, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 3, 8, 10))]
)
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, whole, killed_at):
    out = tmp_path / "w.safetensors"
    with pytest.raises(KeyboardInterrupt):
        ErasableMaskTrainer(SMALL).train(request(out, report=dying(killed_at)))
    assert not out.exists()
    noted = []
    resumed = ErasableMaskTrainer(SMALL).train(request(out, report=steps_of(noted)))
    assert noted == list(range((killed_at - 1) // 2 * 2 + 1, 11))
    assert out.read_bytes() == whole[0].read_bytes()
    assert resumed["curriculum"] == whole[1]["curriculum"]
    assert resumed["quality"] == whole[1]["quality"]
    assert not out.with_suffix(".checkpoint").exists()


@pytest.mark.slow
def test_killed_twice_and_in_bfloat16_too(tmp_path):
    trainer = changed(precision="bfloat16")
    undisturbed = trainer.train(request(tmp_path / "whole.safetensors"))
    out = tmp_path / "w.safetensors"
    for at in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            trainer.train(request(out, report=dying(at)))
    assert trainer.train(request(out))["sha256"] == undisturbed["sha256"]


@pytest.mark.slow
def test_a_training_that_forgot_its_curriculum_would_be_another_one(tmp_path, whole, monkeypatch):
    """The kill at step 5 of the test above is in the last stage, so the stage is read back too."""
    assert whole[1]["curriculum"] == [0, 1, 4]
    out = tmp_path / "w.safetensors"
    with pytest.raises(KeyboardInterrupt):
        ErasableMaskTrainer(SMALL).train(request(out, report=dying(5)))
    read = training.load_checkpoint

    def forgetful(*arguments):
        return read(*arguments) | {"curriculum": {"stage": 0, "since": 0}}

    monkeypatch.setattr(training, "load_checkpoint", forgetful)
    assert ErasableMaskTrainer(SMALL).train(request(out))["sha256"] != whole[1]["sha256"]
    assert Curriculum().stage == 0


def test_killed_while_it_was_measured_no_card_vouches_for_the_weights(tmp_path, whole, monkeypatch):
    out = tmp_path / "w.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("attacks.erasablemask.training._Training._quality", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ErasableMaskTrainer(SMALL).train(request(out))
    attack = ErasableMask(ErasableMask.Params(weights=str(out)))
    with pytest.raises(DataError, match="has no card"):
        attack.files(Binding("tiny", "synthetic", ("tiny-a", "tiny-b"), "tiny-c"))
    noted = []
    assert ErasableMaskTrainer(SMALL).train(request(out, report=steps_of(noted))) == {
        **whole[1],
        "wall_seconds": pytest.approx(0, abs=60),
    }
    assert noted == []


def test_the_checkpoint_of_another_training_is_not_read(tmp_path, whole):
    out = tmp_path / "w.safetensors"
    for trainer, changes in (
        (changed(lr=1e-2), {}),
        (ErasableMaskTrainer(SMALL), {"seed": 4}),
        (ErasableMaskTrainer(SMALL), {"backbones": loaded(tiny.TinyA(), tiny.TinyC())}),
    ):
        with pytest.raises(KeyboardInterrupt):
            trainer.train(request(out, report=dying(5), **changes))
    noted = []
    assert (
        ErasableMaskTrainer(SMALL).train(request(out, report=steps_of(noted)))["sha256"] == whole[1]["sha256"]
    )
    assert noted[0] == 1


def test_a_corrupt_checkpoint_is_named_with_the_mend(tmp_path):
    out = tmp_path / "w.safetensors"
    with pytest.raises(KeyboardInterrupt):
        ErasableMaskTrainer(SMALL).train(request(out, report=dying(5)))
    (state,) = out.with_suffix(".checkpoint").glob("state-*.safetensors")
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"state-.*cannot be read.*Delete it"):
        ErasableMaskTrainer(SMALL).train(request(out))
    assert not out.exists()


# -- what the parameters do ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"gradients": "ensemble"},
        {"curriculum": "none"},
        {"diversity": 0.0},
        {"stride": 0.0},
        {"dodge_weight": 0.0},
        {"attribute_weight": 0.0},
        {"restore_weight": 0.0},
        {"feature_weight": 0.0},
        {"lock_weight": 0.0},
        {"split_seed": 1},
        {"refinement": 0},
        {"refined_share": 1.0},
    ],
    ids=str,
)
def test_every_choice_makes_other_weights(tmp_path, whole, fields):
    card = changed(**fields).train(request(tmp_path / "w.safetensors"))
    assert card["sha256"] != whole[1]["sha256"]
    assert card["gradients"] == fields.get("gradients", "meta-auxiliary")
    assert (card["curriculum"] == []) == (fields.get("curriculum") == "none")


@pytest.mark.slow
def test_one_backbone_is_enough_and_makes_meta_auxiliary_plain(tmp_path):
    """The draws of the split are not made where there is nothing to split."""
    alone = loaded(tiny.TinyA())
    cards = [
        changed(gradients=name).train(request(tmp_path / f"{name}.safetensors", backbones=alone))
        for name in ("ensemble", "meta-auxiliary")
    ]
    one, two = (load_networks(tmp_path / card["file"], CPU)[0].state_dict() for card in cards)
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-3, rtol=0)


def test_the_primary_is_asked_first_and_every_backbone_once_a_step(tmp_path, monkeypatch):
    orders = []

    def noted(surrogates, *arguments, **keywords):
        orders.append([s.card.name for s in surrogates])
        assert keywords["stride"] == pytest.approx(3 / 255)
        return meta_auxiliary(surrogates, *arguments, **keywords)

    monkeypatch.setattr("attacks.erasablemask.refinement.meta_auxiliary", noted)
    three = loaded(tiny.TinyA(), tiny.TinyB(), tiny.TinyC())
    changed(primary="tiny-b", refinement=0, stride=3).train(
        request(tmp_path / "w.safetensors", backbones=three)
    )
    assert orders == [["tiny-b", "tiny-a", "tiny-c"]] * SMALL.steps


# -- whose photos ----------------------------------------------------------------------------------------------


def test_evaluated_people_and_held_out_photos_of_targets_are_never_read(tmp_path):
    dataset = Watched()
    ErasableMaskTrainer(SMALL).train(request(tmp_path / "w.safetensors", dataset=dataset))
    roles = {photo: identity for identity in dataset.identities() for photo in identity.photos}
    targets = target_identities(dataset.identities(), 0)[:2]
    shown = [shown_photos(identity) for identity in targets]
    assert dataset.read[:2] == shown
    trained, measured = dataset.read[2:]
    assert len(trained) == 8
    identities = [
        {roles[photo].id for photo in photos} for photos in (shown[0] + shown[1], trained, measured)
    ]
    assert not identities[0] & identities[1] | identities[0] & identities[2] | identities[1] & identities[2]
    assert {roles[photo].role for photos in dataset.read for photo in photos} == {"training"}
    assert len(identities[2]) <= 3
    assert len(measured) == len(identities[2])


def test_everyones_first_photo_comes_before_anyones_second(tmp_path):
    dataset = Watched()
    changed(photos=1000).train(request(tmp_path / "w.safetensors", dataset=dataset))
    (_, _, trained, _) = dataset.read
    places = {photo: k for identity in dataset.identities() for k, photo in enumerate(identity.photos)}
    turns = [places[photo] for photo in trained]
    assert turns == sorted(turns)
    assert len(set(trained)) == len(trained) == 3 * turns.count(0)


# -- the card --------------------------------------------------------------------------------------------------


def test_the_card_says_how_it_was_made(whole):
    out, content = whole
    card = SHELF.read(out)
    assert card.model_dump(mode="json") == json.loads(json.dumps(content)) == content
    assert json.loads(out.with_suffix(".json").read_text()) == content
    assert (card.file, card.sha256) == ("w.safetensors", sha256_of(out))
    assert (card.domain, card.dataset) == ("synthetic", factory.canonical(Watched()))
    assert card.dataset_fingerprint == Watched().fingerprint()
    assert (card.surrogates, card.primary) == (("tiny-a", "tiny-b"), "tiny-a")
    assert card.targets == tuple(sorted(p.id for p in target_identities(Watched().identities(), 0)[:2]))
    assert (card.steps, card.batch, card.seed, card.psnr) == (10, 4, 3, 28)
    assert card.linf == 42
    generator, restorer = load_networks(out, CPU)
    assert isinstance(generator, Generator)
    assert isinstance(restorer, Restorer)
    counts = [sum(t.numel() for t in network.state_dict().values()) for network in (generator, restorer)]
    assert card.parameters == sum(counts)
    assert generator.shape.condition == 16 + 24
    words = shlex.split(card.command)
    assert words[:2] == ["bench", "train"]
    words.remove("--with-development")
    assert words[3::2] == ["--dataset", "--backbone", "--backbone", "--seed", "--out"]
    assert words[4::2] == [card.dataset, "tiny-a", "tiny-b", "3", "w.safetensors"]
    assert factory.build(ErasableMaskTrainer, syntax.parse(words[2])).params == SMALL
    assert words[2] == card.trainer


def test_the_cards_figures_are_those_of_the_file_on_held_out_people(tmp_path):
    """Whatever the networks do is measured again here from the file, with other code."""
    dataset, out = Watched(), tmp_path / "w.safetensors"
    backbones = loaded(tiny.TinyA(), tiny.TinyB())
    quality = MaskCard.model_validate(
        changed(holdout=4, refinement=0).train(request(out, dataset=dataset, backbones=backbones))
    ).quality
    photos = dataset.crops(dataset.read[3]).float() / 255
    assert quality.identities == len(photos)
    generator, restorer = load_networks(out, CPU)
    targets = target_identities(dataset.identities(), 0)[:2]
    pictures = [dataset.crops(shown_photos(identity)).float() / 255 for identity in targets]
    centres = [
        torch.stack([F.normalize(F.normalize(b.embed(p)).mean(0), dim=0) for p in pictures])
        for b in backbones
    ]
    looks = [
        F.interpolate(F.avg_pool2d(p.mean(0)[None], 4), (112, 112), mode="bilinear")[0] for p in pictures
    ]
    who = [k % 2 for k in range(len(photos))]
    keys = torch.stack([key_pattern(bytes([k + 1])) for k in who])
    with torch.no_grad():
        told = torch.cat([c[who] for c in centres], 1)
        masked = to_8_bits(
            (photos + generator(photos, torch.stack([looks[k] for k in who]), told, keys)).clamp(0, 1)
        )
        restored = to_8_bits(restorer(masked, keys).clamp(0, 1))
    # Its keys are other ones than these, which moves the figures a little.
    assert quality.mask_psnr == pytest.approx(float(psnr(masked, photos).mean()), abs=0.1)
    assert quality.restored_psnr == pytest.approx(float(psnr(restored, photos).mean()), abs=0.3)

    def cosines(images, others):
        return [
            float(F.cosine_similarity(b.embed(images), o).mean())
            for b, o in zip(backbones, others, strict=True)
        ]

    plain = [b.embed(photos) for b in backbones]
    assert quality.likeness_own == pytest.approx(sum(cosines(masked, plain)) / 2, abs=0.02)
    assert quality.likeness_restored == pytest.approx(sum(cosines(restored, plain)) / 2, abs=0.02)
    assert quality.likeness_target == pytest.approx(
        sum(cosines(masked, [c[who] for c in centres])) / 2, abs=0.02
    )


def test_what_was_trained_is_what_the_attack_uses(whole):
    out, content = whole
    dataset = Watched()
    attack = ErasableMask(ErasableMask.Params(weights=str(out)))
    binding = Binding(content["dataset"], "synthetic", ("tiny-a", "tiny-b"), "tiny-c")
    identities = target_identities(dataset.identities(), 0)
    names = [(photo, identity.id) for identity in identities for photo in shown_photos(identity)]
    pool = Faces(
        dataset.crops([n for n, _ in names]).float() / 255,
        tuple(n for n, _ in names),
        tuple(who for _, who in names),
    )
    identity = next(p for p in dataset.identities() if p.role == "evaluation")
    face = Faces(dataset.crops(identity.photos[:1]).float() / 255, identity.photos[:1], (identity.id,))
    ctx = Context(
        backbones=loaded(tiny.TinyA(), tiny.TinyB()), targets=pool, files=attack.files(binding), key=b"key"
    )
    assert set(attack.assign_targets(face, ctx).values()) <= set(content["targets"])
    (cloak,) = attack.cloak(face, ctx).values()
    assert float(psnr(cloak[None], face.images)) > 25
    assert not torch.equal(cloak, face.images[0])


@pytest.mark.slow
def test_a_longer_training_looks_like_the_target_and_opens_to_the_key_alone(tmp_path):
    params = ErasableMaskTrainer.Params(
        steps=60, batch=8, width=8, blocks=1, targets=1, photos=18, holdout=4, lr=1e-2, psnr=24,
        checkpoint_every=1000, precision="float32", lock_weight=1, pattern=4, refinement=0,
    )  # fmt: skip
    quality = ErasableMaskTrainer(params).train(request(tmp_path / "w.safetensors"))["quality"]
    untrained = ErasableMaskTrainer(params.model_copy(update={"steps": 1})).train(
        request(tmp_path / "u.safetensors")
    )["quality"]
    assert quality["likeness_target"] > untrained["likeness_target"] + 0.08
    assert quality["likeness_own"] < untrained["likeness_own"] - 0.01
    assert quality["likeness_restored"] > quality["likeness_own"] + 0.005
    assert quality["restored_psnr"] > quality["mask_psnr"] + 3
    assert (quality["opened_right"], quality["opened_wrong"], quality["opened_natural"]) == (1, 0, 0)
    assert untrained["opened_right"] < 1


# -- what is refused -------------------------------------------------------------------------------------------


class Blind(tiny.TinyA):
    """A backbone without gradient."""

    differentiable = False


@pytest.mark.parametrize(
    ("params", "changes", "message"),
    [
        ({}, {"backbones": ()}, "name at least one, --backbone NAME"),
        ({}, {"backbones": (Blind(),)}, "'tiny-a' has no gradient"),
        ({"primary": "tiny-z"}, {}, "primary 'tiny-z' is not among the backbones: tiny-a, tiny-b"),
        ({}, {"out": Path("w.pt")}, r"w\.pt must end in \.safetensors"),
        ({"holdout": 11}, {}, "holdout=11 leaves too few"),
        ({"targets": 50}, {}, "Lower targets or holdout"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, params, changes, message):
    parts = {"out": tmp_path / "w.safetensors"} | changes
    with pytest.raises(UsageError, match=message):
        changed(**params).train(request(**parts))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_loss_that_is_not_finite_stops_the_training_with_the_mend(tmp_path):
    class Broken(tiny.TinyA):
        def embed(self, images):
            return super().embed(images) * (float("nan") if images.requires_grad else 1)

    out = tmp_path / "w.safetensors"
    with pytest.raises(MethodError, match="not finite at step 0; lower lr"):
        ErasableMaskTrainer(SMALL).train(request(out, backbones=loaded(Broken())))
    assert not out.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0},
        {"psnr": 10},
        {"linf": 0},
        {"targets": 0},
        {"gradients": "mean"},
        {"diversity": 2},
        {"eps": 8},
    ],
)
def test_parameters_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        ErasableMaskTrainer.Params.model_validate(values)
