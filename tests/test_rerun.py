"""A run is made again from its folder alone."""

import json
import shutil
from pathlib import Path

import pytest

from bench import leaderboard
from bench.rerun import compare_boards
from bench.run_folder import RunFolder

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
    shutil.copyfile(Path("first") / first[0]["decisions"], Path("first") / second[0]["decisions"])
    cells[-1]["threat"]["related"] = True
    Path("first/cells.json").write_text(json.dumps(cells))
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


def test_boards_are_compared_as_the_csv_shows_them(small):
    board = leaderboard.build(RunFolder(small / "first"))
    assert compare_boards(board, board) == []
    moved = board.copy()
    moved.loc[1, "asr"] += 0.25
    moved.loc[0, "asr"] += 1e-9
    (found,) = compare_boards(board, moved)
    assert (found.row, found.column) == ("darker × none × tiny-a × nn × 0", "asr")
    assert found.difference == pytest.approx(0.25)
    (gone,) = compare_boards(board, board.iloc[:1])
    assert (gone.row, gone.column, gone.first, gone.second) == (found.row, "", "there", "absent")
