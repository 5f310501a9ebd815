from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.authoring.fakes import FakeBackbone
from bench.contracts import Backbone, Decided, Embedded, Faces, Identity, Split, Trial
from bench.data.files import data_folder
from bench.datasets.lfw import LFW
from bench.errors import MethodError, UsageError
from bench.protocols import heads
from bench.protocols.tracker import TrackerProtocol
from bench.run import decisions

HEADS = tuple(h for h in TrackerProtocol.heads if h not in TrackerProtocol.end_to_end_heads)


class Views(NamedTuple):
    gallery_natural: Embedded
    gallery_cloaked: Embedded
    probes_natural: Embedded
    probes_protected: Embedded


def decide(protocol, views, split, head):
    """Return the rows a protocol decides of gallery and probes in both states."""
    names = ("gallery", "cloaked gallery", "probes", "cloaked probes")
    return protocol.decide(dict(zip(names, views, strict=True)), Trial(split, head)).rows


def identity(name, n, role="evaluation"):
    return Identity(name, tuple(f"{name}-{i}" for i in range(n)), role)


def many(*counts):
    return [identity(f"p{i:02d}", n) for i, n in enumerate(counts)]


def tracker(**params):
    return TrackerProtocol(TrackerProtocol.Params(**params))


def embedded(vectors):
    """Build embeddings from {image id "name-number": vector}."""
    ids = tuple(vectors)
    return Embedded(
        np.array([vectors[i] for i in ids], dtype=np.float32).reshape(len(ids), -1),
        ids,
        tuple(i.rsplit("-", 1)[0] for i in ids),
    )


# --- the split -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photos", "gallery", "probes"),
    [(3, 1, 2), (4, 2, 2), (10, 7, 3), (11, 8, 3), (14, 10, 4), (15, 10, 5), (20, 10, 10), (530, 10, 10)],
)
def test_photos_are_dealt_70_to_30_within_the_bounds(photos, gallery, probes):
    split = tracker().split(many(photos, 10), 0)
    assert (len(split.gallery["p00"]), len(split.probes["p00"])) == (gallery, probes)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=25),
    st.integers(1, 12),
    st.floats(0.05, 1),
    st.integers(0, 99),
)
def test_split_properties(counts, folds, share, seed):
    identities = many(*counts)
    split = tracker(folds=folds, cloaked_share=share).split(identities, seed)
    sizes = np.bincount(list(split.fold.values()))
    assert len(sizes) == split.folds == min(folds, len(counts))
    assert sizes.max() - sizes.min() <= 1
    for one in identities:
        gallery, probes, cloaked = (d[one.id] for d in (split.gallery, split.probes, split.cloaked))
        assert set(gallery) | set(probes) <= set(one.photos)
        assert len({*gallery, *probes}) == len(gallery) + len(probes)
        assert 1 <= len(gallery) <= 10
        assert 2 <= len(probes) <= 10
        assert cloaked == gallery[: len(cloaked)]
        assert len(cloaked) == max(1, int(share * len(gallery) + 0.5))


def test_a_split_depends_on_the_seed_and_on_nothing_else():
    identities = many(*[20] * 12)
    split = tracker().split(identities, 5)
    mirrored = [Identity(one.id, one.photos[::-1], one.role) for one in identities[::-1]]
    assert tracker().split(mirrored, 5) == split
    other = tracker().split(identities, 6)
    assert other.gallery != split.gallery
    assert other.fold != split.fold


def test_another_person_does_not_move_anyones_photos():
    split = tracker().split(many(20, 15, 12), 1)
    more = tracker().split([*many(20, 15, 12), identity("o", 30)], 1)
    for name in split.gallery:
        assert more.gallery[name] == split.gallery[name]
        assert more.probes[name] == split.probes[name]


def test_a_smaller_share_cloaks_a_subset():
    half, full = (tracker(cloaked_share=s).split(many(20, 20), 1) for s in (0.5, 1.0))
    assert half.gallery == full.gallery
    assert full.cloaked == full.gallery
    assert all(set(half.cloaked[n]) < set(full.cloaked[n]) for n in full.cloaked)
    assert [len(half.cloaked[n]) for n in sorted(half.cloaked)] == [5, 5]


