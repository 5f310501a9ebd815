"""LFW's 10-fold protocol and the calibration of thresholds, on data with known answers."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from bench.cli.models import models
from bench.contracts import Backbone, BackboneCard, Dataset, Identity
from bench.data.files import data_folder
from bench.errors import DataError, UsageError
from bench.protocols.lfw_pairs import (
    Pair,
    best_threshold,
    calibrate_thresholds,
    cross_validate,
    read_pairs,
    verify_backbone,
)


class Directions(Backbone):
    """Reads the embedding off the first row of the image's red channel."""

    name = "directions"
    card = BackboneCard(name="directions", licence="none", embedding_dim=8, lfw_accuracy=0.9)

    def load(self, device):
        pass

    def embed(self, images):
        return images[:, 0, 0, :8] - 0.5


class Identities(Dataset):
    """Each identity has a random direction; the photos vary around it."""

    name = "crowd"

    def __init__(self, training=300, evaluated=5, photos=3, noise=0.0):
        super().__init__()
        rng = np.random.default_rng(0)
        self.seen = []
        self.pixels = {}
        self.everyone = []
        for i in range(training + evaluated):
            centre = rng.uniform(0, 255, 8)
            ids = tuple(f"p{i:04d}/{k}" for k in range(photos))
            self.everyone.append(Identity(f"p{i:04d}", ids, "training" if i < training else "evaluation"))
            for image_id in ids:
                crop = np.zeros((3, 112, 112), np.uint8)
                crop[0, 0, :8] = np.clip(centre + noise * rng.standard_normal(8), 0, 255)
                self.pixels[image_id] = torch.from_numpy(crop)

    def identities(self):
        return tuple(self.everyone)

    def fingerprint(self):
        return "crowd"

    def crops(self, ids):
        self.seen += ids
        return torch.stack([self.pixels[i] for i in ids])


class NamedIdentities(Identities):
    def image_id(self, identity, number):
        return f"{identity}/{number - 1}"


