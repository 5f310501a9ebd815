"""Numbers at the border: what is not finite fails its cells, all else has a defined rate, and is warned of."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.protocols.heads import Centroid, NearestNeighbour

FILE = Path(__file__).with_name("odd_backbone.py")


@pytest.fixture
def table(cli, tmp_path):
    """Return a function that runs a matrix with an odd backbone; gives exit code, rows and messages."""

    def made(how, *more):
        code, _, err = cli(
            "run", "--dataset", "tiny", "--attack", "tiny-noise", "--backbone", f"{FILE}:Odd:how={how}",
            "--head", "nn", "--head", "centroid", "--threads", "1", "--quiet",
            "--store", tmp_path / "store", "--out", tmp_path / "run", *more,
        )  # fmt: skip
        return code, pd.read_csv(tmp_path / "run/leaderboard.csv", keep_default_na=False, dtype=str), err

    return made


@pytest.mark.parametrize("how", ["nan", "infinite"])
def test_what_is_not_finite_fails_its_cells(table, how):
    code, rows, _ = table(how)
    assert code == 1
    assert set(rows["status"]) == {"failed"}
    assert rows["reason"].str.contains("returned embeddings that are not finite").all()


@pytest.mark.parametrize("how", ["zero", "constant"])
def test_one_embedding_for_all_is_chance_and_warned_of(table, how):
    code, rows, err = table(how)
    assert code == 0, err
    assert "gives different pictures the same embedding: every answer of it is chance" in err
    assert rows["warnings"].str.contains("same-score: all 72 answers have the score").all()
    # All scores are tied, so that everybody is taken for the first class.
    n = int(rows["n_identities"].iloc[0])
    assert np.allclose(rows["normal_accuracy"].astype(float), 1 / n)
    assert np.allclose(rows["asr"].astype(float), 1 - 1 / n)


@pytest.mark.parametrize("how", ["huge", "tiny"])
def test_the_length_of_embeddings_is_no_matter(table, how):
    code, rows, err = table(how)
    assert code == 0, err
    assert err == ""
    assert rows["asr"].astype(float).between(0, 1).all()
    assert (rows["warnings"] == "").all()


def test_one_identity_is_refused_before_work(cli, tmp_path):
    code, _, err = cli(
        "run", "--dataset", "tiny", "--identities", "1", "--backbone", "tiny-a",
        "--store", tmp_path / "store", "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 2
    assert err.startswith("Error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("head", [NearestNeighbour(), Centroid()])
def test_a_tie_goes_to_the_first_class_whoever_it_is(head):
    vectors = np.eye(3)[[0, 0, 1]]
    scores = head.fit(vectors, np.array([0, 1, 2]), 3)(np.eye(3)[[0, 2]])
    assert scores.argmax(1).tolist() == [0, 0]
    assert scores[0].tolist() == [1, 1, 0]


@pytest.mark.parametrize("head", [NearestNeighbour(), Centroid()])
@pytest.mark.parametrize("length", [1e-45, 1e-30, 1.0, 1e30, 1e38])
def test_scores_do_not_depend_on_length(head, length):
    rng = np.random.default_rng(0)
    gallery, probes, labels = rng.normal(size=(8, 5)), rng.normal(size=(4, 5)), np.arange(8) % 4
    expected = head.fit(gallery, labels, 4)(probes)
    assert np.allclose(head.fit(gallery * length, labels, 4)(probes * length), expected, atol=1e-6)


def test_a_zero_vector_is_like_nobody():
    scores = NearestNeighbour().fit(np.zeros((2, 3)), np.array([0, 1]), 2)(np.ones((1, 3)))
    assert scores.tolist() == [[0, 0]]
