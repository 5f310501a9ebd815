"""Commands that methods bring along: listed, lazy, and one sentence where they are wrong."""

import json
import subprocess
import sys

import pytest

from bench.cli import plugin_commands
from bench.plugins import registry


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that registers commands as an installed package does."""

    def register(entries, source=""):
        folder = tmp_path / "site"
        info = folder / "other-0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 0\n")
        (info / "entry_points.txt").write_text("[cloakbench.commands]\n" + "\n".join(entries) + "\n")
        (folder / "other_commands.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        registry.forget()
        plugin_commands.cache_clear()

    yield register
    registry.forget()
    plugin_commands.cache_clear()
    sys.modules.pop("other_commands", None)


HELLO = '''"""Say hello to others."""

import click


@click.command()
def hello():
    """Say hello."""
    click.echo("hello there")


NUMBER = 7
'''


def test_a_plugins_command_is_listed_and_runs(cli, installed):
    installed(["hello = other_commands:hello"], HELLO)
    assert "other_commands" not in sys.modules
    code, out, _ = cli("--help")
    assert code == 0
    assert "Commands of plugins" in out
    assert "Say hello to others." in out
    assert "other_commands" not in sys.modules
    assert out.index("Your own photos:") < out.index("  cloak ") < out.index("Commands of plugins:")
    assert cli("hello") == (0, "hello there\n", "")


def test_the_methods_own_commands_are_there(cli):
    assert plugin_commands()["apf"].target == "attacks.apf.commands:apf"
    code, out, _ = cli("apf", "--help")
    assert code == 0
    assert "serve" in out
    assert "protect" in out
    for name in ("serve", "protect"):
        assert cli("apf", name, "--help")[0] == 0


def test_a_wrong_name_suggests_a_plugins_command(cli, installed):
    installed(["hello = other_commands:hello"], HELLO)
    code, _, err = cli("helo")
    assert code == 2
    assert "Did you mean 'hello'?" in err


@pytest.mark.parametrize(
    ("entries", "requested", "reason"),
    [
        (["run = other_commands:hello"], "--help", "two commands are called 'run'"),
        (["means = other_commands:hello"], "--help", "two commands are called 'means': `bench` itself and"),
        (["apf = other_commands:hello"], "apf", "two commands are called 'apf'"),
        (["hello = other_commands:nothing"], "hello", "cannot be had from other_commands:nothing: AttributeError"),
        (["hello = no_such_module:hello"], "hello", "cannot be had from no_such_module:hello: ModuleNotFoundError"),
        (["hello = other_commands:NUMBER"], "hello", "it is a int, not a click command"),
    ],
)  # fmt: skip
def test_a_broken_command_is_one_sentence(cli, installed, entries, requested, reason):
    installed(entries, HELLO)
    code, _, err = cli(requested)
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1


def test_commands_of_the_harness_work_beside_a_broken_plugin(cli, installed):
    installed(["run = other_commands:hello"], HELLO)
    assert cli("list", "protocols")[0] == 0


def test_help_of_a_plugins_command_imports_nothing_heavy():
    code = (
        "import sys, json\nfrom bench.cli import main\nsys.argv = ['bench', 'apf', 'protect', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'starlette', 'uvicorn', 'PIL'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == []
