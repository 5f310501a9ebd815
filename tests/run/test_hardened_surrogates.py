"""An attack that has the recipe of a hardening: surrogates trained as the tracker trains its own backbone."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from attacks.pgd import PGD
from bench.contracts import Context
from bench.errors import UsageError
from bench.faces import pixels as faces_pixels
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.run.bound import Plugin
from bench.run.device import make_machine
from bench.run.hardened_surrogates import PartPlugin
from bench.run.planning import Options, prepare
from bench.run.resolve import resolve
from bench.run.spec import make_spec
from bench.run.threat import Threats

pytestmark = pytest.mark.usefixtures("tiny")

SMALL = "tiny:identities=4,photos=4"
RECIPE = "adaptive:attack=pgd:steps=2,defense=tiny-centring"
MIXED = "adaptive:attack=pgd:steps=2,defense=[tiny-centring & jpeg],mode=joint"
WHITE = "adaptive:attack=[pgd:steps=2,surrogates=tiny-a],defense=tiny-centring"
PUBLIC = "adaptive-extractor:attacks=[pgd:steps=1,surrogates={}],photos=8,steps=2"


def trainings(prepared):
    return {node.address: node for node in prepared.artefacts if node.stage == "fit"}


def planned(tmp_path, **fields):
    spec = make_spec({"dataset": SMALL, "backbones": ("tiny-a",), **fields})
    return prepare(spec, Options(store=tmp_path / "store", out=tmp_path / "out", threads=1))


def cloaks(prepared, attack, tracker="tiny-a"):
    """Image id → 8-bit cloak, as stored."""
    found = {}
    for node in prepared.pipeline.cloaks(attack, tracker, 0, "gallery"):
        made = faces_pixels.decode_pixels(prepared.store.read(node.stage, node.address))
        found |= dict(zip(made.ids, made.images.numpy(), strict=True))
    return found


# -- cloaks ----------------------------------------------------------------------------------------------------


def hardened_by_hand(prepared, names):
    """The surrogates as the artefacts of the run harden them, each found by the backbone it is of."""
    by_backbone = {node.tracker.name: node for node in trainings(prepared).values()}
    found = []
    for name in names:
        backbone = factory.backbone(name)
        backbone.load(torch.device("cpu"))
        node = by_backbone[name]
        state = load(prepared.store.read("fit", node.address))
        found.append(factory.defense("tiny-centring").harden(backbone, state))
    return tuple(found)


def test_the_cloak_is_the_inner_attacks_on_the_hardened_backbones(evaluate):
    prepared = evaluate(dataset=SMALL, attacks=(RECIPE, "pgd:steps=2"))
    made = cloaks(prepared, RECIPE)
    plain = cloaks(prepared, "pgd:steps=2")
    (photos,) = prepared.pipeline.natural("gallery")
    natural = faces_pixels.decode_pixels(prepared.store.read("faces", photos.address))
    faces = natural.only(frozenset(made)).faces(torch.device("cpu"))
    surrogates = hardened_by_hand(prepared, ("tiny-b", "tiny-c"))
    attack = PGD(PGD.Params(steps=2))
    by_hand = attack.cloak(faces, Context(seed=0, backbones=surrogates))
    assert made.keys() == by_hand.keys() == plain.keys()
    for name, image in by_hand.items():
        assert np.array_equal(made[name], (image * 255).round().byte().numpy())
    assert not all(np.array_equal(made[name], plain[name]) for name in made)


@pytest.mark.parametrize("attack", [RECIPE, MIXED])
def test_cloaks_are_the_same_bytes_in_any_batch_in_parts_and_in_another_process(evaluate, attack, tmp_path):
    whole = evaluate(dataset=SMALL, attacks=(attack,))
    assert all(result.status == "ok" for result in whole.folder.cells())
    batched = evaluate(dataset=SMALL, attacks=(attack,), batch_size=3, store=tmp_path / "store")
    made = cloaks(whole, attack)
    assert {k: v.tobytes() for k, v in made.items()} == {
        k: v.tobytes() for k, v in cloaks(batched, attack).items()
    }
    machine = make_machine("cpu", 1, 64, None)
    for node in whole.pipeline.cloaks(attack, "tiny-a", 0, "gallery"):
        for part in (replace(node, chosen=node.chosen[:3]), replace(node, chosen=node.chosen[3:])):
            travelled = pickle.loads(pickle.dumps(part))
            assert travelled.address == part.address != node.address
            inputs = {each.address: whole.store.read(each.stage, each.address) for each in part.inputs}
            again = faces_pixels.decode_pixels(travelled.run(inputs, machine, lambda _n: None))
            assert again.ids == part.chosen
            for image_id, image in zip(again.ids, again.images.numpy(), strict=True):
                assert np.array_equal(image, made[image_id])


# -- trainings ---------------------------------------------------------------------------------------------------


def test_a_backbone_is_trained_once_whether_it_is_tracker_or_surrogate(evaluate, tmp_path):
    fields = {"attacks": (RECIPE, MIXED), "defenses": ("tiny-centring",), "dataset": SMALL}
    both = evaluate(backbones=("tiny-a", "tiny-b"), store=tmp_path / "store", **fields)
    assert all(result.status == "ok" for result in both.folder.cells())
    # Trackers a and b; surrogates b and c of a, a and c of b; for two attacks.
    assert sorted(node.tracker.name for node in trainings(both).values()) == ["tiny-a", "tiny-b", "tiny-c"]
    as_trackers = planned(
        tmp_path, dataset=SMALL, defenses=("tiny-centring",), backbones=("tiny-a", "tiny-b", "tiny-c")
    )
    assert set(trainings(as_trackers)) == set(trainings(both))
    assert not [node for node in as_trackers.missing if node.stage == "fit"]


def test_surrogates_are_trained_only_for_an_attack_that_knows_the_hardening(tmp_path):
    assert not trainings(planned(tmp_path, attacks=("pgd:steps=2", "adaptive:attack=pgd,defense=jpeg")))
    recipe = trainings(planned(tmp_path, attacks=(RECIPE,)))
    assert sorted(node.tracker.name for node in recipe.values()) == ["tiny-b", "tiny-c"]


def test_a_hardening_behind_purifiers_is_the_same_training(tmp_path):
    attack = "adaptive:attack=pgd:steps=2,defense=[jpeg + tiny-centring]"
    behind = planned(tmp_path, attacks=(attack,), defenses=("jpeg + tiny-centring", "tiny-centring"))
    alone = planned(tmp_path, attacks=(RECIPE,), defenses=("tiny-centring",))
    assert set(trainings(behind)) == set(trainings(alone))
    found = {cell.defense: each for cell, each in behind.threats.items() if cell.attack == attack}
    exact, part, none = (found[name] for name in ("jpeg + tiny-centring", "tiny-centring", "none"))
    assert (exact.attack_adapts_to_defense, exact.attack_knows) == (True, "recipe")
    assert (part.attack_adapts_in_part, part.attack_knows) == (True, "recipe")
    assert none.attack_knows == ""


def test_a_surrogate_that_is_the_tracker_gets_the_trackers_very_weights(tmp_path):
    prepared = planned(tmp_path, attacks=(WHITE,), defenses=("tiny-centring",))
    ((address, node),) = trainings(prepared).items()
    assert node.tracker.name == "tiny-a"
    (cloak,) = prepared.pipeline.cloaks(WHITE, "tiny-a", 0, "gallery")
    assert address in {each.address for each in cloak.inputs}
    other_seed = prepared.pipeline.cloaks(WHITE, "tiny-a", 1, "gallery")[0]
    assert address not in {each.address for each in other_seed.inputs}


def test_no_key_of_an_attack_without_hardenings_holds_their_code(tmp_path):
    prepared = planned(tmp_path, attacks=("adaptive:attack=pgd:steps=2,defense=jpeg", RECIPE))
    (plain,) = prepared.pipeline.cloaks("adaptive:attack=pgd:steps=2,defense=jpeg", "tiny-a", 0, "gallery")
    (recipe,) = prepared.pipeline.cloaks(RECIPE, "tiny-a", 0, "gallery")
    assert "hardened" not in plain.key["attack"]
    assert recipe.key["attack"]["hardened"]


def test_a_part_travels_as_the_text_of_the_whole(tiny):
    whole = Plugin.of("attacks", MIXED)
    part = PartPlugin.inside(whole, (2,))
    again = pickle.loads(pickle.dumps(part))
    assert again == part
    assert again.name == "jpeg"
    assert PartPlugin.inside(whole, (1,)) != part


def test_a_hardening_cannot_be_trained_on_cloaks_that_need_it_hardened_first(tmp_path):
    defense = f"adaptive-extractor:attacks=[{RECIPE}]"
    with pytest.raises(UsageError, match=r"would need surrogates hardened by tiny-centring.*Leave"):
        planned(tmp_path, defenses=(defense,))


# -- the threat model ----------------------------------------------------------------------------------------------


@pytest.fixture
def threats(tiny):
    del tiny

    def by_point(**fields):
        run = resolve(make_spec({"dataset": SMALL, "backbones": ("tiny-a",), **fields}))
        found = Threats(run)
        found.check()
        return {(cell.attack, cell.defense): found.of(cell) for cell in run.cells}

    return by_point


def test_the_row_says_that_the_attack_has_the_recipe_and_not_the_weights(threats):
    defenses = ("tiny-centring", "jpeg", "robust-extractor")
    found = threats(attacks=(RECIPE, WHITE, MIXED, "pgd:steps=2"), defenses=defenses)
    says = {
        point: (each.attack_adapts_to_defense, each.attack_knows, each.access)
        for point, each in found.items()
        if point[0] != "none"
    }
    for defense in ("none", *defenses):
        mine = defense == "tiny-centring"
        assert says[RECIPE, defense] == (mine, "recipe" if mine else "", "black-box")
        assert says[WHITE, defense] == (mine, "weights" if mine else "", "white-box")
        assert says["pgd:steps=2", defense] == (False, "", "black-box")
    assert says[MIXED, "tiny-centring"] == (True, "recipe", "black-box")
    assert says[MIXED, "jpeg"] == (True, "weights", "black-box")
    assert {each.surrogates for (attack, _), each in found.items() if attack == RECIPE} == {"tiny-b|tiny-c"}
    assert {each.extractors for each in found.values()} == {""}
    assert {each.identity_overlap for each in found.values()} == {"no"}


def test_other_parameters_are_another_recipe(threats):
    attack = "adaptive:attack=pgd,defense=robust-extractor:steps=5"
    found = threats(attacks=(attack,), defenses=("robust-extractor:steps=5", "robust-extractor"))
    assert found[attack, "robust-extractor:steps=5"].attack_knows == "recipe"
    assert found[attack, "robust-extractor"].attack_knows == ""
    assert not found[attack, "robust-extractor"].attack_adapts_to_defense


def test_the_leaderboard_has_the_column(evaluate):
    prepared = evaluate(dataset=SMALL, attacks=(RECIPE,), defenses=("tiny-centring",))
    rows = build(prepared.folder).set_index(["attack", "defense"])
    assert rows.loc[(RECIPE, "tiny-centring"), "attack_knows"] == "recipe"
    assert rows.loc[(RECIPE, "none"), "attack_knows"] == ""


def test_a_pool_does_not_hand_the_tracker_to_whoever_trains_a_surrogate(threats):
    defense = "adaptive-extractor:attacks=pgd:steps=1,photos=8,steps=2"
    with pytest.raises(
        UsageError, match=r"train its surrogate tiny-b .* backbone tiny-a, which is the tracker"
    ):
        threats(attacks=(f"adaptive:attack=pgd,defense=[{defense}]",))
    white = f"adaptive:attack=pgd:surrogates=tiny-a,defense=[{defense}]"
    assert threats(attacks=(white,))[white, "none"].access == "white-box"


@pytest.mark.parametrize(
    ("helper", "access", "is_tracker"), [("tiny-c", "black-box", False), ("tiny-a", "white-box", True)]
)
def test_backbones_that_serve_to_train_a_surrogate_count(threats, helper, access, is_tracker):
    defense = PUBLIC.format(helper)
    attack = f"adaptive:attack=pgd:surrogates=tiny-b,defense=[{defense}]"
    found = threats(attacks=(attack,), defenses=(defense,))
    assert found[attack, "none"].access == access
    assert found[attack, "none"].extractor_is_tracker == is_tracker
    assert found[attack, defense].attack_knows == "recipe"
    assert found[attack, defense].extractors == helper


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_plans_without_training_and_runs_on_the_embedded_dataset(command, tmp_path):
    hardening = "robust-extractor:photos=16,steps=2"
    attack = f"adaptive:attack=[pgd:eps=15,smooth=1.5,steps=2],defense=[{hardening}]"
    arguments = (
        *("--attack", attack, "--attack", "pgd:eps=15,steps=2", "--defense", hardening),
        *("--identities", 4, "--threads", 1, "--store", tmp_path / "store"),
    )
    plan = command("plan", *arguments)
    assert plan.returncode == 0, plan.stderr
    assert not list((tmp_path / "store").rglob("*.safetensors"))
    for name in ("synthetic-mobilefacenet", "synthetic-iresnet"):
        assert f"{hardening} on {name}" in plan.stdout
    assert not (tmp_path / "store" / "fit").exists()
    run = command("run", *arguments, "--out", tmp_path / "run", "--csv", tmp_path / "rows.csv")
    assert run.returncode == 0, run.stderr
    import pandas as pd

    rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False)
    mine = rows[(rows["attack"] == attack) & (rows["defense"] == hardening)]
    assert len(mine) >= 1
    assert set(mine["attack_knows"]) == {"recipe"}
    assert set(mine["status"]) == {"ok"}
    again = command("plan", *arguments)
    assert "robust-extractor:photos=16,steps=2 on" not in again.stdout
