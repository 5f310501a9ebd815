"""Verification: by hand, against plain loops, and through the whole pipeline."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts import Decided, Embedded, Identity, Split, Trial, View
from bench.data.files import VARIABLE, data_folder
from bench.errors import MethodError, UsageError
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.plugins import factory as methods
from bench.protocols.verification import VerificationProtocol, dodging, impersonation, operating_points
from bench.run import decisions
from bench.stats import rates as measures

REAL = data_folder()
"""Before a fixture keeps the user's data out."""

A, B, C, D = np.eye(4, dtype=np.float32)


def verification(**params):
    return VerificationProtocol(VerificationProtocol.Params(**params))


def embedded(vectors):
    """Build embeddings from {image id "identity-number": vector}."""
    ids = tuple(vectors)
    table = np.array([vectors[i] for i in ids], dtype=np.float32).reshape(len(ids), -1)
    return Embedded(table, ids, tuple(i.rsplit("-", 1)[0] for i in ids))


def identities(n, photos=5, role="evaluation", prefix="p"):
    return [
        Identity(f"{prefix}{i:03d}", tuple(f"{prefix}{i:03d}-{k}" for k in range(photos)), role)
        for i in range(n)
    ]


# --- who, which photos, what is embedded ------------------------------------------------------------------


def test_everyone_is_protected_in_the_only_fold():
    split = verification().split(identities(12, photos=10), 3)
    assert set(split.fold.values()) == {0}
    assert split.cloaked == split.gallery
    assert {len(photos) for photos in split.gallery.values()} == {7}


def test_enrolled_photos_are_defended_and_presented_ones_are_not():
    defended = {name: view.defended for name, view in verification().views.items()}
    assert defended == {
        "gallery": True,
        "cloaked gallery": True,
        "probes": False,
        "targets": False,
        "enrolled impostors": True,
        "presented impostors": False,
    }
    assert verification().views["targets"] == View(photos="targets", defended=False)


def test_strangers_are_training_people_with_their_first_photo():
    everyone = [*identities(5), *identities(40, role="training", prefix="t")]
    drawn = verification(impostors=15).impostors(everyone, 0)
    assert len(drawn) == 15
    assert all(name.startswith("t") and photos == (f"{name}-0",) for name, photos in drawn.items())
    assert verification(impostors=15).impostors(everyone[::-1], 0) == drawn
    assert verification(impostors=15).impostors(everyone, 1) != drawn
    assert len(verification().impostors(everyone, 0)) == 40  # all there are
    with pytest.raises(UsageError, match="identities that are not evaluated, found 1"):
        verification().impostors([*identities(5), *identities(1, role="training", prefix="t")], 0)


def test_rates_are_written_as_text():
    protocol = factory.protocol("verification:far=0.05|0.01,impostors=300")
    assert protocol.params.far == (0.05, 0.01)
    assert methods.canonical(protocol) == "verification:far=0.05|0.01,impostors=300"
    assert methods.canonical(factory.protocol("verification:far=0.1|0.01|0.001")) == "verification"


@pytest.mark.parametrize("far", ["0", "1", "0.1|0.1", "", "0.1|2"])
def test_rates_that_make_no_sense_are_refused(far):
    with pytest.raises(UsageError, match="between 0 and 1 and named once"):
        factory.protocol(f"verification:far={far}")


def test_cosines_are_written_as_text():
    protocol = factory.protocol("verification:cosine=0.49|-0.2")
    assert protocol.params.cosine == (0.49, -0.2)
    assert methods.canonical(protocol) == "verification:cosine=0.49|-0.2"


@pytest.mark.parametrize("cosine", ["1.01", "-2", "0.3|0.3"])
def test_cosines_that_make_no_sense_are_refused(cosine):
    with pytest.raises(UsageError, match="between -1 and 1, each named once"):
        factory.protocol(f"verification:cosine={cosine}")


@pytest.mark.parametrize(
    ("requested", "named"),
    [
        ("cosine=0.4900001|0.49", "0.4900001 and 0.49 are both printed as 'cosine 0.49'"),
        ("far=0.1|0.01|0.010000001", "0.01 and 0.010000001 are both printed as 'FAR 1 %'"),
    ],
)
def test_values_that_would_share_a_condition_are_refused(requested, named):
    with pytest.raises(UsageError, match=f"(?i){named}"):
        factory.protocol(f"verification:{requested}")
    near = factory.protocol("verification:cosine=0.49001|0.49,far=0.01|0.0100001")
    assert (len(near.params.cosine), len(near.params.far)) == (2, 2)