def test_training_identities_are_left_out():
    split = tracker().split([*many(10, 10), identity("train", 10, "training")], 0)
    assert set(split.gallery) == {"p00", "p01"}


def test_too_few_photos_or_people_are_a_usage_error_with_the_mend():
    with pytest.raises(
        UsageError, match=r"2 of 3 identities have too few photos, first 'p01' with 2.*needs 3"
    ):
        tracker().split(many(10, 2, 1), 0)
    with pytest.raises(UsageError, match="lower min_probes"):
        tracker(min_probes=5).split(many(10, 5), 0)
    with pytest.raises(UsageError, match="at least 2 evaluated identities, found 1"):
        tracker().split([*many(10), identity("train", 10, "training")], 0)


def test_parameters_are_checked_and_described():
    with pytest.raises(ValidationError, match="min_probes 3 is more than max_probes 2"):
        TrackerProtocol.Params(min_probes=3, max_probes=2)
    for field in TrackerProtocol.Params.model_fields.values():
        assert field.description
    assert tracker(probes="cloaked").views["cloaked probes"].state == "cloaked"


@pytest.mark.real_data
@pytest.mark.skipif(not (data_folder() / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw folder")
def test_lfws_158_people_are_split_as_the_protocol_page_says():
    split = tracker().split(LFW().identities(), 0)
    assert len(split.gallery) == 158
    assert sum(map(len, split.gallery.values())) == 1472
    assert sum(map(len, split.probes.values())) == 1069
    assert set(np.bincount(list(split.fold.values()))) == {15, 16}


# --- hand-worked decisions -------------------------------------------------------------------------------

A, B, C, D = np.eye(4, dtype=np.float32)


def two_identities(cloak_of_a, cloak_of_b):
    """Build two identities on orthogonal axes, each with one gallery photo and two probes."""
    split = Split(
        gallery={"a": ("a-0",), "b": ("b-0",)},
        probes={"a": ("a-1", "a-2"), "b": ("b-1", "b-2")},
        fold={"a": 0, "b": 1},
        cloaked={"a": ("a-0",), "b": ("b-0",)},
    )
    probes = embedded({"a-1": A, "a-2": A + 0.5 * C, "b-1": B, "b-2": B + 0.5 * A})
    return (
        Views(
            embedded({"a-0": A, "b-0": B}), embedded({"a-0": cloak_of_a, "b-0": cloak_of_b}), probes, probes
        ),
        split,
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_cloak_to_nowhere_hides_only_who_wears_it(head):
    views, split = two_identities(-A, B)  # a's cloak points away from a, b's cloak does nothing
    rows = decide(tracker(), views, split, head)
    assert list(zip(rows["fold"], rows["image"], strict=True)) == [
        (f, i) for f in (0, 1) for i in ("a-1", "a-2", "b-1", "b-2")
    ]
    assert rows["protected"].tolist() == [True, True, False, False, False, False, True, True]
    assert rows["predicted"].tolist() == ["b", "b", "b", "b", "a", "a", "b", "b"]
    assert rows["correct"].tolist() == [False, False, True, True, True, True, True, True]


@pytest.mark.parametrize("head", ["nn", "centroid"])
def test_scores_and_margins_are_cosines(head):
    views, split = two_identities(-A, B)
    rows = decide(tracker(), views, split, head).set_index(["fold", "image"])
    long = np.sqrt(1.25)
    expected = {
        (0, "a-1"): (0, -1),  # b at 0 beats a at −1
        (0, "b-2"): (1 / long, 1 / long - -0.5 / long),  # a's gallery points the other way now
        (1, "a-2"): (1 / long, 1 / long),
        (1, "b-2"): (1 / long, 0.5 / long),
    }
    for key, (score, margin) in expected.items():
        assert rows.loc[key, "score"] == pytest.approx(score)
        assert rows.loc[key, "margin"] == pytest.approx(margin)
    assert rows["score"].dtype == rows["margin"].dtype == np.float32


def test_linear_scores_are_probabilities_and_mirror_for_two_people():
    views, split = two_identities(A, B)
    rows = decide(tracker(), views, split, "linear").set_index(["fold", "image"])
    assert rows["score"].between(0.5, 1).all()
    np.testing.assert_allclose(rows["margin"], 2 * rows["score"] - 1, atol=1e-6)  # p − (1 − p)


def test_nn_takes_the_nearest_photo_and_centroid_the_mean():
    split = Split(
        gallery={"a": ("a-0", "a-1"), "b": ("b-0",)},
        probes={"a": ("a-2",), "b": ("b-2",)},
        fold={"a": 0, "b": 1},
        cloaked={"a": ("a-0", "a-1"), "b": ("b-0",)},
    )
    gallery = embedded({"a-0": A, "a-1": D, "b-0": A + B})
    probes = embedded({"a-2": A + 0.3 * B, "b-2": B})
    views = Views(gallery, gallery, probes, probes)
    assert decide(tracker(), views, split, "nn")["predicted"].tolist() == ["a", "b"] * 2
    # a's mean is halfway to D, so b's photo is nearer to a's probe.
    assert decide(tracker(), views, split, "centroid")["predicted"].tolist() == ["b", "b"] * 2


@pytest.mark.parametrize("head", HEADS)
def test_only_the_cloaked_share_is_replaced(head):
    split = Split(
        gallery={"a": ("a-0", "a-1"), "b": ("b-0", "b-1")},
        probes={"a": ("a-2",), "b": ("b-2",)},
        fold={"a": 0, "b": 0},
        cloaked={"a": ("a-0",), "b": ("b-0",)},
    )
    natural = embedded({"a-0": A, "a-1": C, "b-0": B, "b-1": D})
    probes = embedded({"a-2": C, "b-2": B})
    views = Views(natural, embedded({"a-0": -A, "b-0": -B}), probes, probes)
    rows = decide(tracker(), views, split, head)
    assert rows.loc[rows["image"] == "a-2", "correct"].all()  # a-1 stays natural
    if head == "nn":
        assert rows.loc[0, "score"] == 1
        assert rows.loc[1, "score"] == 0  # b-0 is turned away; nothing else is near


def test_protected_people_use_their_own_probes():
    views, split = two_identities(A, B)
    turned = embedded({"a-1": B, "a-2": B, "b-1": A, "b-2": A})
    views = Views(views.gallery_natural, views.gallery_cloaked, views.probes_natural, turned)
    for head in HEADS:
        rows = decide(tracker(), views, split, head)
        assert (rows["correct"] == ~rows["protected"]).all()


@pytest.mark.parametrize("head", HEADS)
def test_of_equal_scores_the_first_identity_is_the_answer(head):
    _, split = two_identities(B, A)
    twins = embedded({"a-0": A, "b-0": A})
    probes = embedded({"a-1": A, "a-2": B, "b-1": A, "b-2": B})
    rows = decide(tracker(), Views(twins, twins, probes, probes), split, head)
    assert (rows["predicted"] == "a").all()
    assert (rows["margin"] == 0).all()


@pytest.mark.parametrize("head", HEADS)
def test_a_person_whose_photos_are_dropped_is_never_recognised(head):
    views, split = two_identities(A, B)
    dropped = Embedded(views.gallery_cloaked.vectors[1:], ("b-0",), ("b",))
    views = Views(views.gallery_natural, dropped, views.probes_natural, views.probes_protected)
    rows = decide(tracker(), views, split, head)
    while_a_is_cloaked = rows[rows["fold"] == 0]
    assert (while_a_is_cloaked["predicted"] == "b").all()
    assert while_a_is_cloaked["margin"].isna().all()
    assert rows.loc[rows["fold"] == 1, "correct"].all()
    decisions.to_bytes(Decided(rows))


@pytest.mark.parametrize("head", HEADS)
def test_a_gallery_without_photos_gives_no_answer(head):
    views, split = two_identities(A, B)
    nothing = Embedded(views.gallery_natural.vectors[:0], (), ())
    rows = decide(
        tracker(), Views(nothing, nothing, views.probes_natural, views.probes_protected), split, head
    )
    assert rows["predicted"].isna().all()
    assert rows["score"].isna().all()
    assert not rows["correct"].any()
    assert decisions.from_bytes(decisions.to_bytes(Decided(rows))).rows["predicted"].isna().all()


def test_a_missing_probe_is_a_method_error():
    views, split = two_identities(A, B)
    short = Embedded(views.probes_natural.vectors[1:], views.probes_natural.ids[1:], ("a", "b", "b"))
    with pytest.raises(MethodError, match="1 of 4 probes have no embedding, first 'a-1'"):
        decide(tracker(), Views(views.gallery_natural, views.gallery_cloaked, short, short), split, "nn")


def test_an_unknown_head_is_a_usage_error():
    views, split = two_identities(A, B)
    with pytest.raises(UsageError, match="unknown head 'svm'"):
        decide(tracker(), views, split, "svm")


# --- random cells ----------------------------------------------------------------------------------------


def random_cell(seed, names=("a", "b", "c", "d", "e"), n=6, dim=6, strength=2.0, **params):
    """Build a split and views in which cloaks move embeddings by `strength`."""
    protocol = tracker(folds=3, **params)
    split = protocol.split([identity(name, n) for name in names], seed)
    rng = np.random.default_rng(seed)
    centre = {name: rng.normal(size=dim) for name in names}
    photo = {f"{k}-{i}": centre[k] + 0.5 * rng.normal(size=dim) for k in names for i in range(n)}
    cloak = {image: vector + strength * rng.normal(size=dim) for image, vector in photo.items()}

    def view(images, vectors):
        return embedded({i: vectors[i] for k in names for i in images[k]})

    probes = view(split.probes, photo)
    views = Views(view(split.gallery, photo), view(split.cloaked, cloak), probes, probes)
    return protocol, views, split


def naive(views, split, fold):
    """Decide one rotation with nn by loops over the definition: {image: predicted}."""
    natural = dict(zip(views.gallery_natural.ids, views.gallery_natural.vectors, strict=True))
    cloaked = dict(zip(views.gallery_cloaked.ids, views.gallery_cloaked.vectors, strict=True))
    results = {}
    for image, probe in zip(views.probes_natural.ids, views.probes_natural.vectors, strict=True):
        best = (-2.0, "")
        for name in sorted(split.gallery):
            for photo in split.gallery[name]:
                hidden = split.fold[name] == fold and photo in split.cloaked[name]
                vector = (cloaked if hidden else natural)[photo]
                cosine = float(vector @ probe / np.linalg.norm(vector) / np.linalg.norm(probe))
                best = max(best, (cosine, name))
        results[image] = best[1]
    return results


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.4, 1.0]))
def test_nn_agrees_with_loops_over_the_definition(seed, share):
    protocol, views, split = random_cell(seed, cloaked_share=share)
    rows = decide(protocol, views, split, "nn")
    for fold, part in rows.groupby("fold"):
        assert dict(zip(part["image"], part["predicted"], strict=True)) == naive(views, split, fold)


