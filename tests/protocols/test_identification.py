"""Identification: by hand, against plain loops, and through the whole pipeline."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts import Embedded, Identity, Split, Trial
from bench.data.files import VARIABLE, data_folder
from bench.errors import UsageError
from bench.leaderboard.table import build
from bench.plugins import factory
from bench.plugins import factory as methods
from bench.protocols.identification import IdentificationProtocol, deal_roles, decoys_of, ranks_of
from bench.protocols.tracker import TrackerProtocol
from bench.run import decisions
from bench.stats import rates as measures

REAL = data_folder()
"""Before a fixture keeps the user's data out."""

HEADS = IdentificationProtocol.heads


def identification(**params):
    return IdentificationProtocol(IdentificationProtocol.Params(**params))


def embedded(vectors):
    """Build embeddings from {image id "identity-number": vector}."""
    ids = tuple(vectors)
    table = np.array([vectors[i] for i in ids], dtype=np.float32).reshape(len(ids), -1)
    return Embedded(table, ids, tuple(i.rsplit("-", 1)[0] for i in ids))


def identities(n, photos=6, role="evaluation", prefix="p"):
    return [
        Identity(f"{prefix}{i:04d}", tuple(f"{prefix}{i:04d}-{k}" for k in range(photos)), role)
        for i in range(n)
    ]


def listed(rows):
    """Return rows as tuples, with None for what is empty."""
    plain = rows.astype(object)
    return list(plain.where(plain.notna(), None).itertuples(index=False, name=None))


# --- who, which photos, what is embedded ------------------------------------------------------------------


def test_what_goes_through_the_defence():
    defended = {name: view.defended for name, view in identification().views.items()}
    assert defended == {
        "gallery": True,
        "cloaked gallery": True,
        "probes": False,
        "enrolled impostors": True,
        "decoys": True,
        "presented impostors": False,
    }
    assert "enrolled impostors" not in identification(distractors=0).views
    assert "presented impostors" not in identification(fpir=None).views
    assert set(identification(distractors=0, fpir=None).views) == {"gallery", "cloaked gallery", "probes"}


def test_the_background_is_drawn_and_dealt_into_disjoint_roles():
    others = [*identities(9), *identities(100, role="training", prefix="t")]
    protocol = identification(distractors=30, impostors=20)
    drawn = protocol.impostors(others, 0)
    assert len(drawn) == 50
    assert all(name.startswith("t") and photos == (f"{name}-0",) for name, photos in drawn.items())
    assert protocol.impostors(others[::-1], 0) == drawn != protocol.impostors(others, 1)
    roles = deal_roles(drawn, 30)
    parts = [set(part) for part in (roles.distractors, roles.setting, roles.testing)]
    assert [len(part) for part in parts] == [30, 10, 10]
    assert set.union(*parts) == set(drawn)
    assert deal_roles(dict(reversed(drawn.items())), 30) == roles
    assert identification(distractors=0, fpir=None).impostors(others, 0) == {}


def test_too_few_people_are_refused_with_what_would_do():
    others = identities(101, role="training", prefix="t")
    with pytest.raises(
        UsageError, match=r"needs 3000 identities .*\(distractors=1000, impostors=2000\), the dataset has 101"
    ) as refusal:
        identification().impostors(others, 0)
    named = str(refusal.value).rpartition("e.g. ")[2].rstrip(".")
    assert named == "identification:distractors=51,impostors=50,fpir=0.2"
    assert len(factory.protocol(named).impostors(others, 0)) == 101
    with pytest.raises(
        UsageError, match=r"\(distractors=102\), .* e\.g\. identification:distractors=101,fpir=none"
    ):
        identification(distractors=102, fpir=None).impostors(others, 0)


def test_parameters_are_written_as_text():
    protocol = factory.protocol("identification:ranks=1|3,distractors=0,fpir=none")
    assert (protocol.params.ranks, protocol.params.distractors, protocol.params.fpir) == ((1, 3), 0, None)
    assert methods.canonical(protocol) == "identification:distractors=0,fpir=none,ranks=1|3"
    for text in ("ranks=0", "ranks=1|1", "ranks="):
        with pytest.raises(UsageError, match="at least 1 and named once"):
            factory.protocol(f"identification:{text}")


