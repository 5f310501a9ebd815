"""What is missing in one of two runs is a difference, not a value to pass over."""

import math

import numpy as np
import pandas as pd
import pytest

from benchmarks.threads import compare


@pytest.fixture
def run(tmp_path):
    """Return a function that writes a run's folder of some scores and rates."""

    def made(name, scores, rates):
        (tmp_path / name / "decisions").mkdir(parents=True)
        rows = pd.DataFrame(
            {
                "condition": "",
                "fold": 0,
                "identity": "p",
                "image": [str(n) for n in range(len(scores))],
                "reference": None,
                "predicted": None,
                "correct": False,
                "score": np.array(scores, dtype=np.float32),
            }
        )
        rows.to_parquet(tmp_path / name / "decisions/cell.parquet")
        pd.DataFrame({"asr": rates}).to_csv(tmp_path / name / "leaderboard.csv", index=False)
        return tmp_path / name

    return made


def test_the_same_runs_differ_in_nothing(run):
    one, other = (run(name, [0.5, np.nan], [0.25, np.nan]) for name in ("one", "other"))
    found = compare(one, other)
    assert (found.decisions, found.others, found.score, found.asr) == (2, 0, 0, 0)


def test_scores_and_rates_differ_by_the_largest(run):
    found = compare(run("one", [0.5, 0.25], [0.25, 0.5]), run("other", [0.5, 0.75], [0.25, 0.75]))
    assert (found.others, found.score, found.asr) == (0, 0.5, 25)


def test_what_one_run_lacks_is_a_difference(run):
    found = compare(run("one", [0.5, 0.25, 0.5], [0.25]), run("other", [0.5, np.nan, np.nan], [np.nan]))
    assert (found.others, found.score) == (2, 0)
    assert found.asr == math.inf
    none = compare(run("two", [0.5], [0.5]), run("three", [np.nan], [0.5]))
    assert (none.others, none.score) == (1, 0)
