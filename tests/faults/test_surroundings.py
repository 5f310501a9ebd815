"""A machine that lacks what others have: no home folder, a read-only store, lists as some editors leave them."""

import os
import shutil
import subprocess

import pytest

from bench.errors import DataError, UsageError
from bench.plugins.sources import is_own
from bench.protocols.lfw_pairs import read_pairs

PAIRS = "1\t2\nA\t1\t2\nB\t1\t2\nA\t1\tB\t1\nA\t2\tB\t2\n"


@pytest.mark.parametrize("text", [PAIRS, "\ufeff" + PAIRS, PAIRS + "\n\n", PAIRS.rstrip()])
def test_pairs_are_read_with_a_mark_of_byte_order_and_blank_lines_at_the_end(tmp_path, text):
    (tmp_path / "pairs.txt").write_text(text, encoding="utf-8")
    assert len(read_pairs(tmp_path / "pairs.txt")) == 4


@pytest.mark.parametrize("head", ["0 0", "0 300", "10 0"])
def test_a_list_of_no_pairs_is_refused(tmp_path, head):
    (tmp_path / "pairs.txt").write_text(f"{head}\n")
    with pytest.raises(DataError, match=r"line 1: \d+ folds of \d+ pairs are no pairs"):
        read_pairs(tmp_path / "pairs.txt")


@pytest.mark.parametrize(("which", "variable"), [("data", "CLOAKBENCH_DATA"), ("store", "CLOAKBENCH_STORE")])
def test_who_has_no_home_is_told_what_to_set(monkeypatch, which, variable):
    from bench.data.files import data_folder
    from bench.run.store import default_folder

    def homeless(*_arguments):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_data_dir", homeless)
    monkeypatch.setattr("platformdirs.user_cache_dir", homeless)
    for name in ("CLOAKBENCH_DATA", "CLOAKBENCH_STORE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=f"there is no home folder .* Set HOME, or {variable} to a folder"):
        data_folder() if which == "data" else default_folder()


@pytest.fixture
def read_only(finished, tmp_path):
    """A copy of the finished run's store on a mount that cannot be written."""
    store = shutil.copytree(finished.store, tmp_path / "store")
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    for arguments in (["--bind", store, store], ["-o", "remount,bind,ro", store]):
        if subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")
    yield store
    subprocess.run(["umount", store], check=True)


@pytest.mark.system
def test_a_complete_store_that_cannot_be_written_serves_run_and_verify(
    read_only, finished, matrix, cli, tmp_path
):
    with pytest.raises(OSError, match="Read-only"):
        (read_only / "x").write_bytes(b"")
    code, _, err = cli("run", *matrix, "--store", read_only, "--out", tmp_path / "run")
    assert code == 0, err
    assert (tmp_path / "run/leaderboard.csv").read_bytes() == finished.csv.read_bytes()
    code, out, err = cli("verify", finished.run, "--store", read_only, "--cells", 1)
    assert code == 0, out + err
    code, _, err = cli(
        "run", *matrix, "--defense", "median", "--store", read_only, "--out", tmp_path / "more"
    )
    assert code == 2
    assert err.splitlines()[-1].startswith(f"Error: --store {read_only} cannot be written")


@pytest.mark.system
def test_a_plan_writes_nothing_so_that_it_needs_no_place_to_write(finished, matrix, cli, read_only, tmp_path):
    code, _, err = cli("plan", *matrix, "--store", read_only, "--out", tmp_path / "nowhere" / "run")
    assert code == 0, err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("place", "own"),
    [
        ("/home/me/.local/lib/python3.11/site-packages/torch/__init__.py", False),
        ("/usr/lib/python3/dist-packages/numpy/__init__.py", False),
        ("/home/me/project/mine.py", True),
        ("built-in", False),
        ("", False),
    ],
)
def test_packages_of_a_user_or_of_another_environment_are_installed_ones(place, own):
    assert is_own(place) is own