# --- by hand ----------------------------------------------------------------------------------------------

SPLIT = Split(
    gallery={"a": ("a-0",), "b": ("b-0",), "c": ("c-0",)},
    probes={"a": ("a-1",), "b": ("b-1",), "c": ("c-1",)},
    fold={"a": 0, "b": 1, "c": 1},
    cloaked={"a": ("a-0",), "b": ("b-0",), "c": ("c-0",)},
)


def angle(degrees):
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


def hand_views():
    """Everyone is an angle: a at 0°, b at 20°, c at 60°, a distractor at 10°; a's cloak is at 40°."""
    return {
        "gallery": embedded({"a-0": angle(0), "b-0": angle(20), "c-0": angle(60)}),
        "cloaked gallery": embedded({"a-0": angle(40), "b-0": angle(20), "c-0": angle(60)}),
        "probes": embedded({"a-1": angle(1), "b-1": angle(14), "c-1": angle(61)}),
        "enrolled impostors": embedded({"d-0": angle(10)}),
    }


@pytest.mark.parametrize("head", HEADS)
def test_a_distractor_of_several_views_is_one_identity_with_all_of_them(head):
    protocol = identification(ranks=(1,), distractors=2, fpir=None)
    split = replace(SPLIT, cloaked=dict.fromkeys(SPLIT.cloaked, ()))
    # d's views are at 5° and 95°, e's at 70° and 72°; the mean of d's is at 50°.
    enrolled = Embedded(
        np.array([angle(5), angle(70), angle(95), angle(72)]), ("d-0", "e-0") * 2, ("d", "e") * 2
    )
    views = hand_views() | {"enrolled impostors": enrolled}
    views["probes"] = embedded({"a-1": angle(4), "b-1": angle(48), "c-1": angle(69)})
    rows = protocol.decide(views, Trial(split, head, {"d": ("d-0",), "e": ("e-0",)})).rows
    first = rows[rows["fold"] == 0].set_index("image")["predicted"].to_dict()
    assert first == {"a-1": "d" if head == "nn" else "a", "b-1": "c" if head == "nn" else "d", "c-1": "e"}


@pytest.mark.parametrize("head", HEADS)
def test_ranks_by_hand(head):
    protocol = identification(ranks=(1, 2, 3), distractors=1, fpir=None)
    decided = protocol.decide(hand_views(), Trial(SPLIT, head, {"d": ("d-0",)}))
    columns = ["condition", "fold", "identity", "protected", "predicted", "correct"]
    assert listed(decided.rows[columns]) == [
        ("rank 1", 0, "a", True, "d", False),  # 1° is nearest to the distractor once a is at 40°
        ("rank 1", 0, "b", False, "d", False),  # 14°: d at 10°, then b at 20°
        ("rank 1", 0, "c", False, "c", True),
        ("rank 1", 1, "a", False, "a", True),
        ("rank 1", 1, "b", True, "d", False),
        ("rank 1", 1, "c", True, "c", True),
        ("rank 2", 0, "a", True, "d", False),  # d, b, a
        ("rank 2", 0, "b", False, "b", True),
        ("rank 2", 0, "c", False, "c", True),
        ("rank 2", 1, "a", False, "a", True),
        ("rank 2", 1, "b", True, "b", True),
        ("rank 2", 1, "c", True, "c", True),
        ("rank 3", 0, "a", True, "a", True),
        ("rank 3", 0, "b", False, "b", True),
        ("rank 3", 0, "c", False, "c", True),
        ("rank 3", 1, "a", False, "a", True),
        ("rank 3", 1, "b", True, "b", True),
        ("rank 3", 1, "c", True, "c", True),
    ]
    third = decided.rows[(decided.rows["condition"] == "rank 3") & (decided.rows["fold"] == 0)].iloc[0]
    assert third["score"] == pytest.approx(np.cos(np.radians(39)))
    assert third["margin"] == pytest.approx(np.cos(np.radians(39)) - np.cos(np.radians(9)), abs=1e-6)


