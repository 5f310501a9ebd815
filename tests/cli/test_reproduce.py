"""`bench reproduce` on a small suite of drawn faces, through real subprocesses."""

import csv
import json
import os
import subprocess
import sys
from io import StringIO

import pytest

SUITE = """
attacks = ["pgd:steps=1"]
defenses = ["jpeg"]
backbones = ["synthetic-iresnet"]
identities = 4
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with results/ (a suite, its table, what the table was made with) and a store."""
    place = tmp_path_factory.mktemp("reproduce")
    results = place / "results"
    results.mkdir()
    (results / "tiny.toml").write_text(SUITE)
    done = bench(
        place, "run", "--config", "results/tiny.toml", "--csv", "results/tiny.csv", "--out", "results/tiny"
    )
    assert done.returncode == 0, done.stderr
    return place


def bench(place, *words):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLOAKBENCH")},
        "CLOAKBENCH_STORE": str(place / "store"),
        "CLOAKBENCH_DATA": str(place / "data"),
        "TORCH_HOME": str(place / "torch"),
    }
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def with_table(place, tmp_path, change):
    """Return a copy of results/ whose table was changed, without the record of its making."""
    copy = tmp_path / "results"
    copy.mkdir()
    (copy / "tiny.toml").write_text(SUITE)
    (copy / "tiny.csv").write_text(change((place / "results" / "tiny.csv").read_text()))
    return str(copy)


def test_the_tables_that_can_be_made_again_are_listed(place):
    done = bench(place, "reproduce")
    assert (done.returncode, done.stdout) == (0, "tiny: results/tiny.toml, results/tiny.csv\n")
    assert json.loads(bench(place, "reproduce", "--json").stdout)[0]["quick"] is None


def test_a_table_made_again_on_the_same_machine_is_the_same(place):
    done = bench(place, "reproduce", "tiny", "--from", "results", "--out", "runs/again", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reproduced"]
    assert {value["state"] for value in found["rates"]} == {"same"}
    assert found["environment"] == []
    again = bench(place, "reproduce", "tiny", "--from", "results", "--out", "runs/again")
    assert "Going on without lpips: " in again.stderr
    assert (place / "runs" / "again" / "leaderboard.csv").read_text() == (
        place / "results" / "tiny.csv"
    ).read_text()


def test_a_rate_outside_its_interval_is_shown_and_the_code_is_one(place, tmp_path):
    def change(text):
        header, *rows = csv.reader(text.splitlines())
        for name, value in (("asr", "0.990000"), ("asr_low", "0.980000"), ("asr_high", "1.000000")):
            rows[-1][header.index(name)] = value
        changed = StringIO()
        csv.writer(changed, lineterminator="\n").writerows([header, *rows])
        return changed.getvalue()

    done = bench(
        place,
        "reproduce",
        "tiny",
        "--results",
        with_table(place, tmp_path, change),
        "--from",
        "results",
        "--out",
        "runs/other",
    )
    assert done.returncode == 1
    assert (
        "OUTSIDE pgd:steps=1 jpeg synthetic-iresnet nn 0: asr 99.0 [98.0, 100.0] published, " in done.stdout
    )
    assert "What the published table was made on is not recorded beside it." in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Not reproduced: ")
    assert "The largest difference is -" in done.stdout


def test_what_cannot_be_made_again_is_refused(place, tmp_path):
    done = bench(place, "reproduce", "tiney")
    assert done.returncode == 2
    assert "Did you mean 'tiny'?" in done.stderr
    done = bench(place, "reproduce", "tiny", "--quick")
    assert done.returncode == 2
    assert "has no quick form" in done.stderr
    done = bench(place, "reproduce", "tiny", "--results", str(tmp_path))
    assert done.returncode == 2
    assert "--results FOLDER" in done.stderr


def of_two(place, tmp_path):
    """Return a copy of results/ with a second suite that shares all but a defence, and one that cannot be made."""
    copy = tmp_path / "results"
    copy.mkdir()
    table = (place / "results" / "tiny.csv").read_text()
    for name, suite in {
        "tiny": SUITE,
        "wider": SUITE.replace('["jpeg"]', '["jpeg", "median"]'),
        "broken": SUITE.replace('"jpeg"', '"jpeggy"'),
    }.items():
        (copy / f"{name}.toml").write_text(suite)
        (copy / f"{name}.csv").write_text(table)
    return copy


def test_a_dry_run_of_all_counts_once_what_is_shared_and_computes_nothing(place, tmp_path):
    copy, store = of_two(place, tmp_path), tmp_path / "empty"
    words = ("reproduce", "all", "--dry-run", "--results", str(copy), "--store", str(store))
    found = json.loads(bench(place, *words, "--json").stdout)
    seconds = {each["name"]: each["seconds"] for each in found["tables"]}
    assert seconds["tiny"] < seconds["wider"]
    assert found["seconds"] == pytest.approx(seconds["wider"])
    assert seconds["broken"] is None
    printed = bench(place, *words).stdout
    assert "broken: cannot be made: unknown defense 'jpeggy'" in printed
    assert printed.splitlines()[-1].startswith("Together about ")
    assert not store.exists()


def test_all_are_made_whatever_becomes_of_one_of_them(place, tmp_path):
    copy = of_two(place, tmp_path)
    out = tmp_path / "runs"
    done = bench(place, "reproduce", "all", "--results", str(copy), "--from", "results", "--out", str(out))
    assert done.returncode == 2
    lines = {line.partition(":")[0]: line for line in done.stdout.splitlines()}
    assert lines["tiny"].startswith("tiny: Reproduced: ")
    assert lines["wider"].startswith("wider: Reproduced: ")  # what was published of it is there
    assert "jpeggy" in lines["broken"]
    assert sorted(path.name for path in out.iterdir()) == ["tiny", "wider"]


@pytest.mark.slow
def test_a_table_made_again_takes_the_place_of_the_published_one_where_that_is_wanted(place, tmp_path):
    copy = of_two(place, tmp_path)
    words = (
        "reproduce",
        "wider",
        "--results",
        str(copy),
        "--from",
        "results",
        "--out",
        str(tmp_path / "run"),
    )
    assert bench(place, *words, "--update").returncode == 0
    assert (copy / "wider.csv").read_bytes() == (tmp_path / "run" / "leaderboard.csv").read_bytes()
    again = json.loads(bench(place, *words, "--json").stdout)
    assert again["environment"] == []
    published = {value["cell"].split()[1] for value in again["rates"]}
    assert published == {"none", "jpeg", "median"}
