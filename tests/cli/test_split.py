"""`--split development` through real processes on drawn faces: what it prints, writes, and where it is refused."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from bench.api import run as run_matrix
from bench.errors import DataError, UsageError
from bench.leaderboard.merge import read_source
from bench.run.planning import Options
from bench.run.spec import DEVELOPMENT_NOTE

MATRIX = (
    *("--dataset", "synthetic:identities=4", "--attack", "pgd:steps=1", "--defense", "jpeg:quality=20"),
    *("--backbone", "synthetic-iresnet", "--head", "nn", "--threads", "1"),
)


@pytest.fixture(scope="module")
def runs(command, once):
    """Run one matrix on both splits, on one store; gives each run's folder and what was printed."""

    def make(root):
        root.mkdir()
        for split in ("evaluation", "development"):
            given = () if split == "evaluation" else ("--split", split)
            done = command("run", *MATRIX, *given, "--store", root / "store", "--out", root / split)
            assert done.returncode == 0, done.stderr
            (root / f"{split}.txt").write_text(done.stdout)

    root = once("splits", make)
    return SimpleNamespace(
        store=root / "store",
        evaluation=root / "evaluation",
        development=root / "development",
        printed={split: (root / f"{split}.txt").read_text() for split in ("evaluation", "development")},
    )


def test_the_first_line_says_which_split(runs):
    assert runs.printed["development"].splitlines()[0] == DEVELOPMENT_NOTE
    assert "evelopment" not in runs.printed["evaluation"]


def test_every_row_says_which_split(runs):
    for split in ("evaluation", "development"):
        table = pd.read_csv(getattr(runs, split) / "leaderboard.csv")
        assert set(table["split"]) == {split}
        assert set(table["n_identities"]) == {4}
        assert table["dataset_note"].str.startswith(DEVELOPMENT_NOTE).all() == (split == "development")
        assert set(table["identity_overlap"]) == {"yes" if split == "development" else "no"}


def test_only_the_development_run_has_written_its_split(runs):
    written = {
        split: json.loads((getattr(runs, split) / "spec.json").read_text())
        for split in ("evaluation", "development")
    }
    assert (
        written["development"]["spec"]["split"]
        == written["development"]["requested"]["split"]
        == "development"
    )
    assert "split" not in written["evaluation"]["spec"]
    names = [json.loads((getattr(runs, split) / "splits.json").read_text()) for split in written]
    assert not set(names[0]["gallery"]) & set(names[1]["gallery"])


def test_a_suite_file_and_python_ask_for_the_same_run(here, runs, tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'dataset = "synthetic:identities=4"\nattacks = ["pgd:steps=1"]\ndefenses = ["jpeg:quality=20"]\n'
        'backbones = ["synthetic-iresnet"]\nheads = ["nn"]\nsplit = "development"\n'
    )
    planned = here("plan", "--config", suite, "--threads", "1", "--store", runs.store, "--json")
    assert planned.returncode == 0, planned.stderr
    found = json.loads(planned.stdout)
    assert found["run"] == json.loads((runs.development / "spec.json").read_text())["run"]
    assert found["cells_cached"] == found["cells"]
    overridden = here(
        "plan", "--config", suite, "--split", "evaluation", "--threads", "1", "--store", runs.store, "--json"
    )
    assert (
        json.loads(overridden.stdout)["run"] == json.loads((runs.evaluation / "spec.json").read_text())["run"]
    )
    table = run_matrix(
        "pgd:steps=1",
        "jpeg:quality=20",
        backbones="synthetic-iresnet",
        heads="nn",
        dataset="synthetic:identities=4",
        split="development",
        options=Options(threads=1, store=runs.store, out=tmp_path / "again"),
    )
    assert set(table["split"]) == {"development"}
    assert table.attrs["run"] == found["run"]
    assert table.attrs["spec"]["split"] == "development"


def test_the_same_command_again_computes_nothing_and_gives_the_same_bytes(command, runs):
    before = (runs.development / "leaderboard.csv").read_bytes()
    done = command(
        "run", *MATRIX, "--split", "development", "--store", runs.store, "--out", runs.development, "-v"
    )
    assert done.returncode == 0, done.stderr
    assert "4 cells, 4 cached" in (runs.development / "run.log").read_text()
    assert (runs.development / "leaderboard.csv").read_bytes() == before