def test_a_rank_that_holds_everyone_is_given_as_a_reason():
    protocol = identification(ranks=(1, 4, 5), distractors=1, fpir=None)
    decided = protocol.decide(hand_views(), Trial(SPLIT, "nn", {"d": ("d-0",)}))
    assert set(decided.rows["condition"]) == {"rank 1"}
    assert decided.conditions["rank 4"].reason == "everyone is among the 4 best of 4 identities"
    decisions.to_bytes(
        identification(ranks=(9,), distractors=1, fpir=None).decide(
            hand_views(), Trial(SPLIT, "nn", {"d": ("d-0",)})
        )
    )


def test_without_distractors_rank_1_is_the_trackers_answer():
    views = hand_views()
    closed = identification(ranks=(1,), distractors=0, fpir=None)
    found = closed.decide(views, Trial(SPLIT, "nn")).rows.drop(columns="condition")
    pd.testing.assert_frame_equal(found, TrackerProtocol().decide(views, Trial(SPLIT, "nn")).rows)


def test_a_person_without_a_photo_left_has_no_rank():
    views = hand_views()
    views["gallery"] = views["cloaked gallery"] = embedded({"b-0": angle(20), "c-0": angle(60)})
    rows = (
        identification(ranks=(3,), distractors=1, fpir=None)
        .decide(views, Trial(SPLIT, "nn", {"d": ("d-0",)}))
        .rows
    )
    assert not rows.loc[rows["identity"] == "a", "correct"].any()
    assert rows.loc[rows["identity"] == "a", "margin"].isna().all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 9))
def test_ranks_are_places_in_a_stable_sort(seed, probes, classes):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=(probes, classes)).astype(np.float32)  # many ties
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    labels = rng.integers(classes, size=probes)
    for row, label, rank in zip(scores, labels, ranks_of(scores, labels), strict=True):
        order = sorted(range(classes), key=lambda k: (-row[k], k))
        assert rank == (1 + order.index(label) if np.isfinite(row[label]) else np.iinfo(np.intp).max)


# --- random cells -----------------------------------------------------------------------------------------


def random_cell(seed, distractors=12, impostors=60, noise=0.7, **params):
    """Build views of 6 identities whose cloaks are elsewhere, distractors and impostors."""
    protocol = identification(folds=3, distractors=distractors, impostors=impostors, **params)
    rng = np.random.default_rng(seed)
    names = identities(6)
    split = protocol.split(names, seed)
    impostors = protocol.impostors(identities(distractors + impostors, 1, "training", f"s{seed}-"), seed)
    centre = {one.id: rng.normal(size=5) for one in names}
    photo = {image: centre[one.id] + noise * rng.normal(size=5) for one in names for image in one.photos}
    cloak = {image: vector + 1.5 * rng.normal(size=5) for image, vector in photo.items()}
    crowd = {image: rng.normal(size=5) for images in impostors.values() for image in images}

    def view(photos, vectors):
        return embedded({i: vectors[i] for images in photos.values() for i in images})

    views = {
        "gallery": view(split.gallery, photo),
        "cloaked gallery": view(split.cloaked, cloak),
        "probes": view(split.probes, photo),
        "enrolled impostors": embedded(crowd),
        "presented impostors": embedded({i: v + 0.1 * rng.normal(size=5) for i, v in crowd.items()}),
    }
    return protocol, views, Trial(split, "nn", impostors)


