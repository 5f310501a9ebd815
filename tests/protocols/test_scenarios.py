"""The four scenarios: by hand, against protocol `tracker`, and through whole runs."""

import numpy as np
import pandas as pd
import pytest

from bench.contracts import Embedded, Split, Trial
from bench.errors import UsageError
from bench.plugins import factory
from bench.protocols.heads import Linear
from bench.protocols.scenarios import CONDITIONS, ScenariosProtocol
from bench.protocols.tracker import TrackerProtocol
from bench.run import decisions


def embedded(vectors):
    """Build embeddings from {image id "name-number": vector}."""
    ids = tuple(vectors)
    array = np.array([vectors[i] for i in ids], dtype=np.float32)
    return Embedded(array, ids, tuple(i.partition("-")[0] for i in ids))


def by_condition(decided):
    return {
        name: rows.drop(columns="condition") for name, rows in decided.rows.groupby("condition", sort=False)
    }


# --- by hand ----------------------------------------------------------------------------------------------

SPLIT = Split(
    gallery={"a": ("a-0",), "b": ("b-0",)},
    probes={"a": ("a-1",), "b": ("b-1",)},
    fold={"a": 0, "b": 1},
    cloaked={"a": ("a-0",), "b": ("b-0",)},
)
# Natural photos of a lie along x, of b along y. Cloaks: a's gallery goes half a turn, a's query to b's place.
VIEWS = {
    "gallery": embedded({"a-0": [1, 0], "b-0": [0, 1]}),
    "cloaked gallery": embedded({"a-0": [-1, 0], "b-0": [0, -1]}),
    "probes": embedded({"a-1": [1, 0.1], "b-1": [0.1, 1]}),
    "cloaked probes": embedded({"a-1": [0.1, 1], "b-1": [-0.1, -1]}),
}


@pytest.mark.parametrize("head", ["nn", "centroid"])
@pytest.mark.parametrize(
    ("condition", "a", "b"),
    [
        ("clean gallery, clean query", "a", "b"),
        ("cloaked gallery, clean query", "b", "a"),
        # b's cloaked query is nearest to nothing: cosine −0.1 with a, −1 with b.
        ("clean gallery, cloaked query", "b", "a"),
        # a asks with b's face and finds b; b's query finds its own cloak.
        ("cloaked gallery, cloaked query", "b", "b"),
    ],
)
def test_two_people_by_hand(head, condition, a, b):
    rows = by_condition(ScenariosProtocol().decide(VIEWS, Trial(SPLIT, head)))[condition]
    results = rows.set_index(["identity", "protected"])["predicted"]
    assert results["a", True] == a
    assert results["b", True] == b


def test_while_normal_a_person_posts_natural_photos_whatever_the_condition():
    views = {**VIEWS, "cloaked probes": embedded({"a-1": [1, 0.1], "b-1": [0.1, 1]})}
    rows = ScenariosProtocol().decide(views, Trial(SPLIT, "nn")).rows
    normal = rows[~rows["protected"]]
    # a is normal in fold 1; b's cloaked gallery lies opposite, so a is found all the same.
    assert normal["correct"].all()
    assert set(normal["condition"]) == set(CONDITIONS)


def test_conditions_in_the_order_they_are_asked():
    decided = ScenariosProtocol().decide(VIEWS, Trial(SPLIT, "nn"))
    assert tuple(decided.conditions) == CONDITIONS
    assert CONDITIONS == (
        "clean gallery, clean query",
        "cloaked gallery, clean query",
        "clean gallery, cloaked query",
        "cloaked gallery, cloaked query",
    )


# --- against the tracker ------------------------------------------------------------------------------------


def random_case(seed, identities=7):
    """Return a split and views of random embeddings: a direction an identity, cloaks far from it."""
    rng = np.random.default_rng(seed)
    names = [f"p{k}" for k in range(identities)]
    split = Split(
        gallery={n: tuple(f"{n}-g{i}" for i in range(3)) for n in names},
        probes={n: tuple(f"{n}-q{i}" for i in range(2)) for n in names},
        fold={n: k % 3 for k, n in enumerate(names)},
        cloaked={n: tuple(f"{n}-g{i}" for i in range(2)) for n in names},
    )
    place = {n: rng.normal(size=6) for n in names}

    def photos(part, spread):
        return embedded({i: place[n] + rng.normal(size=6) * spread for n in names for i in part[n]})

    views = {
        "gallery": photos(split.gallery, 0.7),
        "cloaked gallery": photos(split.cloaked, 3),
        "probes": photos(split.probes, 0.7),
        "cloaked probes": photos(split.probes, 3),
    }
    return split, views


