"""`bench run` as a user runs it: real processes, real folders, a real SIGKILL."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest

from bench.leaderboard.about import ABOUT
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.table import build
from bench.run.folder import RunFolder

REFERENCES = {
    ("none", "none"),
    ("none", "jpeg:quality=20"),
    ("tiny-noise", "none"),
    ("pgd:eps=32,steps=2", "none"),
}
REQUESTED = {("tiny-noise", "jpeg:quality=20"), ("pgd:eps=32,steps=2", "jpeg:quality=20")}


@pytest.fixture(scope="module")
def leaderboard(finished):
    return pd.read_csv(finished.csv, keep_default_na=False)


def test_a_run_prints_a_table_and_where_its_leaderboard_is(finished):
    out = finished.process.stdout
    rows = re.findall(
        r"^(?:none|tiny-noise|pgd:eps=32,steps=2) +(?:none|jpeg:quality=20) +(?:nn|linear) ",
        out,
        re.MULTILINE,
    )
    assert len(rows) == 12
    assert "The same in every row: backbone tiny-a, seed 0, access " in out
    assert "status ok." in out
    assert "6 identities, 12 probes" in out
    *_, table, following = out.splitlines()
    assert table == f"Every column: {finished.run / 'leaderboard.csv'}"
    assert following.startswith(f"Next: bench report {finished.run} --out report.html")
    assert "Note: tiny: no figure says anything about faces" in out
    assert "LPIPS is NA" in out
    assert "--lpips-trunk FILE" in out


def test_the_progress_goes_to_stderr_and_names_every_stage(finished):
    for stage in ("faces", "cloak", "purify", "measure", "diagnose", "embed", "decide"):
        assert re.search(rf"^{stage} ", finished.process.stderr, re.MULTILINE), stage
    assert "Traceback" not in finished.process.stderr


def test_the_run_folder_holds_what_its_documentation_says(finished):
    assert {path.name for path in finished.run.iterdir()} == {
        "spec.json", "environment.json", "splits.json", "cells.json", "decisions", "images", "diagnoses", "timings.csv",
        "leaderboard.csv", "manifest.json", "run.log",
    }  # fmt: skip
    spec = json.loads((finished.run / "spec.json").read_text())
    assert spec["spec"]["attacks"] == ["tiny-noise", "pgd:eps=32,steps=2"]
    assert spec["command"].startswith("bench run --dataset tiny")
    cells = json.loads((finished.run / "cells.json").read_text())
    assert len(list((finished.run / "decisions").iterdir())) == len(cells) == 12
    for cell in cells:
        for kind in (
            "decisions", "cloak_measures", "purified_measures", "attack_diagnosis", "purifier_diagnosis"
        ):  # fmt: skip
            assert not cell[kind] or (finished.run / cell[kind]).is_file()
    machine = json.loads((finished.run / "environment.json").read_text())
    assert machine["threads"] == 1
    assert machine["packages"]["torch"][0].isdigit()
    timings = pd.read_csv(finished.run / "timings.csv")
    assert set(timings["stage"]) == {"faces", "cloak", "purify", "measure", "diagnose", "embed", "decide"}
    assert timings.loc[timings["stage"] == "faces", "images"].sum() == 36


def test_the_splits_written_are_those_of_the_decisions(finished):
    splits = json.loads((finished.run / "splits.json").read_text())
    for file in (finished.run / "decisions").iterdir():
        rows = pd.read_parquet(file)
        assert rows.groupby("identity", observed=True)["image"].unique().map(sorted).to_dict() == {
            identity: sorted(photos) for identity, photos in splits["probes"].items()
        }
        assert (
            rows.loc[rows["protected"]].groupby("identity", observed=True)["fold"].first().to_dict()
            == splits["fold"]
        )


def test_the_csv_has_one_row_a_cell_reference_cells_included(leaderboard):
    assert list(leaderboard.columns) == list(COLUMNS)
    assert len(leaderboard) == 12
    assert set(zip(leaderboard["attack"], leaderboard["defense"], strict=True)) == REFERENCES | REQUESTED
    requested = leaderboard[leaderboard["requested"].astype(str) == "True"]
    assert set(zip(requested["attack"], requested["defense"], strict=True)) == REQUESTED
    assert set(leaderboard["head"]) == {"nn", "linear"}
    assert set(leaderboard["status"]) == {"ok"}


def test_the_csv_round_trips_through_pandas(finished):
    read = pd.read_csv(finished.csv)
    built = build(RunFolder(finished.run))
    for name in COLUMNS:
        if pd.api.types.is_numeric_dtype(built[name]):
            assert read[name].to_numpy(float) == pytest.approx(
                built[name].to_numpy(float), abs=5.1e-7, nan_ok=True
            )
        else:
            texts = (
                ["" if pd.isna(value) else str(value) for value in leaderboard[name]]
                for leaderboard in (read, built)
            )
            assert next(texts) == next(texts)


def test_the_extra_csv_is_the_run_folders(finished):
    assert finished.csv.read_bytes() == (finished.run / "leaderboard.csv").read_bytes()


@pytest.fixture(scope="module")
def again(finished, command, matrix, stored, tmp_path_factory):
    """The same matrix on the same store, other batch size, other folder, as JSON."""
    root = tmp_path_factory.mktemp("again")
    before = stored(finished.store)
    process = command(
        "run", *matrix, "--store", finished.store, "--out", root / "run", "--batch-size", "1", "--json"
    )
    return process, root / "run", before, stored(finished.store)


def test_a_second_run_recomputes_nothing_and_says_so(again, finished):
    process, run, before, after = again
    assert process.returncode == 0
    assert after == before
    log = (run / "run.log").read_text()
    assert "12 cells, 12 cached" in log
    assert "comput" not in log.replace("recomput", "")
    assert (run / "leaderboard.csv").read_bytes() == finished.csv.read_bytes()


def test_json_prints_json_and_nothing_else(again, leaderboard):
    process, _, _, _ = again
    document = json.loads(process.stdout)
    assert process.stderr == ""
    assert document.keys() == {"run", "rows"}
    assert document["run"].keys() == ABOUT.keys()
    assert (document["run"]["cells"], document["run"]["failed"]) == (12, 0)
    assert document["run"]["versions"]["torch"][0].isdigit()
    rows = document["rows"]
    assert [list(row) for row in rows] == [list(COLUMNS)] * 12
    assert [row["asr"] for row in rows] == pytest.approx(
        leaderboard["asr"].astype(float).to_list(), abs=5.1e-7
    )


def test_one_more_defence_computes_that_defences_cells_only(finished, command, matrix, stored, tmp_path):
    store = shutil.copytree(finished.store, tmp_path / "store")
    before = stored(store)
    process = command(
        "run", *matrix, "--defense", "median", "--store", store, "--out", tmp_path / "run", "--quiet"
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    after = stored(store)
    assert {name: after[name] for name in before} == before
    log = (tmp_path / "run/run.log").read_text()
    assert "18 cells, 12 cached" in log
    todo = re.findall(r"to compute (\w+) (.*): (\d+) artefacts", log)
    assert all("median" in label for stage, label, _ in todo if stage not in ("embed", "decide"))
    assert re.findall(r"to decide \S+ × (\S+) ×", log) == ["median"] * 6
    # Purified: the photos and two attacks' cloaks, all of them embedded; each cell has its decision.
    counts = dict.fromkeys(("purify", "measure", "diagnose", "embed", "decide"), 0)
    for stage, _, count in todo:
        counts[stage] += int(count)
    assert counts == {"purify": 3, "measure": 3, "diagnose": 3, "embed": 3, "decide": 6}
    assert len(after) - len(before) == 2 * sum(counts.values())
    rows = pd.read_csv(tmp_path / "run/leaderboard.csv")
    same = rows[rows["defense"] != "median"].reset_index(drop=True)
    first = pd.read_csv(finished.csv)
    # These follow from all rows together.
    of_the_run = [
        "run",
        "rank_low",
        "rank_high",
        "tie_group",
        "ranking_reason",
        "p_holm",
        "minimum_detectable_difference",
    ]
    pd.testing.assert_frame_equal(
        same.drop(columns=of_the_run), first.drop(columns=of_the_run), check_dtype=False
    )


# --- killed in the middle ---------------------------------------------------------------------------------

LARGE = (
    "--dataset", "tiny:identities=24,photos=8", "--attack", "tiny-noise", "--defense", "none",
    "--defense", "jpeg", "--backbone", "tiny-a", "--threads", "1", "--quiet",
)  # fmt: skip


@pytest.mark.slow  # tests/faults/test_signals.py has a quick one
def test_a_killed_run_goes_on_to_the_same_bytes(command, cli, stored, tmp_path):
    store, run = tmp_path / "store", tmp_path / "run"
    whole = command("run", *LARGE, "--store", tmp_path / "other", "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    process = command("run", *LARGE, "--store", store, "--out", run, wait=False, TINY_DELAY="0.02")
    deadline = time.monotonic() + 240
    while not list(store.glob("cloak/*/*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = stored(store)
    cloaks = len(stored(tmp_path / "other", "cloak")) // 2
    assert cloaks == 3
    assert 1 <= len(list(store.glob("cloak/*/*.json"))) < cloaks
    assert not (run / "cells.json").exists()
    code, out, err = cli("leaderboard", run)
    assert (code, out) == (2, "")
    assert "is not a finished run" in err

    resumed = command("run", *LARGE, "--store", store, "--out", run)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    after = stored(store)
    finished = {name: when for name, when in done.items() if name.replace(".bin", ".json") in done}
    assert len(finished) > 2
    assert {name: after[name] for name in finished} == finished
    assert (run / "leaderboard.csv").read_bytes() == (tmp_path / "whole/leaderboard.csv").read_bytes()
    for name in ("cells.json", "splits.json"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for file in (run / "decisions").iterdir():
        assert file.read_bytes() == (tmp_path / "whole/decisions" / file.name).read_bytes()


# --- failures ---------------------------------------------------------------------------------------------


def test_a_failing_attack_is_a_failed_row_and_exit_code_1(finished, command, tmp_path):
    process = command(
        "run", "--dataset", "tiny", "--attack", "tiny-failing", "--attack", "tiny-noise", "--backbone", "tiny-a",
        "--threads", "1", "--store", finished.store, "--out", tmp_path / "run",
    )  # fmt: skip
    assert process.returncode == 1
    assert "1 of 3 cells failed" in process.stderr
    assert "RuntimeError: no cloak for synthetic-eval-" in process.stderr
    assert "Traceback" not in process.stderr + process.stdout
    assert "Traceback" in (tmp_path / "run/run.log").read_text()
    assert len(re.findall(r"^(?:tiny-noise|none) .* ok *$", process.stdout, re.MULTILINE)) == 2
    assert len(re.findall(r"^tiny-failing .* failed *$", process.stdout, re.MULTILINE)) == 1
    rows = pd.read_csv(tmp_path / "run/leaderboard.csv").set_index("attack")
    failed = rows.loc["tiny-failing"]
    assert failed["status"] == "failed"
    assert failed["reason"].startswith("cloak tiny-failing: RuntimeError: no cloak for synthetic-eval-")
    assert pd.isna(failed[["asr", "baseline_error", "normal_accuracy", "cloak_psnr", "n_probes"]]).all()
    others = rows.drop("tiny-failing")
    assert set(others["status"]) == {"ok"}
    assert others["asr"].notna().all()


def test_damaged_artefacts_are_reported_and_made_again(finished, cli, matrix, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(finished.store, store)
    damaged = sorted(
        path for stage in ("decide", "embed", "faces") for path in store.glob(f"{stage}/*/*.bin")
    )
    for path in damaged:
        payload = bytearray(path.read_bytes())
        payload[len(payload) // 2] ^= 1
        path.write_bytes(payload)
    code, _, err = cli("run", *matrix, "--store", store, "--out", tmp_path / "run", "--quiet")
    assert code == 0
    warnings = [line for line in err.splitlines() if line.startswith("WARNING: artefact")]
    assert len(warnings) == len(damaged), [
        path for path in damaged if not path.with_suffix(".corrupt").is_file()
    ]
    assert all("is corrupt" in line and "computing it again" in line for line in warnings)
    assert (tmp_path / "run/leaderboard.csv").read_bytes() == finished.csv.read_bytes()
    for path in damaged:
        kept = (finished.store / path.relative_to(store)).read_bytes()
        # The order of names in a safetensors header is not fixed; what follows the header is.
        assert path.read_bytes()[-500:] == kept[-500:]
        assert path.with_suffix(".corrupt").is_file()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_with_more(
    finished, command, matrix, stored, small_disk, tmp_path
):
    full = command("run", *matrix, "--store", small_disk / "store", "--out", tmp_path / "run", "--quiet")
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert line.startswith(f"Error: cannot write {small_disk}")
    assert "No space left on device" in line
    assert "run the same command again" in line
    assert not list(small_disk.rglob("*.tmp"))
    done = stored(small_disk / "store")
    assert any(name.startswith("cloak") for name in done)

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    process = command("run", *matrix, "--store", small_disk / "store", "--out", tmp_path / "run", "--quiet")
    assert (process.returncode, process.stderr) == (0, "")
    whole = {name: when for name, when in done.items() if name.replace(".bin", ".json") in done}
    after = stored(small_disk / "store")
    assert {name: after[name] for name in whole} == whole
    assert (tmp_path / "run/leaderboard.csv").read_bytes() == finished.csv.read_bytes()


def test_a_store_that_cannot_be_written_stops_before_work(cli, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, out, err = cli(
        "run", "--dataset", "tiny", "--backbone", "tiny-a", "--threads", "1", "--quiet",
        "--store", tmp_path / "file/store", "--out", tmp_path / "run",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: --store {tmp_path / 'file/store'} cannot be written")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
