"""Answers found block by block are those that a table of all scores gives, ties and missing photos included."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts import Embedded, Split
from bench.protocols import _nearest
from bench.protocols._answers import Answers, answers_by_fold
from bench.protocols._rotation import Gallery, Probes, scores_by_fold
from bench.protocols.heads import make_head


@st.composite
def trackers(draw):
    """Draw a gallery and probes on few distinct vectors, so that scores tie; some photos are dropped by a defence."""
    identities = [f"i{number}" for number in range(draw(st.integers(2, 9)))]
    folds = draw(st.integers(1, len(identities)))
    gallery = {name: tuple(f"{name}g{k}" for k in range(draw(st.integers(1, 3)))) for name in identities}
    probes = {name: tuple(f"{name}p{k}" for k in range(draw(st.integers(1, 2)))) for name in identities}
    fold = {name: place % folds for place, name in enumerate(draw(st.permutations(identities)))}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = draw(st.sampled_from([2, 3, 1000]))

    def embedded(photos, keep=1.0, views=1):
        named = [
            (image, name) for name, images in photos.items() for image in images if rng.random() < keep
        ] * views
        vectors = rng.integers(0, steps, (len(named), 3)).astype(np.float32) / steps
        return Embedded(vectors, tuple(image for image, _ in named), tuple(name for _, name in named))

    split = Split(gallery=gallery, probes=probes, fold=fold, cloaked=gallery)
    keep = draw(st.sampled_from([1.0, 0.6]))
    views = draw(st.sampled_from([1, 1, 3]))
    natural = embedded(gallery, keep, views)
    cloaked = natural if draw(st.booleans()) else embedded(gallery, keep, draw(st.sampled_from([1, views])))
    shown = embedded(probes)
    shown_protected = shown if draw(st.booleans()) else embedded(probes)
    found = Gallery.of(natural, cloaked, split)
    return found, Probes.of(shown, shown_protected, split, found.identities)


def by_table(scores, labels):
    """Return answer, score and margin as one reads them off a row of scores."""
    rows = []
    for row, label in zip(scores, labels, strict=True):
        answer = int(np.argmax(row))
        rival = np.delete(row, label).max(initial=-np.inf)
        both = np.isfinite(row[label]) and np.isfinite(rival)
        rows.append((answer, row[answer], row[label] - rival if both else np.float32(np.nan)))
    return [np.array(column) for column in zip(*rows, strict=True)]


@given(trackers(), st.sampled_from(["nn", "centroid"]), st.sampled_from([1, 100, 1 << 20]))
def test_blocks_of_any_size_answer_as_a_table_of_all_scores_does(tracker, head, block_bytes):
    gallery, probes = tracker
    tables = list(scores_by_fold(make_head(head), gallery, probes))
    found = list(answers_by_fold(make_head(head), gallery, probes, block_bytes))
    assert len(found) == len(tables) == gallery.folds
    for table, answers in zip(tables, found, strict=True):
        answer, score, margin = by_table(table, probes.labels)
        answered = np.isfinite(score)
        np.testing.assert_array_equal(answers.score, score)
        np.testing.assert_array_equal(answers.answer[answered], answer[answered])
        np.testing.assert_array_equal(answers.margin, margin)


@settings(deadline=None)  # many small blocks
@given(
    trackers(),
    st.sampled_from(["nn", "centroid"]),
    st.sampled_from([1, 2, 3, 5]),
    st.sampled_from([8, 40, 1 << 20]),
    st.sampled_from([0.0, _nearest._MANY, 2.0]),
)
def test_a_group_searched_in_several_blocks_of_points_answers_as_a_table_does(
    tracker, head, width, block_bytes, many
):
    gallery, probes = tracker
    with patch.multiple(_nearest, _WIDTH=width, _MANY=many):
        found = list(answers_by_fold(make_head(head), gallery, probes, block_bytes))
    for table, answers in zip(scores_by_fold(make_head(head), gallery, probes), found, strict=True):
        answer, score, margin = by_table(table, probes.labels)
        answered = np.isfinite(score)
        np.testing.assert_array_equal(answers.score, score)
        np.testing.assert_array_equal(answers.answer[answered], answer[answered])
        np.testing.assert_array_equal(answers.margin, margin)


@given(seed=st.integers(0, 2**32 - 1), closeness=st.sampled_from([0.0, 1e-8, 1e-7, 1e-6, 1e-5]))
def test_points_that_float32_cannot_tell_apart_are_told_apart_as_the_table_does(seed, closeness):
    rng = np.random.default_rng(seed)
    names = tuple(f"i{k}" for k in range(12))
    gallery = {name: tuple(f"{name}-{n}" for n in range(3)) for name in names}
    probes = {name: (f"{name}-p", f"{name}-q") for name in names}
    alike = rng.normal(size=96)

    def embedded(photos):
        ids = [(image, name) for name in names for image in photos[name]]
        vectors = alike + closeness * rng.normal(size=(len(ids), 96))
        return Embedded(vectors.astype(np.float32), tuple(i for i, _ in ids), tuple(n for _, n in ids))

    fold = {name: k % 4 for k, name in enumerate(names)}
    split = Split(gallery=gallery, probes=probes, fold=fold, cloaked=gallery)
    found = Gallery.of(embedded(gallery), embedded(gallery), split)
    who = Probes.of(embedded(probes), embedded(probes), split, found.identities)
    tables = scores_by_fold(make_head("nn"), found, who)
    for table, answers in zip(tables, answers_by_fold(make_head("nn"), found, who, 500), strict=True):
        answer, score, margin = by_table(table, who.labels)
        np.testing.assert_array_equal(answers.score, score)
        np.testing.assert_array_equal(answers.answer, answer)
        np.testing.assert_array_equal(answers.margin, margin)


@given(trackers())
def test_one_table_gives_the_same_answers(tracker):
    gallery, probes = tracker
    for table in scores_by_fold(make_head("nn"), gallery, probes):
        before = table.copy()
        answers = Answers.of(table, probes.labels)
        np.testing.assert_array_equal(table, before)
        answer, score, margin = by_table(table, probes.labels)
        np.testing.assert_array_equal(answers.score, score)
        np.testing.assert_array_equal(answers.answer[np.isfinite(score)], answer[np.isfinite(score)])
        np.testing.assert_array_equal(answers.margin, margin)


def test_a_head_that_is_trained_anew_for_each_rotation_goes_the_plain_way():
    rng = np.random.default_rng(3)
    names = ("a", "b", "c")
    gallery = {name: (f"{name}0", f"{name}1") for name in names}
    probes = {name: (f"{name}2",) for name in names}

    def embedded(photos):
        ids = [(image, name) for name in names for image in photos[name]]
        vectors = rng.normal(size=(len(ids), 4)).astype(np.float32)
        return Embedded(vectors, tuple(i for i, _ in ids), tuple(n for _, n in ids))

    split = Split(gallery=gallery, probes=probes, fold=dict.fromkeys(names, 0) | {"c": 1}, cloaked=gallery)
    found = Gallery.of(embedded(gallery), embedded(gallery), split)
    asked = embedded(probes)
    who = Probes.of(asked, asked, split, found.identities)
    tables = list(scores_by_fold(make_head("linear"), found, who))
    for table, answers in zip(tables, answers_by_fold(make_head("linear"), found, who), strict=True):
        np.testing.assert_array_equal(answers.answer, table.argmax(axis=1))
        assert answers.part(slice(1, 2)).score == pytest.approx(table[1].max())


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_every_row_of_a_photo_is_in_the_gallery_in_both_states(seed, natural_views, cloaked_views):
    rng = np.random.default_rng(seed)
    gallery = {"a": ("a0", "a1"), "b": ("b0",), "c": ("c0", "c1", "c2")}
    cloaked = {"a": ("a0",), "b": ("b0",), "c": ("c0", "c1")}

    def embedded(photos, views):
        named = [(image, name) for name, images in photos.items() for image in images] * views
        named = [named[k] for k in rng.permutation(len(named))]
        vectors = rng.normal(size=(len(named), 4)).astype(np.float32)
        return Embedded(vectors, tuple(i for i, _ in named), tuple(n for _, n in named))

    views = embedded(gallery, natural_views), embedded(cloaked, cloaked_views)
    split = Split(gallery=gallery, probes=gallery, fold={"a": 0, "b": 1, "c": 1}, cloaked=cloaked)
    found = Gallery.of(*views, split)
    for label, name in enumerate(found.identities):
        for rows, is_cloaked in ((found.natural, frozenset()), (found.protected, frozenset(cloaked[name]))):
            expected = [
                row
                for photo in gallery[name]
                for source in (views[1] if photo in is_cloaked else views[0],)
                for image, row in zip(source.ids, source.vectors, strict=True)
                if image == photo
            ]
            np.testing.assert_array_equal(found.vectors(rows[label]), expected)


@given(trackers(), st.data())
def test_rows_of_a_gallery_count_through_both_states(tracker, data):
    gallery, _ = tracker
    whole = np.concatenate(gallery.states)
    if not len(whole):
        return
    some = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6))
    start = data.draw(st.integers(0, len(whole)))
    for rows in (some, range(start, len(whole)), range(start), [*gallery.natural, *gallery.protected][-1]):
        found = gallery.vectors(np.array(list(rows), dtype=np.intp))
        np.testing.assert_array_equal(found, whole[list(rows)])
        assert found.dtype == whole.dtype


def test_a_whole_gallery_is_not_copied():
    gallery = {"a": ("a0", "a1"), "b": ("b0",)}
    ids, names = ("a0", "a1", "b0"), ("a", "a", "b")
    natural, cloaked = (Embedded(np.full((3, 2), k, np.float32), ids, names) for k in (1, 2))
    split = Split(gallery=gallery, probes=gallery, fold={"a": 0, "b": 1}, cloaked=gallery)
    found = Gallery.of(natural, cloaked, split)
    everybody = np.ones(2, dtype=bool)
    for who, seen in ((~everybody, natural), (everybody, cloaked)):
        vectors, labels = found.chosen(who)
        assert np.shares_memory(vectors, seen.vectors)
        np.testing.assert_array_equal(vectors, seen.vectors)
        assert labels.tolist() == [0, 0, 1]
    mixed, _ = found.chosen(np.array([True, False]))
    assert mixed[:, 0].tolist() == [2, 2, 1]