# --- by hand ----------------------------------------------------------------------------------------------


def listed(rows):
    """Return rows as tuples, with None for what is empty."""
    plain = rows.astype(object)
    return list(plain.where(plain.notna(), None).itertuples(index=False, name=None))


SPLIT = Split(
    gallery={"a": ("a-0", "a-1"), "b": ("b-0",)},
    probes={"a": ("a-2",), "b": ("b-1", "b-2")},
    fold={"a": 0, "b": 0},
    cloaked={"a": ("a-0",), "b": ("b-0",)},
)


def hand_views():
    """Build a cloak of a's first photo that turns it into target t, and b's that does nothing."""
    return {
        "gallery": embedded({"a-0": A, "a-1": A + B, "b-0": B}),
        "cloaked gallery": embedded({"a-0": C, "b-0": B}),
        "probes": embedded({"a-2": A, "b-1": B, "b-2": A}),
        "targets": embedded({"t-0": C, "t-1": C + D, "u-0": D}),
    }


TARGET_ASSIGNMENT = {"a-0": "t", "b-0": "u"}


def test_dodging_by_hand():
    rows = dodging(hand_views(), Trial(SPLIT, "pair")).at(0.5)
    slanted = np.float32(1 / np.sqrt(2))
    expected = [
        (0, "a", "a-2", "a-0", True, None, False, 0.0),  # hidden by the cloak
        (0, "a", "a-2", "a-1", True, "a", True, slanted),  # not cloaked
        (0, "b", "b-1", "b-0", True, "b", True, 1.0),
        (0, "b", "b-2", "b-0", True, None, False, 0.0),
        (1, "a", "a-2", "a-0", False, "a", True, 1.0),
        (1, "a", "a-2", "a-1", False, "a", True, slanted),
        (1, "b", "b-1", "b-0", False, "b", True, 1.0),
        (1, "b", "b-2", "b-0", False, None, False, 0.0),
    ]
    columns = ["fold", "identity", "image", "reference", "protected", "predicted", "correct", "score"]
    assert listed(rows[columns]) == expected
    np.testing.assert_allclose(rows["margin"], rows["score"] - 0.5, atol=1e-6)
    rates = measures.per_identity(rows)
    assert rates["asr"].to_dict() == {"a": 0.5, "b": 0.5}
    assert rates["normal_accuracy"].to_dict() == {"a": 1.0, "b": 0.5}
    assert rates["n_probes"].to_dict() == {"a": 1, "b": 2}


def test_impersonation_by_hand():
    rows = impersonation(hand_views(), Trial(SPLIT, "pair", target_assignment=TARGET_ASSIGNMENT)).at(0.5)
    expected = [
        (0, "a", "a-0", "t-0", True, "t", False),
        (0, "a", "a-0", "t-1", True, "t", False),
        (0, "b", "b-0", "u-0", True, None, True),
        (1, "a", "a-0", "t-0", False, None, True),
        (1, "a", "a-0", "t-1", False, None, True),
        (1, "b", "b-0", "u-0", False, None, True),
    ]
    columns = ["fold", "identity", "image", "reference", "protected", "predicted", "correct"]
    assert listed(rows[columns]) == expected
    # ASR of impersonation is the share of accepted comparisons.
    assert measures.per_identity(rows)["asr"].to_dict() == {"a": 1.0, "b": 0.0}
    assert measures.summarize_decisions(rows).normal_accuracy.value == 1


def test_a_score_at_the_threshold_is_accepted():
    comparisons = dodging(hand_views(), Trial(SPLIT, "pair"))
    top = float(comparisons.score.max())
    assert (comparisons.at(top)["predicted"].notna() == (comparisons.score == top)).all()
    assert comparisons.at(np.nextafter(top, 2))["predicted"].isna().all()


