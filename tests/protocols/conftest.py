"""Whole runs on a few real identities."""

from pathlib import Path

import pytest
import torch

from bench.data.files import VARIABLE, data_folder
from bench.leaderboard.table import build
from bench.run.planning import Options, prepare
from bench.run.runner import execute
from bench.run.spec import make_spec

REAL = data_folder()
"""As it is before a test keeps the user's data out."""


@pytest.fixture
def pattern():
    """Return the text of the sample erasable attack."""
    return f"{Path(__file__).parents[1] / 'plugins' / 'erasable.py'}:KeyedPattern"


@pytest.fixture
def real_run(tmp_path, monkeypatch):
    """Return a function that runs a matrix on six identities of LFW and gives its leaderboard."""
    if not (REAL / "lfw").exists():
        pytest.skip(f"needs real faces and weights; {VARIABLE} points to no folder that has them")
    monkeypatch.setenv(VARIABLE, str(REAL))
    threads = torch.get_num_threads()

    def run(**fields):
        requested = make_spec(
            {"dataset": "lfw", "identities": 6, "backbones": ("mobilefacenet-relu6",), **fields}
        )
        prepared = prepare(requested, Options(threads=1, store=tmp_path / "store", out=tmp_path / "run"))
        results = execute(prepared)
        assert [result.reason for result in results if result.status != "ok"] == []
        return build(prepared.folder)

    yield run
    torch.set_num_threads(threads)
