"""Public cloaks in a gallery that a tracker trains on end to end: whose, how made, who has none, and what rows say."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from bench.authoring.checks import run_checks
from bench.contracts import Context
from bench.errors import UsageError
from bench.faces.pixels import to_bytes_range
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.protocols import finetuning
from bench.randomness import stream_seed
from bench.run import resolve
from bench.run.planning import Options, prepare
from bench.run.spec import Cell, make_spec
from bench.run.threat import Threats
from bench.run.trained import trained_parts

E2E = "e2e:attacks=tiny-noise"
TWO = "e2e:attacks=[tiny-sometimes & tiny-noise],share=1"
PROTOCOL = "tracker:finetune_epochs=1,folds=3"


# -- how it is written -------------------------------------------------------------------------------------


def test_it_is_made_of_the_attacks_it_names():
    made = factory.defense("e2e:share=0.5,attacks=[pgd:eps=15.0 & fawkes:steps=40]")
    assert factory.canonical(made) == "e2e:attacks=[pgd:eps=15 & fawkes:steps=40]"
    assert made.public_cloaks.attacks == made.parts()
    assert (made.purifiers, made.hardening, made.public_cloaks.share) == ((), None, 0.5)
    assert factory.canonical(factory.defense("e2e:attacks=pgd:eps=15")) == "e2e"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("e2e:attacks=none", "e2e cannot train on cloaks of 'none': it changes no photo. Name attacks such as pgd"),
        ("e2e:attacks=pgd:goal=targeted", "it imitates others, of whom a tracker has no pool"),
        ("e2e:attacks=tiny-learning", "it has to learn first"),
        ("e2e:attacks=[pgd & fawkes & pgd:eps=8]", "e2e has the attack 'pgd' 2 times; leave the others out"),
        ("e2e:share=0", "share"),
        ("e2e:share=1.5", "share"),
        ("jpeg + e2e", "'e2e' in 'jpeg + e2e' is no purifier"),
        ("views:members=[none & e2e]", "is no purifier"),
    ],
)  # fmt: skip
def test_what_a_tracker_cannot_do_is_refused_with_the_fix(tiny, text, message):
    if "pgd:eps=8" in text:
        text = text.replace("pgd:eps=8", f"pgd:eps={factory.attack('pgd').params.eps:g}")
    with pytest.raises(UsageError) as caught:
        factory.defense(text)
    assert message in str(caught.value)


def test_an_attacker_has_nothing_to_make_a_cloak_through():
    with pytest.raises(UsageError, match="'e2e' does nothing to a photo or to a backbone"):
        factory.attack("adaptive:attack=pgd,defense=e2e")


def test_it_keeps_the_contract(tiny):
    assert [finding for finding in run_checks(factory.defense(TWO)) if not finding.passed] == []


# -- what the tracker trains on ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(evaluate):
    return evaluate(attacks=("tiny-noise",), defenses=(E2E, TWO), heads=("finetune",), protocol=PROTOCOL)


def trainings(prepared, attack, defense, monkeypatch):
    """Return what the head is trained on in a cell, training by training: label → multiset of images."""
    given = []
    fit = finetuning.FineTuned.fit

    def seen(self, photos, labels, n_classes):
        rows = {label: Counter() for label in range(n_classes)}
        for image, label in zip(photos, labels.tolist(), strict=True):
            rows[label][image.tobytes()] += 1
        given.append(rows)
        return fit(self, photos, labels, n_classes)

    monkeypatch.setattr(finetuning.FineTuned, "fit", seen)
    node = prepared.nodes[Cell(attack, defense, "tiny-a", "finetune", 0)].decision
    payloads = {each.address: prepared.store.read(each.stage, each.address) for each in node.inputs}
    node.run(payloads, prepared.machine, lambda _n: None)
    return given


def faces_of(prepared, image):
    from bench.contracts import Faces

    crops = prepared.run.dataset.crops([image]).float() / 255
    return Faces(crops, (image,), (image.rpartition("/")[0],))


def cloaked(prepared, attack, image, seed):
    """Return the bytes of a photo's cloak as the definition says: the attack alone, with the seed; None: left alone."""
    edits = factory.attack(attack).cloak(faces_of(prepared, image), Context(seed=seed))
    return to_bytes_range(edits[image]).numpy().tobytes() if image in edits else None


def natural(prepared, image):
    return prepared.run.dataset.crops([image])[0].numpy().tobytes()