def test_photos_a_defence_dropped_are_not_compared():
    views = hand_views()
    views["cloaked gallery"] = embedded({"b-0": B})
    rows = dodging(views, Trial(SPLIT, "pair")).at(0.5)
    protected = rows[rows["protected"] & (rows["identity"] == "a")]
    assert protected["reference"].tolist() == ["a-1"]
    views["gallery"] = embedded({"b-0": B})
    rows = dodging(views, Trial(SPLIT, "pair")).at(-1.0)
    left = rows[rows["identity"] == "a"]
    assert left["reference"].isna().all()
    assert left["score"].isna().all()
    assert not left["correct"].any()
    assert left["fold"].tolist() == [0, 1]
    other = impersonation(views, Trial(SPLIT, "pair", target_assignment=TARGET_ASSIGNMENT)).at(-1.0)
    assert other.loc[other["identity"] == "a", "predicted"].isna().all()
    assert other.loc[other["identity"] == "a", "correct"].all()
    for found in (rows, other):
        decisions.to_bytes(Decided(found))


def test_a_cloak_that_imitates_nobody_known_is_a_method_error():
    for target_assignment in ({"a-0": "t"}, {"a-0": "t", "b-0": "nobody"}):
        with pytest.raises(MethodError, match="the cloak of 'b-0' aims at"):
            impersonation(hand_views(), Trial(SPLIT, "pair", target_assignment=target_assignment))


def test_a_missing_probe_is_a_method_error():
    views = hand_views() | {"probes": embedded({"a-2": A})}
    with pytest.raises(MethodError, match="2 of 3 probes have no embedding"):
        dodging(views, Trial(SPLIT, "pair"))


# --- random cells -----------------------------------------------------------------------------------------


def random_cell(seed, impostors=150, targets=4, **params):
    """Build views in which cloaks are drawn towards targets and impostors are a crowd."""
    protocol = verification(**params)
    rng = np.random.default_rng(seed)
    names = identities(5, photos=7)
    split = protocol.split(names, seed)
    centre = {one.id: rng.normal(size=6) for one in names}
    photo = {image: centre[one.id] + 0.5 * rng.normal(size=6) for one in names for image in one.photos}
    imitated = {f"t{i}-{k}": rng.normal(size=6) for i in range(targets) for k in range(3)}
    crowd = {f"s{i:03d}-0": rng.normal(size=6) for i in range(impostors)}
    target_assignment = {
        image: f"t{rng.integers(targets)}" for images in split.cloaked.values() for image in images
    }

    def view(photos, change=lambda image: 0):
        return embedded({i: photo[i] + change(i) for images in photos.values() for i in images})

    views = {
        "gallery": view(split.gallery),
        "cloaked gallery": view(split.cloaked, lambda image: 1.5 * imitated[f"{target_assignment[image]}-0"]),
        "probes": view(split.probes),
        "targets": embedded(imitated),
        "enrolled impostors": embedded({i: v + 0.1 * rng.normal(size=6) for i, v in crowd.items()}),
        "presented impostors": embedded(crowd),
    }
    impostors = {name.rsplit("-", 1)[0]: (name,) for name in crowd}
    return protocol, views, Trial(split, "pair", impostors, target_assignment)


