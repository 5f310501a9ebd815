"""A stage is data: it travels to another process and is computed there to the same bytes."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import FrozenInstanceError
from hashlib import sha256
from multiprocessing import get_context

import pytest

from bench.errors import UsageError
from bench.quality.lpips import Unavailable
from bench.run.bound import Plugin
from bench.run.code_hashes import NOT_NUMERICAL, _Closure
from bench.run.device import Machine, make_machine
from bench.run.graph import STAGES, Node
from bench.run.stages.attack_diagnosis import AttackDiagnosis
from bench.run.stages.cloak import Cloak
from bench.run.stages.decide import Decide
from bench.run.stages.embed import Embed
from bench.run.stages.erase import Erase
from bench.run.stages.faces import Crops
from bench.run.stages.fit import Fit
from bench.run.stages.measure import Measure
from bench.run.stages.posted import Posted
from bench.run.stages.purifier_diagnosis import PurifierDiagnosis
from bench.run.stages.purify import Purify
from bench.run.stages.target_assignment import TargetAssignment
from bench.run.store import Store

SMALL = "tiny:identities=4,photos=4,training_identities=20"

MATRICES = (
    {
        "attacks": ("tiny-imitating", "pgd:steps=2"),
        "defenses": ("tiny-centring", "tiny-negative + noise"),
        "heads": ("nn", "finetune"),
        "protocol": "tracker:finetune_epochs=1",
    },
    {"attacks": ("tiny-imitating",), "protocol": "verification:far=0.9"},
    {"attacks": ("tiny-erasable", "tiny-mask"), "protocol": "erasure:far=0.9"},
    {"attacks": ("tiny-learning",), "protocol": "robustness:channels=[none|jpeg + tiny-negative]"},
    {"attacks": ("tiny-noise",), "protocol": "posted:detect=false"},
)
"""Several protocols and heads, hardening, target assignment, erasing, channels, whole photos."""


def computed(folder, pickled):
    """Return address → SHA-256 of each node's artefact, made in this process from the store's."""
    store, machine = Store(folder), make_machine("cpu", 1, 7, None)
    found = {}
    for node in pickle.loads(pickled):
        inputs = {each.address: store.read(each.stage, each.address) for each in node.inputs}
        found[node.address] = sha256(node.run(inputs, machine, lambda _n: None)).hexdigest()
    return found


@pytest.fixture(scope="module")
def runs(evaluate):
    return [evaluate(**{"dataset": SMALL, **matrix}) for matrix in MATRICES]


def test_every_node_of_a_matrix_is_computed_to_the_same_bytes_in_another_process(runs):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for run in runs:
            assert all(result.status == "ok" for result in run.folder.cells())
            there = {
                node.address: run.store.record(node.stage, node.address).sha256 for node in run.artefacts
            }
            made = pool.submit(computed, run.store.folder, pickle.dumps(run.artefacts)).result()
            assert made == there
    seen = {node.stage for run in runs for node in run.artefacts}
    assert seen == set(STAGES)


def test_a_node_cannot_be_changed_and_carries_no_address_with_it(runs):
    node = runs[0].artefacts[0]
    with pytest.raises(FrozenInstanceError):
        node.label = "another"
    _ = node.address
    assert "address" not in pickle.loads(pickle.dumps(node)).__dict__


def test_a_plugin_travels_as_its_text(tiny):
    plugin = Plugin.of("attacks", "pgd:steps=2")
    again = pickle.loads(pickle.dumps(plugin))
    assert again == plugin
    assert again.method is not plugin.method
    assert (type(again.method), again.method.params) == (type(plugin.method), plugin.method.params)
    assert len(pickle.dumps(plugin)) < 200


# -- keys ---------------------------------------------------------------------------------------------------

COMMON = {"bench.run.bound", "bench.faces.pixels", "bench.randomness"}
SCOPES = "bench.run.stages.scopes"


@pytest.mark.parametrize(
    ("stage", "modules"),
    [
        (Crops, {"bench.run.stages.faces"}),
        (Fit, {"bench.run.stages.fit"}),
        (Cloak, {"bench.run.stages.cloak", SCOPES}),
        (TargetAssignment, {"bench.run.stages.target_assignment", SCOPES}),
        (Erase, {"bench.run.stages.erase", SCOPES}),
        (Purify, {"bench.run.stages.purify", SCOPES}),
        (
            Embed,
            {
                *("bench.run.stages.embed", "bench.run.stages.purify", SCOPES),
                *("bench.run.embeddings", "bench.run.precision"),
            },
        ),
        (
            Posted,
            {
                *("bench.run.stages.posted", "bench.faces.posting", "bench.faces.alignment"),
                *("bench.faces.paste_back", "bench.faces.search", "bench.faces.detection"),
                "bench.faces.whole_photo",
            },
        ),
        (Decide, {"bench.run.stages.decide", "bench.run.embeddings", "bench.run.decisions"}),
        (
            AttackDiagnosis,
            {"bench.run.stages.attack_diagnosis", "bench.quality.diagnosis", "bench.quality.metrics"},
        ),
    ],
)
def test_a_stage_is_keyed_by_the_modules_that_compute_it_and_no_others(stage, modules):
    closure = _Closure([stage.__module__, "bench.randomness"])
    assert {name for name, code in closure.modules.items() if code and code.text} == COMMON | modules


@pytest.mark.parametrize("stage", [Measure, PurifierDiagnosis])
def test_measures_of_images_are_keyed_without_the_code_that_binds_methods(stage):
    followed = _Closure([stage.__module__]).modules
    assert "bench.run.bound" not in followed
    assert {name for name in followed if name in NOT_NUMERICAL} == NOT_NUMERICAL


def test_every_stage_has_a_class_of_its_own_and_a_place_in_the_order():
    classes = [each for each in Node.__subclasses__() if each.__module__.startswith("bench.run.stages.")]
    assert {each.stage for each in classes} == set(STAGES)
    assert len({each.__module__ for each in classes}) == len(classes)


def test_a_plan_with_lpips_is_not_computed_without(runs):
    measure = next(node for node in runs[0].artefacts if node.stage == "measure")
    without = Machine(runs[0].machine.device, 1, 64, Unavailable("no trunk"))
    with_trunk = Measure("", {}, measure.original, measure.changed, (), "0" * 64)
    payloads = {each.address: runs[0].store.read(each.stage, each.address) for each in measure.inputs}
    with pytest.raises(UsageError, match=r"SHA-256 0000.*--lpips-trunk"):
        with_trunk.run(payloads, without, lambda _n: None)
