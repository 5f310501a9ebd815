"""Every test is of one tier, and a unit test stays within its process."""

import os
import subprocess
import sys

import pytest


@pytest.mark.unit
def test_a_unit_test_starts_no_process():
    with pytest.raises(
        RuntimeError, match=r"test_a_unit_test_starts_no_process is a unit test .*pytest\.mark\.system"
    ):
        subprocess.run([sys.executable, "--version"], check=False)
    with pytest.raises(RuntimeError, match="is a unit test"):
        os.system("true")
    with pytest.raises(RuntimeError, match="is a unit test"):
        os.fork()


def through_another():
    return subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout


def test_a_test_whose_function_starts_a_process_may(request):
    assert request.node.get_closest_marker("system")
    assert through_another() == b"1\n"


def test_what_uses_nothing_of_the_kind_is_a_unit_test(request):
    assert request.node.get_closest_marker("unit")


def test_each_test_is_of_one_tier(request):
    for item in request.session.items:
        tiers = {mark.name for mark in item.iter_markers()} & {"unit", "system", "slow"}
        assert len(tiers) == 1 or tiers == {"system", "slow"}, item.nodeid


def test_a_run_is_made_once_and_given_again(evaluate):
    first, second = (evaluate(attacks=("tiny-noise",)) for _ in range(2))
    assert first.folder.path == second.folder.path
    assert second.missing == []


def test_a_folder_whose_making_failed_is_made_anew(once):
    def fail(folder):
        folder.mkdir()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        once("sometimes", fail)
    made = once("sometimes", lambda folder: folder.mkdir())
    assert list(made.iterdir()) == []
    assert once("sometimes", fail) == made