def loops(views, trial, thresholds):
    """Decide by the definition: {(condition, protected, image, reference): accepted}."""
    vectors = {
        name: dict(zip(view.ids, view.vectors.astype(np.float64), strict=True))
        for name, view in views.items()
    }

    def cosine(a, b):
        return np.float32(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    results = {}
    for (name, threshold), protected, identity in itertools.product(
        thresholds.items(), (True, False), trial.split.gallery
    ):
        cloaked = trial.split.cloaked[identity]
        for image in trial.split.gallery[identity]:
            enrolled = vectors["cloaked gallery" if protected and image in cloaked else "gallery"][image]
            if name.startswith("dodging"):
                for probe in trial.split.probes[identity]:
                    score = cosine(vectors["probes"][probe], enrolled)
                    results[name, protected, probe, image] = score >= threshold
            elif image in cloaked:
                for target, vector in vectors["targets"].items():
                    if target.startswith(trial.target_assignment[image] + "-"):
                        results[name, protected, image, target] = cosine(enrolled, vector) >= threshold
    return results


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.4, 1.0]))
def test_decisions_agree_with_loops_over_the_definition(seed, share):
    protocol, views, trial = random_cell(seed, far=(0.1, 0.02), cloaked_share=share)
    decided = protocol.decide(views, trial)
    rows = decided.rows
    thresholds = {name: fact.threshold for name, fact in decided.conditions.items()}
    key = ["condition", "protected", "image", "reference"]
    found = dict(zip(rows[key].itertuples(index=False, name=None), rows["predicted"].notna(), strict=True))
    assert found == loops(views, trial, thresholds)
    answered = rows[rows["predicted"].notna()]
    claimed = np.where(
        answered["condition"].str.startswith("dodging"),
        answered["identity"],
        answered["image"].map(trial.target_assignment),
    )
    assert (answered["predicted"] == claimed).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_a_higher_rate_accepts_all_that_a_lower_one_does(seed):
    rates = (0.3, 0.1, 0.02)
    protocol, views, trial = random_cell(seed, far=rates)
    decided = protocol.decide(views, trial)
    for question in ("dodging", "impersonation"):
        names = [f"{question}, FAR {100 * rate:g} %" for rate in rates]
        facts = [decided.conditions[name] for name in names]
        assert [fact.rate_wanted for fact in facts] == list(rates)
        assert all(0.8 * fact.rate_wanted < fact.rate <= fact.rate_wanted for fact in facts)
        assert all(fact.rate_low < fact.rate < fact.rate_high for fact in facts)
        assert {(fact.rate_name, fact.pairs, fact.identities) for fact in facts} == {("FAR", 11_175, 150)}
        accepted = [
            decided.rows[decided.rows["condition"] == name]
            .set_index(["fold", "image", "reference"])["predicted"]
            .notna()
            for name in names
        ]
        for more, fewer in itertools.pairwise(accepted):
            assert (more | ~fewer).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_the_views_does_not_matter(seed):
    protocol, views, trial = random_cell(seed, far=(0.1,))
    rng = np.random.default_rng(seed)

    def shuffled(view):
        order = rng.permutation(len(view.ids))
        ids, names = (tuple(values[i] for i in order) for values in (view.ids, view.identities))
        return Embedded(view.vectors[order], ids, names)

    mixed = {name: shuffled(view) for name, view in views.items()}
    one, other = (decisions.to_bytes(protocol.decide(v, trial)) for v in (views, mixed))
    assert one == other


def test_nobody_elses_photos_matter():
    protocol, views, trial = random_cell(4, far=(0.1,))
    decided = protocol.decide(views, trial).rows
    without = {
        name: {k: v for k, v in getattr(trial.split, name).items() if k != "p000"}
        for name in ("gallery", "probes", "fold", "cloaked")
    }
    fewer = protocol.decide(views, replace(trial, split=Split(**without))).rows
    left = decided[decided["identity"] != "p000"].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer, left)


def test_people_whom_cloaks_imitate_set_no_threshold():
    protocol, views, trial = random_cell(2, far=(0.1,))
    also = {
        side: Embedded(
            np.concatenate([views[side].vectors, np.tile(views["targets"].vectors[:1], (30, 1))]),
            (*views[side].ids, *(f"t0-{k + 10}" for k in range(30))),
            (*views[side].identities, *["t0"] * 30),
        )
        for side in ("enrolled impostors", "presented impostors")
    }
    assert protocol.decide(views | also, trial).conditions == protocol.decide(views, trial).conditions


def test_an_attack_that_imitates_nobody_is_only_asked_for_dodging():
    protocol, views, trial = random_cell(1, far=(0.1, 0.02))
    decided = protocol.decide(views, replace(trial, target_assignment={}))
    assert set(decided.rows["condition"]) == {"dodging, FAR 10 %", "dodging, FAR 2 %"}
    reasons = {name: fact.reason for name, fact in decided.conditions.items()}
    assert reasons == {
        "dodging, FAR 10 %": "",
        "dodging, FAR 2 %": "",
        "impersonation, FAR 10 %": "the attack imitates nobody in particular",
        "impersonation, FAR 2 %": "the attack imitates nobody in particular",
    }