def loop_scores(views, trial, fold, vector, enrolled):
    """Return {identity in the gallery: score by nn} of one photo in one rotation."""
    tables = {name: dict(zip(v.ids, v.vectors.astype(np.float64), strict=True)) for name, v in views.items()}

    def cosine(a, b):
        return np.float32(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    scores = {}
    for identity, images in trial.split.gallery.items():
        hidden = trial.split.cloaked[identity] if trial.split.fold[identity] == fold else ()
        scores[identity] = max(
            cosine(vector, tables["cloaked gallery" if image in hidden else "gallery"][image])
            for image in images
        )
    for identity in enrolled:
        (image,) = trial.impostors[identity]
        scores[identity] = cosine(vector, tables["enrolled impostors"][image])
    return scores


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_decisions_agree_with_loops_over_the_definition(seed):
    protocol, views, trial = random_cell(seed, ranks=(1, 4), fpir=0.2)
    decided = protocol.decide(views, trial)
    roles = deal_roles(trial.impostors, 12)
    fact = decided.conditions["open set, FPIR 20 %"]
    by_name = {name: dict(zip(v.ids, v.vectors.astype(np.float64), strict=True)) for name, v in views.items()}
    for row in decided.rows.itertuples():
        scores = loop_scores(views, trial, row.fold, by_name["probes"][row.image], roles.distractors)
        ranked = sorted(scores, key=lambda name: -scores[name])
        if row.condition == "open set, FPIR 20 %":
            answer = ranked[0] if scores[ranked[0]] >= fact.threshold else None
        else:
            k = int(row.condition.removeprefix("rank "))
            answer = row.identity if row.identity in ranked[:k] else ranked[0]
        assert (None if pd.isna(row.predicted) else row.predicted) == answer
        assert row.correct == (answer == row.identity)

    def rates(impostors):
        found = []
        for identity in impostors:
            seen = by_name["presented impostors"][trial.impostors[identity][0]]
            tops = [max(loop_scores(views, trial, k, seen, roles.distractors).values()) for k in range(3)]
            found.append(np.mean([top >= fact.threshold for top in tops]))
        return np.mean(found)

    assert 0.15 < rates(roles.setting) <= 0.2
    assert fact.rate == pytest.approx(rates(roles.testing))
    assert (fact.rate_name, fact.rate_wanted, fact.pairs, fact.identities) == ("FPIR", 0.2, 30, 30)
    assert fact.rate_low <= fact.rate <= fact.rate_high


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(HEADS))
def test_more_ranks_recognise_more_and_a_threshold_less(seed, head):
    protocol, views, trial = random_cell(seed, ranks=(1, 3, 8), fpir=0.2)
    rows = protocol.decide(views, replace(trial, head=head)).rows
    by = {
        name: part.set_index(["fold", "image"])["correct"].sort_index()
        for name, part in rows.groupby("condition")
    }
    assert (by["rank 1"] <= by["rank 3"]).all()
    assert (by["rank 3"] <= by["rank 8"]).all()
    assert (by["open set, FPIR 20 %"] <= by["rank 1"]).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_more_distractors_never_help(seed):
    protocol, views, trial = random_cell(seed, ranks=(1, 3), fpir=None, impostors=2)
    few = identification(folds=3, distractors=4, ranks=(1, 3), fpir=None)
    fewer = {name: trial.impostors[name] for name in deal_roles(trial.impostors, 4).distractors}
    more, less = (
        one.decide(views, replace(trial, impostors=impostors)).rows.sort_values(
            ["condition", "fold", "image"], ignore_index=True
        )
        for one, impostors in ((protocol, trial.impostors), (few, fewer))
    )
    assert (more["correct"] <= less["correct"]).all()
    assert measures.summarize_decisions(more).n_probes == measures.summarize_decisions(less).n_probes


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(HEADS))
def test_the_order_of_the_views_does_not_matter(seed, head):
    protocol, views, trial = random_cell(seed, ranks=(1, 3), fpir=0.2)
    rng = np.random.default_rng(seed)

    def shuffled(view):
        order = rng.permutation(len(view.ids))
        ids, names = (tuple(values[i] for i in order) for values in (view.ids, view.identities))
        return Embedded(view.vectors[order], ids, names)

    mixed = {name: shuffled(view) for name, view in views.items()}
    one, other = (decisions.to_bytes(protocol.decide(v, replace(trial, head=head))) for v in (views, mixed))
    assert one == other


