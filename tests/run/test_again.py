"""A run that has nothing left to compute is found without torch, and only where the way with torch finds the same."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

OWN = """\
from pathlib import Path

import torch

from bench.authoring.fakes import FakeBackbone
from bench.contracts import Purifier


class Net(FakeBackbone):
    name = "own-net"

    def files(self, binding):
        return (Path(__file__).with_name("net.bin"),)


class Soft(Purifier):
    name = "own-soft"

    def purify(self, faces, ctx):
        return torch.clamp(faces.images * 0.5, 0, 1)
"""

SUITE = """\
attacks = ["pgd:steps=1"]
defenses = ["./own.py:Soft", "jpeg"]
backbones = ["./own.py:Net"]
heads = ["nn"]
identities = 4
"""

NORMALLY = """\
import sys
from bench.run import again
again.recall = lambda of: None
from bench.cli import main
main()
"""

OTHER_VERSION = """\
import importlib.metadata as metadata
import sys
version = metadata.version
metadata.version = lambda name: "0.1" if name == "scikit-learn" else version(name)
from bench.run import again
again.package_versions = lambda names: {}
from bench.cli import main
main()
"""


@dataclass
class World:
    """A folder with a suite, a file of plugins, their weights, a store and a run.

    Attributes:
        folder: of them.
        environment: variables of the command's process.
    """

    folder: Path
    environment: dict

    def run(self, *words, code="", **variables):
        start = ["-c", code] if code else ["-m", "bench"]
        return subprocess.run(
            [sys.executable, "-X", "importtime", *start, *words],
            env=self.environment | variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def again(self, *more, code="", **variables):
        """Run the suite, and return what was printed and whether torch was imported."""
        command = (
            "run",
            "--config",
            "suite.toml",
            "--threads",
            "1",
            "--store",
            "store",
            "--out",
            "run",
            *more,
        )
        return Outcome.of(self.run(*command, code=code, **variables))

    def settled(self):
        """Return what the suite's run gives once nothing is left to compute."""
        outcome = self.again()
        if outcome.with_torch:
            outcome = self.again()
        assert not outcome.with_torch, "the second of two runs of the same imports torch"
        return outcome

    def files(self):
        """Return the run's files; what tells of one execution left out."""
        run = self.folder / "run"
        of_execution = {"run.log", "timings.csv", "manifest.json"}
        return {
            str(path.relative_to(run)): path.read_bytes()
            for path in run.rglob("*")
            if path.is_file() and path.name not in of_execution
        }


@dataclass
class Outcome:
    """What a command printed and how it ended."""

    code: int
    stdout: str
    stderr: str
    with_torch: bool

    @classmethod
    def of(cls, process):
        lines = process.stderr.splitlines()
        imports = [line for line in lines if line.startswith("import time:")]
        said = "\n".join(line for line in lines if not line.startswith("import time:"))
        with_torch = any(re.search(r"\| +torch\._C$", line) for line in imports)
        return cls(process.returncode, process.stdout, said, with_torch)

    @property
    def shown(self):
        return self.code, self.stdout, self.stderr


@pytest.fixture(scope="module")
def world(tiny_path, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    for name, text in (("own.py", OWN), ("suite.toml", SUITE), ("net.bin", "weights")):
        (folder / name).write_text(text)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("CLOAKBENCH_", "PYTEST_"))}
    own |= settings | {"PYTHONPATH": os.pathsep.join(tiny_path), "XDG_CACHE_HOME": str(folder / "cache")}
    return World(folder, own)


def test_it_imports_no_torch_and_prints_and_leaves_what_the_way_with_torch_does(world):
    first = world.again()
    made = world.files()
    assert (first.code, first.with_torch) == (0, True)
    again = world.again()
    assert (again.with_torch, world.files()) == (False, made)
    assert (again.code, again.stdout) == (first.code, first.stdout)
    assert "nothing was computed" in again.stderr
    normally = world.again(code=NORMALLY)
    assert normally.with_torch
    assert again.shown == normally.shown
    assert world.files() == made


