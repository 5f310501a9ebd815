"""Near-duplicate photos."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.quality.near_duplicates import (
    MAX_HAMMING,
    MIN_CORRELATION,
    Fingerprints,
    _near_by_hash,
    difference_hash,
    fingerprint_photos,
    fingerprints,
    from_bytes,
    grey_pictures,
    joined,
    near_duplicates,
    same_photos,
    to_bytes,
)


@pytest.fixture
def faces(tiny):
    del tiny
    from bench.plugins import factory

    dataset = factory.dataset("tiny:identities=8")
    ids = [photo for identity in dataset.identities() for photo in identity.photos]
    return dataset, ids, dataset.crops(ids)


def prints(crops, prefix):
    names = tuple(f"{prefix}/{i}" for i in range(len(crops)))
    return Fingerprints(names, difference_hash(crops), grey_pictures(crops))


def test_the_hash_is_that_of_its_definition(faces):
    _, _, crops = faces
    for crop, found in zip(crops[:6], difference_hash(crops[:6]), strict=True):
        grey = np.tensordot([0.299, 0.587, 0.114], crop.numpy().astype(float), axes=1)
        cells = [
            [grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() for columns in _bins(112, 9)]
            for rows in _bins(112, 8)
        ]
        bits = "".join(str(int(row[k] < row[k + 1])) for row in cells for k in range(8))
        assert int(found) == int(bits, 2)


def _bins(length, count):
    # The borders of adaptive pooling: floor and ceiling of equal parts.
    return [range(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def test_a_photo_saved_again_is_found_and_no_other(faces, tmp_path):
    _, _, crops = faces
    saved = []
    for place, crop in enumerate(crops):
        file = tmp_path / f"{place}.jpg"
        Image.fromarray(crop.permute(1, 2, 0).numpy()).save(file, quality=60)
        saved.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    found = near_duplicates(prints(crops, "a"), prints(torch.stack(saved), "b"))
    assert [(pair.first[2:], pair.second[2:]) for pair in found] == sorted(
        (str(i), str(i)) for i in range(len(crops))
    )
    assert all(pair.hamming <= MAX_HAMMING and pair.correlation >= MIN_CORRELATION for pair in found)


def test_a_photo_is_no_duplicate_of_itself_and_a_pair_is_told_once(faces):
    dataset, ids, _ = faces
    own = fingerprint_photos(dataset, ids)
    assert near_duplicates(own, own) == []
    twins = Fingerprints(("x", "y"), own.hashes[[0, 0]], own.pictures[[0, 0]])
    (pair,) = near_duplicates(twins, twins)
    assert (pair.first, pair.second, pair.hamming) == ("x", "y", 0)
    assert pair.correlation == pytest.approx(1, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 64))
def test_hashes_are_near_by_the_number_of_bits(one, other, most):
    same = np.ones((1, 4), np.float32) / 2
    first = Fingerprints(("a",), np.array([one], np.uint64), same)
    second = Fingerprints(("b",), np.array([other], np.uint64), same)
    bits = (one ^ other).bit_count()
    found = near_duplicates(first, second, max_hamming=most)
    assert [pair.hamming for pair in found] == ([bits] if bits <= most else [])


def test_fingerprints_are_stored_and_read_as_they_are(faces):
    _, ids, crops = faces
    made = fingerprints(ids, crops)
    stored = to_bytes(made)
    assert stored == to_bytes(fingerprints(ids, crops))
    assert 10 * len(stored) < crops.numel()
    read = from_bytes(stored)
    assert read.ids == made.ids
    for one, other in ((read.hashes, made.hashes), (read.pictures, made.pictures)):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_a_gallery_in_shards_has_the_pairs_of_the_whole(faces):
    _, ids, crops = faces
    probes = prints(crops, "again")
    shards = [fingerprints(ids[at : at + 3], crops[at : at + 3]) for at in range(0, len(ids), 3)]
    found = same_photos([probes], lambda: shards)
    assert found == same_photos([probes], lambda: [fingerprints(ids, crops)])
    assert found.found == len(ids)
    assert list(found.pairs) == sorted(found.pairs)


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_probes_held_some_at_a_time_have_the_pairs_of_all(faces, at_once):
    _, ids, crops = faces
    shards = [prints(crops[at : at + 3], f"again {at}") for at in range(0, len(ids), 3)]
    looked_through = []

    def gallery():
        looked_through.append(None)
        return [fingerprints(ids, crops)]

    found = same_photos(shards, gallery, at_once)
    assert found == same_photos([joined(shards)], lambda: [fingerprints(ids, crops)])
    assert found.probes == found.found == len(ids)
    assert len(looked_through) == {1: len(shards), 4: -(-len(shards) // 2), 1000: 1}[at_once]


def test_no_probes_are_in_no_pair():
    assert same_photos([], list).model_dump() == {"probes": 0, "pairs": (), "reason": ""}


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0, 1, 7, 300]))
@settings(max_examples=25)
def test_hashes_compared_some_at_a_time_are_those_compared_one_by_one(seed, most, count):
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 2**63, size, dtype=np.uint64) for size in (230, count))
    pairs = [
        (row, column, (int(one) ^ int(other)).bit_count())
        for row, one in enumerate(first)
        for column, other in enumerate(second)
    ]
    assert list(_near_by_hash(first, second, most)) == [pair for pair in pairs if pair[2] <= most]
