"""What tests of whole runs share: a registered package of tiny methods, and the command as a process."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.cli import main
from bench.plugins import registry
from bench.run.planning import Options, prepare
from bench.run.runner import execute
from bench.run.spec import make_spec

PLUGINS = Path(__file__).parent / "plugins"

ENTRY_POINTS = """\
[cloakbench.attacks]
tiny-noise = tiny_methods:Noise
tiny-failing = tiny_methods:Failing
tiny-breaking = tiny_methods:Breaking
tiny-identity-mean = tiny_methods:PersonMean
tiny-learning = tiny_methods:Learning
tiny-imitating = tiny_methods:Imitating
tiny-sometimes = tiny_methods:Sometimes
tiny-erasable = tiny_methods:Erasable

[cloakbench.defenses]
tiny-centring = tiny_methods:Centring
tiny-negative = tiny_methods:Negative
tiny-trained = tiny_methods:Trained

[cloakbench.backbones]
tiny-a = tiny_methods:TinyA
tiny-b = tiny_methods:TinyB
tiny-c = tiny_methods:TinyC

[cloakbench.pools]
tiny = tiny_methods:POOL

[cloakbench.datasets]
tiny = tiny_methods:TinyFaces
"""


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """Return the import path on which the package of tiny methods counts as installed."""
    site = tmp_path_factory.mktemp("site")
    info = site / "cloakbench_tiny-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cloakbench-tiny\nVersion: 0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return [str(site), str(PLUGINS)]


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    """Return settings that keep the user's data, caches and cores out of a test."""
    empty = tmp_path_factory.mktemp("empty")
    return {
        "OMP_NUM_THREADS": "1",
        "CLOAKBENCH_DATA": str(empty / "data"),
        "CLOAKBENCH_STORE": str(empty / "store"),
        "TORCH_HOME": str(empty / "torch"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="module")
def tiny(tiny_path, settings):
    """Register the tiny methods in this process."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        patch.delenv("CLOAKBENCH_LPIPS_TRUNK", raising=False)
        for entry in tiny_path:
            patch.syspath_prepend(entry)
        registry.forget()
        yield
    registry.forget()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def evaluate(tiny, tmp_path_factory):
    """Return a function that runs a matrix on tiny faces in this process, on one store, and gives what was run."""
    del tiny
    store = tmp_path_factory.mktemp("store")

    def run(*, store=store, batch_size=64, **fields):
        requested = make_spec({"dataset": "tiny", "backbones": ("tiny-a",), **fields})
        out = tmp_path_factory.mktemp("run")
        prepared = prepare(requested, Options(threads=1, store=store, out=out, batch_size=batch_size))
        execute(prepared)
        return prepared

    return run


@pytest.fixture
def cli(tiny, monkeypatch, capsys):
    """Return a function that calls the command line in this process and gives exit code, output and errors."""
    del tiny

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        monkeypatch.setattr(logging.getLogger("bench"), "handlers", [])  # those it adds end with the call
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def command(tiny_path, settings, tmp_path_factory):
    """Return a function that runs ``bench`` as a process of its own; ``wait=False`` gives it while it runs."""
    folder = tmp_path_factory.mktemp("cwd")
    own = {key: value for key, value in os.environ.items() if not key.startswith("CLOAKBENCH_")}
    own |= settings | {"PYTHONPATH": os.pathsep.join(tiny_path)}

    def run(*arguments, wait=True, **extra):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *map(str, arguments)],
            env=own | extra,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not wait:
            return process
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def stored():
    """Return a function from a store to its artefact files, each with the time of its last change."""

    def listed(store, stage="*"):
        files = store.glob(f"{stage}/*/*")
        return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in files}

    return listed


@pytest.fixture(scope="session")
def matrix():
    """Return the options of the run most tests look at."""
    return (
        "--dataset", "tiny", "--attack", "tiny-noise", "--attack", "pgd:eps=32,steps=2",
        "--defense", "jpeg:quality=20", "--backbone", "tiny-a", "--head", "nn", "--head", "linear",
        "--threads", "1",
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished(command, matrix, tmp_path_factory):
    """Run that matrix once, as a process; gives the process, the run's folder, its store and the CSV requested."""
    root = tmp_path_factory.mktemp("finished")
    process = command(
        "run", *matrix, "--store", root / "store", "--out", root / "run", "--csv", root / "table.csv"
    )
    assert process.returncode == 0, process.stderr
    return SimpleNamespace(process=process, run=root / "run", store=root / "store", csv=root / "table.csv")
