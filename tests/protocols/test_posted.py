"""Whole photos, step by step: by hand, against protocol `tracker`, in whole runs on drawn photos, on real faces."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.contracts import ConditionFacts, Embedded, Posting, Split, Trial, View
from bench.errors import MethodError, UsageError
from bench.faces import posting
from bench.faces.alignment import TEMPLATE, Landmarks
from bench.leaderboard.columns import COLUMNS
from bench.protocols.posted import PostedProtocol
from bench.protocols.tracker import TrackerProtocol
from bench.run import decisions

CONDITIONS = (
    *("crop", "pasted", "resize", "jpeg", "resize + jpeg"),
    *("detected", "resize, detected", "jpeg, detected", "resize + jpeg, detected"),
)
SHORT = PostedProtocol.Params(channels=("none",))


def embedded(vectors):
    """Build embeddings from {image id "name-number": vector}."""
    ids = tuple(vectors)
    array = np.array([vectors[i] for i in ids], dtype=np.float32).reshape(-1, 2)
    return Embedded(array, ids, tuple(i.partition("-")[0] for i in ids))


def at(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


SPLIT = Split(
    gallery={"a": ("a-0", "a-1"), "b": ("b-0",)},
    probes={"a": ("a-2", "a-3"), "b": ("b-1", "b-2")},
    fold={"a": 0, "b": 1},
    cloaked={"a": ("a-0", "a-1"), "b": ("b-0",)},
)
GALLERY = {"a-0": at(0), "a-1": at(10), "b-0": at(90)}
CLOAKED = {"a-0": at(180), "a-1": at(0), "b-0": at(90)}
PROBES = {"a-2": at(1), "a-3": at(12), "b-1": at(88), "b-2": at(95)}


def without(vectors, *images):
    return {image: vector for image, vector in vectors.items() if image not in images}


def views(gallery=GALLERY, cloaked=CLOAKED, probes=PROBES):
    """Return the views of `SHORT`: crops and pasted ones as given, those of a detector as they are there."""
    whole = {
        "gallery": embedded(GALLERY),
        "cloaked gallery": embedded(CLOAKED),
        "cloaked gallery, pasted": embedded(CLOAKED),
        "probes": embedded(PROBES),
    }
    seen = {"gallery": gallery, "cloaked gallery": cloaked, "probes": probes}
    return whole | {f"{name}, detected": embedded(vectors) for name, vectors in seen.items()}


def decide(seen, head="nn"):
    return PostedProtocol(SHORT).decide(seen, Trial(SPLIT, head))


def correct(decided, condition, fold):
    rows = decided.rows[(decided.rows["condition"] == condition) & (decided.rows["fold"] == fold)]
    return dict(zip(rows["image"], rows["correct"], strict=True))


# --- the views --------------------------------------------------------------------------------------------


def test_each_condition_adds_a_step():
    protocol = PostedProtocol()
    seen = protocol.views
    assert seen["cloaked gallery, pasted"] == View(photos="gallery", state="cloaked", posting=Posting())
    assert seen["gallery"] == View(photos="gallery")
    assert seen["probes"] == View(photos="probes", defended=False)
    assert seen["gallery, resize + jpeg, detected"].posting == Posting(scale=0.5, quality=75, detected=True)
    assert seen["probes, jpeg"] == View(photos="probes", defended=False, posting=Posting(quality=75))
    # A natural photo that nothing is pasted into has the crop it had: it is not embedded twice.
    assert "gallery, pasted" not in seen
    assert len(seen) == 3 * len(CONDITIONS) - 2
    assert protocol.question == CONDITIONS[-1]


def test_steps_can_be_left_out():
    params = PostedProtocol.Params(channels=("jpeg", "jpeg"), quality=30, detect=False)
    seen = PostedProtocol(params).views
    assert set(seen) == {
        f"{name}{step}" for name in ("gallery", "cloaked gallery", "probes") for step in ("", ", jpeg")
    }
    assert seen["gallery, jpeg"].posting == Posting(quality=30)


@pytest.mark.parametrize(
    ("field", "value"),
    [("channels", ()), ("channels", ("blur",)), ("scale", 1), ("scale", 0), ("quality", 0)],
)
def test_parameters_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        PostedProtocol.Params(**{field: value})


def test_views_of_crops_are_written_as_before_there_were_whole_photos():
    assert "posting" not in View(photos="gallery").model_dump(mode="json")
    assert View(photos="gallery", posting=Posting()).model_dump(mode="json")["posting"] == {
        "scale": 1.0,
        "quality": None,
        "detected": False,
    }
    for wrong in ({"channel": "jpeg"}, {"state": "erased"}):
        with pytest.raises(ValueError, match="no channel of crops"):
            View(photos="gallery", posting=Posting(), **wrong)


# --- the answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", PostedProtocol.heads)
def test_where_every_face_is_found_each_condition_is_the_trackers(head):
    decided = decide(views(), head)
    assert tuple(decided.conditions) == ("crop", "pasted", "detected")
    alone = TrackerProtocol().decide(
        {name: views()[name] for name in ("gallery", "cloaked gallery", "probes")}, Trial(SPLIT, head)
    )
    for condition in decided.conditions:
        rows = decided.rows[decided.rows["condition"] == condition].drop(columns="condition")
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), alone.rows)
    facts = decided.conditions["detected"]
    assert (facts.gallery_missed, facts.probes_missed) == (0, 0)
    assert decided.conditions["pasted"] == ConditionFacts()


def test_a_gallery_photo_without_a_face_is_no_part_of_the_gallery():
    # Of a's cloaks the one that is still recognised is missed; what is left leads to nobody.
    decided = decide(views(cloaked=without(CLOAKED, "a-1")))
    assert correct(decided, "pasted", 0) == {"a-2": True, "a-3": True, "b-1": True, "b-2": True}
    assert correct(decided, "detected", 0) == {"a-2": False, "a-3": False, "b-1": True, "b-2": True}
    facts = decided.conditions["detected"]
    assert facts.gallery_missed == pytest.approx((1 / 2 + 0) / 2)
    assert facts.gallery_missed_low <= facts.gallery_missed <= facts.gallery_missed_high
    assert facts.probes_missed == 0


def test_with_no_gallery_photo_left_nobody_is_recognised():
    decided = decide(views(gallery=without(GALLERY, "b-0")))
    assert not any(correct(decided, "detected", 0)[image] for image in ("b-1", "b-2"))
    assert all(correct(decided, "crop", 0).values())
    assert (
        decided.conditions["detected"].gallery_missed == 0
    )  # of a protected identity, whose cloaks are there


def test_a_probe_without_a_face_is_not_recognised():
    decided = decide(views(probes=without(PROBES, "a-2")))
    rows = decided.rows[(decided.rows["condition"] == "detected") & (decided.rows["image"] == "a-2")]
    assert rows["fold"].tolist() == [0, 1]
    assert rows["protected"].tolist() == [True, False]
    assert not rows["correct"].any()
    assert rows[["predicted", "score", "margin"]].isna().all(axis=None)
    assert correct(decided, "detected", 1)["a-3"]
    assert decided.conditions["detected"].probes_missed == pytest.approx((1 / 2 + 0) / 2)
    assert len(decided.rows) == 3 * 2 * 4
    again = decisions.from_bytes(decisions.to_bytes(decided))
    assert again.conditions == decided.conditions


def test_without_any_probe_nobody_is_recognised():
    decided = decide(views(probes={}))
    assert not any(correct(decided, "detected", 0).values())
    assert decided.conditions["detected"].probes_missed == 1
    decisions.to_bytes(decided)


def test_of_photos_that_are_not_cloaked_the_natural_ones_count():
    split = replace(SPLIT, cloaked={"a": ("a-0",), "b": ("b-0",)})
    seen = views(gallery=without(GALLERY, "a-1"), cloaked={k: CLOAKED[k] for k in ("a-0", "b-0")})
    decided = PostedProtocol(SHORT).decide(seen, Trial(split, "nn"))
    assert decided.conditions["detected"].gallery_missed == pytest.approx((1 / 2 + 0) / 2)


def test_a_probe_is_missing_only_where_a_detector_looked():
    seen = views() | {"probes": embedded(without(PROBES, "a-2"))}
    with pytest.raises(MethodError, match="1 probes have no embedding, first 'a-2'"):
        decide(seen)
    with pytest.raises(UsageError, match="head 'finetune'"):
        decide(views(), "finetune")


# --- whole runs -------------------------------------------------------------------------------------------

AT = TEMPLATE + np.array((20, 15))
"""Where the face is in a whole photo of the tiny dataset, before anything is done to it."""

HEIGHT = 140


@pytest.fixture
def seeing(monkeypatch):
    """Let a detector find the face of every drawn photo but those whose noise in the corner is dark enough."""
    shown = []

    def find(pixels):
        shown.append(pixels.shape)
        scale = pixels.shape[0] / HEIGHT
        missed = int(pixels[: pixels.shape[0] // 2].astype(int).sum()) % 7 == 0
        return () if missed else (Landmarks((AT + 0.5) * scale - 0.5),)

    monkeypatch.setattr(posting, "find_faces", find)
    monkeypatch.setattr(posting, "check_detector", lambda: None)
    return shown


def run(cli, tmp_path, *more):
    out = tmp_path / "run"
    code, _, err = cli(
        "run", "--dataset", "tiny", "--attack", "tiny-noise", "--defense", "jpeg:quality=20", "--backbone", "tiny-a",
        "--threads", 1, "--store", tmp_path / "store", "--out", out, "--quiet", *more,
    )  # fmt: skip
    assert (code, err) == (0, "")
    return out, pd.read_csv(out / "leaderboard.csv", keep_default_na=False, dtype=str)


def test_a_run_has_every_condition_and_says_how_many_faces_were_missed(tiny, cli, tmp_path, seeing):
    out, board = run(cli, tmp_path, "--protocol", "posted")
    assert sorted(set(board["condition"])) == sorted(CONDITIONS)
    assert len(board) == 4 * len(CONDITIONS)
    assert {shape[0] for shape in seeing} == {HEIGHT, HEIGHT // 2}
    there = board[board["gallery_missed"] != ""]
    assert set(there["condition"]) == {name for name in CONDITIONS if name.endswith("detected")}
    assert (there["probes_missed"].astype(float) > 0).all()
    assert set(board.columns) <= set(COLUMNS)
    missed = decided = 0
    for file in (out / "decisions").iterdir():
        found = decisions.read(file)
        rows = found.rows[found.rows["condition"] == "detected"]
        missed += rows["score"].isna().sum()
        decided += len(rows)
    assert 0 < missed < decided / 3


def test_without_a_step_it_is_protocol_tracker(tiny, cli, tmp_path):
    _, board = run(cli, tmp_path / "posted", "--protocol", "posted:channels=none,detect=false")
    _, plain = run(cli, tmp_path / "tracker", "--protocol", "tracker")
    columns = ["attack", "defense", "asr", "normal_accuracy", "baseline_error"]
    crops = board[board["condition"] == "crop"][columns].sort_values(columns).reset_index(drop=True)
    pd.testing.assert_frame_equal(crops, plain[columns].sort_values(columns).reset_index(drop=True))
    natural = board[board["attack"] == "none"]
    rates = [
        frame.drop(columns="condition") for _, frame in natural[["condition", *columns]].groupby("condition")
    ]
    pd.testing.assert_frame_equal(rates[0].reset_index(drop=True), rates[1].reset_index(drop=True))


def test_part_of_a_gallery_can_be_cloaked(tiny, cli, tmp_path):
    _, board = run(cli, tmp_path, "--protocol", "posted:channels=jpeg,detect=false,cloaked_share=0.5")
    assert set(board["status"]) == {"ok"}


def test_crops_alone_are_refused_before_anything_is_computed(cli, tmp_path):
    code, out, err = cli(
        "run", "--dataset", "synthetic", "--protocol", "posted", "--store", tmp_path / "store"
    )
    assert (code, out) == (2, "")
    assert "synthetic has aligned crops and no whole photos. Use one of" in err
    assert not (tmp_path / "store").exists()


def test_without_the_detector_it_is_refused_before_anything_is_computed(tiny, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(posting.importlib.util, "find_spec", lambda _name: None)
    code, _, err = cli("run", "--dataset", "tiny", "--protocol", "posted", "--store", tmp_path / "store")
    assert code == 2
    assert "cloakbench[detector]" in err
    assert not (tmp_path / "store").exists()


@pytest.mark.real_data
def test_real_faces(real_run, pattern):
    pytest.importorskip("facenet_pytorch", reason="needs the face detector")
    board = real_run(
        protocol="posted:channels=resize+jpeg,folds=3,max_gallery=4,max_probes=3", attacks=(pattern,)
    ).set_index(["attack", "condition"])
    last = "resize + jpeg, detected"
    assert board["asr"]["none", "crop"] < 0.2
    assert board["asr"]["none", last] <= board["asr"]["none", "crop"] + 0.2
    # Squares of eight pixels outlive what is done to a photo.
    for condition in ("crop", "resize + jpeg", last):
        assert board["asr"]["keyed-pattern", condition] > board["asr"]["none", condition]
    assert 0 <= board["gallery_missed"]["none", last] < 0.1
