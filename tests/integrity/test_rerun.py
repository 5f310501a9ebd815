"""A run is made again from its folder alone."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.errors import DataError, UsageError
from bench.integrity.rerun import MARKER, compare_leaderboards
from bench.leaderboard.table import build
from bench.run import decision_files
from bench.run.folder import RunFolder
from bench.run.provenance import MethodFacts, changed_files, check_weights_are_the_same

PLUGIN = """
from bench.contracts import Attack, ThreatModel


class Darker(Attack):
    name = "darker"
    threat = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        return {name: image * 0.5 for name, image in zip(faces.ids, faces.images, strict=True)}
"""


@pytest.fixture
def small(cli, tmp_path, monkeypatch):
    """A small run of an attack in a file, named as one does from its folder."""
    monkeypatch.chdir(tmp_path)
    Path("darker.py").write_text(PLUGIN)
    code, _, err = cli(
        "run", "--dataset", "tiny:identities=3,photos=4", "--attack", "./darker.py:Darker", "--backbone", "tiny-a",
        "--threads", "1", "--store", "store", "--out", "first", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    return tmp_path


def test_a_rerun_is_identical_and_needs_the_folder_alone(cli, small):
    shutil.rmtree(small / "store")
    code, out, err = cli("rerun", "first", "--quiet")
    assert (code, err) == (0, "")
    assert out == "Identical: the leaderboard in first-rerun is that of first.\n"
    assert (small / "first-rerun/leaderboard.csv").read_bytes() == (
        small / "first/leaderboard.csv"
    ).read_bytes()
    for name in ("cells.json", "splits.json"):
        assert (small / "first-rerun" / name).read_bytes() == (small / "first" / name).read_bytes()
    assert not (small / "first-rerun-store").exists()
    code, out, _ = cli("verify", "first-rerun", "--cells", "1", "--quiet")
    assert code == 0


def test_a_plugin_that_changed_or_went_is_refused(cli, small):
    Path("darker.py").write_text(PLUGIN.replace("0.5", "0.9"))
    code, out, err = cli("rerun", "first", "--quiet")
    assert (code, out) == (2, "")
    assert "'./darker.py' of './darker.py:Darker' has changed since the run: SHA-256" in err
    Path("darker.py").unlink()
    code, _, err = cli("rerun", "first", "--quiet")
    assert code == 2
    assert "needs the file './darker.py', which is not here. Give the command in the folder" in err
    assert not Path("first-rerun").exists()


def test_other_weights_are_refused(cli, small):
    spec = json.loads(Path("first/spec.json").read_text())
    for method in spec["methods"]:
        if method["kind"] == "backbones":
            method["files"] = [["tiny.onnx", "0" * 64]]
    Path("first/spec.json").write_text(json.dumps(spec))
    code, out, err = cli("rerun", "first", "--quiet")
    assert (code, out) == (2, "")
    assert f"'tiny-a' of the run had the file 'tiny.onnx' with SHA-256 {'0' * 64}; now it is absent" in err


def test_what_came_out_otherwise_is_named(cli, small):
    cells = json.loads(Path("first/cells.json").read_text())
    first, second = ([cell for cell in cells if cell["attack"] == name] for name in ("none", "darker"))
    uncloaked, cloaked = (Path("first") / cell[0]["decisions"] for cell in (first, second))
    name = json.loads(pq.read_schema(cloaked).metadata[b"cloakbench.cell"])
    cloaked.write_bytes(decision_files.to_bytes(uncloaked.read_bytes(), name))
    cells[-1]["threat"]["related"] = True
    Path("first/cells.json").write_text(json.dumps(cells))
    code, _, err = cli("rerun", "first", "--quiet", "--json", "--out", "again", "--store", "store")
    assert code == 2
    assert "cells.json is not what the run wrote" in err
    RunFolder(Path("first")).write_manifest()
    code, out, _ = cli("rerun", "first", "--quiet", "--json", "--out", "again", "--store", "store")
    document = json.loads(out)
    assert (code, document["identical"]) == (1, False)
    found = {(each["row"], each["column"]): each for each in document["differences"]}
    marked = found["darker × none × tiny-a × nn × 0", "related"]
    assert (marked["first"], marked["second"], marked["difference"]) == ("True", "False", None)
    assert Path("store").is_dir()
    code, out, _ = cli("rerun", "first", "--quiet", "--out", "again", "--store", "store")
    assert code == 1
    assert "darker × none × tiny-a × nn × 0: related 'True', 'False'" in out


def test_the_run_itself_is_not_written_over(cli, small):
    code, _, err = cli("rerun", "first", "--out", "./first")
    assert code == 2
    assert "--out first is the run itself" in err


def test_a_store_that_no_rerun_made_is_left_alone(cli, small):
    keep = small / "again-store/keep.txt"
    keep.parent.mkdir()
    keep.write_text("mine")
    code, out, err = cli("rerun", "first", "--out", "again", "--quiet")
    assert (code, out) == (2, "")
    assert "again-store is there and is not what an earlier rerun of run " in err
    assert keep.read_text() == "mine"
    assert not Path("again").exists()
    # A rerun that was killed left its mark, and goes on from there.
    run = RunFolder(small / "first").facts().run
    (keep.parent / MARKER).write_text(json.dumps({"run": run}))
    assert cli("rerun", "first", "--out", "again", "--quiet")[0] == 0
    assert not keep.parent.exists()
    # A mark of another run is no mark of this one.
    keep.parent.mkdir()
    (keep.parent / MARKER).write_text(json.dumps({"run": "0" * 12}))
    assert cli("rerun", "first", "--out", "again", "--quiet")[0] == 2
    assert keep.parent.is_dir()


def test_a_link_in_the_place_of_the_store_is_not_followed(cli, small):
    (small / "theirs").mkdir()
    run = RunFolder(small / "first").facts().run
    (small / "theirs" / MARKER).write_text(json.dumps({"run": run}))
    (small / "again-store").symlink_to(small / "theirs")
    code, _, err = cli("rerun", "first", "--out", "again", "--quiet")
    assert code == 2
    assert "it will not be touched" in err


@pytest.mark.parametrize("out", [".", "..", "/", "darker.py"])
def test_a_place_that_is_no_new_folder_is_refused(cli, small, out):
    code, _, err = cli("rerun", "first", "--out", out, "--quiet")
    assert code == 2
    assert f"--out {out} " in err
    assert "Traceback" not in err


def test_the_folder_one_stands_in_can_be_filled_if_it_is_empty(cli, small, monkeypatch):
    cli(
        "run", "--dataset", "tiny:identities=3,photos=4", "--backbone", "tiny-a",
        "--threads", "1", "--store", "store", "--out", "plain", "--quiet",
    )  # fmt: skip
    (small / "new").mkdir()
    monkeypatch.chdir(small / "new")
    code, out, err = cli("rerun", "../plain", "--out", ".", "--quiet")
    assert (code, err) == (0, "")
    assert out.startswith("Identical")
    assert (small / "new/leaderboard.csv").read_bytes() == (small / "plain/leaderboard.csv").read_bytes()
    assert not (small / "new-store").exists()


def test_another_run_is_not_written_over(cli, small):
    other = (
        "run", "--dataset", "tiny:identities=3,photos=4", "--attack", "none", "--backbone", "tiny-a",
        "--threads", "1", "--store", "store", "--quiet",
    )  # fmt: skip
    assert cli(*other, "--out", "second")[0] == 0
    table, digests = (
        Path("second/cells.json").read_bytes(),
        [RunFolder(small / name).facts().run for name in ("first", "second")],
    )
    for arguments in (("rerun", "first", "--quiet", "--out", "second"), (*other, "--out", "first")):
        code, _, err = cli(*arguments)
        assert code == 2
        assert all(digest in err for digest in digests)
    assert Path("second/cells.json").read_bytes() == table
    (small / "third").mkdir()
    (small / "third/spec.json").write_text("{")
    with pytest.raises(UsageError, match=r"with a damaged spec\.json, and this is run 0123"):
        RunFolder(small / "third").check_free_for("0123")


def test_the_manifest_holds_what_the_run_wrote(cli, small):
    arguments = (
        "run", "--dataset", "tiny:identities=3,photos=4", "--attack", "none", "--backbone", "tiny-a",
        "--threads", "1", "--store", "inside/store", "--out", "inside", "--quiet",
    )  # fmt: skip
    assert cli(*arguments)[0] == 0
    folder = RunFolder(small / "inside")
    tops = {name.partition("/")[0] for name in folder.manifest()}
    assert "store" not in tops
    assert {"spec.json", "cells.json", "leaderboard.csv", "run.log", "decisions"} <= tops
    assert set(folder.extras()) == {"store"}


def test_cells_that_fail_again_are_said(cli, small):
    spec = (
        "run",
        "--dataset",
        "tiny:identities=3,photos=4",
        "--backbone",
        "tiny-a",
        "--threads",
        "1",
        "--quiet",
    )
    cli(*spec, "--attack", "tiny-failing", "--store", "store", "--out", "failing")
    code, out, _ = cli("rerun", "failing", "--quiet", "--out", "again")
    assert code == 0
    assert "Identical" not in out
    assert "FAILED tiny-failing × none × tiny-a × nn × seed 0: cloak " in out
    assert "1 cells failed again, with the same reasons" in out
    assert "The other 1 cells in again are those of failing." in out
    code, out, _ = cli("rerun", "failing", "--quiet", "--out", "again", "--json")
    document = json.loads(out)
    assert (code, document["identical"], document["differences"]) == (0, False, [])
    assert len(document["failed"]) == 1


def test_a_stored_table_that_was_changed_is_said(cli, small):
    table = Path("first/leaderboard.csv")
    table.write_text(table.read_text().replace("tiny-a", "tiny-z"))
    code, out, _ = cli("rerun", "first", "--quiet", "--out", "again", "--store", "store")
    assert code == 1
    assert "first/leaderboard.csv is not what the run's own decisions and measures give" in out
    assert "Identical" not in out


def test_files_of_a_method_are_compared_as_sets():
    def facts(*files):
        return (MethodFacts(kind="attacks", text="x", name="x", source="s", files=files),)

    one, two = ("w.onnx", "1" * 64), ("w.onnx", "2" * 64)  # for two trackers, in two folders
    assert changed_files(facts(one, two), facts(two, one)) == {}
    check_weights_are_the_same(facts(one, two), facts(two, one))
    for then, now in ((facts(one, two), facts(two)), (facts(two), facts(one, two))):
        with pytest.raises(DataError, match=r"'w\.onnx' with SHA-256 1111"):
            check_weights_are_the_same(then, now)


def test_a_folder_of_another_version_is_not_called_damaged(small):
    folder = RunFolder(small / "first")
    spec = json.loads((folder.path / "spec.json").read_text())
    (folder.path / "spec.json").write_text(json.dumps(spec | {"weather": "fine", "benchmark_version": "7"}))
    with pytest.raises(
        DataError, match=r"the field weather\. The run was made with benchmark version 7; this is"
    ):
        folder.facts()
    cells = json.loads((folder.path / "cells.json").read_text())
    (folder.path / "cells.json").write_text(json.dumps([cell | {"mood": 1} for cell in cells[:1]]))
    with pytest.raises(DataError, match=r"made by another version of CloakBench.* the field mood\."):
        folder.cells()
    (folder.path / "spec.json").write_text("{")
    with pytest.raises(DataError, match=r"spec\.json is damaged"):
        folder.facts()


def test_boards_are_compared_as_the_csv_shows_them(small):
    leaderboard = build(RunFolder(small / "first"))
    assert compare_leaderboards(leaderboard, leaderboard) == []
    moved = leaderboard.copy()
    moved.loc[1, "asr"] += 0.25
    moved.loc[0, "asr"] += 1e-9
    (found,) = compare_leaderboards(leaderboard, moved)
    assert (found.row, found.column) == ("darker × none × tiny-a × nn × 0", "asr")
    assert found.difference == pytest.approx(0.25)
    (gone,) = compare_leaderboards(leaderboard, leaderboard.iloc[:1])
    assert (gone.row, gone.column, gone.first, gone.second) == (found.row, "", "there", "absent")