def test_the_measured_fpir_is_near_the_one_asked_for():
    """Over many deals of impostors, whom the threshold has never seen."""
    rates = []
    for seed in range(60):
        protocol, views, trial = random_cell(seed, impostors=400, ranks=(1,), fpir=0.1)
        fact = protocol.decide(views, trial).conditions["open set, FPIR 10 %"]
        rates.append(fact.rate)
        assert fact.rate_low < fact.rate < fact.rate_high
    # The standard deviation of one is √2 · √(0.1 · 0.9 / 200) = 0.03.
    assert np.mean(rates) == pytest.approx(0.1, abs=0.012)
    assert 0.02 < np.std(rates) < 0.045


def test_too_few_strangers_for_the_rate_give_its_reason():
    protocol, views, trial = random_cell(0, ranks=(1,), fpir=0.01)
    decided = protocol.decide(views, trial)
    fact = decided.conditions["open set, FPIR 1 %"]
    assert fact.reason == "a threshold for an FPIR of 0.01 needs 500 impostors to set it, it has 30"
    assert (fact.threshold, fact.rate) == (None, None)
    assert set(decided.rows["condition"]) == {"rank 1"}


def test_an_empty_gallery_recognises_nobody_and_has_no_threshold():
    protocol, views, trial = random_cell(0, distractors=0, ranks=(1,), fpir=0.2)
    nothing = Embedded(views["gallery"].vectors[:0], (), ())
    decided = protocol.decide(views | {"gallery": nothing, "cloaked gallery": nothing}, trial)
    assert not decided.rows["correct"].any()
    assert decided.rows["predicted"].isna().all()
    assert decided.conditions["open set, FPIR 20 %"].reason == "the defence left no photo in the gallery"
    decisions.to_bytes(decided)


def test_a_distractor_that_a_defence_dropped_is_not_in_the_gallery():
    protocol, views, trial = random_cell(5, ranks=(1,), fpir=None, impostors=2)
    first = deal_roles(trial.impostors, 12).distractors[0]
    kept = [i for i, name in enumerate(views["enrolled impostors"].identities) if name != first]
    whole = views["enrolled impostors"]
    less = Embedded(whole.vectors[kept], *(tuple(v[i] for i in kept) for v in (whole.ids, whole.identities)))
    before = protocol.decide(views, trial).rows["predicted"]
    after = protocol.decide(views | {"enrolled impostors": less}, trial).rows["predicted"]
    assert first in set(before)
    assert first not in set(after)
    assert (after[before != first] == before[before != first]).all()


def test_an_unknown_head_is_a_usage_error():
    protocol, views, trial = random_cell(1)
    with pytest.raises(UsageError, match="unknown head 'linear'"):
        protocol.decide(views, replace(trial, head="linear"))


# --- decoys -----------------------------------------------------------------------------------------------


def test_distractors_protect_everyone_as_evenly_as_it_goes():
    given = decoys_of(SPLIT, [f"d{i}" for i in range(8)])
    assert list(given.values()) == ["a"] * 3 + ["b"] * 3 + ["c"] * 2  # in blocks, which are made together
    split = identification().split(identities(5), 0)
    impostors = {f"t{i}": (f"t{i}-0",) for i in range(30)}
    protocol = identification(distractors=12, impostors=10)
    decoys = protocol.given_targets(split, impostors, (), 0)
    assert set(decoys) == set(deal_roles(impostors, 12).distractors)
    assert set(decoys.values()) == set(split.gallery)


