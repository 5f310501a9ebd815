"""The tool that watches a long run: what it counts, and a small run that stays flat."""

import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks.soak import Soaked, matrix, soak

FLAT = Soaked(100, 10.0, 0, 1e9, 1.05e9, 8, 10)


@pytest.mark.parametrize(
    ("change", "flat"),
    [({}, True), ({"memory_last_quarter": 1.2e9}, False), ({"handles_last_quarter": 14}, False)],
)
def test_more_memory_or_handles_are_not_flat(change, flat):
    assert replace(FLAT, **change).is_flat is flat


def test_a_matrix_crosses_all_it_is_told():
    options = matrix(3, 2, 4)
    assert [options.count(name) for name in ("--attack", "--defense", "--backbone", "--seed")] == [3, 2, 2, 4]
    attacks = [value for name, value in pairwise(options) if name == "--attack"]
    assert len(set(attacks)) == 3


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_a_small_run_stays_flat(tmp_path):
    soaked = soak(matrix(5, 4, 2), tmp_path)
    assert soaked.exit_code == 0
    assert soaked.cells == 110  # cells without an attack are the same for every seed
    assert soaked.is_flat, soaked
