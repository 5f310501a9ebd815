"""What is in a key reaches a method, and what is not does not; nothing one method does reaches another's result."""

import json
from dataclasses import replace

import pytest
import torch

from bench.authoring.fakes import FakeBackbone
from bench.contracts import Binding, Purifier
from bench.errors import MethodError
from bench.run.bound import BoundBackbone, BoundMethod, Plugin
from bench.run.device import Machine
from bench.run.digest import digest
from bench.run.planning import Options, prepare
from bench.run.spec import make_spec
from bench.run.stages.purify import purifier_context, purifier_fields

CPU = torch.device("cpu")
BINDING = Binding("demo", "real", (), "tracker")


class Light(Purifier):
    name = "dim"
    K = 0.9

    def purify(self, faces, ctx):
        return faces.images * self.K


class Heavy(Light):
    K = 0.1


class Drawing(Light):
    deterministic = False


class Networked(FakeBackbone):
    """Holds a network, as real backbones do."""

    def load(self, device):
        self.network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).eval()

    def embed(self, images):
        return images.mean((2, 3)).repeat(1, 11)[:, : self.card.embedding_dim]


def bound(cls, seed=0):
    return BoundMethod(Plugin("defenses", "dim", cls()), BINDING, {}, seed)


def machine():
    return Machine(CPU, 1, 8, None)


def test_two_classes_of_one_module_and_one_name_have_keys_of_their_own():
    assert purifier_fields(bound(Light)) != purifier_fields(bound(Heavy))


@pytest.mark.parametrize(("cls", "seeds"), [(Light, [0, 0]), (Drawing, [4, 5])])
def test_a_seed_that_is_not_in_the_key_does_not_reach_the_method(cls, seeds):
    made = [bound(cls, seed) for seed in (4, 5)]
    assert [purifier_context(each, machine(), {}).seed for each in made] == seeds
    same_key = purifier_fields(made[0]) == purifier_fields(made[1])
    assert same_key == (seeds[0] == seeds[1])


def add_one(network):
    with torch.no_grad():
        network[0].weight.add_(1)


def replace_weight(network):
    network[0].weight = torch.nn.Parameter(torch.zeros(2, 2))


@pytest.mark.parametrize(
    "change", [add_one, replace_weight, lambda network: network[1].train(), lambda network: network.half()]
)
def test_a_backbone_that_was_changed_in_place_is_reported_and_kept_no_more(change):
    here, backbone = machine(), Networked()
    backbone.load(CPU)
    here.keep("tracker", backbone)
    backbone.network(torch.zeros(1, 2)).sum().backward()
    here.check_backbones("spoiler")
    change(backbone.network)
    with pytest.raises(MethodError, match="spoiler changed the loaded backbone 'tracker' in place"):
        here.check_backbones("spoiler")
    assert "tracker" not in here.loaded


def test_a_backbone_to_train_is_nobody_elses(monkeypatch):
    monkeypatch.setattr("bench.plugins.factory.create", lambda _kind, _text: Networked())
    here, one = machine(), BoundBackbone("k", Plugin("backbones", "k", Networked()), BINDING)
    assert one.on(here) is one.on(here) is not one.fresh(here)


def test_every_file_of_a_backbone_counts_with_the_digest_of_its_card(tmp_path):
    weights, projection = tmp_path / "w.bin", tmp_path / "pca.bin"
    weights.write_bytes(b"1")

    class Two(Networked):
        def files(self, binding):
            return weights, projection

    def fields():
        backbone = Two()
        backbone.card = backbone.card.model_copy(update={"sha256": "0" * 64})
        return BoundBackbone("k", Plugin("backbones", "k", backbone), BINDING).key_fields

    projection.write_bytes(b"1")
    before = fields()
    projection.write_bytes(b"22")
    assert fields() != before


@pytest.fixture
def deciding(tiny, tmp_path):
    """A planned run, and the node of its only cell."""
    spec = make_spec(
        {"dataset": "tiny", "backbones": ("tiny-a",), "attacks": ("none",), "defenses": ("none",)}
    )
    prepared = prepare(spec, Options("cpu", 1, store=tmp_path / "store", out=tmp_path / "out"))
    return prepared, next(node for node in prepared.artefacts if node.stage == "decide")


@pytest.mark.parametrize("part", ["gallery", "probes", "cloaked"])
def test_all_of_a_split_decides_a_decision(deciding, part):
    _, decide = deciding
    dealt = decide.dealt
    fewer = {name: images[:1] for name, images in vars(dealt.split)[part].items()}
    changed = replace(dealt, split=replace(dealt.split, **{part: fewer}))
    assert replace(decide, dealt=changed).address != decide.address


def test_folds_and_impostors_decide_a_decision(deciding):
    _, decide = deciding
    split = replace(decide.dealt.split, fold=dict.fromkeys(decide.dealt.split.fold, 0))
    for changed in ({"split": split}, {"impostors": {"nobody": ("nobody/0",)}}):
        assert replace(decide, dealt=replace(decide.dealt, **changed)).address != decide.address


def test_a_cells_key_names_the_split_of_the_run_and_repeats_no_photo(deciding):
    prepared, decide = deciding
    prepared.begin()
    written = json.loads((prepared.folder.path / "splits.json").read_text())
    assert decide.key["split"] == digest(written)
    photos = {image for images in written["probes"].values() for image in images}
    assert photos
    assert not any(image in json.dumps(decide.key) for image in photos)