def test_too_few_strangers_for_a_rate_give_its_reason_and_no_rows():
    protocol, views, trial = random_cell(1, impostors=60, far=(0.1, 0.01))
    decided = protocol.decide(views, trial)
    assert set(decided.rows["condition"]) == {"dodging, FAR 10 %", "impersonation, FAR 10 %"}
    fact = decided.conditions["dodging, FAR 1 %"]
    assert (fact.threshold, fact.rate, fact.rate_wanted) == (None, None, 0.01)
    assert "needs 10000 impostor pairs or more; 60 identities give 1770" in fact.reason
    nothing = verification(far=(0.001,)).decide(views, trial)
    assert len(nothing.rows) == 0
    back = decisions.from_bytes(decisions.to_bytes(nothing))
    assert len(back.rows) == 0
    assert all("needs 100000 impostor pairs" in fact.reason for fact in back.conditions.values())


def test_thresholds_take_the_defence_of_the_enrolled_side_into_account():
    _, views, _ = random_cell(3)
    enrolled, presented = views["enrolled impostors"], views["presented impostors"]
    constant = Embedded(np.tile(A.repeat(2)[:6], (len(enrolled.ids), 1)), enrolled.ids, enrolled.identities)
    plain, blurred = (
        operating_points(side, presented, [0.1])[0.1].threshold for side in (presented, constant)
    )
    assert plain != blurred
    dropped = Embedded(enrolled.vectors[1:], enrolled.ids[1:], enrolled.identities[1:])
    assert operating_points(dropped, presented, [0.1])[0.1].identities == 149


def test_a_fixed_cosine_decides_as_it_says_and_has_its_measured_rate():
    _, views, trial = random_cell(3)
    fixed = verification(cosine=(0.49,)).decide(views, trial)
    plain = verification().decide(views, trial)
    added = {"dodging, cosine 0.49", "impersonation, cosine 0.49"}
    assert set(fixed.conditions) - set(plain.conditions) == added
    old = fixed.rows[~fixed.rows["condition"].isin(added)].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        old.sort_values(["condition", "image", "reference", "fold"], ignore_index=True),
        plain.rows.sort_values(["condition", "image", "reference", "fold"], ignore_index=True),
    )
    for name in added:
        rows = fixed.rows[fixed.rows["condition"] == name]
        assert len(rows)
        assert (rows["predicted"].notna() == (rows["score"] >= 0.49)).all()
    fact = fixed.conditions["dodging, cosine 0.49"]
    enrolled, presented = views["enrolled impostors"], views["presented impostors"]
    gone = set(views["targets"].identities)
    hits = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.49
        for a, i in zip(enrolled.vectors, enrolled.identities, strict=True)
        for b, j in zip(presented.vectors, presented.identities, strict=True)
        if i != j and not {i, j} & gone
    ]
    assert (fact.threshold, fact.rate_name, fact.rate_wanted) == (0.49, "FAR", None)
    assert fact.pairs == len(hits) / 2
    assert fact.rate == pytest.approx(np.mean(hits))
    assert fact.rate_low <= fact.rate <= fact.rate_high


def test_a_fixed_cosine_needs_no_strangers_to_decide():
    _, views, trial = random_cell(3, impostors=1)
    decided = verification(cosine=(0.49,)).decide(views, trial)
    fact = decided.conditions["dodging, cosine 0.49"]
    assert (fact.threshold, fact.rate, fact.pairs) == (0.49, None, 0)
    assert fact.reason.endswith("needs two impostors or more, found 1")
    assert "dodging, cosine 0.49" in set(decided.rows["condition"])


def test_an_unknown_head_is_a_usage_error():
    protocol, views, trial = random_cell(1)
    with pytest.raises(UsageError, match="unknown head 'nn'"):
        protocol.decide(views, replace(trial, head="nn"))


# --- whole runs -------------------------------------------------------------------------------------------

IMITATING = '''
"""Posts the face of one's target."""
from bench.contracts import Attack, ThreatModel


class Imitating(Attack):
    name = "imitating"
    threat = ThreatModel(goal="targeted", needs_targets=True)

    def assign_targets(self, faces, ctx):
        identities = sorted(set(ctx.targets.identities))
        return {image: identities[int(identity[-2:]) % len(identities)] for image, identity in
        zip(faces.ids, faces.identities)}

    def cloak(self, faces, ctx):
        ctx.advance(len(faces))
        target_assignment = self.assign_targets(faces, ctx)
        names = list(ctx.targets.identities)
        return {image: ctx.targets.images[names.index(target_assignment[image])] for image in faces.ids}
'''