@pytest.mark.parametrize("head", ScenariosProtocol.heads)
@pytest.mark.parametrize("seed", range(3))
def test_each_scenario_is_the_tracker_on_those_photos(head, seed):
    split, views = random_case(seed)
    trial = Trial(split, head)
    found = by_condition(ScenariosProtocol().decide(views, trial))
    tracker = TrackerProtocol(TrackerProtocol.Params(probes="cloaked"))
    nothing = {"cloaked gallery": views["gallery"], "cloaked probes": views["probes"]}
    for condition, replaced in {
        "clean gallery, clean query": nothing,
        "cloaked gallery, clean query": {"cloaked probes": views["probes"]},
        "clean gallery, cloaked query": {"cloaked gallery": views["gallery"]},
        "cloaked gallery, cloaked query": {},
    }.items():
        expected = tracker.decide({**views, **replaced}, trial).rows
        pd.testing.assert_frame_equal(found[condition].reset_index(drop=True), expected, rtol=1e-5, atol=1e-6)


def test_a_head_is_trained_once_a_rotation_for_both_queries(monkeypatch):
    split, views = random_case(0)
    fits = []
    fit = Linear.fit
    monkeypatch.setattr(Linear, "fit", lambda *arguments: fits.append(1) or fit(*arguments))
    ScenariosProtocol().decide(views, Trial(split, "linear"))
    assert len(fits) == 1 + 3  # the clean gallery is the same in all three rotations


# --- what it asks for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("defended", [False, True])
def test_the_gallery_is_always_defended_and_queries_if_asked(defended):
    protocol = factory.protocol(f"scenarios:probes_defended={str(defended).lower()}")
    assert {name: view.defended for name, view in protocol.views.items()} == {
        "gallery": True, "cloaked gallery": True, "probes": defended, "cloaked probes": defended,
    }  # fmt: skip


def test_an_attack_on_whole_people_is_refused_before_anything_is_computed(tiny, cli, tmp_path):
    code, out, err = cli(
        "run", "--dataset", "tiny", "--protocol", "scenarios", "--attack", "tiny-identity-mean",
        "--backbone", "tiny-a", "--store", tmp_path / "store",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert "scenarios cannot measure tiny-identity-mean × none" in err
    assert "all gallery photos of an identity" in err
    assert not (tmp_path / "store").exists()


def test_an_unknown_head_is_refused():
    with pytest.raises(UsageError, match="unknown head 'finetune'"):
        ScenariosProtocol().decide(VIEWS, Trial(SPLIT, "finetune"))


# --- whole runs ---------------------------------------------------------------------------------------------


def test_a_run_has_a_row_a_scenario(cli, pattern, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(
        "run", "--dataset", "synthetic:identities=40,photos=5", "--identities", 4, "--protocol", "scenarios",
        "--attack", pattern,
        "--defense", "gaussian", "--head", "nn", "--backbone", "synthetic-mobilefacenet", "--threads", 1,
        "--store", tmp_path / "store", "--out", run, "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    leaderboard = pd.read_csv(run / "leaderboard.csv", keep_default_na=False)
    assert len(leaderboard) == 4 * 4
    for (attack, _), rows in leaderboard.groupby(["attack", "defense"]):
        assert tuple(rows["condition"]) == CONDITIONS
        asr = rows.set_index("condition")["asr"].astype(float)
        if attack == "none":
            assert len(set(asr)) == 1
        else:
            assert asr["cloaked gallery, clean query"] > asr["clean gallery, clean query"]
    for file in (run / "decisions").iterdir():
        assert tuple(decisions.read(file).conditions) == CONDITIONS


@pytest.mark.real_data
def test_real_faces(real_run, pattern):
    leaderboard = real_run(protocol="scenarios:folds=3,max_gallery=4,max_probes=3", attacks=(pattern,))
    asr = leaderboard[leaderboard["attack"] == "keyed-pattern"].set_index("condition")["asr"]
    assert tuple(asr.index) == CONDITIONS
    assert asr["clean gallery, clean query"] < 0.2
    assert asr["cloaked gallery, clean query"] > asr["clean gallery, clean query"]