def write_pairs(path, folds=4, each=6):
    rng = np.random.default_rng(1)
    lines = [f"{folds}\t{each}"]
    for _ in range(folds):
        identities = rng.permutation(300)
        lines += [f"p{i:04d}\t1\t{rng.integers(2, 4)}" for i in identities[:each]]
        lines += [f"p{i:04d}\t1\tp{j:04d}\t2" for i, j in identities[each : 3 * each].reshape(-1, 2)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pairs_are_read_in_folds_of_matched_then_mismatched(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("2\t1\nA_B\t1\t4\nA_B\t2\tC_D\t3\nE\t2\t3\nE\t1\tF\t1\n")
    assert read_pairs(path) == (
        Pair(0, True, ("A_B", 1), ("A_B", 4)),
        Pair(0, False, ("A_B", 2), ("C_D", 3)),
        Pair(1, True, ("E", 2), ("E", 3)),
        Pair(1, False, ("E", 1), ("F", 1)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected 'FOLDS PAIRS'"),
        ("ten 300\n", "line 1: expected 'FOLDS PAIRS'"),
        ("1 1\nA\t1\t2\n", "has 1 pairs, its first line says 2"),
        ("1 1\nA\t1\tB\t2\nA\t1\t2\n", "line 2: expected PERSON NUMBER NUMBER"),
        ("1 1\nA\t1\t2\nA\t1\t2\n", "line 3: expected PERSON NUMBER PERSON NUMBER"),
        ("1 1\nA\t1\tx\nA\t1\tB\t2\n", "line 2: a photo's number is not a number"),
    ],
)
def test_malformed_list_is_refused(text, message, tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(path)


def test_missing_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_pairs(tmp_path / "pairs.txt")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=20))
def test_best_threshold_beats_every_other(rows):
    similarity = np.array([value / 5 for value, _ in rows])
    same = np.array([flag for _, flag in rows])
    found = accuracy_score(same, similarity >= best_threshold(similarity, same))
    tried = [accuracy_score(same, similarity >= t) for t in np.linspace(-1.1, 1.1, 45)]
    assert found == pytest.approx(max(tried))


def test_cross_validation_never_looks_at_the_fold_it_scores():
    similarity = np.array([0.9, 0.1, 0.8, 0.2, 0.2, 0.1])
    same = np.array([True, False, True, False, True, False])
    fold = np.array([0, 0, 1, 1, 2, 2])
    accuracies, thresholds = cross_validate(similarity, same, fold)
    # By hand: folds 1 and 2 err only because their thresholds come from the others.
    np.testing.assert_allclose(thresholds, [0.5, 0.15, 0.5])
    np.testing.assert_allclose(accuracies, [1, 0.5, 0.5])


def test_verification_of_a_perfect_backbone(tmp_path):
    result = verify_backbone(Directions(), NamedIdentities(noise=1.0), write_pairs(tmp_path / "pairs.txt"))
    assert (result.accuracy, result.std, result.pairs, result.expected) == (1.0, 0.0, 48, 0.9)
    assert result.difference == pytest.approx(0.1)
    assert 0 < result.threshold < 1


def test_verification_of_a_poor_backbone_agrees_with_a_plain_loop(tmp_path):
    dataset, path = NamedIdentities(noise=90.0), write_pairs(tmp_path / "pairs.txt", folds=5, each=20)
    result = verify_backbone(Directions(), dataset, path)

    def cosine(pair):
        a, b = (
            dataset.pixels[dataset.image_id(*photo)][0, 0, :8].numpy() / 255 - 0.5
            for photo in (pair.first, pair.second)
        )
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    pairs = read_pairs(path)
    values = [(pair.fold, cosine(pair), pair.same) for pair in pairs]
    rates = []
    for k in range(5):
        others = [(c, s) for f, c, s in values if f != k]
        cuts = sorted(c for c, _ in others)
        middle = [(a + b) / 2 for a, b in pairwise(cuts)]
        best = max([2.0, *reversed(middle), -2.0], key=lambda t: sum((c >= t) == s for c, s in others))
        rates.append(np.mean([(c >= best) == s for f, c, s in values if f == k]))
    assert 0.5 < result.accuracy < 1
    assert result.accuracy == pytest.approx(np.mean(rates))
    assert result.std == pytest.approx(np.std(rates))


class Fused(Directions):
    """Its card's accuracy is of both ways round."""

    accuracy_fuses_mirrored = True


def test_with_flip_the_mirrored_photos_embedding_is_added(tmp_path):
    dataset, path = NamedIdentities(noise=60.0), write_pairs(tmp_path / "pairs.txt", folds=5, each=20)
    plain = verify_backbone(Directions(), dataset, path)
    # A mirror image whose first pixels say the same: the sum is twice the embedding.
    for pixels in dataset.pixels.values():
        pixels[0, 0, -8:] = pixels[0, 0, :8].flip(0)
    twice = verify_backbone(Directions(), dataset, path, flip=True)
    assert twice.accuracy == plain.accuracy
    assert twice.threshold == pytest.approx(plain.threshold)
    # With the embedding only in the mirror image, one way round sees noise alone.
    rng = np.random.default_rng(0)
    for pixels in dataset.pixels.values():
        pixels[0, 0, :8] = torch.from_numpy(rng.integers(120, 136, 8).astype(np.uint8))
    assert verify_backbone(Directions(), dataset, path).accuracy < 0.6
    mirrored = verify_backbone(Directions(), dataset, path, flip=True)
    assert mirrored.accuracy == pytest.approx(plain.accuracy, abs=0.06)


@pytest.mark.parametrize(
    ("backbone", "options", "code", "said"),
    [
        (Directions, [], 1, "more than 0.3"),
        (Directions, ["--flip"], 0, "leave out --flip"),
        (
            Fused,
            [],
            0,
            "not measured alike: it is of a photo's embedding and its mirror image's, added: --flip",
        ),
        (Fused, ["--flip"], 1, "more than 0.3"),
        (
            type("Loose", (Directions,), {"accuracy_unlike": "looser crops"}),
            [],
            0,
            "not measured alike: looser crops",
        ),
    ],
)
def test_verify_fails_only_against_what_was_measured_alike(
    tmp_path, monkeypatch, backbone, options, code, said
):
    monkeypatch.setattr("bench.plugins.factory.backbone", lambda _name: backbone())
    monkeypatch.setattr("bench.plugins.factory.dataset", lambda _name: NamedIdentities(noise=1.0))
    pairs = write_pairs(tmp_path / "pairs.txt")
    result = CliRunner().invoke(models, ["verify", "x", "--pairs", str(pairs), *options])
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "on 48 pairs" in result.stdout


def test_a_dataset_without_lfws_names_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"dataset 'crowd' does not know; use lfw"):
        verify_backbone(Directions(), Identities(), write_pairs(tmp_path / "pairs.txt"))