def test_a_run_asks_both_questions(evaluate, tmp_path):
    (tmp_path / "imitating.py").write_text(IMITATING)
    prepared = evaluate(
        dataset="tiny:training_identities=150",
        protocol="verification:far=0.2|0.001,impostors=150",
        attacks=(f"{tmp_path / 'imitating.py'}:Imitating", "tiny-noise"),
        defenses=("jpeg",),
        heads=("pair",),
    )
    leaderboard = build(prepared.folder)
    assert set(leaderboard["status"]) == {"ok"}
    requested = leaderboard[(leaderboard["defense"] == "jpeg")].set_index(["attack", "condition"])
    imitating = next(name for name in leaderboard["attack"] if "mitating" in name)
    row = requested.loc[(imitating, "impersonation, FAR 20 %")]
    # The target's own photo is one of the two it is compared with.
    assert 0.5 <= row["asr"] <= 1
    assert row["asr"] > 1 - row["normal_accuracy"]
    assert row["threshold_for"] == "FAR"
    assert row["threshold_rate_low"] < 0.2 < row["threshold_rate_high"] + 0.01
    assert requested.loc[("tiny-noise", "impersonation, FAR 20 %"), "condition_reason"].startswith(
        "the attack imitates"
    )
    assert "impostor pairs" in requested.loc[(imitating, "dodging, FAR 0.1 %"), "condition_reason"]
    assert pd.isna(requested.loc[(imitating, "dodging, FAR 0.1 %"), "asr"])


@pytest.mark.slow
def test_the_command_runs_it_on_rendered_faces(command, tmp_path):
    process = command(
        "run", "--protocol", "verification:far=0.1|0.01,impostors=220", "--dataset", "synthetic",
        "--backbone", "synthetic-mobilefacenet", "--attack", "pgd:steps=2", "--defense", "jpeg",
        "--identities", "6", "--head", "pair", "--threads", "1", "--store", tmp_path / "store",
        "--out", tmp_path / "run", "--csv", tmp_path / "table.csv",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    leaderboard = pd.read_csv(tmp_path / "table.csv")
    assert set(leaderboard["condition"]) == {
        f"{question}, FAR {rate} %" for question in ("dodging", "impersonation") for rate in (1, 10)
    }
    dodged = leaderboard[leaderboard["condition"].str.startswith("dodging")]
    assert (dodged["n_identities"] == 6).all()
    assert dodged["threshold"].between(-1, 1).all()
    assert (dodged["threshold_rate_low"] < dodged["threshold_rate"]).all()
    natural = dodged[(dodged["attack"] == "none") & (dodged["defense"] == "none")].set_index("threshold_rate")
    np.testing.assert_allclose(natural["asr"], 1 - natural["normal_accuracy"], atol=1e-6)
    assert natural.loc[0.1, "asr"] <= natural.loc[0.01, "asr"]


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw folder")
def test_natural_photos_of_lfw_are_verified(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(REAL))
    from bench.run.planning import Options, prepare
    from bench.run.runner import execute
    from bench.run.spec import make_spec

    spec = make_spec(
        {
            "dataset": "lfw",
            "protocol": "verification:far=0.1|0.01,impostors=220",
            "attacks": ("none",),
            "defenses": ("none",),
            "backbones": ("mobilefacenet-relu6",),
            "heads": ("pair",),
            "identities": 6,
        }
    )
    prepared = prepare(
        spec, Options(threads=1, store=tmp_path / "store", out=tmp_path / "run", batch_size=64)
    )
    execute(prepared)
    leaderboard = build(prepared.folder).set_index("condition")
    card = {t.far: t.cosine for t in factory.backbone("mobilefacenet-relu6").card.thresholds}
    for rate in (0.1, 0.01):
        row = leaderboard.loc[f"dodging, FAR {100 * rate:g} %"]
        assert row["normal_accuracy"] > 0.95
        assert row["threshold"] == pytest.approx(card[rate], abs=0.03)  # other impostors, the same backbone
