"""Whom a run evaluates under either split, and that nobody is evaluated and learnt from in the same run."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.contracts import DevelopmentRule, Identity, TrainRequest
from bench.errors import UsageError
from bench.integrity.audit import audit
from bench.plugins import factory
from bench.plugins.training import deal_training_identities, training_command
from bench.run.folder import RunFolder
from bench.run.planning import Options, prepare, prepare_again
from bench.run.resolve import resolve
from bench.run.roles import REMAINING, for_training, learnt_from, roles
from bench.run.spec import Cell, RunSpec, make_spec
from bench.run.stages.faces import Crops
from bench.run.threat import Threats


def drawn_faces(**parameters):
    words = ",".join(f"{name}={value}" for name, value in parameters.items())
    return factory.dataset(f"synthetic:{words}" if words else "synthetic")


def resolved(**fields):
    return resolve(make_spec({"dataset": "synthetic:identities=6", "split": "development", **fields}))


def people(counts, role):
    return tuple(
        Identity(f"{role}-{i:03d}", tuple(f"{role}-{i:03d}/{k}" for k in range(count)), role)
        for i, count in enumerate(counts)
    )


@pytest.fixture
def of_people(monkeypatch):
    """Return a function that makes a dataset of identities with so many photos each."""

    def made(evaluated, training, rule=None):
        dataset = drawn_faces()
        listed = people(evaluated, "evaluation") + people(training, "training")
        monkeypatch.setattr(type(dataset), "identities", lambda _: listed)
        if rule is not None:
            monkeypatch.setattr(type(dataset), "development", rule)
        return dataset

    return made


# --- who ---------------------------------------------------------------------------------------------------------


def test_the_evaluation_split_is_what_the_dataset_says():
    dataset = drawn_faces(identities=5, training_identities=9)
    found = roles(dataset, "evaluation")
    assert found.evaluated == tuple(one for one in dataset.identities() if one.role == "evaluation")
    assert found.others == tuple(one for one in dataset.identities() if one.role == "training")


def test_weights_are_trained_on_nobody_of_the_development_split_unless_that_is_wanted(of_people):
    dataset = of_people([10] * 8, [6] * 9)
    found = for_training(dataset, "mine")
    assert (found.name, found.identities) == (f"mine/{REMAINING}", roles(dataset, "development").others)
    assert len(found.identities) == 3
    everyone = for_training(dataset, "mine", with_development=True)
    assert everyone.name == "mine/training"
    assert everyone.identities == tuple(one for one in dataset.identities() if one.role == "training")
    without = of_people([10] * 8, [2] * 9)  # nobody has the photos to stand in
    assert for_training(without, "mine").name == "mine/training"
    assert len(for_training(without, "mine").identities) == 9


def test_a_training_learns_from_and_measures_on_whom_it_is_handed(of_people, tmp_path):
    dataset = of_people([10] * 8, [6] * 9)
    handed = for_training(dataset, "mine")
    request = TrainRequest(dataset=dataset, out=tmp_path / "w.safetensors", learnt_from=handed)
    held_out, rest = deal_training_identities(request, 1, np.random.default_rng(0))
    assert {*held_out, *rest} == set(handed.identities)
    assert "--with-development" not in training_command("t", request, [])
    all_of_them = replace(request, learnt_from=None)
    assert "--with-development" in training_command("t", all_of_them, [])
    first, others = deal_training_identities(all_of_them, 1, np.random.default_rng(0))
    assert len({*first, *others}) == 9


def test_development_identities_are_training_identities_with_enough_photos(of_people):
    dataset = of_people([10] * 8, [5, 6, 9, 30, 6, 6, 7, 1])
    found = roles(dataset, "development")
    assert len(found.evaluated) == 4  # two thirds of the six who have six photos
    assert all(one.id.startswith("training-") and one.role == "evaluation" for one in found.evaluated)
    assert {one.id for one in found.evaluated} <= {f"training-{i:03d}" for i in (1, 2, 3, 4, 5, 6)}
    assert max(len(one.photos) for one in found.evaluated) <= 10  # as an evaluated one has at most


def test_they_are_as_few_and_have_as_few_photos_as_the_evaluated_ones(of_people):
    found = roles(of_people([3, 4], [16] * 30), "development")
    assert [len(one.photos) for one in found.evaluated] == [4, 4]
    assert len(found.others) == 28


def test_a_dataset_may_declare_another_rule(of_people):
    dataset = of_people([9] * 9, [2, 2, 2, 2, 8], DevelopmentRule(least_photos=2, share=0.4))
    assert len(roles(dataset, "development").evaluated) == 2


def test_the_draw_is_fixed_and_hangs_on_nobody_else(of_people):
    first = roles(of_people([9] * 4, [8] * 12), "development")
    assert roles(of_people([9] * 4, [8] * 12), "development") == first
    more = roles(of_people([9] * 5, [8] * 12), "development")
    assert {one.id for one in first.evaluated} < {one.id for one in more.evaluated}


@pytest.mark.parametrize(("evaluated", "training"), [([5, 5], []), ([9, 9], [5] * 50), ([9, 9], [9, 9])])
def test_too_few_training_identities_are_refused_with_their_number(of_people, evaluated, training):
    dataset = of_people(evaluated, training)
    with pytest.raises(
        UsageError, match=f"'synthetic' has {len(training)} training identities, .* split development"
    ):
        roles(dataset, "development")


def test_a_folder_of_ones_own_has_no_development_split(tmp_path):
    for who in "ab":
        (tmp_path / who).mkdir()
        for number in range(3):
            pixels = np.full((112, 112, 3), 40 * number + (who == "b"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / who / f"{number}.png")
    dataset = factory.dataset(f"folder:path={tmp_path},aligned=true")
    with pytest.raises(UsageError, match="'folder' has 0 training identities"):
        roles(dataset, "development")


@given(
    identities=st.integers(2, 30),
    training=st.integers(3, 60),
    photos=st.integers(3, 8),
    training_photos=st.integers(8, 12),
)
def test_nobody_is_evaluated_and_learnt_from(identities, training, photos, training_photos):
    dataset = drawn_faces(
        identities=identities, training_identities=training, photos=photos, training_photos=training_photos
    )
    everyone = {one.id: one for one in dataset.identities()}
    found = roles(dataset, "development")
    evaluated, others = ({one.id for one in group} for group in (found.evaluated, found.others))
    assert not evaluated & others
    assert evaluated | others == {name for name, one in everyone.items() if one.role == "training"}
    assert 2 <= len(evaluated) <= max(2, identities)
    assert others
    for one in found.evaluated:
        assert set(one.photos) <= set(everyone[one.id].photos)
        assert len(one.photos) >= photos


# --- what a run reads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol", ["tracker", "identification:distractors=200,impostors=200,fpir=0.05", "verification"]
)
@pytest.mark.parametrize("split_seed", [0, 3])
def test_no_stage_that_learns_reads_an_evaluated_identity(tmp_path, tiny, protocol, split_seed):
    """Of training photos, targets, held-out targets, impostors and distractors none is of an evaluated identity."""
    del tiny
    spec = make_spec(
        {
            "dataset": "synthetic:identities=6",
            "split": "development",
            "split_seed": split_seed,
            "protocol": protocol,
            "attacks": ("pgd:steps=1,goal=targeted",),
            "defenses": ("tiny-centring",),
        }
    )
    prepared = prepare(spec, Options(threads=1, store=tmp_path))
    evaluated = set(prepared.run.split.gallery)
    assert evaluated == set(prepared.run.split.probes)
    assert len(evaluated) == 6
    read = {}
    for node in prepared.artefacts:
        if isinstance(node, Crops):
            read.setdefault(node.label, set()).update(node.identities)
    assert read.pop("gallery") == read.pop("probes") == evaluated
    assert {"training", "targets"} <= set(read)
    for purpose, identities in read.items():
        assert identities, purpose
        assert not identities & evaluated, purpose


def test_artefacts_of_the_usual_split_keep_their_names(tmp_path):
    """The default leaves no trace: neither in what is written, nor in a digest."""
    fields = {"dataset": "synthetic:identities=4", "attacks": ("pgd:steps=1",)}
    plain, named = (
        prepare(make_spec(each), Options(threads=1, store=tmp_path))
        for each in (fields, {**fields, "split": "evaluation"})
    )
    assert plain.run.digest == named.run.digest
    assert [node.address for node in plain.artefacts] == [node.address for node in named.artefacts]
    for spec in (plain.run.spec, plain.run.requested):
        assert "split" not in spec.model_dump()
        assert '"split":' not in spec.model_dump_json()
        assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_development_split_is_another_run_of_other_artefacts(tmp_path):
    fields = {"dataset": "synthetic:identities=4"}
    one, other = (
        prepare(make_spec({**fields, "split": split}), Options(threads=1, store=tmp_path))
        for split in ("evaluation", "development")
    )
    assert one.run.digest != other.run.digest
    assert not {node.address for node in one.artefacts} & {node.address for node in other.artefacts}
    assert RunSpec.model_validate_json(other.run.spec.model_dump_json()).split == "development"


def test_fewer_of_them_are_a_part_of_them():
    every, some = resolved(), resolved(identities=3)
    assert len(some.split.gallery) == 3
    assert set(some.split.gallery) < set(every.split.gallery)
    assert some.roles == every.roles  # those who are left out are not learnt from either
    with pytest.raises(
        UsageError, match=r"--identities 7 is more than the 6 evaluated .*, split development"
    ):
        _ = resolved(identities=7).split


# --- what rows say -----------------------------------------------------------------------------------------------


def test_what_a_run_trains_itself_knows_no_evaluated_identity(tiny):
    del tiny
    tracker = "synthetic-iresnet"
    run = resolved(defenses=("tiny-centring", "robust-extractor"), backbones=(tracker,))
    threats = Threats(run)
    for name in ("tiny-centring", "robust-extractor"):
        sources = dict(threats.training_sources(Cell("none", name, tracker, "nn", 0)))
        assert sources["defence"] == "synthetic:identities=6/training without development"
        assert threats.source_overlap(sources["defence"]).overlap == "no"
        assert sources["tracker"] == "synthetic/training"
    assert learnt_from("tiny", "development").endswith(REMAINING)


def test_a_hardening_on_the_usual_split_says_what_it_said(tiny):
    del tiny
    run = resolved(defenses=("robust-extractor",), backbones=("tiny-a",), dataset="tiny", split="evaluation")
    sources = dict(Threats(run).training_sources(Cell("none", "robust-extractor", "tiny-a", "nn", 0)))
    assert sources["defence"] == "tiny/training"


def test_weights_trained_on_all_training_identities_overlap_with_all_of_them():
    run = resolved(defenses=("puface",))
    found = Threats(run).of(Cell("none", "puface", run.spec.backbones[0], "nn", 0))
    assert found.identity_overlap == "yes"
    assert (
        "defence: 6 of 6 evaluated identities are among 'synthetic/training'" in found.identity_overlap_detail
    )
    before = Threats(resolved(defenses=("puface",), split="evaluation"))
    assert before.of(Cell("none", "puface", run.spec.backbones[0], "nn", 0)).identity_overlap == "no"


def test_thresholds_are_set_by_others(tiny):
    del tiny
    run = resolved(protocol="verification")
    assert run.impostors
    assert not set(run.impostors) & set(run.split.gallery)
    assert Threats(run).of(run.cells[0]).impostor_overlap == "no"


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match=r"split cannot be 'test': .*'evaluation' or 'development'"):
        make_spec({"split": "test"})


# --- a finished run ----------------------------------------------------------------------------------------------


def test_a_run_is_audited_and_made_again_on_its_split(evaluate, tmp_path):
    prepared = evaluate(
        dataset="synthetic:identities=4", backbones=("synthetic-iresnet",), split="development"
    )
    folder = RunFolder(prepared.folder.path)
    found = audit(folder)
    assert not found.unmarked
    assert any(
        "training identities" in leak.kind for leak in found.findings
    )  # of the tracker's shipped weights
    assert not [missed for missed in found.unchecked if missed.wholly]
    again = prepare_again(folder, Options(store=tmp_path))
    assert again.run.spec.split == "development"
    assert again.run.digest == prepared.run.digest