@pytest.mark.parametrize(
    ("defense", "public"), [(E2E, ("tiny-noise",)), (TWO, ("tiny-sometimes", "tiny-noise"))]
)
def test_others_are_also_shown_cloaked_and_the_protected_as_they_were_scraped(
    together, defense, public, monkeypatch
):
    split = together.run.split
    given = trainings(together, "tiny-noise", defense, monkeypatch)
    assert len(given) == split.folds
    identities = sorted(split.gallery)
    with_cloaks = set()
    for fold, rows in enumerate(given):
        for label, name in enumerate(identities):
            photos = split.gallery[name]
            if split.fold[name] == fold:
                posted = [cloaked(together, "tiny-noise", image, 0) for image in photos]
                assert rows[label] == Counter(posted)
                continue
            shown = Counter(natural(together, image) for image in photos)
            own = [
                cloaked(together, attack, image, stream_seed(0, "part", str(index)))
                for index, attack in enumerate(public)
                for image in photos
            ]
            if rows[label] != shown:
                with_cloaks.add(name)
                assert rows[label] == shown + Counter(filter(None, own))
    most = max(Counter(split.fold.values()).values())
    share = factory.defense(defense).params.share
    assert len(with_cloaks) == math.floor(share * (len(identities) - most))


def test_the_attackers_random_numbers_are_not_the_trackers(together):
    pipeline = together.pipeline
    ((public,), (attacker,)) = (
        pipeline.public_cloaks(E2E, "tiny-a", 0)[0],
        pipeline.cloaks("tiny-noise", "tiny-a", 0, "gallery"),
    )
    assert public.attack.method.name == attacker.attack.method.name
    assert public.attack.seed != attacker.attack.seed
    assert public.address != attacker.address


def test_without_a_cloak_nobody_meets_public_cloaks_of_their_own_either(together, monkeypatch):
    split = together.run.split
    given = trainings(together, "none", TWO, monkeypatch)
    # One training serves every rotation in which nobody of the fold has public cloaks.
    assert 1 <= len(given) <= split.folds
    public = {name for shard in together.pipeline.public_cloaks(TWO, "tiny-a", 0)[1] for name in shard.chosen}
    owners = {image.rpartition("/")[0] for image in public}
    touched = [any(split.fold[name] == fold for name in owners) for fold in range(split.folds)]
    expected, trained = [], False
    for fold, is_touched in enumerate(touched):
        if is_touched or not trained:
            expected.append(fold if is_touched else None)
        trained = trained or not is_touched
    assert len(given) == len(expected)
    for fold, rows in zip(expected, given, strict=True):
        for label, name in enumerate(sorted(split.gallery)):
            if split.fold[name] == fold:
                assert rows[label] == Counter(natural(together, image) for image in split.gallery[name])


def test_the_seed_of_the_cell_draws_the_cloaks_and_the_split_says_whose(together):
    pipeline = together.pipeline
    first, second = (pipeline.public_cloaks(E2E, "tiny-a", seed)[0] for seed in (0, 1))
    assert [node.chosen for node in first] == [node.chosen for node in second]
    assert {node.address for node in first}.isdisjoint(node.address for node in second)


# -- what its rows say -------------------------------------------------------------------------------------


def test_rows_say_what_it_was_trained_on(together):
    table = build(together.folder).set_index(["attack", "defense"])
    assert set(table["status"]) == {"ok"}
    assert table.loc[("tiny-noise", E2E), "attack_seen_by_defense"] == "seen"
    assert table.loc[("tiny-noise", "none"), "attack_seen_by_defense"] == "not-trained"
    assert table["asr"].notna().all()
    assert np.isnan(table.loc[("tiny-noise", E2E), "purified_psnr"])
    assert trained_parts(together.run, Cell("tiny-noise", E2E, "tiny-a", "finetune", 0)) == {"defense": "run"}


def test_rows_say_through_which_surrogates_it_cloaks():
    defense = "e2e:attacks=[pgd:eps=15 & pgd:eps=8,surrogates=synthetic-mobilefacenet]"
    tracker = "synthetic-mobilefacenet"
    fields = {"attacks": ("pgd:eps=15", "fawkes"), "backbones": (tracker,), "heads": ("finetune",)}
    run = resolve.resolve(make_spec({"defenses": (defense,), **fields}))
    threats = Threats(run)
    (name,) = set(run.defenses) - {"none"}
    found = {cell.attack: threats.of(cell) for cell in run.cells if cell.defense == name}
    assert found["pgd:eps=15"].attack_seen_by_defense == "seen"
    assert found["fawkes"].attack_seen_by_defense == "unseen"
    assert (
        found["fawkes"].extractors == "synthetic-iresnet|synthetic-mobilefacenet|synthetic-mobilefacenet-wide"
    )
    assert found["fawkes"].extractor_is_tracker
    assert found["fawkes"].extractors_are_surrogates
    assert found["fawkes"].identity_overlap == "no"