@pytest.mark.parametrize("head", HEADS)
def test_each_rotation_is_a_head_trained_on_its_own_gallery(head):
    protocol, views, split = random_cell(3)
    rows = decide(protocol, views, split, head)
    names = sorted(split.gallery)
    natural = dict(zip(views.gallery_natural.ids, views.gallery_natural.vectors, strict=True))
    cloaked = dict(zip(views.gallery_cloaked.ids, views.gallery_cloaked.vectors, strict=True))
    for fold, part in rows.groupby("fold"):
        vectors = [
            (cloaked if split.fold[n] == fold else natural)[image]
            for n in names
            for image in split.gallery[n]
        ]
        labels = np.array([k for k, n in enumerate(names) for _ in split.gallery[n]])
        probes = dict(zip(views.probes_natural.ids, views.probes_natural.vectors, strict=True))
        scores = heads.make_head(head).fit(np.array(vectors), labels, len(names))(
            np.array([probes[image] for image in part["image"]])
        )
        assert [names[k] for k in scores.argmax(1)] == part["predicted"].tolist()
        np.testing.assert_allclose(scores.max(1), part["score"], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations("abcde"), st.sampled_from(["nn", "centroid"]))
def test_relabelling_identities_permutes_the_results(seed, permutation, head):
    protocol, views, split = random_cell(seed)
    new = dict(zip("abcde", permutation, strict=True))

    def view(old):
        return Embedded(old.vectors, old.ids, tuple(new[i] for i in old.identities))

    def keys(old):
        return {new[k]: v for k, v in old.items()}

    renamed_views = Views(*(view(getattr(views, f)) for f in Views._fields))
    renamed_split = Split(*(keys(getattr(split, f)) for f in Split.__dataclass_fields__))
    rows = decide(protocol, views, split, head)
    renamed = decide(protocol, renamed_views, renamed_split, head)
    expected = rows.assign(identity=rows["identity"].map(new), predicted=rows["predicted"].map(new))
    order = ["fold", "identity", "image"]
    left, right = (t.sort_values(order, ignore_index=True) for t in (renamed, expected))
    pd.testing.assert_frame_equal(left, right, check_dtype=False, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_the_order_of_the_views_does_not_matter(head):
    protocol, views, split = random_cell(8)
    rng = np.random.default_rng(0)

    def shuffled(old):
        order = rng.permutation(len(old.ids))
        return Embedded(
            old.vectors[order], tuple(old.ids[i] for i in order), tuple(old.identities[i] for i in order)
        )

    mixed = Views(*(shuffled(getattr(views, f)) for f in Views._fields))
    assert decisions.to_bytes(Decided(decide(protocol, mixed, split, head))) == decisions.to_bytes(
        Decided(decide(protocol, views, split, head))
    )


@pytest.mark.parametrize("head", HEADS)
def test_without_a_cloak_all_rotations_are_alike_and_train_once(head, monkeypatch):
    protocol, views, split = random_cell(1, strength=0.0)
    kind, learnt = heads.HEADS[head], []
    step = "fit" if head == "linear" else "points"
    learn = getattr(kind, step)
    monkeypatch.setattr(kind, step, lambda self, *args: learnt.append(1) or learn(self, *args))
    rows = decide(protocol, views, split, head)
    assert len(learnt) == 1
    by_fold = [part.drop(columns=["fold", "protected"]).to_numpy() for _, part in rows.groupby("fold")]
    for other in by_fold[1:]:
        np.testing.assert_array_equal(other, by_fold[0])
    assert rows.groupby("image")["protected"].sum().eq(1).all()


def test_nearest_points_are_searched_twice_whatever_the_number_of_rotations(monkeypatch):
    protocol, views, split = random_cell(1)
    searched = []
    points = heads.NearestNeighbour.points
    monkeypatch.setattr(
        heads.NearestNeighbour, "points", lambda self, *args: searched.append(1) or points(self, *args)
    )
    decide(protocol, views, split, "nn")
    assert len(searched) == 2


@pytest.mark.parametrize("head", HEADS)
def test_decisions_fit_the_schema_and_are_the_same_bytes_every_time(head):
    protocol, views, split = random_cell(2)
    one, two = (decisions.to_bytes(Decided(decide(protocol, views, split, head))) for _ in range(2))
    assert one == two
    back = decisions.from_bytes(one).rows
    assert len(back) == 3 * sum(map(len, split.probes.values()))
    assert ((back["margin"] > 0) <= back["correct"]).all()
    assert (back["correct"] <= (back["margin"] >= 0)).all()


# --- the head that trains the backbone ---------------------------------------------------------------------


class TrainableBackbone(FakeBackbone):
    """A linear layer over coarse pixels, which can be trained; counts its copies."""

    def __init__(self):
        super().__init__()
        self.copies = 0

    def trainable(self, device):
        self.copies += 1
        layer = torch.nn.Linear(3 * 4 * 4, 16, bias=False)
        torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(2))
        coarse = torch.nn.AdaptiveAvgPool2d(4)
        return torch.nn.Sequential(coarse, torch.nn.Flatten(), layer).to(device)


