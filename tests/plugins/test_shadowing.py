"""A user's own folder called like a package of the project is named, with the package it hides."""

import subprocess
import sys

import pytest

from bench.errors import UsageError
from bench.plugins import registry, shadowing


@pytest.fixture
def hidden(tmp_path, monkeypatch):
    """Return a folder, first on the import path, in which `attacks` is another package."""
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks/__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "attacks"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.forget()
    yield tmp_path
    registry.forget()


def test_nothing_is_hidden_here():
    shadowing.check()


def test_both_places_and_the_fix_are_named(hidden):
    with pytest.raises(UsageError) as caught:
        registry.ATTACKS.entries()
    message = str(caught.value)
    assert f"'{hidden / 'attacks'}' hides" in message
    assert f"'{shadowing.HOME / 'attacks'}'" in message
    assert "Rename it" in message


@pytest.mark.parametrize("name", shadowing.PACKAGES)
@pytest.mark.parametrize("content", ["__init__.py", "photo.jpg"])
def test_the_command_says_so_at_once(tmp_path, name, content):
    (tmp_path / name).mkdir()
    (tmp_path / name / content).touch()
    process = subprocess.run(
        [sys.executable, "-m", "bench", "list", "attacks"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # Photos alone are no package: they hide one only where it is found by an import hook, as editable ones are.
    if content == "photo.jpg" and process.returncode == 0:
        assert "fawkes" in process.stdout
    elif (
        "'bench' is a package and cannot be directly executed" not in process.stderr
    ):  # Python's, where not editable
        assert process.returncode == 2
        assert process.stderr.startswith(f"Error: '{tmp_path / name}' hides CloakBench's package '")
        assert process.stderr.count("\n") == 1


def test_the_command_looks_without_importing(tmp_path):
    code = (
        "import sys; from bench.plugins import shadowing; shadowing.check(); "
        "print({*sys.modules} & {'attacks', 'defenses', 'fr_models', 'torch', 'numpy'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