# -- which runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "head 'nn' keeps the network as it is. Use --head finetune, and other heads in a run without"),
        ({"heads": ("finetune", "linear")}, "head 'linear' keeps the network as it is"),
        ({"protocol": "scenarios"}, "the protocol has no head that does. Use one of the protocols tracker."),
    ],
)
def test_heads_and_protocols_that_train_no_network_are_refused_before_any_work(tiny, fields, message):
    requested = {"dataset": "tiny", "backbones": ("tiny-a",), "defenses": (E2E,), **fields}
    with pytest.raises(UsageError) as caught:
        resolve.resolve(make_spec(requested))
    assert message in str(caught.value)


def plan(tmp_path, **fields):
    requested = {"dataset": "tiny", "backbones": ("tiny-a",), "heads": ("finetune",), **fields}
    return prepare(make_spec(requested), Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))


def test_a_gallery_without_others_is_refused(tiny, tmp_path):
    with pytest.raises(
        UsageError, match=r"share=0\.5 of the 0 identities that are not protected in some rotation"
    ):
        plan(tmp_path, defenses=(E2E,), protocol="tracker:folds=1")


def test_the_plan_counts_cloaks_and_trainings(tiny, tmp_path):
    def seconds(epochs, defense, attack="tiny-noise"):
        prepared = plan(
            tmp_path,
            attacks=(attack,),
            defenses=(defense,),
            protocol=f"tracker:folds=3,finetune_epochs={epochs}",
        )
        cell = Cell(attack, factory.canonical(factory.defense(defense)), "tiny-a", "finetune", 0)
        return prepared, prepared.nodes[cell].decision

    prepared, node = seconds(4, E2E)
    photos = sum(map(len, prepared.run.split.gallery.values()))
    public = sum(len(cloak.chosen) for cloak in prepared.pipeline.public_cloaks(E2E, "tiny-a", 0)[0])
    probes = sum(map(len, prepared.run.split.probes.values()))
    pace = factory.backbone("tiny-a").core_seconds
    assert public > 0
    assert node.core_seconds == pytest.approx(3 * ((photos + public) * (1 + 2.5 * 4) + probes) * pace)
    assert seconds(4, "none")[1].core_seconds == pytest.approx(3 * (photos * 11 + probes) * pace)
    assert seconds(4, "none", "none")[1].core_seconds == pytest.approx((photos * 11 + probes) * pace)
    labels = {group.label: group.images for group in prepared.groups() if group.stage == "cloak"}
    assert labels == {"tiny-noise": photos, "tiny-noise by the tracker": public}


STRIPES = """
import torch
from bench.contracts import Attack, ThreatModel

class Stripes(Attack):
    name = "stripes"
    threat = ThreatModel(goal="untargeted", constraint="the same stripes on every photo")

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        stripes = 0.4 * torch.sin(torch.arange(112) / 5).expand(3, 112, 112)
        return {name: (image + stripes).clamp(0, 1) for name, image in zip(faces.ids, faces.images)}
"""


def test_it_learns_what_a_cloak_does(evaluate, tmp_path):
    """A cloak that is the same for everyone: who was shown it on others sees through it."""
    (tmp_path / "stripes.py").write_text(STRIPES)
    attack = f"{tmp_path}/stripes.py:Stripes"
    found = evaluate(
        store=tmp_path / "store", dataset="tiny:identities=8", heads=("finetune",), attacks=(attack,),
        defenses=(f"e2e:attacks=[{attack}],share=1",),
        protocol="tracker:finetune_epochs=30,finetune_learning_rate=0.03,folds=4",
    )  # fmt: skip
    table = build(found.folder)
    asr = table[table["attack"] != "none"].set_index("defense")["asr"]
    (defended,) = asr[asr.index != "none"]
    assert defended < asr["none"] - 0.2


@pytest.mark.slow
def test_the_command_runs_it(command, tmp_path):
    options = ("--dataset", "tiny", "--attack", "tiny-noise", "--backbone", "tiny-a", "--identities", "4")
    where = ("--threads", "1", "--store", tmp_path / "store", "--out", tmp_path / "run")
    refused = command("run", *options, "--defense", E2E, *where)
    assert refused.returncode == 2
    assert "Use --head finetune" in refused.stderr
    done = command(
        "run", *options, "--head", "finetune", "--defense", E2E, *where, "--csv", tmp_path / "t.csv"
    )
    assert done.returncode == 0, done.stderr
    assert E2E in (tmp_path / "t.csv").read_text()
    planned = command("plan", *options, "--head", "finetune", "--defense", E2E, *where[:4])
    assert planned.returncode == 0, planned.stderr
    assert "4 cached" in planned.stdout


def test_images_are_8_bit_as_posted(together):
    nodes = together.pipeline.public_cloaks(E2E, "tiny-a", 0)[0]
    from bench.faces.pixels import decode_pixels

    for node in nodes:
        assert decode_pixels(together.store.read(node.stage, node.address)).images.dtype == torch.uint8
