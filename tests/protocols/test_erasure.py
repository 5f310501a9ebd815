"""Erasure: by hand, against thresholds computed here, and through whole runs."""

import numpy as np
import pandas as pd
import pytest
import torch

from bench.authoring.checks import run_checks
from bench.contracts import Context, Embedded, Faces, Identity, Split, Trial
from bench.errors import UsageError
from bench.plugins import factory
from bench.protocols.erasure import CONDITIONS, ErasureProtocol
from bench.protocols.verification import VerificationProtocol
from bench.run import decisions

IDENTITIES = 200


def erasure(**params):
    return ErasureProtocol(ErasureProtocol.Params(**params))


def impostors(count=IDENTITIES):
    return [Identity(f"s{k:04d}", (f"s{k:04d}-0", f"s{k:04d}-1"), "training") for k in range(count)]


def embedded(vectors):
    """Build embeddings from {image id "name-number": vector}."""
    ids = tuple(vectors)
    array = np.array([vectors[i] for i in ids], dtype=np.float32)
    return Embedded(array, ids, tuple(i.partition("-")[0] for i in ids))


def at(angle):
    """Return the direction whose cosine with (1, 0, 0) is that of an angle in degrees."""
    return [np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0.0]


# --- by hand ------------------------------------------------------------------------------------------------

SPLIT = Split(
    gallery={"a": ("a-0", "a-1"), "b": ("b-0",)},
    probes={"a": ("a-2",), "b": ("b-1",)},
    fold={"a": 0, "b": 0},
    cloaked={"a": ("a-0", "a-1"), "b": ("b-0",)},
)


def views(impostors=None):
    """Return galleries at known angles to the probes, and impostors drawn anew."""
    rng = np.random.default_rng(0)
    identities = {f"s{k:04d}-0": rng.normal(size=3) for k in range(IDENTITIES)}

    def gallery(a0, a1, b0):
        return embedded({"a-0": at(a0), "a-1": at(a1), "b-0": at(b0)})

    return {
        "probes": embedded({"a-2": at(0), "b-1": at(0)}),
        "gallery": gallery(0, 0, 0),
        "plain gallery": gallery(0, 0, 0),
        "cloaked gallery": gallery(90, 120, 45),
        "erased, right key": gallery(0, 1, 80),
        "erased, wrong key": gallery(180, 100, 90),
        "erased, no key": gallery(90, 1, 45),
        "enrolled impostors": embedded(impostors or identities),
        "presented impostors": embedded(identities),
    }


def trial(impostors=None):
    impostors = impostors or {f"s{k:04d}": (f"s{k:04d}-0",) for k in range(IDENTITIES)}
    return Trial(SPLIT, "pair", impostors)


def decided(seen=None, **params):
    return erasure(far=0.01, **params).decide(seen or views(), trial())


def test_who_is_accepted_by_hand():
    """Directions of impostors fill a sphere: a cosine of 0.98, 11 degrees, is what 1 % of them reach."""
    results = decided()
    for fact in results.conditions.values():
        assert fact.threshold == pytest.approx(0.98, abs=0.01)
    rows = results.rows[results.rows["protected"]]
    accepted = rows[rows["correct"]].groupby("condition")["reference"].apply(set).to_dict()
    assert accepted == {"right key": {"a-0", "a-1"}, "no key": {"a-1"}}
    assert rows.groupby("condition").size().to_dict() == dict.fromkeys(CONDITIONS, 3)
    normal = results.rows[~results.rows["protected"]]
    assert normal["correct"].all()
    assert len(normal) == 4 * 3


def test_rows_are_valid_decisions_and_say_how_far_from_the_threshold():
    results = decided()
    read = decisions.from_bytes(decisions.to_bytes(results))
    assert list(read.conditions) == list(CONDITIONS)
    rows = read.rows.set_index(["condition", "image", "reference", "protected"]).sort_index()
    row = rows.loc["right key", "b-1", "b-0", True]
    assert row["score"] == pytest.approx(np.cos(np.radians(80)), abs=1e-6)
    threshold = read.conditions["right key"].threshold
    assert row["margin"] == pytest.approx(row["score"] - threshold, abs=1e-6)
    assert pd.isna(row["predicted"])
    assert rows.loc["right key", "a-2", "a-0", True]["predicted"] == "a"


