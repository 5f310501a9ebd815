"""A gallery that grows: by hand, against plain loops, against protocol `scenarios`, and through whole runs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts import Embedded, Identity, Split, Trial
from bench.errors import UsageError
from bench.protocols import growing
from bench.protocols.growing import Filed, GrowingProtocol, grow
from bench.protocols.heads import unit
from bench.protocols.scenarios import ScenariosProtocol
from bench.run import decisions


def embedded(vectors):
    """Build embeddings from {image id "name-number": vector}."""
    ids = tuple(vectors)
    array = np.array([vectors[i] for i in ids], dtype=np.float32)
    return Embedded(array, ids, tuple(i.partition("-")[0] for i in ids))


def at(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def impostors(count=200, size=2, seed=0):
    """Return impostors all of one direction but for a few: thresholds are set by their cosines."""
    rng = np.random.default_rng(seed)
    return embedded({f"i{k}-0": rng.normal(size=size) for k in range(count)})


# --- by hand ----------------------------------------------------------------------------------------------

# a's photos lead away from the first in steps of 25 degrees; b's lie opposite.
START = Filed(unit(np.array([at(0), at(180)])), np.array([0, 1]))
QUERIES = unit(np.array([at(25), at(50), at(75), at(200), at(260)]))
LABELS = np.array([0, 0, 0, 1, 1])
STEP = float(np.cos(np.radians(26)))


def test_what_lies_near_a_recognised_photo_is_recognised_next():
    first, last = grow(START, QUERIES, LABELS, STEP)
    assert (first.score >= STEP).tolist() == [True, False, False, True, False]
    assert (last.score >= STEP).tolist() == [True, True, True, True, False]
    assert last.answer[:4].tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(last.score[:3], np.cos(np.radians(25)), rtol=1e-6)
    np.testing.assert_allclose(last.score[4], np.cos(np.radians(60)), rtol=1e-6)  # from b's query at 200


def test_a_photo_filed_under_the_wrong_name_draws_others_after_it():
    labels = np.array([1, 1, 1, 1, 1])  # b's photos that lie near a's
    _, last = grow(START, QUERIES, labels, STEP)
    assert last.answer[:3].tolist() == [0, 0, 0]
    assert (last.margin[:3] < 0).all()


def test_of_equal_cosines_the_first_identity_is_answered():
    start = Filed(unit(np.array([at(-30), at(30)])), np.array([0, 1]))
    first, last = grow(start, unit(np.array([at(0)])), np.array([1]), 0.5)
    assert first.answer.tolist() == last.answer.tolist() == [0]


def test_without_a_photo_to_start_with_nobody_is_recognised():
    nothing = Filed(np.zeros((0, 2)), np.zeros(0, dtype=np.intp))
    first, last = grow(nothing, QUERIES, LABELS, -1)
    assert np.isneginf(first.score).all()
    assert np.isneginf(last.score).all()
    assert np.isnan(last.margin).all()


# --- against plain loops --------------------------------------------------------------------------------------


def plain(start, queries, labels, threshold):
    """The same by loops over photos: (answer, score, margin) of each query at the fixed point."""
    filed = list(zip(start.vectors, start.labels.tolist(), strict=True))
    waiting, found = list(range(len(queries))), {}
    while True:
        joining = []
        for query in waiting:
            best = {}
            for vector, label in filed:
                best[label] = max(best.get(label, -2), float(np.float32(queries[query] @ vector)))
            score = max(best.values())
            answer = min(label for label, value in best.items() if value == score)
            own = best.get(labels[query])
            others = [value for label, value in best.items() if label != labels[query]]
            margin = own - max(others) if own is not None and others else np.nan
            found[query] = answer, score, margin
            if score >= threshold:
                joining.append(query)
        if not joining:
            return [found[query] for query in range(len(queries))]
        filed += [(queries[query], found[query][0]) for query in joining]
        waiting = [query for query in waiting if query not in joining]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), threshold=st.floats(-0.2, 0.95), block=st.sampled_from([1, 3, 4096]))
def test_answers_are_those_of_plain_loops(seed, threshold, block):
    rng = np.random.default_rng(seed)
    start = Filed.sorted(unit(rng.normal(size=(5, 3)).round(1) + 0.05), rng.integers(0, 4, 5))
    queries, labels = unit(rng.normal(size=(20, 3)).round(1) + 0.05), rng.integers(0, 4, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "BLOCK", block)
        _, last = grow(start, queries, labels, threshold)
    wanted = plain(start, queries, labels.tolist(), np.float64(threshold))
    assert last.answer.tolist() == [answer for answer, _, _ in wanted]
    np.testing.assert_array_equal(last.score, np.float32([score for _, score, _ in wanted]))
    np.testing.assert_allclose(last.margin, [margin for _, _, margin in wanted], atol=1e-6)


# --- the protocol -----------------------------------------------------------------------------------------------

SPLIT = Split(
    gallery={"a": ("a-0",), "b": ("b-0",)},
    probes={"a": ("a-1", "a-2", "a-3"), "b": ("b-1", "b-2")},
    fold={"a": 0, "b": 1},
    cloaked={"a": ("a-0",), "b": ("b-0",)},
)
NATURAL = {"a-1": at(10), "a-2": at(-10), "a-3": at(5), "b-1": at(190), "b-2": at(170)}
CLOAKED = {"a-1": at(25), "a-2": at(50), "a-3": at(120), "b-1": at(220), "b-2": at(300)}
VIEWS = {
    "gallery": embedded({"a-0": at(0), "b-0": at(180)}),
    "probes": embedded(NATURAL),
    "cloaked probes": embedded(CLOAKED),
    "enrolled impostors": impostors(),
    "presented impostors": impostors(),
}


@pytest.fixture
def at_26_degrees(monkeypatch):
    """Let a query be recognised from the cosine of 26 degrees on."""
    facts = growing.threshold_facts

    def fixed(*given):
        return facts(*given).model_copy(update={"threshold": STEP})

    monkeypatch.setattr(growing, "threshold_facts", fixed)


@pytest.mark.usefixtures("at_26_degrees")
def test_two_people_by_hand():
    decided = GrowingProtocol(GrowingProtocol.Params(far=0.01)).decide(VIEWS, Trial(SPLIT, "nn"))
    rows = decided.rows.set_index(["condition", "identity", "image", "fold"])["correct"]
    start, grown = "start, FAR 1 %", "grown, FAR 1 %"
    assert tuple(decided.conditions) == (start, grown)
    assert [rows[start, "a", f"a-{k}", 0] for k in (1, 2, 3)] == [True, False, False]
    assert [rows[grown, "a", f"a-{k}", 0] for k in (1, 2, 3)] == [True, True, False]
    assert [rows[grown, "b", f"b-{k}", 1] for k in (1, 2)] == [False, False]
    assert rows[:, :, :, 1][:, "a"].all()  # while normal, everything natural is recognised
    assert rows[:, :, :, 0][:, "b"].all()
    refused = decided.rows[~decided.rows["correct"]]
    assert refused["predicted"].isna().all()
    assert decisions.from_bytes(decisions.to_bytes(decided)).conditions == decided.conditions
    # a is filed under three photos, two of them cloaks; b under its first alone.
    facts = decided.conditions[grown]
    assert facts.gallery_cloaked == pytest.approx((2 / 3 + 0) / 2)
    assert facts.gallery_cloaked_low <= facts.gallery_cloaked <= facts.gallery_cloaked_high
    assert decided.conditions[start].gallery_cloaked is None


@pytest.mark.usefixtures("at_26_degrees")
def test_without_a_cloak_no_share_of_cloaks_is_said():
    views = {**VIEWS, "cloaked probes": VIEWS["probes"]}
    decided = GrowingProtocol(GrowingProtocol.Params(far=0.01)).decide(views, Trial(SPLIT, "nn"))
    assert decided.rows["correct"].all()
    assert all(facts.gallery_cloaked is None for facts in decided.conditions.values())


def test_the_start_is_scenarios_evasion_behind_a_threshold():
    rng = np.random.default_rng(3)
    names = [f"p{k}" for k in range(9)]
    split = Split(
        gallery={n: (f"{n}-g",) for n in names},
        probes={n: tuple(f"{n}-q{i}" for i in range(3)) for n in names},
        fold={n: k % 3 for k, n in enumerate(names)},
        cloaked={n: (f"{n}-g",) for n in names},
    )
    place = {n: rng.normal(size=6) for n in names}

    def photos(part, spread):
        return embedded({i: place[n] + rng.normal(size=6) * spread for n in names for i in part[n]})

    crowd = impostors(300, 6, 1)
    views = {
        "gallery": photos(split.gallery, 0.4),
        "cloaked gallery": photos(split.gallery, 1),
        "probes": photos(split.probes, 0.4),
        "cloaked probes": photos(split.probes, 1),
        "enrolled impostors": crowd,
        "presented impostors": crowd,
    }
    decided = GrowingProtocol(GrowingProtocol.Params(far=0.1)).decide(views, Trial(split, "nn"))
    threshold = decided.conditions["start, FAR 10 %"].threshold
    found = decided.rows[decided.rows["condition"] == "start, FAR 10 %"].reset_index(drop=True)
    other = ScenariosProtocol().decide(views, Trial(split, "nn")).rows
    other = other[other["condition"] == "clean gallery, cloaked query"].reset_index(drop=True)
    pd.testing.assert_series_equal(found["score"], other["score"])
    pd.testing.assert_series_equal(found["margin"], other["margin"])
    accepted = other["score"] >= threshold
    assert found["correct"].tolist() == (other["correct"] & accepted).tolist()
    assert 0 < accepted.sum() < len(accepted)


def test_with_too_few_impostors_it_says_why_nothing_is_decided():
    few = impostors(5)
    views = {**VIEWS, "enrolled impostors": few, "presented impostors": few}
    decided = GrowingProtocol().decide(views, Trial(SPLIT, "nn"))
    assert decided.rows.empty
    assert set(decided.conditions) == {"start, FAR 0.1 %", "grown, FAR 0.1 %"}
    assert all("impostor pairs" in facts.reason for facts in decided.conditions.values())
    decisions.to_bytes(decided)


def test_what_it_refuses():
    protocol = GrowingProtocol()
    with pytest.raises(UsageError, match="head 'linear'"):
        protocol.decide(VIEWS, Trial(SPLIT, "linear"))
    with pytest.raises(UsageError, match=r"'growing' sets its thresholds .* found 1"):
        protocol.impostors((Identity("a", ("a-0",), "training"),), 0)
    for bad in ({"far": 0}, {"far": 1}, {"cloaked_share": 0.5}, {"impostors": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            GrowingProtocol.Params(**bad)


# --- whole runs -------------------------------------------------------------------------------------------------


def test_a_run_has_both_conditions_and_the_share_of_cloaks(cli, pattern, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(
        "run", "--dataset", "synthetic:identities=40,photos=6,training_identities=60", "--identities", 6,
        "--protocol", "growing:far=0.1,gallery_fraction=0.2", "--attack", pattern, "--defense", "gaussian",
        "--backbone", "synthetic-mobilefacenet", "--threads", 1, "--store", tmp_path / "store", "--out", run, "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    board = pd.read_csv(run / "leaderboard.csv", keep_default_na=False, dtype=str)
    start, grown = "start, FAR 10 %", "grown, FAR 10 %"
    assert len(board) == 2 * 4
    there = board[board["gallery_cloaked"] != ""]
    assert set(there["condition"]) == {grown}
    assert set(there["attack"]) == {*board["attack"]} - {"none"}
    assert there["gallery_cloaked"].astype(float).between(0, 1).all()
    for file in (run / "decisions").iterdir():
        rows = decisions.read(file).rows
        before, after = (rows[rows["condition"] == name].reset_index(drop=True) for name in (start, grown))
        # An answer that was given is kept, so that who is recognised at the start is so in the end.
        kept = before["predicted"].notna()
        pd.testing.assert_series_equal(before["predicted"][kept], after["predicted"][kept])
        assert (after["score"] >= before["score"]).all()


def test_an_attack_on_whole_people_is_refused_before_anything_is_computed(tiny, cli, tmp_path):
    code, out, err = cli(
        "run", "--dataset", "tiny", "--protocol", "growing", "--attack", "tiny-identity-mean",
        "--backbone", "tiny-a", "--store", tmp_path / "store",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert "growing cannot measure tiny-identity-mean × none" in err
    assert not (tmp_path / "store").exists()


@pytest.mark.real_data
def test_real_faces(real_run, pattern):
    board = real_run(protocol="growing:far=0.01,folds=3,max_probes=4,impostors=200", attacks=(pattern,))
    rates = board.set_index(["attack", "condition"])["asr"]
    assert rates["none", "start, FAR 1 %"] < 0.2
    assert rates["keyed-pattern", "start, FAR 1 %"] > rates["none", "start, FAR 1 %"]
    assert rates["keyed-pattern", "grown, FAR 1 %"] <= rates["keyed-pattern", "start, FAR 1 %"]
