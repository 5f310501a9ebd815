"""The columns that say who knew what."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.plugins import factory
from bench.run import threat
from bench.run.resolve import resolve
from bench.run.spec import Cell, make_spec
from bench.run.threat import Threats, training_source

TRACKERS = ("tiny-a", "tiny-b", "tiny-c")


@pytest.fixture
def threats(tiny):
    del tiny

    def by_point(**fields):
        run = resolve(make_spec({"dataset": "tiny", "backbones": TRACKERS, **fields}))
        return {(cell.attack, cell.defense, cell.backbone): Threats(run).of(cell) for cell in run.cells}

    return by_point


def test_an_automatic_pool_never_holds_the_tracker(threats):
    found = threats(attacks=("pgd",), defenses=("tiny-trained",))
    for tracker in TRACKERS:
        others = "|".join(name for name in TRACKERS if name != tracker)
        cell = found["pgd", "tiny-trained", tracker]
        assert (cell.surrogates, cell.extractors, cell.access) == (others, others, "black-box")
        assert cell.extractors_are_surrogates


def test_naming_the_tracker_is_white_box(threats):
    found = threats(attacks=("pgd:surrogates=tiny-b|tiny-a",), backbones=("tiny-a", "tiny-c"))
    name = "pgd:surrogates=tiny-b|tiny-a"
    assert found[name, "none", "tiny-a"].access == "white-box"
    assert found[name, "none", "tiny-a"].surrogates == "tiny-a|tiny-b"
    assert found[name, "none", "tiny-c"].access == "black-box"


def test_without_surrogates_there_is_no_access(threats):
    for cell in threats(attacks=("tiny-noise",)).values():
        assert (cell.surrogates, cell.extractors, cell.access) == ("", "", "")
        assert not cell.related
        assert not cell.extractors_are_surrogates


def test_a_helper_of_the_trackers_family_is_related(threats):
    found = threats(attacks=("pgd",))
    assert {tracker: found["pgd", "none", tracker].related for tracker in TRACKERS} == {
        "tiny-a": True,
        "tiny-b": True,
        "tiny-c": False,
    }


def test_overlap_of_surrogates_and_extractors(threats):
    names = [f"pgd:surrogates={name}" for name in TRACKERS]
    purifiers = [f"tiny-trained:features={name}" for name in TRACKERS]
    found = threats(attacks=tuple(names), defenses=tuple(purifiers), backbones=("tiny-a",))
    for (i, attack), (k, defense) in itertools.product(enumerate(names), enumerate(purifiers)):
        assert found[attack, defense, "tiny-a"].extractors_are_surrogates == (i == k)


@pytest.mark.parametrize(
    ("trained_on", "seen"),
    [
        ("", "not-trained"),
        ("pgd:steps=2", "seen"),
        ("tiny-noise;pgd:steps=2", "seen"),
        ("pgd", "seen-with-other-parameters"),
        ("tiny-noise", "unseen"),
    ],
)
def test_what_the_defence_saw_in_training(threats, trained_on, seen):
    defense = f"tiny-trained:attacks={trained_on}" if trained_on else "tiny-trained"
    found = threats(attacks=("pgd:steps=2",), defenses=(defense,), backbones=("tiny-a",))
    assert found["pgd:steps=2", defense, "tiny-a"].attack_seen_by_defense == seen
    assert found["none", defense, "tiny-a"].attack_seen_by_defense == ""


@pytest.mark.parametrize(
    ("identities", "overlap"),
    [("none", "no"), ("tiny/training", "no"), ("unknown", "unknown"), ("lfw/training", "unknown")],
)
def test_whose_photos_trained_the_defence(threats, identities, overlap):
    # The tiny backbones say tiny/training of themselves: other identities than those evaluated.
    defense = "tiny-trained" if identities == "none" else f"tiny-trained:identities={identities}"
    found = threats(defenses=(defense,), backbones=("tiny-a",))
    assert found["none", defense, "tiny-a"].identity_overlap == overlap
    assert found["none", "none", "tiny-a"].identity_overlap == "no"


LEAKY = Path(__file__).parents[1] / "plugins/leaky_methods.py"


def leaky(name, parameters=""):
    return f"{LEAKY}:{name}{':' if parameters else ''}{parameters}"


@pytest.mark.parametrize(
    ("identities", "overlap", "detail"),
    [
        ("leaky:first=4/training", "no", ""),  # the four before them
        (
            "leaky:first=6/training",
            "yes",
            "defence: 2 of 4 evaluated identities are among 'leaky:first=6/training'",
        ),
        ("leaky:first=2/evaluation", "yes", "4 of 4 evaluated identities"),
        # Another number of photos is another fingerprint; that the photos are the same is found by looking.
        ("leaky:first=6,photos=5/training", "yes", "2 of 4 evaluated identities"),
        (
            "leaky:first=6,world=3/training",
            "unknown",
            "nothing says whether identities of 'leaky:first=6,world=3'",
        ),
        ("lfw/training", "unknown", "'lfw/training' cannot be looked at: LFW's archive"),
        ("nowhere/training", "unknown", "unknown dataset 'nowhere'"),
        ("leaky:fast=1/training", "unknown", "unknown parameter of leaky 'fast'"),
        ("a CSV file", "unknown", "'a CSV file' names no dataset that can be looked at"),
    ],
)
def test_how_many_evaluated_people_trained_the_defence(tiny, identities, overlap, detail):
    from bench.contracts import Binding
    from bench.plugins import factory

    del tiny
    run = resolve(make_spec({"dataset": leaky("LeakyFaces", "first=4"), "backbones": ("tiny-a",)}))
    trained = factory.defense("tiny-trained")
    trained = type(trained)(trained.Params(identities=identities))
    source = training_source(trained, Binding("", "", (), ""), run.spec.dataset)
    defenses = {**run.defenses, "tiny-trained": trained}
    found = Threats(replace(run, defenses=defenses)).of(Cell("none", "tiny-trained", "tiny-a", "nn", 0))
    assert source == identities
    # The tiny backbones were trained on identities of another dataset, of whom nobody can tell.
    warning = "tracker: nothing says whether identities of 'tiny' are in 'leaky:first=4' under other ids"
    assert found.identity_overlap == ("unknown" if overlap == "no" else overlap)
    assert warning in found.identity_overlap_detail
    assert detail in found.identity_overlap_detail.replace(warning, "")


def test_rendered_people_are_not_photographed_ones(tiny):
    del tiny
    run = resolve(make_spec({"dataset": "tiny", "backbones": ("tiny-a",)}))
    run.dataset.domain = "real"
    assert Threats(run).source_overlap("synthetic/training").overlap == "no"


@pytest.mark.parametrize("named", [True, False])
def test_the_trackers_weights_are_known_under_any_name(tiny, named):
    del tiny
    attack = "pgd:surrogates=synthetic-iresnet|synthetic-mobilefacenet" if named else "pgd"
    purifier = f"tiny-trained:features={'synthetic-mobilefacenet' if named else 'synthetic-iresnet'}"
    run = resolve(
        make_spec(
            {
                "dataset": "synthetic:identities=4",
                "attacks": (attack,),
                "defenses": (purifier,),
                "backbones": (leaky("RenamedCopy"),),
            }
        )
    )
    threats = Threats(run)
    cell = threats.of(Cell(attack, purifier, "renamed-copy", "nn", 0))
    assert (cell.access, cell.extractor_is_tracker, cell.related) == ("white-box", named, True)
    if named:
        threats.check()
        return
    # The pool gives a tracker it does not know its first group, which is the original.
    with pytest.raises(
        UsageError, match=r"'auto' gives pgd the backbone synthetic-mobilefacenet, whose weights"
    ):
        threats.check()


def test_a_file_that_serves_as_well_is_the_same_weights(tiny, monkeypatch):
    del tiny
    run = resolve(make_spec({"dataset": "synthetic:identities=4", "backbones": (leaky("RenamedCopy"),)}))
    threats = Threats(run)
    original = factory.backbone("synthetic-mobilefacenet")
    assert threats.same_weights(["synthetic-mobilefacenet"], "renamed-copy")
    card = original.card.model_copy(update={"sha256": "0" * 64, "equivalents": (original.card.sha256,)})
    monkeypatch.setattr(type(original), "card", card)
    assert Threats(run).same_weights(["synthetic-mobilefacenet"], "renamed-copy")


def test_a_defence_that_learns_in_the_run_learns_from_the_datasets_training_people(threats):
    cell = threats(defenses=("tiny-centring",), backbones=("tiny-a",))["none", "tiny-centring", "tiny-a"]
    assert (cell.identity_overlap, cell.identity_overlap_detail) == ("no", "")


def test_the_people_behind_thresholds_are_compared(threats):
    plain = threats(backbones=("tiny-a",))["none", "none", "tiny-a"]
    assert plain.impostor_overlap == ""
    fields = {"dataset": leaky("LeakyFaces"), "protocol": leaky("LeakyBackground"), "backbones": ("tiny-a",)}
    assert threats(**fields)["none", "none", "tiny-a"].impostor_overlap == "yes"
    fields["dataset"] = leaky("LeakyFaces", "identities=6")
    assert threats(**fields)["none", "none", "tiny-a"].impostor_overlap == "no"


def test_a_photo_in_gallery_and_probes_or_of_two_people_is_refused(tiny, monkeypatch):
    from bench.contracts import Identity

    del tiny
    run = resolve(make_spec({"dataset": "tiny", "backbones": ("tiny-a",)}))
    Threats(run).check()
    split = run.split
    identity = min(split.probes)
    probes = {**split.probes, identity: split.gallery[identity][:1]}
    run.__dict__["split"] = replace(split, probes=probes)
    with pytest.raises(
        UsageError, match=f"puts photo '{identity}/.*' both into the gallery and among the probes"
    ):
        Threats(run).check()
    identities = (Identity("a", ("x",), "evaluation"), Identity("b", ("x",), "training"))
    monkeypatch.setattr(run.dataset, "identities", lambda: identities)
    with pytest.raises(UsageError, match="gives photo 'x' to both 'a' and 'b'"):
        Threats(run).check()


def test_no_defence_has_seen_the_cloaks_made_against_it():
    """Weights trained against themselves say 'adaptive', which is what the default adaptive attack is called."""
    trained = ("adaptive", "pgd:eps=15")
    assert threat._seen(factory.attack("pgd:eps=15"), trained) == "seen"
    assert threat._seen(factory.attack("adaptive"), trained) == "seen-with-other-parameters"
    through_lowkey = factory.attack("adaptive:attack=[lowkey:perceptual=dssim],defense=jpeg")
    assert threat._seen(through_lowkey, ("lowkey:perceptual=dssim",)) == "seen-with-other-parameters"
    assert threat._seen(through_lowkey, ("pgd:eps=15",)) == "unseen"