@pytest.mark.parametrize("head", HEADS)
def test_a_decoy_takes_its_photos_place_in_the_rotation_of_whom_it_protects(head):
    """d protects a (fold 0), e protects b (fold 1); both are far away until their decoys come before the probes."""
    views = hand_views() | {
        "cloaked gallery": hand_views()["gallery"],
        "enrolled impostors": embedded({"d-0": angle(90), "e-0": angle(95)}),
        "decoys": embedded({"d-0": angle(1), "e-0": angle(14)}),
    }
    protocol = identification(ranks=(1,), distractors=2, fpir=None)
    rows = protocol.decide(views, Trial(SPLIT, head, {"d": ("d-0",), "e": ("e-0",)})).rows
    found = {
        (fold, image): name
        for fold, image, name in rows[["fold", "image", "predicted"]].itertuples(index=False)
    }
    assert found == {
        (0, "a-1"): "d", (0, "b-1"): "b", (0, "c-1"): "c",
        (1, "a-1"): "a", (1, "b-1"): "e", (1, "c-1"): "c",
    }  # fmt: skip
    protected = rows[rows["protected"]]
    assert dict(zip(protected["image"], protected["correct"], strict=True)) == {
        "a-1": False,
        "b-1": False,
        "c-1": True,
    }


def test_a_decoy_that_a_defence_dropped_is_not_in_the_gallery():
    views = hand_views() | {
        "enrolled impostors": embedded({"d-0": angle(1), "e-0": angle(95)}),
        "decoys": embedded({"e-0": angle(14)}),
    }
    protocol = identification(ranks=(1,), distractors=2, fpir=None)
    rows = protocol.decide(views, Trial(SPLIT, "nn", {"d": ("d-0",), "e": ("e-0",)})).rows
    found = {
        (fold, image): name
        for fold, image, name in rows[["fold", "image", "predicted"]].itertuples(index=False)
    }
    # In fold 0 d has no photo; in fold 1 its own, at the very place of a's probe.
    assert (found[0, "a-1"], found[1, "a-1"]) == ("b", "d")


DECOYS = '''
"""Posts, under other names, the photo of whom it protects."""
from bench.contracts import Attack, ThreatModel


class Decoys(Attack):
    name = "decoys"
    edits_others = True
    threat = ThreatModel(goal="targeted", needs_targets=True)

    def assign_targets(self, faces, ctx):
        return dict.fromkeys(faces.ids, ctx.targets.identities[0])

    def cloak(self, faces, ctx):
        assert len(set(ctx.targets.identities)) == 1
        ctx.advance(len(faces))
        return {image: ctx.targets.images[n % len(ctx.targets)] for n, image in enumerate(faces.ids)}
'''


@pytest.fixture
def decoys(tmp_path):
    (tmp_path / "decoys.py").write_text(DECOYS)
    return f"{tmp_path / 'decoys.py'}:Decoys"


def test_a_run_makes_decoys_and_leaves_the_protected_alone(evaluate, decoys):
    prepared = evaluate(
        dataset="tiny:training_identities=80",
        protocol="identification:ranks=1|3,distractors=20,impostors=60,fpir=0.2,folds=3",
        attacks=(decoys,),
        defenses=("jpeg",),
        heads=("nn",),
    )
    leaderboard = build(prepared.folder)
    assert set(leaderboard["status"]) == {"ok"}
    rows = leaderboard.set_index(["attack", "defense", "condition"])
    name = next(attack for attack in leaderboard["attack"] if "ecoys" in attack)
    none = rows.loc[("none", "none", "rank 1")]
    hit = rows.loc[(name, "none", "rank 1")]
    assert hit["asr"] >= none["asr"]
    assert hit["cloak_psnr"] < 40
    pipeline = prepared.pipeline
    point = (name, "tiny-a", 0)
    assert pipeline.cloaks(*point, "gallery") == ()
    made = [image for shard in pipeline.cloaks(*point, "impostors") for image in shard.chosen]
    assert len(made) == 20
    assert {prepared.run.given_targets[image.rsplit("/", 1)[0]] for image in made} == set(
        prepared.run.split.gallery
    )


def test_decoys_are_not_drawn_as_photos_of_who_is_measured(evaluate, decoys):
    from bench.figures import FigureOptions, NotDrawableError, grid
    from bench.leaderboard.view import RunView

    prepared = evaluate(
        dataset="tiny:training_identities=80",
        protocol="identification:ranks=1|3,distractors=20,impostors=60,fpir=0.2,folds=3",
        attacks=(decoys,),
        defenses=("jpeg",),
        heads=("nn",),
    )
    with pytest.raises(NotDrawableError, match="decoys of people who are not evaluated"):
        grid.draw(RunView.of(prepared.folder.path), FigureOptions(store=prepared.store.folder, threads=1))


