"""The columns that say who knew what."""

import itertools

import pytest

from bench.resolve import resolve
from bench.spec import make_spec
from bench.threat import cell_threat

TRACKERS = ("tiny-a", "tiny-b", "tiny-c")


@pytest.fixture
def threats(tiny):
    del tiny

    def by_point(**fields):
        run = resolve(make_spec({"dataset": "tiny", "backbones": TRACKERS, **fields}))
        return {(cell.attack, cell.defense, cell.backbone): cell_threat(run, cell) for cell in run.cells}

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
    ("people", "overlap"),
    [("none", "no"), ("tiny/training", "no"), ("unknown", "unknown"), ("lfw/training", "unknown")],
)
def test_whose_photos_trained_the_defence(threats, people, overlap):
    # The tiny backbones say tiny/training of themselves: other people than those evaluated.
    defense = "tiny-trained" if people == "none" else f"tiny-trained:people={people}"
    found = threats(defenses=(defense,), backbones=("tiny-a",))
    assert found["none", defense, "tiny-a"].identity_overlap == overlap
    assert found["none", "none", "tiny-a"].identity_overlap == "no"
