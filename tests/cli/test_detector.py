"""`bench run --protocol tracker:defended=detected` as a user runs it, on the embedded faces."""

import subprocess
import sys

import pandas as pd
import pytest

DETECTOR = "detector:attacks=[pgd:steps=2],photos=240,cloaks=24,steps=40,batch=16"


def bench(*arguments, place):
    command = [sys.executable, "-m", "bench", *arguments, "--threads", "1", "--store", str(place / "store")]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("detected")
    protocol = f"tracker:defended=detected,detector=[{DETECTOR}]"
    matrix = ("--identities", "4", "--attack", "pgd:steps=2", "--defense", "gaussian", "--protocol", protocol)
    done = bench("run", *matrix, "--out", "run", place=place)
    assert done.returncode == 0, done.stderr
    return place, done, pd.read_csv(place / "run/leaderboard.csv", keep_default_na=False)


def test_rows_have_the_rates_of_the_detector_with_intervals(finished):
    _, _, table = finished
    row = table[(table["attack"] == "pgd:steps=2") & (table["defense"] == "gaussian")].iloc[0]
    for rate in ("detector_tpr", "detector_fpr"):
        low, value, high = (float(row[f"{rate}{end}"]) for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1
        assert low < high
    assert (row["detector_reason"], row["attack_seen_by_defense"]) == ("", "seen")
    none = table[(table["attack"] == "none") & (table["defense"] == "none")].iloc[0]
    assert none["detector_tpr"] == ""
    assert "no detector" in none["detector_reason"]


@pytest.mark.slow
def test_the_run_is_what_its_artefacts_give_and_can_be_made_again(finished):
    place, _, _ = finished
    verified = bench("verify", "run", place=place)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_defence_that_it_cannot_stand_before_is_refused(tmp_path):
    done = bench("run", "--defense", "views", "--protocol", "tracker:defended=detected", place=tmp_path)
    assert done.returncode == 2
    assert "the defence keeps 2 views of each" in done.stderr
