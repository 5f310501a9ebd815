"""The engines of docs/howto/engine.md over Dask and Ray, where these are installed: the bytes of one process."""

import importlib.util
import os
import re
import signal
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "engine.md"
ENGINES = {"dask": ("distributed", "Dask"), "ray": ("ray", "Ray")}


@pytest.fixture(params=ENGINES)
def engine(request, tmp_path, tiny_path):
    """Write an engine as the page has it; gives its name for the command line, and where its package is."""
    package, name = ENGINES[request.param]
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed; no extra asks for it")
    file = f"{request.param}_engine.py"
    code = re.search(
        rf"<!-- file: {file} -->\n```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(code[1].splitlines()) < 60
    # Every artefact a unit, so that there are many.
    (tmp_path / file).write_text(code[1].replace("unit_seconds = 60", "unit_seconds = 0"))
    here = os.pathsep.join([*tiny_path, str(Path(spec.origin).parents[1])])
    return f"{tmp_path / file}:{name}:2", {"PYTHONPATH": here}


@pytest.mark.slow
def test_it_gives_the_same_bytes(command, short, alone, digests, engine, tmp_path):
    name, environment = engine
    where = ("--store", tmp_path / "store", "--out", tmp_path / "run")
    done = command("run", *short, "--engine", name, *where, **environment)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "store") == digests(alone / "store")
    assert (tmp_path / "run/leaderboard.csv").read_bytes() == (alone / "run/leaderboard.csv").read_bytes()
    log = (tmp_path / "run/run.log").read_text()
    assert re.search(rf"[1-9]\d units of work for {name.split(':')[1]}\n", log)
    assert "changed the environment" not in done.stderr


@pytest.mark.slow
def test_an_interrupt_ends_it_and_the_same_command_goes_on(
    command, short, alone, digests, wait_until, engine, tmp_path
):
    name, environment = engine
    where = ("--store", tmp_path / "store", "--out", tmp_path / "run")
    arguments = ("run", *short, "--engine", name, *where)
    process = command(*arguments, wait=False, TINY_DELAY="0.3", **environment)
    wait_until(lambda: list((tmp_path / "store").glob("faces/*/*.json")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "What was computed is kept" in err
    done = command(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "store") == digests(alone / "store")