@pytest.mark.parametrize(
    "words",
    [("--json",), *(pytest.param((word,), marks=pytest.mark.slow) for word in ("--quiet", "--dry-run"))],
)
def test_each_form_of_output_is_that_of_the_way_with_torch(world, words):
    world.settled()
    world.again(*words)  # another command line, which the folder tells
    again = world.again(*words)
    assert not again.with_torch
    normally = world.again(*words, code=NORMALLY)
    assert normally.with_torch
    assert again.shown == normally.shown


def test_a_plan_after_a_run_takes_no_torch_and_says_the_same(world):
    world.settled()
    command = ("plan", "--config", "suite.toml", "--threads", "1", "--store", "store", "--json")
    again = Outcome.of(world.run(*command))
    normally = Outcome.of(world.run(*command, code=NORMALLY))
    assert (again.with_torch, normally.with_torch) == (False, True)
    assert again.shown == normally.shown
    plan = json.loads(again.stdout)
    assert plan["cells_cached"] == plan["cells"] > 1


def replace(name, old, new):
    def change(world):
        path = world.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def remove(pattern):
    def change(world):
        for path in [*world.folder.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def damage(pattern):
    def change(world):
        for path in world.folder.glob(pattern):
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    return change


CHANGES = {
    "the code of a method": (replace("own.py", "* 0.5", "* 0.6"), {}),
    "the weights of a backbone": (replace("net.bin", "weights", "others!"), {}),
    "the number of threads": (None, {"words": ("--threads", "2")}),
    "the batch size": (None, {"words": ("--batch-size", "7")}),
    "a package's version": (None, {"code": OTHER_VERSION}),
    "an environment variable": (None, {"variables": {"ATEN_CPU_CAPABILITY": "default"}}),
    "the run's folder is gone": (remove("run"), {}),
    "files of decisions are gone": (remove("run/decisions/*"), {}),
    "files of decisions are damaged": (damage("run/decisions/*"), {}),
    "the machine's description is damaged": (damage("run/environment.json"), {}),
    "the log is gone": (remove("run/run.log"), {}),
    "the manifest is damaged": (damage("run/manifest.json"), {}),
    "the list of cells is damaged": (damage("run/cells.json"), {}),
    "decisions are gone from the store": (remove("store/decide/*/*.json"), {}),
    "decisions are damaged in the store": (damage("store/decide/*/*.bin"), {}),
}


QUICK = {
    "the code of a method",
    "the weights of a backbone",
    "files of decisions are damaged",
    "decisions are gone from the store",
}
"""Those that are tried whenever tests are; the others take what these do, and together two minutes."""


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.slow] * (what not in QUICK)) for what in CHANGES]
)
def test_whatever_differs_goes_the_way_with_torch(world, what):
    change, given = CHANGES[what]
    world.settled()
    if change is not None:
        change(world)
    outcome = world.again(*given.get("words", ()), code=given.get("code", ""), **given.get("variables", {}))
    assert outcome.with_torch
    assert outcome.code == 0, outcome.stderr


def test_a_changed_parameter_is_planned_with_torch_and_not_there(world):
    world.settled()
    replace("suite.toml", "steps=1", "steps=2")(world)
    command = ("plan", "--config", "suite.toml", "--threads", "1", "--store", "store", "--json")
    outcome = Outcome.of(world.run(*command))
    replace("suite.toml", "steps=2", "steps=1")(world)
    assert outcome.with_torch
    plan = json.loads(outcome.stdout)
    assert plan["cells_cached"] < plan["cells"]


def test_a_leaderboard_that_is_gone_is_made_again(world):
    world.settled()
    made = world.files()
    (world.folder / "run" / "leaderboard.csv").unlink()
    again = world.again()
    assert (again.code, again.with_torch, world.files()) == (0, False, made)


@pytest.mark.slow
def test_a_run_with_a_failed_cell_is_not_complete(world):
    words = ("run", "--dataset", "tiny", "--attack", "tiny-failing", "--backbone", "tiny-a", "--threads", "1")
    for _ in range(2):
        outcome = Outcome.of(world.run(*words, "--store", "store", "--out", "failed"))
        assert (outcome.code, outcome.with_torch) == (1, True)
        assert "cells failed" in outcome.stderr