@pytest.mark.parametrize("words", [("verify",), ("verify", "--rerun"), ("audit",)])
def test_it_is_verified_made_again_and_audited(command, runs, tmp_path, words):
    store = tmp_path / "store" if "--rerun" in words else runs.store
    given = ("--store", store) if words[0] == "verify" else ()
    done = command(words[0], runs.development, *words[1:], *given)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_report_begins_with_it(here, runs, tmp_path):
    out = tmp_path / "report.md"
    done = here("report", runs.development, "--format", "md", "--out", out, "--store", runs.store)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert "development split" in text.split("## ")[0]
    summary = text.split("## Summary", 1)[1].lstrip()
    assert summary.startswith(DEVELOPMENT_NOTE)
    assert "--split development" in text


@pytest.mark.parametrize("order", [("evaluation", "development"), ("development", "evaluation")])
def test_rows_of_two_splits_are_never_merged(here, runs, order):
    done = here("leaderboard", *(getattr(runs, split) for split in order), "--keep-both")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is of split development" in done.stderr
    assert "Give runs of one split" in done.stderr


def test_nor_is_a_table_that_was_written_before_there_were_splits(here, runs, tmp_path):
    older = pd.read_csv(runs.evaluation / "leaderboard.csv").drop(columns="split")
    older.to_csv(tmp_path / "older.csv", index=False)
    assert here("leaderboard", tmp_path / "older.csv").returncode == 0
    done = here("leaderboard", tmp_path / "older.csv", runs.development)
    assert done.returncode == 2
    assert f"{tmp_path / 'older.csv'} is of split evaluation" in done.stderr


def test_they_share_no_ground_and_are_not_compared(here, runs):
    one, other = (read_source(getattr(runs, split))[0] for split in ("evaluation", "development"))
    assert one.ground != other.ground
    assert one.comparable != other.comparable
    done = here("compare", runs.evaluation, runs.development)
    assert done.returncode == 2
    assert "split: evaluation and development" in done.stderr


@pytest.mark.parametrize(
    "words", [("table", "means"), ("table", "significance"), ("compare", "jpeg:quality=20", "none")]
)
def test_tables_that_have_no_column_for_it_say_so_beside(here, runs, tmp_path, words):
    command, *rest = words
    if command == "table":
        given = ("table", *rest, runs.development, *(("--out", tmp_path) if "significance" in rest else ()))
    else:
        given = (command, runs.development, *rest)
    done = here(*given)
    assert done.returncode == 0, done.stderr
    assert DEVELOPMENT_NOTE in done.stderr.splitlines()


def test_it_has_no_public_page_but_its_own_table(here, runs, tmp_path):
    page = tmp_path / "page.html"
    done = here("leaderboard", runs.development, "--html", page)
    assert done.returncode == 2
    assert "these rows are of the development split" in done.stderr
    assert not page.exists()
    done = here("leaderboard", runs.development, "--md", tmp_path / "own.md")
    assert done.returncode == 0
    assert "Development split" in (tmp_path / "own.md").read_text()


def test_it_is_not_submitted(here, runs, tmp_path):
    done = here("submit", runs.development, "--to", tmp_path / "board")
    assert done.returncode == 2
    assert "is a run on split development" in done.stderr
    assert "--split evaluation" in done.stderr
    assert not (tmp_path / "board").exists()


def test_nor_read_where_somebody_wrote_it_among_the_submissions(here, runs, tmp_path, monkeypatch):
    from bench.publish import submission

    monkeypatch.setattr(submission, "LEAST_IDENTITIES", 4)
    board = tmp_path / "board"
    done = here("submit", runs.evaluation, "--to", board)
    assert done.returncode == 0, done.stdout
    record = next(board.glob("*.json"))
    written = json.loads(record.read_text())
    written["spec"]["split"] = "development"
    record.write_text(json.dumps(written))
    with pytest.raises(DataError, match="a submission of a run on the development split"):
        read_source(board)


def test_a_suite_of_it_is_no_published_table(runs, tmp_path):
    from bench.integrity import reproduction

    (tmp_path / "mine.toml").write_text('dataset = "synthetic:identities=4"\nsplit = "development"\n')
    (tmp_path / "mine.csv").write_bytes((runs.development / "leaderboard.csv").read_bytes())
    with pytest.raises(UsageError, match=r"mine\.toml' is of split development"):
        reproduction.read_table(reproduction.find(tmp_path, "mine"))


def test_another_split_is_refused_by_name(here):
    done = here("run", "--split", "test")
    assert done.returncode == 2
    assert "'evaluation', 'development'" in done.stderr
