"""The tiers of the tests, and what tests of whole runs share: tiny methods, their runs, the command as a process.

Every test is of one tier, found by what it uses:

- ``unit``: this process alone; whatever starts another one is refused.
- ``system``: processes, a browser, whole runs, training, real faces.
- ``slow``: marked by hand; only ``.ci/full`` runs them.
"""

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace

import pandas as pd
import pytest
import torch
from filelock import FileLock

from bench.cli import main
from bench.plugins import registry
from bench.run.folder import RunFolder
from bench.run.planning import Options, prepare
from bench.run.runner import execute
from bench.run.spec import make_spec

# --- tiers ------------------------------------------------------------------------------------------------

TESTS = Path(__file__).parent
SYSTEM_FIXTURES = frozenset({"browser", "command", "evaluate", "finished", "real_data", "real_run"})
SYSTEM_MARKS = frozenset({"real_data", "system"})
STARTS_PROCESSES = frozenset({"subprocess", "multiprocessing", "NotebookClient", "sync_playwright"})
"""Names by whose use in a test, its fixtures or their helpers one sees that it starts a process."""

TRAINING = ("ablation/*", "attacks/*/test_training.py", "defenses/*/test_training.py")
"""Files whose tests train."""

PROCESS_EVENTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})
"""Audit events of the interpreter that precede a new process."""

_refused_for: list[str] = []
"""The unit test that is running, if one is."""


def _names(code: CodeType) -> set[str]:
    inner = (_names(each) for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*inner)


def _starts_processes(function: object, seen: set[object]) -> bool:
    """Tell whether a function, or one of the tests' own that it calls, names what starts processes."""
    function = getattr(function, "hypothesis", function)
    function = getattr(function, "inner_test", function)
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    names = _names(function.__code__)
    own = (function.__globals__.get(name) for name in names)
    return bool(names & STARTS_PROCESSES) or any(
        _starts_processes(each, seen)
        for each in own
        if isinstance(each, FunctionType) and Path(each.__code__.co_filename).is_relative_to(TESTS)
    )


def _is_system(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return True
    if any(fnmatch(item.path.relative_to(TESTS).as_posix(), files) for files in TRAINING):
        return True
    if SYSTEM_FIXTURES & set(item.fixturenames) or any(item.get_closest_marker(m) for m in SYSTEM_MARKS):
        return True
    fixtures = [
        one.func for name in item.fixturenames for one in item._fixtureinfo.name2fixturedefs.get(name, ())
    ]
    seen: set[object] = set()
    return any(_starts_processes(function, seen) for function in (item.function, *fixtures))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a background job of a shell; what tests start would ignore it too, and never be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave what stands after collection out of later garbage collections; statsmodels asks for one in each call."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its tier; files of unit tests come first, then the largest of the others."""
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in ("slow", "unit")):
            item.add_marker(pytest.mark.system if _is_system(item) else pytest.mark.unit)
    weight = Counter(item.path for item in items if not item.get_closest_marker("unit"))
    items.sort(key=lambda item: (weight[item.path] > 0, -weight[item.path]))


def _refuse_processes(event: str, _arguments: tuple[object, ...]) -> None:
    if _refused_for and event in PROCESS_EVENTS:
        raise RuntimeError(
            f"{_refused_for[-1]} is a unit test and starts a process ({event}); mark it `pytest.mark.system`"
        )


