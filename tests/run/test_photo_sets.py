"""Whom targeted attacks imitate: never an evaluated identity, never more than fifty, half of their photos held out."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.contracts import MICRO_BATCH, Identity, Split
from bench.errors import UsageError
from bench.run.photo_sets import (
    PART_CORE_SECONDS,
    TARGET_IDENTITIES,
    TARGET_PHOTOS,
    held_out_photos,
    parts,
    publicly_cloaked,
    shown_photos,
    target_identities,
)


def identity(number, photos, role="training"):
    return Identity(f"p{number:03}", tuple(f"p{number:03}/{k}" for k in range(photos)), role)


roles = st.sampled_from(["training", "training", "evaluation"])
crowds = st.lists(st.tuples(st.integers(1, 12), roles), min_size=0, max_size=90).map(
    lambda drawn: [identity(n, photos, role) for n, (photos, role) in enumerate(drawn)]
)


@given(identities=crowds, seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_targets_are_training_people_with_the_most_photos_first(identities, seed):
    chosen = target_identities(identities, seed)
    assert len({p.id for p in chosen}) == len(chosen) <= TARGET_IDENTITIES
    assert all(p in identities and p.role == "training" for p in chosen)
    training = [p for p in identities if p.role == "training"]
    several = [p for p in training if len(p.photos) > 1]
    assert len(chosen) == min(TARGET_IDENTITIES, len(several or training))
    worth = [min(len(p.photos), 2 * TARGET_PHOTOS) for p in chosen]
    assert worth == sorted(worth, reverse=True)
    left = [min(len(p.photos), 2 * TARGET_PHOTOS) for p in several or training if p not in chosen]
    assert not left or max(left) <= min(worth)


@given(identities=crowds, seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_shown_and_held_out_photos_are_disjoint_and_halves(identities, seed):
    for target in target_identities(identities, seed):
        shown, hidden = shown_photos(target), held_out_photos(target)
        assert not set(shown) & set(hidden)
        assert set(shown) | set(hidden) <= set(target.photos)
        assert 1 <= len(shown) <= TARGET_PHOTOS
        assert len(hidden) <= TARGET_PHOTOS
        if len(target.photos) <= 2 * TARGET_PHOTOS:
            assert (*shown, *hidden) == target.photos
            assert len(shown) - len(hidden) in {0, 1}
        else:
            assert len(shown) == len(hidden) == TARGET_PHOTOS


def test_the_seed_of_the_split_decides_the_order_among_equals():
    identities = [identity(n, 3) for n in range(80)]
    assert target_identities(identities, 0) == target_identities(identities, 0)
    assert target_identities(identities, 0) != target_identities(identities, 1)
    # A larger pool begins with the smaller one, so that a method trained for the first few knows them in it.
    evaluated = [identity(100 + n, 9, "evaluation") for n in range(20)]
    assert target_identities([*evaluated, *identities], 0) == target_identities(identities, 0)


def test_someone_with_one_photo_is_imitated_only_where_nobody_has_more():
    assert {p.id for p in target_identities([identity(0, 1), identity(1, 2)], 0)} == {"p001"}
    assert {p.id for p in target_identities([identity(0, 1), identity(1, 1)], 0)} == {"p000", "p001"}
    assert target_identities([identity(0, 5, "evaluation")], 0) == ()


@given(
    identities=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    core_seconds=st.floats(0, 100),
    scope=st.sampled_from(["image", "identity"]),
)
def test_parts_are_the_shard_dealt_by_what_an_image_costs(identities, core_seconds, scope):
    shard = [(f"p{n:02}/{k}", f"p{n:02}") for n, count in enumerate(identities) for k in range(count)]
    dealt = list(parts(shard, core_seconds, scope))
    assert [photo for part in dealt for photo in part] == shard
    assert all(dealt)
    if len(shard) * core_seconds <= PART_CORE_SECONDS:
        assert dealt == [shard]
    elif scope == "image":
        (size,) = {len(part) for part in dealt[:-1]} or {len(dealt[0])}
        assert len(dealt) == 1 or size in (8, 16, 32)
        assert size <= MICRO_BATCH or size * core_seconds <= PART_CORE_SECONDS
        padded = sum(-(-len(part) // MICRO_BATCH) for part in dealt)
        assert padded == -(-len(shard) // MICRO_BATCH), "no micro-batch more than in one piece"
    else:
        ends = [part[-1][1] for part in dealt[:-1]]
        assert all(end != part[0][1] for end, part in zip(ends, dealt[1:], strict=True))


def test_methods_of_about_the_same_cost_are_dealt_alike():
    shard = [(f"p/{k}", "p") for k in range(64)]
    assert list(parts(shard, 1.8, "image")) == list(parts(shard, 2.6, "image"))
    assert list(parts([], 9.0, "image")) == [[]]


@given(
    folds=st.lists(st.integers(0, 4), min_size=2, max_size=40),
    share=st.floats(0.01, 1),
    split_seed=st.integers(0, 3),
)
def test_at_most_a_share_of_the_others_has_public_cloaks_in_any_rotation(folds, share, split_seed):
    names = sorted(set(folds))
    fold = {f"p{n:02}": names.index(each) for n, each in enumerate(folds)}
    split = Split(gallery={}, probes={}, fold=fold, cloaked={})
    fewest = min(sum(each != k for each in fold.values()) for k in range(split.folds))
    if math.floor(share * fewest) < 1:
        with pytest.raises(UsageError, match="is no identity whose photos a tracker could cloak"):
            publicly_cloaked(split, share, split_seed)
        return
    public = publicly_cloaked(split, share, split_seed)
    assert public == publicly_cloaked(split, share, split_seed)
    assert len(public) == math.floor(share * fewest)
    for k in range(split.folds):
        others = [name for name, each in fold.items() if each != k]
        assert len(public & set(others)) <= share * len(others)


def test_another_split_seed_draws_others_and_a_larger_share_holds_the_smaller():
    split = Split(gallery={}, probes={}, fold={f"p{n:02}": n % 5 for n in range(40)}, cloaked={})
    assert publicly_cloaked(split, 0.5, 0) != publicly_cloaked(split, 0.5, 1)
    assert publicly_cloaked(split, 0.25, 0) < publicly_cloaked(split, 0.5, 0)
