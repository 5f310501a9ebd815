"""The examples in the docstrings of the public API print what they show."""

import doctest
import importlib

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
