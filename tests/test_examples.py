"""The examples in the docstrings of the public API print what they show."""

import doctest
import importlib
import subprocess
import sys

import pytest

from bench.run import store

PUBLIC = (
    "bench.api",
    "bench.contracts",
    "bench.plugins.syntax",
    "bench.randomness",
    "bench.stats.intervals",
    "bench.stats.power",
    "bench.stats.rankings",
)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for runs/
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "store"))
    options = doctest.ELLIPSIS
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert attempted > 0
    assert failed == 0


def test_bench_run_is_the_function_beside_the_room_of_that_name_and_nothing_heavy_is_imported_for_it():
    code = """
import sys, bench
assert not {"torch", "numpy", "pandas"} & set(sys.modules)
import bench.run.spec  # binds the room to the name, were it not for the package's property
from bench import Options, run
from bench.run import spec
assert (run.__module__, Options.__name__, spec.__name__) == ("bench.api", "Options", "bench.run.spec")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
