"""A finished run's files that are not what the run wrote: no table, figure or test is made of them."""

import io
import shutil

import pyarrow.parquet as pq
import pytest

from bench.run.folder import RunFolder

COMMANDS = {
    "leaderboard": ("leaderboard", "{run}", "--csv", "{tmp}/board.csv"),
    "report": ("report", "{run}", "--out", "{tmp}/report.html", "--no-photos"),
    "means": ("table", "means", "{run}"),
    "significance": ("table", "significance", "{run}", "--json"),
    "compare": ("compare", "{run}", "none", "jpeg:quality=20", "--kind", "defense"),
    "plot": ("plot", "{run}", "heatmap", "--out", "{tmp}/figures"),
    "power": ("power", "--run", "{run}"),
}
"""Commands that make something of a run's decisions."""


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished.run, tmp_path / "run")


def answer(cli, name, run, tmp_path):
    return cli(*(word.format(run=run, tmp=tmp_path) for word in COMMANDS[name]))


def swap(one, other):
    first, second = one.read_bytes(), other.read_bytes()
    assert first != second
    one.write_bytes(second)
    other.write_bytes(first)


def without_name(decisions):
    """Return a file of decisions as earlier versions wrote it."""
    table = pq.read_table(io.BytesIO(decisions))
    facts = {key: text for key, text in table.schema.metadata.items() if key != b"cloakbench.cell"}
    written = io.BytesIO()
    names = [field.name for field in table.schema if str(field.type).startswith("dictionary")]
    table = table.replace_schema_metadata(facts)
    pq.write_table(table, written, compression="zstd", use_dictionary=["fold", *names])
    return written.getvalue()


def pair(run):
    """Return the decisions of two cells that differ, both with an attack."""
    first, *others = sorted((run / "decisions").glob("tiny-noise*"))
    return first, next(other for other in others if other.read_bytes() != first.read_bytes())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_whole_run_is_read(cli, run, tmp_path, name):
    code, _, err = answer(cli, name, run, tmp_path)
    assert code == 0, err


@pytest.mark.parametrize("name", COMMANDS)
def test_two_cells_whose_decisions_changed_places_are_refused(cli, run, tmp_path, name):
    swap(*pair(run))
    code, out, err = answer(cli, name, run, tmp_path)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "decisions/" in line
    assert "is not what the run wrote: manifest.json has another digest of it" in line
    assert "bench verify" in line


@pytest.mark.parametrize("place", ["cells.json", "spec.json"])
def test_what_names_the_cells_is_checked_too(cli, run, tmp_path, place):
    text = (run / place).read_text()
    (run / place).write_text(text.replace("tiny-noise", "tiny-noisy"))
    code, out, err = answer(cli, "leaderboard", run, tmp_path)
    assert (code, out) == (2, "")
    assert f"{place} is not what the run wrote" in err


def test_image_measures_are_checked_where_they_are_read(cli, run, tmp_path):
    path = max((run / "images").iterdir(), key=lambda file: file.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    code, _, err = answer(cli, "leaderboard", run, tmp_path)
    assert code == 2
    assert "is not what the run wrote" in err


def test_a_file_that_the_run_did_not_write_is_not_taken_for_one(cli, run, tmp_path):
    mine = run / "decisions" / "mine.parquet"
    first, _ = pair(run)
    shutil.copy(first, mine)
    cells = (run / "cells.json").read_text().replace(first.name, mine.name)
    (run / "cells.json").write_text(cells)
    assert answer(cli, "leaderboard", run, tmp_path)[0] == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_decisions_under_another_cells_name_are_refused_though_the_manifest_agrees(cli, run, tmp_path, name):
    one, other = pair(run)
    swap(one, other)
    RunFolder(run).write_manifest()
    code, out, err = answer(cli, name, run, tmp_path)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "holds the decisions of tiny-noise" in line
    assert "files changed places" in line
    assert one.name in line or other.name in line


def test_cells_that_point_at_each_others_decisions_are_refused_though_the_manifest_agrees(cli, run, tmp_path):
    one, other = pair(run)
    text = (run / "cells.json").read_text()
    text = text.replace(one.name, "\0").replace(other.name, one.name).replace("\0", other.name)
    (run / "cells.json").write_text(text)
    RunFolder(run).write_manifest()
    code, _, err = answer(cli, "leaderboard", run, tmp_path)
    assert code == 2
    assert "files changed places" in err


def test_a_run_of_a_version_that_wrote_no_names_is_read_and_verified(cli, run, finished, tmp_path):
    before = answer(cli, "leaderboard", run, tmp_path)
    for path in (run / "decisions").iterdir():
        path.write_bytes(without_name(path.read_bytes()))
    RunFolder(run).write_manifest()
    assert answer(cli, "leaderboard", run, tmp_path) == before
    code, out, err = cli("verify", run, "--store", finished.store, "--cells", "2", "--quiet")
    assert code == 0, out + err