def test_too_few_distractors_for_everyone_are_refused(evaluate, decoys):
    with pytest.raises(UsageError, match="Raise distractors to"):
        evaluate(
            dataset="tiny:training_identities=80",
            protocol="identification:ranks=1,distractors=2,fpir=none",
            attacks=(decoys,),
            heads=("nn",),
        )


def test_other_protocols_refuse_decoys(evaluate, decoys):
    with pytest.raises(UsageError, match="Use one of the protocols identification"):
        evaluate(attacks=(decoys,))
    with pytest.raises(UsageError, match="Raise distractors"):
        evaluate(
            dataset="tiny:training_identities=80",
            protocol="identification:distractors=0,fpir=none",
            attacks=(decoys,),
            heads=("nn",),
        )


@pytest.mark.parametrize("protocol", ["identification:distractors=40,fpir=none", "tracker"])
def test_decoys_are_no_attack_to_adapt(evaluate, protocol):
    with pytest.raises(UsageError, match=r"foggysight:steps=2 makes decoys .* is no attack to adapt"):
        evaluate(
            dataset="tiny:training_identities=80",
            protocol=protocol,
            attacks=("adaptive:attack=[foggysight:steps=2],defense=[jpeg]",),
            heads=("nn",),
        )


# --- whole runs -------------------------------------------------------------------------------------------


def test_a_run_has_a_row_for_every_condition(evaluate):
    prepared = evaluate(
        dataset="tiny:training_identities=80",
        protocol="identification:ranks=1|3,distractors=20,impostors=60,fpir=0.2,folds=3",
        attacks=("tiny-noise",),
        defenses=("jpeg",),
        heads=("nn", "centroid"),
    )
    leaderboard = build(prepared.folder)
    assert set(leaderboard["status"]) == {"ok"}
    assert len(leaderboard) == 4 * 2 * 3
    wide = leaderboard.pivot_table(index=["attack", "defense", "head"], columns="condition", values="asr")
    assert (wide["rank 3"] <= wide["rank 1"]).all()
    assert (wide["open set, FPIR 20 %"] >= wide["rank 1"]).all()
    assert set(leaderboard.loc[leaderboard["condition"].str.startswith("open"), "threshold_for"]) == {"FPIR"}


def test_the_command_names_how_many_people_there_are(cli, tmp_path):
    code, out, err = cli(
        "run", "--dataset", "tiny", "--backbone", "tiny-a", "--protocol", "identification", "--attack", "none",
        "--head", "nn", "--threads", "1", "--store", tmp_path / "store", "--out", tmp_path / "run",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert "needs 3000 identities that are not evaluated" in err
    assert "the dataset has 4" in err


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw folder")
def test_natural_photos_of_lfw_are_identified(tmp_path, monkeypatch):
    from bench.run.planning import Options, prepare
    from bench.run.runner import execute
    from bench.run.spec import make_spec

    monkeypatch.setenv(VARIABLE, str(REAL))
    spec = make_spec(
        {
            "dataset": "lfw",
            "protocol": "identification:ranks=1|10,distractors=150,impostors=200,fpir=0.1",
            "attacks": ("none",),
            "defenses": ("none",),
            "backbones": ("mobilefacenet-relu6",),
            "heads": ("nn",),
            "identities": 6,
        }
    )
    prepared = prepare(
        spec, Options(threads=1, store=tmp_path / "store", out=tmp_path / "run", batch_size=64)
    )
    execute(prepared)
    leaderboard = build(prepared.folder).set_index("condition")
    assert leaderboard.loc["rank 1", "normal_accuracy"] > 0.95
    assert leaderboard.loc["rank 10", "normal_accuracy"] >= leaderboard.loc["rank 1", "normal_accuracy"]
    assert leaderboard.loc["open set, FPIR 10 %", "normal_accuracy"] > 0.9
