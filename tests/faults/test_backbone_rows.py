"""A backbone whose rows are not of the pictures they stand for is refused when it is loaded."""

import logging
from pathlib import Path

import pytest
import torch

from bench.authoring.fakes import FakeBackbone
from bench.errors import MethodError
from bench.run import calls

CPU = torch.device("cpu")
CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"


class Backbone(FakeBackbone):
    """Embeds as the test says: a function of what a sound backbone gives."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def embed(self, images):
        return self.change(super().embed(images))


def minus_the_batch(vectors):
    return vectors - vectors.mean(0)


def shifted(vectors):
    return vectors.roll(-1, 0)


def drops_a_row(vectors):
    return vectors[:-1] if len(vectors) > 1 else vectors


def normalised_over_the_batch(vectors):
    return vectors / (vectors.std(0, correction=0) + 1e-3)


@pytest.mark.parametrize("change", [minus_the_batch, shifted, normalised_over_the_batch])
def test_one_that_mixes_its_batch_is_refused(change):
    with pytest.raises(MethodError, match=r"another embedding alone than among others.*it mixes its batch"):
        calls.load(Backbone(change), CPU)


def test_one_that_drops_rows_is_refused():
    with pytest.raises(MethodError, match=r"returned .* embeddings \(2, \d+\) for 3 images"):
        calls.load(Backbone(drops_a_row), CPU)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_embedding_for_all_pictures_is_said(caplog, value):
    with caplog.at_level(logging.WARNING, "bench"):
        calls.load(Backbone(lambda vectors: torch.full_like(vectors, value)), CPU)
    assert "gives different pictures the same embedding: every answer of it is chance" in caplog.text


def test_rounding_is_not_taken_for_mixing(caplog):
    with caplog.at_level(logging.WARNING, "bench"):
        calls.load(Backbone(lambda vectors: vectors + 1e-5 * len(vectors)), CPU)
    assert caplog.text == ""


@pytest.mark.skipif(not (CASES / "in-03-batch-dependent").is_dir(), reason="the shared cases are not here")
def test_an_onnx_file_that_subtracts_the_mean_of_its_batch_fails_its_cells(command, tmp_path):
    file = CASES / "in-03-batch-dependent" / "batchmix.onnx"
    done = command(
        "run", "--attack", "pgd:steps=2", "--defense", "none", "--identities", "6", "--head", "nn", "--threads", "1",
        "--backbone", f"{file}:mean=127.5,scale=128,domain=synthetic", "--store", tmp_path / "s",
        "--out", tmp_path / "r",
    )  # fmt: skip
    assert done.returncode == 1
    assert "it mixes its batch, so that no answer is of one photo" in done.stdout + done.stderr
