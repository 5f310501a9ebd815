"""Completion: scripts for three shells; names of commands, options, methods and runs, without heavy imports."""

import json
import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from bench.cli import COMMANDS, bench, plugin_commands
from bench.plugins import registry


@pytest.fixture
def complete(tiny):
    """Return a function that completes the last word of a line and gives the candidates."""
    del tiny

    def ask(*words):
        shell = ShellComplete(bench, {}, "bench", "_BENCH_COMPLETE")
        return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]

    return ask


@pytest.mark.system  # click asks bash for its version
@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o nosort"), ("zsh", "#compdef bench"), ("fish", "complete --")]
)
def test_the_script_of_each_shell(cli, shell, mark):
    code, out, err = cli("--completion", shell)
    assert (code, err) == (0, "")
    assert mark in out
    assert f"_BENCH_COMPLETE={shell}_complete" in out


def test_another_shell_is_refused(cli):
    code, _, err = cli("--completion", "tcsh")
    assert code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in err


def test_commands_and_their_options(complete):
    assert set(complete("")) == {*COMMANDS, *plugin_commands()}
    assert complete("mod") == ["models"]
    assert complete("models", "ver") == ["verify"]
    assert "--batch-size" in complete("run", "--b")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("run", "--attack", ""), "attacks"),
        (("run", "--defense", ""), "defenses"),
        (("plan", "--backbone", ""), "backbones"),
        (("verify", "x", "--device", "cpu", "--cells", "1", ""), None),
        (("run", "--dataset", ""), "datasets"),
        (("run", "--protocol", ""), "protocols"),
        (("train", ""), "trainers"),
        (("models", "verify", ""), "backbones"),
    ],
)
def test_names_of_methods(complete, words, kind):
    expected = [] if kind is None else sorted(registry.EVERY[kind].entries())
    assert complete(*words) == expected


def test_names_that_are_begun_kinds_and_plugins_of_all_kinds(complete):
    assert complete("run", "--attack", "tiny-le") == ["tiny-learning"]
    assert complete("list", "defen") == ["defenses"]
    assert {"fawkes", "jpeg", "tiny-a"} <= set(complete("list", ""))
    assert set(complete("check", "tiny-c")) == {"tiny-centring", "tiny-c"}


def test_folders_of_runs(complete, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/b", "runs/a", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/b", "runs/a"):
        (tmp_path / name / "spec.json").touch()
    assert complete("audit", "") == ["runs/a", "runs/b"]
    assert complete("verify", "ru") == ["runs/a", "runs/b"]
    assert complete("compare", "runs/b") == ["runs/b"]
    assert complete("audit", "nowhere/x") == ["nowhere/x"]


def test_what_follows_a_former_name(complete, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/spec.json").touch()
    assert complete("means", "") == ["a"]
    assert complete("means", "a", "--col") == ["--columns"]
    assert "--out" in complete("rerun", "a", "--o")
    assert complete("signif") == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("line", "found"), [("bench run --attack faw", "fawkes"), ("bench doc", "doctor")])
def test_a_shell_asks_the_command_and_nothing_heavy_is_imported(line, found):
    code = (
        "import sys, json\nfrom bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'rich', 'pydantic'} & set(sys.modules)\n"
        "print(json.dumps(sorted(heavy)), file=sys.stderr)"
    )
    words = line.split()
    requested = {"_BENCH_COMPLETE": "zsh_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | requested
    )
    assert done.stdout.splitlines()[:2] == ["plain", found]
    assert json.loads(done.stderr) == []