def test_the_threshold_is_the_lowest_that_accepts_the_rate_of_strangers():
    seen = views()
    rng = np.random.default_rng(5)
    moved = {
        image: vector + 0.3 * rng.normal(size=3)
        for image, vector in zip(
            seen["presented impostors"].ids, seen["presented impostors"].vectors, strict=True
        )
    }
    seen["enrolled impostors"] = embedded(moved)
    results = decided(seen)

    def unit(embeddings):
        vectors = embeddings.vectors.astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    presented = unit(seen["presented impostors"])
    for condition, enrolled in (("cloaked", "enrolled impostors"), ("right key", "presented impostors")):
        table = (unit(seen[enrolled]) @ presented.T)[~np.eye(IDENTITIES, dtype=bool)]
        fact = results.conditions[condition]
        assert (table >= fact.threshold).mean() <= 0.01 < (table >= fact.threshold - 2e-4).mean()
        assert fact.rate == pytest.approx((table >= fact.threshold).mean(), abs=1e-4)
        assert fact.rate_low <= fact.rate <= fact.rate_high
        assert (fact.rate_name, fact.rate_wanted) == ("FAR", 0.01)
        assert (fact.pairs, fact.identities) == (IDENTITIES * (IDENTITIES - 1) // 2, IDENTITIES)
    assert results.conditions["cloaked"].threshold != results.conditions["right key"].threshold
    assert results.conditions["wrong key"] == results.conditions["no key"] == results.conditions["right key"]


def test_a_photo_that_a_defence_dropped_is_not_compared_and_a_person_without_photos_not_accepted():
    seen = views()
    seen["cloaked gallery"] = embedded({"a-1": at(0)})
    rows = decided(seen).rows
    rows = rows[rows["protected"] & (rows["condition"] == "cloaked")].set_index("identity")
    assert list(rows.loc[["a"], "reference"]) == ["a-1"]
    assert rows.loc["a", "correct"]
    assert pd.isna(rows.loc["b", "reference"])
    assert not rows.loc["b", "correct"]


def test_without_a_threshold_a_condition_says_why():
    few = {f"s{k:04d}-0": np.eye(3)[k] for k in range(3)}
    results = decided(views(impostors=few))
    assert "needs 10000 impostor pairs or more; 3 identities give 3" in results.conditions["cloaked"].reason
    assert set(results.rows["condition"]) == {"right key", "wrong key", "no key"}


# --- what it asks for ---------------------------------------------------------------------------------------


def test_strangers_are_those_of_verification_so_that_their_embeddings_are_shared():
    identities = impostors(1500)
    same = VerificationProtocol().impostors(identities, 3)
    assert erasure().impostors(identities, 3) == same
    assert len(same) == 1000
    assert set(erasure(impostors=600).impostors(identities, 3)) <= set(same)


def test_too_few_strangers_for_the_rate_are_refused_with_the_number_needed():
    with pytest.raises(
        UsageError, match=r"0\.001 needs 100000 impostor pairs or more; 400 identities give 79800"
    ):
        erasure().impostors(impostors(400), 0)


def test_what_was_erased_is_not_defended_and_is_compared_with_the_originals():
    protocol = ErasureProtocol()
    states = {name: (view.state, view.key, view.defended) for name, view in protocol.views.items()}
    assert states["erased, right key"] == ("erased", "right", False)
    assert states["erased, wrong key"] == ("erased", "wrong", False)
    assert states["erased, no key"] == ("erased", "none", False)
    assert states["cloaked gallery"] == ("cloaked", "right", True)
    assert protocol.restored == {
        "right key": "erased, right key", "wrong key": "erased, wrong key", "no key": "erased, no key",
    }  # fmt: skip


def test_an_attack_that_cannot_be_erased_is_refused_and_none_is_not(tiny, cli, tmp_path):
    protocol, jpeg = ErasureProtocol(), factory.defense("jpeg")
    assert protocol.refuse(factory.attack("none"), jpeg) == ""
    assert "cannot be erased" in protocol.refuse(factory.attack("pgd"), jpeg)
    code, _, err = cli(
        "run", "--dataset", "tiny", "--protocol", "erasure", "--head", "pair", "--attack", "tiny-noise",
        "--backbone", "tiny-a", "--store", tmp_path / "store",
    )  # fmt: skip
    assert code == 2
    assert "erasure cannot measure tiny-noise × none: its cloaks cannot be erased" in err


def test_an_unknown_head_is_refused():
    with pytest.raises(UsageError, match="unknown head 'nn'"):
        erasure().decide(views(), Trial(SPLIT, "nn"))


# --- the sample attack --------------------------------------------------------------------------------------


def test_the_sample_attack_keeps_the_contract_and_its_key(pattern):
    attack = factory.attack(pattern)
    assert {finding.detail for finding in run_checks(attack)} == {""}
    images = torch.full((2, 3, 112, 112), 0.5)
    faces = Faces(images, ("p", "q"), ("p", "q"))
    ctx = Context(key=b"secret")
    cloaks = torch.stack(list(attack.cloak(faces, ctx).values()))
    assert float((cloaks - images).abs().min()) * 255 == pytest.approx(48, abs=1e-3)
    posted = faces.with_images((cloaks * 255).round() / 255)
    back = attack.erase(posted, b"secret", Context())
    assert float((back - images).abs().max()) * 255 < 0.51
    wrong = attack.erase(posted, b"another", Context())
    assert float((wrong - images).abs().mean()) * 255 > 40
    assert torch.equal(attack.erase(posted, b"", Context()), posted.images)


# --- whole runs ---------------------------------------------------------------------------------------------


def check_story(leaderboard):
    """Check that the key brings the face back, and nothing else does."""
    mine = leaderboard["attack"].str.startswith("keyed-pattern")
    rows = leaderboard[mine & (leaderboard["defense"] == "none")].set_index("condition")
    assert list(rows.index) == list(CONDITIONS)
    asr = rows["asr"].astype(float)
    assert asr["right key"] < asr["cloaked"] - 0.4
    assert min(asr["wrong key"], asr["no key"]) > asr["right key"] + 0.4
    psnr = rows["restored_psnr"].astype(float)
    assert psnr["right key"] > psnr["no key"] + 6
    assert psnr["no key"] == pytest.approx(float(rows["cloak_psnr"].iloc[0]), abs=0.01)
    assert psnr["wrong key"] < psnr["no key"]
    assert pd.isna(psnr["cloaked"])
    # Against what was posted: no key gives the cloak itself, both keys move it by the pattern.
    assert rows.loc["no key", "restored_to_cloak_unchanged"] == 1
    assert rows.loc["no key", "restored_to_cloak_reason"] == "no image was changed"
    to_cloak = rows["restored_to_cloak_psnr"].astype(float)
    assert to_cloak["right key"] == pytest.approx(
        float(rows["cloak_psnr"].iloc[0]), abs=1.0
    )  # what clips at black and white is subtracted all the same
    assert pd.isna(to_cloak[["cloaked", "no key"]]).all()
    assert psnr["wrong key"] < to_cloak["wrong key"] < psnr["right key"]
    assert rows.loc["cloaked", "restored_to_cloak_reason"] == "nothing is restored under this condition"
    none = leaderboard[(leaderboard["attack"] == "none") & (leaderboard["defense"] == "none")]
    assert len(set(none["asr"].astype(float))) == 1
    assert none["restored_psnr"].astype(float).isna().all()


def test_a_run_tells_the_story(cli, pattern, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli(
        "run", "--dataset", "synthetic:training_identities=160", "--identities", 4, "--attack", pattern,
        "--protocol", "erasure:far=0.01", "--head", "pair", "--defense", "median",
        "--backbone", "synthetic-mobilefacenet", "--threads", 1,
        "--store", tmp_path / "store", "--out", run, "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    leaderboard = pd.read_csv(run / "leaderboard.csv")
    check_story(leaderboard)
    assert set(leaderboard["threshold_for"]) == {"FAR"}
    assert set(leaderboard["threshold_pairs"]) == {160 * 159 // 2}
    # What the tracker's purifier does is in the cloaked condition alone.
    mine = leaderboard[leaderboard["attack"] == "keyed-pattern"].set_index(["defense", "condition"])["asr"]
    for condition in ("right key", "wrong key", "no key"):
        assert mine["median", condition] == mine["none", condition]


def test_seeds_have_keys_of_their_own(evaluate, pattern):
    prepared = evaluate(
        dataset="tiny:training_identities=160,training_photos=1", attacks=(pattern,), heads=("pair",),
        protocol="erasure:far=0.01", seeds=(0, 1),
    )  # fmt: skip
    cells = [cell for cell in prepared.folder.cells() if cell.attack == "keyed-pattern"]
    found = [decisions.read(prepared.folder.path / cell.decisions).rows for cell in cells]
    scores = [
        rows[rows["protected"] & (rows["condition"] == "cloaked")]["score"].to_numpy() for rows in found
    ]
    assert len(scores) == 2
    assert not np.allclose(scores[0], scores[1], atol=1e-3)


@pytest.mark.real_data
def test_real_faces(real_run, pattern):
    protocol = "erasure:far=0.01,impostors=150,max_gallery=3,max_probes=3"
    check_story(real_run(protocol=protocol, heads=("pair",), attacks=(f"{pattern}:amplitude=80",)))
