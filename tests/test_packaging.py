"""What is published is what is committed: the four packages, which run where nothing else of the project is."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("attacks", "bench", "defenses", "fr_models")
UNPUBLISHED = ("benchmarks", "docs", "notebooks", "results", "tests")


def done(command, **options):
    process = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **{"cwd": ROOT, **options}
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def built(once):
    """Return the wheel and the source distribution of the last commit, built without what is untracked."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project is not known")

    def make(folder):
        source = folder / "source"
        source.mkdir(parents=True)
        done(["git", "archive", "--output", folder / "source.tar", "HEAD"])
        with tarfile.open(folder / "source.tar") as archive:
            archive.extractall(source, filter="data")
        done([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source])

    folder = once("built", make)
    ((wheel,), (sdist,)) = ([*(folder / "dist").glob(pattern)] for pattern in ("*.whl", "*.tar.gz"))
    return SimpleNamespace(wheel=wheel, sdist=sdist)


@pytest.fixture(scope="module")
def names(built):
    assert built.wheel.name.startswith("cloakbench-")
    return zipfile.ZipFile(built.wheel).namelist()


@pytest.fixture(scope="module")
def committed():
    return set(done(["git", "ls-tree", "-r", "--name-only", "HEAD", *PACKAGES]).split())


def test_the_wheel_holds_exactly_the_committed_files_of_the_four_packages(names, committed):
    inside = [name for name in names if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in inside} == set(PACKAGES)
    assert sorted(inside) == sorted(committed)
    for kind in (
        "bench/leaderboard/templates/",
        "attacks/weights/",
        "defenses/weights/",
        "fr_models/weights/",
    ):
        assert [name for name in inside if name.startswith(kind)], kind


def test_the_source_distribution_holds_what_a_wheel_is_built_from(built, committed):
    with tarfile.open(built.sdist) as archive:
        inside = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert committed | {"pyproject.toml", "README.md", "LICENSE"} <= inside


def test_a_package_of_another_name_is_not_published(names):
    assert not [name for name in names if name.startswith(UNPUBLISHED)]


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Return a function that runs a program of an environment in which the wheel is all there is of the project.

    What it depends on is this environment's, without what makes the project importable there.
    """
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    for outer in {Path(path) for path in sys.path if path.endswith("site-packages")}:
        for entry in outer.iterdir():
            if "cloakbench" not in entry.name and not (site / entry.name).exists():
                (site / entry.name).symlink_to(entry)
    python = home / "venv/bin/python"
    done(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check",
         built.wheel], cwd=home,
    )  # fmt: skip
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CLOAKBENCH_", "PYTHON"))}
    env |= {
        "OMP_NUM_THREADS": "1",
        "CLOAKBENCH_STORE": str(home / "store"),
        "CLOAKBENCH_DATA": str(home / "data"),
        "TORCH_HOME": str(home / "torch"),
        "NO_COLOR": "1",
    }

    def run(program, *arguments):
        return done([home / "venv/bin" / program, *arguments], cwd=home, env=env)

    return run


def test_the_installed_modules_are_the_wheels(installed):
    code = f"import importlib; print(*(importlib.import_module(name).__file__ for name in {PACKAGES}))"
    assert str(ROOT) not in installed("python", "-c", code)
    code = f"import importlib.util; print([name for name in {UNPUBLISHED} if importlib.util.find_spec(name)])"
    assert installed("python", "-c", code) == "[]\n"


def test_the_installed_wheel_lists_its_methods_and_plans_the_main_job(installed):
    listed = installed("bench", "list")
    for name in ("fawkes", "puface", "synthetic-iresnet"):
        assert name in listed
    plan = installed("bench", "run", "--attack", "fawkes", "--defense", "puface", "--dry-run")
    assert "fawkes" in plan
    assert "puface" in plan


@pytest.mark.slow
def test_the_installed_wheel_runs_a_small_job_with_its_weights_and_templates(installed, tmp_path):
    csv, html = tmp_path / "table.csv", tmp_path / "report.html"
    installed(
        "bench", "run", "--dataset", "synthetic:identities=3,photos=4", "--backbone", "synthetic-mobilefacenet",
        "--attack", "pgd:steps=1", "--defense", "puface", "--threads", "1", "--out", tmp_path / "run", "--csv", csv,
    )  # fmt: skip
    assert len(csv.read_text().splitlines()) == 5
    installed("bench", "report", tmp_path / "run", "--no-photos", "--out", html)
    assert "</html>" in html.read_text()
    installed("bench", "new", "attack", "my_cloak", "--out", tmp_path / "mine")
    assert (tmp_path / "mine/pyproject.toml").is_file()
