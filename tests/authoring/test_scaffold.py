"""Packages written by `bench new` work as they are: they install, pass their tests and linters, and run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.authoring import scaffold
from bench.errors import UsageError
from bench.files import StoreError

ROOT = Path(__file__).parents[2]
LONGEST = "a" + "_photo_cloak_named_at_length1"


def run(*arguments, cwd, **env):
    own = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | env
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """One package of each kind, written."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in scaffold.KINDS:
        scaffold.write(folder / kind, scaffold.files(scaffold.names(kind, f"my_{kind}")))
    return folder


@pytest.fixture(scope="module")
def site(packages, tmp_path_factory):
    """The folder that pip installed them into."""
    target = tmp_path_factory.mktemp("site")
    options = ("-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", target)
    folders = [packages / kind for kind in scaffold.KINDS]
    run("pip", "install", *options, *folders, cwd=packages)
    return target


def test_a_package_has_what_its_readme_says():
    files = scaffold.files(scaffold.names("attack", "my-cloak"))
    assert set(files) == {
        ".gitignore", "README.md", "pyproject.toml", "src/my_cloak/__init__.py", "src/my_cloak/py.typed",
        "tests/test_my_cloak.py",
    }  # fmt: skip
    for path in re.findall(r"^- `([^`]+)`", files["README.md"], re.MULTILINE):
        assert path in files
    assert "class MyCloak(Attack):" in files["src/my_cloak/__init__.py"]
    assert 'my-cloak = "my_cloak:MyCloak"' in files["pyproject.toml"]
    assert not any("$" in text for text in files.values())


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_every_kind_is_clean_code_under_any_name(kind, tmp_path):
    assert len(LONGEST) == scaffold.LONGEST
    for name in ("x", f"my_{kind}", LONGEST):
        scaffold.write(tmp_path / name, scaffold.files(scaffold.names(kind, name)))
    run("ruff", "check", ".", cwd=tmp_path)
    run("ruff", "format", "--check", f"my_{kind}", cwd=tmp_path)


def test_installed_they_are_listed_with_their_package(site, packages):
    listed = json.loads(run("bench", "list", "--json", cwd=packages, PYTHONPATH=str(site)))
    for kind in scaffold.KINDS:
        (own,) = [item for item in listed[f"{kind}s"] if item["name"] == f"my-{kind}"]
        assert own["from"] == f"my-{kind}"
        assert own["what"].startswith(f"My{kind.capitalize()}: ")


def test_their_own_tests_pass(site, packages):
    tests = [packages / kind / "tests" for kind in scaffold.KINDS]
    options = (
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "--rootdir",
        packages,
    )
    out = run("pytest", *options, *tests, cwd=packages, PYTHONPATH=str(site))
    passed = re.search(
        r"^(\d+) passed in", out, re.MULTILINE
    )  # nothing skipped: each contract check is a case
    assert passed, out
    assert int(passed[1]) > 100


def test_they_run_in_a_matrix_together(site, packages, tmp_path):
    words = [word for kind in scaffold.KINDS for word in (f"--{kind}", f"my-{kind}")]
    out = run(
        "bench", "run", *words, "--identities", 6, "--threads", 1, "--store", tmp_path / "store",
        "--out", tmp_path / "run", "--json", cwd=packages, PYTHONPATH=str(site),
    )  # fmt: skip
    rows = json.loads(out)["rows"]
    assert {(row["attack"], row["defense"]) for row in rows} == {
        (attack, defense) for attack in ("none", "my-attack") for defense in ("none", "my-defense")
    }
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["protocol"] for row in rows} == {"my-protocol"}


@pytest.mark.slow
def test_they_are_typed(site, packages):
    del site
    sources = os.pathsep.join(str(packages / kind / "src") for kind in scaffold.KINDS)
    files = [
        file
        for kind in scaffold.KINDS
        for file in sorted((packages / kind).rglob("*.py"))
        if "build" not in file.parts
    ]
    out = run(
        "mypy", "--config-file", packages / "attack" / "pyproject.toml", *files, cwd=packages,
        MYPYPATH=os.pathsep.join((str(ROOT), sources)),
    )  # fmt: skip
    assert f"Success: no issues found in {len(files)} source files" in out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("My-Cloak", "cannot name a plugin"),
        ("1st", "a letter first"),
        ("my cloak", "small letters"),
        ("../up", "cannot name a plugin"),
        ("my__cloak", "single '_'"),
        ("a" * (scaffold.LONGEST + 1), "at most 30"),
        ("class", "word of Python's own. Choose another name, e.g. my_class"),
        ("match", "word of Python's own"),
        ("json", "a module 'json' can be imported here already"),
        ("numpy", "a module 'numpy' can be imported here already"),
        ("bench", "can be imported here already"),
        ("fawkes", "an attack called 'fawkes' already, from cloakbench"),
    ],
)  # fmt: skip
def test_a_bad_or_taken_name_is_refused(name, reason):
    with pytest.raises(UsageError, match=re.escape(reason)):
        scaffold.names("attack", name)


@pytest.mark.parametrize(
    ("kind", "name", "cls"),
    [
        ("attack", "context", "Context"), ("attack", "faces", "Faces"), ("attack", "attack", "Attack"),
        ("defense", "purifier", "Purifier"), ("backbone", "tensor", "Tensor"), ("protocol", "view", "View"),
        ("attack", "f", "F"), ("attack", "params", "Params"), ("attack", "user-warning", "UserWarning"),
    ],
)  # fmt: skip
def test_a_name_whose_class_the_package_needs_is_refused(kind, name, cls):
    with pytest.raises(UsageError, match=f"makes a class '{cls}', .* e.g. my_{name.replace('-', '_')}"):
        scaffold.names(kind, name)
    assert scaffold.names(kind, f"my_{name}")


def test_a_name_taken_by_another_kind_is_free():
    assert scaffold.names("defense", "lowkey").plugin == "lowkey"
    with pytest.raises(UsageError, match="a defense called 'jpeg'"):
        scaffold.names("defense", "jpeg")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_left_alone(tmp_path, make):
    make(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"exists already.*--out"):
        scaffold.write(tmp_path / "mine", {"a.txt": "a"})
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not (tmp_path / "mine/a.txt").exists()


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write .*Choose another place with --out"):
        scaffold.write(tmp_path / "file" / "mine", {"a.txt": "a"})
    with pytest.raises(StoreError):  # fails after the first file
        scaffold.write(tmp_path / "mine", {"a": "a", "a/b": "b"})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