def test_calibration_uses_one_photo_of_each_training_identity_and_no_other():
    dataset = Identities()
    found = calibrate_thresholds(Directions(), dataset, identities=250, rates=(0.1, 0.01), source="a command")
    assert len(dataset.seen) == 250 == len(set(dataset.seen))
    assert {image_id.split("/")[1] for image_id in dataset.seen} == {"0"}
    assert all(int(image_id[1:5]) < 300 for image_id in dataset.seen)
    assert [c.threshold.far for c in found] == [0.1, 0.01]
    assert {(c.threshold.pairs, c.threshold.source) for c in found} == {(250 * 249 // 2, "a command")}
    assert found[0].threshold.cosine < found[1].threshold.cosine
    for c in found:
        assert c.threshold.far_low < c.threshold.far < c.threshold.far_high
        assert c.low < c.threshold.cosine < c.high
        assert c.high - c.low < 0.2


def test_calibrated_rate_holds_on_the_pairs_it_was_set_on():
    dataset = Identities()
    (found,) = calibrate_thresholds(Directions(), dataset, identities=300, rates=(0.05,))
    vectors = (
        torch.stack([dataset.pixels[p.photos[0]][0, 0, :8] for p in dataset.everyone[:300]]).double() / 255
    )
    vectors = torch.nn.functional.normalize(vectors - 0.5, dim=1)
    cosines = (vectors @ vectors.T)[tuple(torch.triu_indices(300, 300, 1))]
    share = (cosines >= found.threshold.cosine).double().mean().item()
    assert 0.0495 < share <= 0.05


def test_calibration_is_the_same_each_time_and_differs_with_the_seed():
    first, again, other = (
        calibrate_thresholds(Directions(), Identities(), identities=120, seed=s, rates=(0.1,))
        for s in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize(("identities", "rate"), [(40, 0.1), (300, 0.001)])
def test_too_few_pairs_for_a_rate_are_refused(identities, rate):
    with pytest.raises(UsageError, match=rf"rate of {rate} needs .*: the identities of 'crowd'"):
        calibrate_thresholds(Directions(), Identities(), identities=identities, rates=(rate,))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(UsageError, match=f"between 0 and 1, got {rate}"):
        calibrate_thresholds(Directions(), Identities(), rates=(rate,))


def test_the_interval_of_the_rate_goes_with_the_threshold(monkeypatch):
    monkeypatch.setattr("bench.plugins.factory.backbone", lambda _name: Directions())
    monkeypatch.setattr("bench.plugins.factory.dataset", lambda _name: Identities(training=500))
    result = CliRunner().invoke(models, ["calibrate", "directions", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["far"] for row in rows] == [0.1, 0.01, 0.001]
    for row in rows:
        assert row["far_low"] < row["far"] < row["far_high"] < 2 * row["far"]
        assert row["low"] < row["cosine"] < row["high"]
    printed = CliRunner().invoke(models, ["calibrate", "directions"]).stdout
    assert printed.startswith(f"FAR 10 % [{100 * rows[0]['far_low']:.4f}, {100 * rows[0]['far_high']:.4f}]")


@pytest.mark.real_data
@pytest.mark.skipif(not (data_folder() / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw folder")
def test_lfws_own_list():
    pairs = read_pairs(data_folder() / "lfw" / "pairs.txt")
    assert len(pairs) == 6000
    assert sum(pair.same for pair in pairs) == 3000
    assert all(pair.same == (pair.first[0] == pair.second[0]) for pair in pairs)
    assert [sum(pair.fold == k for pair in pairs) for k in range(10)] == [600] * 10
