"""docs/architecture.md draws the rooms as they are checked, and every path and name on it exists."""

import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CODE = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))
NAMES = [code for code in CODE if re.fullmatch(r"(bench|attacks|defenses|fr_models)(\.\w+)+", code)]
PATHS = [code for code in CODE if "/" in code or code.endswith((".py", ".md", ".toml"))]
ROWS = [line for line in PAGE.partition("## Where would I add")[2].splitlines() if line.startswith("| a")]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_exists(name: str) -> None:
    pkgutil.resolve_name(name)


@pytest.mark.parametrize("path", PATHS)
def test_the_path_exists(path: str) -> None:
    assert (ROOT / path).exists(), f"docs/architecture.md names {path}"


def test_the_entry_point_groups_exist() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    named = set(re.findall(r"`(cloakbench\.\w+)`", PAGE))
    assert named == {
        f"cloakbench.{kind}"
        for kind in ("attacks", "defenses", "backbones", "datasets", "protocols", "commands", "engines")
    }
    assert named <= set(groups)


def test_the_picture_is_what_lint_imports_checks() -> None:
    linted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = [contract["layers"] for contract in linted["contracts"] if contract["type"] == "layers"]
    picture = PAGE.partition("```text\n")[2].partition("```")[0].splitlines()
    assert [re.split(r" {2,}", line)[0] for line in picture] == layers


def test_the_picture_has_every_room() -> None:
    picture = PAGE.partition("```text\n")[2].partition("```")[0]
    drawn = {
        name for line in picture.splitlines() for name in re.findall(r"\w+", re.split(r" {2,}", line)[0])
    }
    there = {
        path.stem
        for path in (ROOT / "bench").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert drawn == there - {"__init__", "__main__"}
    for room in drawn:
        assert importlib.import_module(f"bench.{room}").__doc__, f"bench.{room} has no charter"


def test_it_says_where_each_thing_goes_in_one_line() -> None:
    things = [re.split(r" *\| *", row)[1] for row in ROWS]
    assert things == [
        "a defence", "an attack", "a backbone", "a dataset", "a protocol", "an engine", "a column",
        "a figure", "a table",
        "a command", "a warning",
    ]  # fmt: skip
