"""Habits of the command line that hold for every command: help, examples, quiet, verbose, JSON, endings."""

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys

import click
import pytest

from bench.cli import COMMANDS, bench, load_command, plugin_commands
from bench.cli.ending import FAILED, INTERRUPTED, NO_READER
from bench.cli.options import MEANT
from bench.cli.streams import plain

PRINT_NO_RESULT = {
    ("apf", "serve"), ("apf", "protect"), ("erase",), ("models", "convert"), ("plot",), ("report",),
}  # fmt: skip
"""Commands whose output is a script or files, or which never end."""


def walk():
    """Yield (path, command) of every command and group below `bench`."""

    def below(path, command):
        yield path, command
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                yield from below((*path, name), sub)

    for name in (*COMMANDS, *plugin_commands()):
        yield from below((name,), load_command(name))


EVERY = sorted(walk(), key=lambda item: item[0])
LEAVES = [(path, command) for path, command in EVERY if not isinstance(command, click.Group)]


def examples(text):
    """Return the command lines of an epilog, what a shell would do with their output left out."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [re.search(r"\$\((bench [^)]*)\)|(?:^\s*|Example: )(bench [^|>]*)", line) for line in lines]
    return [shlex.split(match[1] or match[2]) for match in found if match]


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) for path, _ in EVERY])
def test_help_has_an_example_that_parses(path, command):
    own = examples(command.epilog or "")
    assert own, "no example"
    for line in own:
        assert line[0] == "bench"
        at, words = bench, line[1:]
        context = click.Context(bench)
        while isinstance(at, click.Group):
            at = at.get_command(context, words.pop(0))
            assert at is not None, line
        at.make_context(" ".join(path), words)
    assert any(tuple(line[1 : 1 + len(path)]) == path for line in own), "no example of this command"


def test_the_first_help_has_examples_exit_codes_and_where_options_come_from(cli):
    code, out, err = cli("--help")
    assert (code, err) == (0, "")
    assert len(examples(bench.epilog)) == 4
    for number in (0, FAILED, 2, INTERRUPTED, NO_READER):
        assert re.search(rf"^ +{number} +\w", out, re.MULTILINE), number
    assert "cloakbench.toml" in out
    assert "CLOAKBENCH_RUN_THREADS" in out


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_every_command_is_quiet_verbose_and_explained(path, command):
    options = {name for param in command.params for name in param.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= options
    assert len([name for param in command.params for name in param.opts]) == len(options), "an option twice"
    assert all(param.help for param in command.params if isinstance(param, click.Option))
    assert command.help
    assert all(getattr(param, "prompt", None) is None for param in command.params), "it would ask"


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_every_command_with_a_result_prints_it_as_json(path, command):
    assert path in PRINT_NO_RESULT or "as_json" in {param.name for param in command.params}


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",), ("list", "pools"), ("list", "none"), ("list", "fawkes"), ("check", "none", "--kind", "defense"),
        ("data", "list"), ("power",), ("table", "means", "any", "--columns"), ("table", "erasure", "any", "--columns"),
    ],
)  # fmt: skip
def test_json_is_one_document_and_nothing_else(cli, arguments):
    code, out, err = cli(*arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)


# -- quiet and verbose -----------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    base = ("--dataset", "tiny", "--backbone", "tiny-a", "--attack", "tiny-noise", "--threads", "1")
    return (*base, "--store", tmp_path / "store", "--out", tmp_path / "run")


def test_quiet_and_verbose_stand_before_or_after_the_command(cli, small):
    assert cli("-q", "run", *small) == (0, "", "")
    assert cli("run", *small, "--quiet") == (0, "", "")
    for arguments in (("-v", "run", *small), ("run", *small, "--verbose")):
        code, _, err = cli(*arguments, "--json")
        assert code == 0
        assert "INFO: run " in err
        assert "cells done, 0 failed" in err
    assert "INFO" not in cli("run", *small)[2]


def test_tracebacks_only_where_they_are_asked_for(cli):
    for loud, wanted in (("-v", False), ("-vv", True)):
        code, out, err = cli("list", "fawks", loud)
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith("Error: unknown plugin 'fawks'")
        assert ("Traceback" in err) is wanted
    assert "Traceback" not in cli("list", "fawks")[2]


# -- how a command ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("run", "--atack", "pgd"),
            "No such option '--atack'. Did you mean '--attack'?",
        ),
        (("models", "verify", "x", "--devise", "cpu"), "No such option '--devise'. Did you mean '--device'?"),
        (("runn",), "unknown command 'runn'. Did you mean 'run'?"),
        (("models", "verfy"), "No such command 'verfy'. Did you mean 'verify'?"),
        (("run", "--threads", "0"), "Invalid value for '--threads': 0 is not in the range x>=1."),
        (("compare", "somewhere"), "Missing argument 'A B | OTHER_RUN'."),
        (("train", "puface"), "Missing option '--out'."),
    ],
)
def test_a_wrong_line_is_one_sentence_that_says_where_to_read_on(cli, arguments, sentence):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: {sentence}"), err
    assert err.count("\n") == 1
    assert "--help`" in err


BARE = [
    (path, command)
    for path, command in EVERY
    if isinstance(command, click.Group)
    or any(isinstance(p, click.Argument) and p.required for p in command.params)
]


@pytest.mark.parametrize("path", [(), *(path for path, _ in BARE)], ids=" ".join)
def test_a_command_called_bare_prints_its_help_as_help(cli, path):
    code, out, err = cli(*path)
    assert (code, out) == (2, "")
    assert err == cli(*path, "--help")[1]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("run", "--limit", "3"), "--identities"),
        (("run", "-n", "3"), "--identities"),
        (("run", "--people", "3"), "--identities"),
        (("run", "--model", "x"), "--backbone"),
        (("run", "--defence", "x"), "--defense"),
        (("run", "--output", "x"), "--out"),
        (("run", "--gpu"), "--device cuda"),
        (("run", "--n_jobs", "2"), "--engine processes:N"),
        (("run", "--batch_size", "2"), "--batch-size"),
        (("run", "--ci"), "--intervals"),
        (("leaderboard", "x", "--output", "y"), "--csv"),
        (("leaderboard", "x", "--markdown", "y"), "--md"),
        (("data", "list", "--format", "json"), "--json"),
    ],
)
def test_an_option_is_known_by_what_people_call_it(cli, arguments, option):
    code, _, err = cli(*arguments)
    assert code == 2
    assert f"Did you mean '{option}'?" in err, err


def test_no_option_is_suggested_for_its_dashes(cli):
    code, _, err = cli("run", "--foo")
    assert (code, err) == (2, "Error: No such option '--foo'. See `bench run --help`.\n")


def test_what_people_call_options_leads_to_options():
    known = {name for _, command in LEAVES for param in command.params for name in param.opts}
    for word, wanted in MEANT.items():
        for option in wanted:
            assert option.partition(" ")[0] in known, option
        assert f"--{word}" not in wanted


# -- streams that cannot show everything -----------------------------------------------------------------------


@pytest.mark.system
@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        *((encoding, ("list", "--json")) for encoding in ("ascii", "latin-1", "cp1252", "utf-8")),
        ("ascii", ("list", "fawkes")),
        ("cp1252", ("list", "fawkes")),
        ("latin-1", ("check", "none", "--kind", "defense")),
        ("ascii", ("run", "--limit", "…")),
    ],
)
def test_characters_that_a_stream_lacks_are_replaced(encoding, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding, "NO_COLOR": "1"},
        timeout=120,
    )
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == (2 if arguments[0] == "run" else 0), err
    assert "Traceback" not in err
    if arguments == ("list", "fawkes"):
        assert ("1 … 100000" if encoding in ("utf-8", "cp1252") else "1 ... 100000") in out


def test_a_text_is_written_as_it_would_be_typed():
    assert (
        plain("PSNR ≥ 30 dB, L∞ ≤ 8, fawkes × jpeg → Zoë …")
        == "PSNR >= 30 dB, Linf <= 8, fawkes x jpeg -> Zoe ..."
    )
    assert plain("\udc80\u4e2d") == "??"


def ending(*arguments, output="", **settings):
    """Run `bench` with a redirection; return its exit code and what it said on stderr."""
    line = f"{shlex.quote(sys.executable)} -m bench {shlex.join(arguments)} {output}"
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | settings,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_full_disk_under_the_output():
    expected = (FAILED, "Error: cannot write the output: No space left on device.\n")
    assert ending("list", "pools", output="> /dev/full") == expected


def test_a_closed_output():
    assert ending("list", "pools", output=">&-") == (
        FAILED,
        "Error: cannot write the output: standard output is closed.\n",
    )


def test_a_reader_that_goes_away():
    assert ending("list", "pools", output="| true; exit ${PIPESTATUS[0]}") == (NO_READER, "")


@pytest.mark.parametrize("arguments", [("list", "pools"), ("check", "none", "--kind", "defense")])
def test_a_broken_pipe_while_a_command_prints(monkeypatch, cli, arguments):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", Gone())
    assert cli(*arguments)[0] == NO_READER


def test_an_interrupt_says_that_work_is_kept(cli, monkeypatch):
    def interrupted(_kind):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.plugins.registry.entries_of", interrupted)
    code, _, err = cli("list")
    assert code == INTERRUPTED
    assert err.strip().splitlines()[-1].startswith("Interrupted. What was computed is kept")


@pytest.mark.parametrize(("settings", "styled"), [({"NO_COLOR": "1"}, False), ({}, True)])
def test_style_only_on_a_terminal_and_never_with_no_color(settings, styled):
    own = (
        {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | settings
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "bench", "list"], stdout=theirs, env=own)
    os.close(theirs)
    printed = b""
    try:
        while block := os.read(ours, 4096):
            printed += block
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    assert b"fawkes" in printed
    assert (b"\x1b[" in printed) is styled
