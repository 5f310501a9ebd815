"""Cards of weights: read and checked, weights chosen by them, and what was read kept until the file changes."""

import hashlib
import json
import os

import pytest
import torch

from bench.data.cards import Shelf, WeightsCard, kept
from bench.errors import DataError, UsageError

CARD = {
    "domain": "real", "dataset": "d", "dataset_fingerprint": "f", "training_identities": "d/training", "parameters": 1,
    "steps": 0, "batch": 1, "trainer": "t", "command": "bench train t", "seed": 0, "wall_seconds": 1.0, "machine": "m",
}  # fmt: skip


@pytest.fixture
def shelf(tmp_path):
    for name, domain in (("t-a", "real"), ("t-b", "synthetic"), ("other-c", "real")):
        weights = tmp_path / f"{name}.safetensors"
        weights.write_bytes(name.encode())
        card = CARD | {
            "file": weights.name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "domain": domain,
        }  # fmt: skip
        weights.with_suffix(".json").write_text(json.dumps(card))
    return Shelf(tmp_path, "t", WeightsCard, "t")


def test_shipped_weights_are_those_of_the_prefix_and_chosen_by_their_cards(shelf):
    assert [path.stem for path in shelf.shipped()] == ["t-a", "t-b"]
    assert [path.stem for path in shelf.fitting(lambda card: card.domain == "synthetic")] == ["t-b"]
    assert shelf.described(lambda card: card.domain) == "t-a: real; t-b: synthetic"
    assert Shelf(shelf.folder / "none", "t", WeightsCard, "t").described(str) == "none"


def test_files_are_weights_and_card_and_changed_weights_are_refused(shelf):
    weights = shelf.shipped()[0]
    assert shelf.files(weights) == (weights, weights.with_suffix(".json"))
    weights.write_bytes(b"changed")
    with pytest.raises(DataError, match=r"t-a\.safetensors has SHA-256 .*, its card says"):
        shelf.files(weights)
    weights.unlink()
    with pytest.raises(
        DataError, match=r"is missing though its card is there\. Train it again: bench train t"
    ):
        shelf.checked(weights)


def test_a_card_that_is_none_says_who_writes_it(shelf, tmp_path):
    with pytest.raises(DataError, match=r"x\.json is missing beside it. `bench train t` writes both"):
        shelf.read(tmp_path / "x.safetensors")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x\.json is not the card of weights by `bench train t`"):
        shelf.read(tmp_path / "x.safetensors")


def test_a_users_own_weights_are_taken_where_they_fit(shelf, tmp_path):
    weights = shelf.shipped()[0]
    assert shelf.own("m", weights, lambda _card: True, str) == weights
    with pytest.raises(UsageError, match=r"m: weights=.*t-a\.safetensors were trained for real faces"):
        shelf.own("m", weights, lambda _card: False, lambda card: f"{card.domain} faces")
    with pytest.raises(UsageError, match=r"m: weights=.*nowhere is not a file"):
        shelf.own("m", tmp_path / "nowhere", lambda _card: True, str)


def test_what_was_read_is_kept_until_the_file_or_an_argument_changes(tmp_path):
    reads = []

    @kept
    def read(path, scale):
        reads.append(scale)
        return torch.tensor([float(path.read_text())]) * scale

    path = tmp_path / "value"
    path.write_text("2")
    with torch.inference_mode():
        first = read(path, 3)
    assert read(path, 3) is first
    assert not first.is_inference()
    assert read(path, 5).item() == 10
    path.write_text("4")
    os.utime(path, (1, 1))
    assert read(path, 3).item() == 12
    assert reads == [3, 5, 3]
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "gone", 3)