sys.addaudithook(_refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Refuse processes while a unit test runs, its fixtures included."""
    if item.get_closest_marker("unit"):
        _refused_for.append(item.nodeid)
    try:
        return (yield)
    finally:
        _refused_for.clear()


# --- what whole runs share --------------------------------------------------------------------------------

PLUGINS = TESTS / "plugins"

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
tiny-mask = tiny_methods:Mask

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


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """Return a folder that all workers of this call of pytest share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def once(common):
    """Return a function that makes a folder the first time any worker asks for it, and gives it ever after.

    ``make`` gets the folder's path; a folder whose making failed is made anew.
    """

    def made(name, make):
        folder, done = common / name, common / f"{name}.done"
        with FileLock(common / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return made


def _times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def evaluate(tiny, common, once, tmp_path_factory):
    """Return a function that runs a matrix on tiny faces in this process and gives what was run.

    Without a store of its own a matrix is run once for all tests, on one store: a test that changes a run's folder
    changes a copy (fixture `copy_of`).
    """
    del tiny
    given = {}

    def options(out, store, batch_size):
        return Options(threads=1, store=store, out=out, batch_size=batch_size)

    def run(*, store=None, batch_size=64, **fields):
        requested = make_spec({"dataset": "tiny", "backbones": ("tiny-a",), **fields})
        if store is not None:
            prepared = prepare(requested, options(tmp_path_factory.mktemp("run"), store, batch_size))
            execute(prepared)
            return prepared
        key = json.dumps([requested.model_dump(mode="json"), batch_size], sort_keys=True)
        name = f"run-{sha256(key.encode()).hexdigest()[:16]}"
        shared = options(common / name, common / "store", batch_size)
        folder = once(name, lambda _: execute(prepare(requested, shared)))
        given.setdefault(folder, _times(folder))
        return prepare(requested, shared)

    yield run
    changed = [folder for folder, times in given.items() if _times(folder) != times]
    assert not changed, f"a test of this module changed {changed}, which others read: let it change a copy"


@pytest.fixture(scope="module")
def submittable(evaluate, tmp_path_factory):
    """Return the folder of a small run that may be submitted: one attack, one defence, a copy to be changed."""
    from bench.leaderboard.as_csv import to_csv
    from bench.leaderboard.table import build
    from bench.publish.submission import LEAST_IDENTITIES

    made = evaluate(
        dataset=f"tiny:identities={LEAST_IDENTITIES}",
        attacks=("tiny-noise",),
        defenses=("jpeg:quality=20",),
        heads=("nn",),
    ).folder
    folder = RunFolder(shutil.copytree(made.path, tmp_path_factory.mktemp("submitted") / "run"))
    folder.write_bytes("leaderboard.csv", to_csv(build(folder)).encode())
    folder.write_manifest()
    return folder


@pytest.fixture
def copy_of(tmp_path):
    """Return a function that copies a run's folder, to be changed."""

    def copy(folder):
        return RunFolder(shutil.copytree(folder.path, tmp_path / "copy"))

    return copy


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


@pytest.fixture
def here(cli):
    """Return `command`'s function without a process: for what a command says, where starting one is not the point."""

    def run(*arguments):
        code, out, err = cli(*arguments)
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

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
def finished(command, matrix, once):
    """Run that matrix once, as a process; gives the process, the run's folder, its store and the CSV requested."""

    def make(root):
        root.mkdir()
        process = command(
            "run", *matrix, "--store", root / "store", "--out", root / "run", "--csv", root / "table.csv"
        )
        assert process.returncode == 0, process.stderr
        (root / "stdout").write_text(process.stdout)
        (root / "stderr").write_text(process.stderr)

    root = once("finished", make)
    process = SimpleNamespace(stdout=(root / "stdout").read_text(), stderr=(root / "stderr").read_text())
    return SimpleNamespace(process=process, run=root / "run", store=root / "store", csv=root / "table.csv")


# --- runs whose processes are ended -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def short():
    """Return the options of a run of a second or two."""
    return (
        "--dataset", "tiny", "--attack", "tiny-noise", "--defense", "jpeg:quality=20", "--backbone", "tiny-a",
        "--head", "nn", "--threads", "1", "--quiet",
    )  # fmt: skip


@pytest.fixture(scope="session")
def alone(command, short, once):
    """Run it once, in its own process and undisturbed; gives the folder with its ``store`` and its ``run``."""

    def make(root):
        done = command("run", *short, "--store", root / "store", "--out", root / "run")
        assert done.returncode == 0, done.stderr

    return once("alone", make)


@pytest.fixture(scope="session")
def digests():
    """Return a function from a store to the digests of its payloads."""

    def listed(store):
        return {
            path.relative_to(store): sha256(path.read_bytes()).hexdigest() for path in store.glob("*/*/*.bin")
        }

    return listed


@pytest.fixture(scope="session")
def rows():
    """Return a function from a run to its rows, those of the attack that misbehaves apart from the others."""

    def split(run):
        table = pd.read_csv(run / "leaderboard.csv", keep_default_na=False, dtype=str)
        bad = table["attack"].str.contains("bad_attack|misbehaves")
        return table[bad], table.loc[~bad, ["attack", "defense", "status", "asr"]].reset_index(drop=True)

    return split


@pytest.fixture(scope="session")
def running():
    """Return a function that gives the command line of every process of this machine (Linux), by its number."""

    def listed():
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                found[int(path.parent.name)] = path.read_bytes().decode(errors="replace").split("\0")
        return found

    return listed


@pytest.fixture(scope="session")
def wait_until():
    """Return a function that waits until something is true, as long as a process runs where one is given."""

    def wait(true, process=None, seconds=180):
        until = time.monotonic() + seconds
        while not true():
            assert process is None or process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    return wait