def test_a_run_of_another_command_in_its_folder_is_refused_as_ever(world):
    world.settled()
    words = (
        "run",
        "--identities",
        "5",
        "--backbone",
        "synthetic-iresnet",
        "--threads",
        "1",
        "--store",
        "store",
    )
    outcome = Outcome.of(world.run(*words, "--out", "run"))
    assert outcome.code == 2
    assert "would be written over it" in outcome.stderr


ALL = """
import json, sys
from pathlib import Path
from bench.plugins import registry, without_torch
from bench.run import again
from bench.run.spec import make_spec

CELL = {"backbones": ("synthetic-iresnet",), "identities": 12}
FIELDS = {"attacks": "attacks", "defenses": "defenses", "backbones": "backbones"}
GIVEN = {
    "device": "cpu", "threads": 3, "batch_size": 64, "precision": "float32", "store": Path("store"),
    "out": None, "lpips_trunk": None, "engine": None, "command": "",
}

def requests():
    for field in ("attacks", "defenses", "backbones"):
        for name in registry.of(field).entries():
            yield f"{field} {name}", {**CELL, field: (name,)}
    for field in ("dataset", "protocol"):
        for name in registry.of(f"{field}s").entries():
            yield f"{field} {name}", {**CELL, field: name, "attacks": ("pgd",), "defenses": ("jpeg",)}
    yield "parts", {**CELL, "attacks": ("pgd:steps=3",), "defenses": ("jpeg:quality=30 + puface", "none")}
    yield "seeds and heads", {**CELL, "seeds": (0, 4), "split_seed": 2, "heads": ("nn", "linear")}

def keys(plan):
    from bench.errors import BenchError
    from bench.run.limits import Limits
    found = {}
    for name, fields in requests():
        try:
            prepared = plan(make_spec(fields), GIVEN | {"limits": Limits()})
            found[name] = sorted(f"{node.stage}/{node.address}" for node in prepared.artefacts)
            found[f"{name}: facts"] = prepared.facts.model_dump(mode="json")
            found[f"{name}: cells"] = [each.model_dump(mode="json") for each in prepared.threats.values()]
        except BenchError as error:  # data or weights that are not here, or a parameter that must be given
            found[name] = f"{type(error).__name__}: {error}"
    return json.loads(json.dumps(found))

def with_torch(spec, given):
    from bench.run import planning
    return planning.prepare(spec, planning.Options(**given))

def without(spec, given):
    return again.Again(spec, given)._prepared()

code = "import torch, json; print(json.dumps([torch.backends.cpu.get_cpu_capability(), torch.hub.get_dir()]))"
import subprocess
kernels, downloads = json.loads(subprocess.check_output([sys.executable, "-c", code]))
with without_torch.stand_ins(again._answers({"kernels": kernels, "downloads": downloads})):
    quick = keys(without)
assert "torch" not in sys.modules
whole = keys(with_torch)
assert "torch" in sys.modules
planned = [name for name in whole if isinstance(whole[name], list) and whole[name]]
print(json.dumps({"planned": planned, "different": [name for name in whole if quick.get(name) != whole[name]]}))
"""


def test_every_plugin_has_the_same_keys_without_torch(world):
    process = subprocess.run(
        [sys.executable, "-c", ALL],
        env=world.environment,
        cwd=world.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["different"] == []
    assert {"attacks pgd", "defenses puface", "backbones synthetic-iresnet", "parts"} <= {*found["planned"]}
    assert len(found["planned"]) > 30


LPIPS = """
import sys
from pathlib import Path
from bench.plugins import without_torch
from bench.run import again

with without_torch.stand_ins({}):
    print(again._described_lpips(Path("trunk.pth")))
assert "torch" not in sys.modules
"""


def test_lpips_is_described_without_torch_by_its_trunks_digest(tmp_path):
    (tmp_path / "trunk.pth").write_bytes(b"weights")
    process = subprocess.run(
        [sys.executable, "-c", LPIPS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert hashlib.sha256(b"weights").hexdigest() in process.stdout
