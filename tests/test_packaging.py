"""What the wheel holds: the four packages with what they need, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("attacks", "bench", "defenses", "fr_models")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    # Built from a copy: setuptools leaves its working folders beside the sources.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.checkpoint")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("tests", "docs"):
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    (wheel,) = out.glob("*.whl")
    assert wheel.name.startswith("cloakbench-")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_exactly_the_four_packages(names):
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert len(top) == 5


def test_the_wheel_holds_every_module_and_weight(names):
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: what belongs to the project is not known")
    assert set(tracked.stdout.split()) <= set(names)


def test_the_wheel_holds_no_other_kind_of_file(names):
    inside = [name for name in names if ".dist-info/" not in name]
    kinds = {True: set(), False: set()}
    for path in map(Path, inside):
        kinds["templates" in path.parts].add(path.suffix)
    assert kinds[False] <= {".py", ".safetensors", ".json", ".typed"}
    assert kinds[True] <= {".css", ".j2", ".js", ".template"}
    assert len(inside) == len(set(inside))