def faces_of(photos, stray=0.0, side=8):
    """Photos of one colour pattern an identity; `stray` of them is someone else's pattern."""
    ids = [image for images in photos.values() for image in images]
    images = []
    for image in ids:
        rng = np.random.default_rng(sum(map(ord, image)))
        own = np.random.default_rng(int(image[1:3])).random((3, 2, 2))
        other = np.random.default_rng(100 + int(image[1:3])).random((3, 2, 2))
        pattern = np.kron((1 - stray) * own + stray * other, np.ones((1, side // 2, side // 2)))
        images.append(np.round(255 * np.clip(pattern + 0.05 * rng.standard_normal(pattern.shape), 0, 1)))
    stack = torch.from_numpy(np.stack(images)).float() / 255
    return Faces(stack, tuple(ids), tuple(image.rsplit("-", 1)[0] for image in ids))


def finetuned(backbone, stray, folds=3, reverse=False, **params):
    protocol = tracker(folds=folds, finetune_learning_rate=1e-3, **params)
    split = protocol.split(many(6, 6, 6, 6, 6, 6), 0)
    gallery, probes = faces_of(split.gallery), faces_of(split.probes)
    faces = {"gallery": gallery, "cloaked gallery": faces_of(split.cloaked, stray), "probes": probes}
    if reverse:
        faces = {name: f.subset(range(len(f) - 1, -1, -1)) for name, f in faces.items()}
    trial = Trial(split, "finetune", faces=faces, tracker=lambda: backbone, seed=4)
    return protocol.decide({}, trial).rows


def test_finetune_trains_once_a_rotation_and_protects_who_strays():
    backbone = TrainableBackbone()
    rows = finetuned(backbone, stray=1.0)
    assert backbone.copies == 3
    assert rows.loc[~rows.protected, "correct"].mean() > 0.95
    assert rows.loc[rows.protected, "correct"].mean() < 0.3
    assert rows["score"].between(0, 1).all()
    assert rows.groupby("identity")["protected"].sum().eq(2).all()


def test_finetune_trains_once_where_nothing_is_cloaked():
    backbone = TrainableBackbone()
    rows = finetuned(backbone, stray=0.0)
    assert backbone.copies == 1
    assert rows["correct"].mean() > 0.95
    one = rows[rows.fold == 0].drop(columns=["fold", "protected"]).reset_index(drop=True)
    other = rows[rows.fold == 1].drop(columns=["fold", "protected"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(one, other)


def test_finetune_does_not_depend_on_the_order_of_the_photos_and_takes_its_parameters():
    rows = finetuned(TrainableBackbone(), stray=0.6)
    pd.testing.assert_frame_equal(finetuned(TrainableBackbone(), stray=0.6, reverse=True), rows)
    longer = finetuned(TrainableBackbone(), stray=0.6, finetune_epochs=6)
    assert not np.array_equal(longer["score"], rows["score"])


class BlackBox(FakeBackbone):
    """A backbone that answers and cannot be trained: what the contract says of one that adds nothing."""

    trainable = Backbone.trainable


def test_a_backbone_that_cannot_be_trained_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match=r"'fake-0' cannot be trained.*keeps the backbone"):
        finetuned(BlackBox(), stray=0.0)


@pytest.mark.parametrize(("probes", "of_probes"), [("clean", False), ("purified", True)])
@pytest.mark.parametrize(("defended", "of_natural"), [("all", True), ("cloaked", False)])
def test_the_oracle_leaves_natural_photos_alone_and_defends_cloaks(defended, of_natural, probes, of_probes):
    views = tracker(defended=defended, probes=probes).views
    assert views["gallery"].defended is of_natural
    assert views["cloaked gallery"].defended is True
    assert views["probes"].defended is of_probes


def test_a_run_of_the_oracle_purifies_cloaks_only(evaluate):
    def decided(protocol, attacks, defense="tiny-negative"):
        prepared = evaluate(attacks=attacks, defenses=(defense,), protocol=protocol, heads=("nn",))
        cells = {(cell.attack, cell.defense): cell for cell in prepared.folder.cells()}
        cell = cells[attacks[0], defense]
        assert cell.status == "ok"
        return decisions.read(prepared.folder.path / cell.decisions).rows

    everything = decided("tracker:folds=6", ("tiny-noise",))
    oracle = decided("tracker:folds=6,defended=cloaked", ("tiny-noise",))
    undefended = decided("tracker:folds=6", ("tiny-noise",), "none")
    # A negative of every gallery photo hides everyone; the oracle's negatives hide their own identities alone.
    right = [rows[~rows["protected"]]["correct"].mean() for rows in (everything, oracle, undefended)]
    assert right[0] < right[1]
    assert right[1] == pytest.approx(right[2], abs=0.1)
    # Each protected identity's photos were made negative, as without the oracle.
    wrong = [1 - rows[rows["protected"]]["correct"].mean() for rows in (everything, oracle, undefended)]
    assert wrong[1] > wrong[2]
