"""The command line. Subcommands are imported when they are used, so that ``bench --help`` is quick.

Here: parsing, progress and tables. Not here: anything a Python caller would want; that is in `bench`.
"""

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import LEANS_ON, OWN, Ending, equip, quiet_option, verbose_option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from bench.errors import UsageError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("bench.cli.run:run", "Run a matrix of attacks x defences x backbones."),
    "plan": ("bench.cli.run:plan", "Say what a run would compute, how long and how much disk."),
    "leaderboard": (
        "bench.cli.leaderboard:leaderboard",
        "Write the leaderboard of finished runs: CSV, page, LaTeX, Markdown.",
    ),
    "report": (
        "bench.cli.report:report",
        "Write a report of a finished run: one HTML file, Markdown or LaTeX.",
    ),
    "submit": ("bench.cli.submit:submit", "Check a finished run for the public leaderboard, and add it."),
    "compare": ("bench.cli.compare:compare", "Say whether A is better than B, or how two runs differ."),
    "significance": ("bench.cli.significance:significance", "Rank and test all methods of a finished run."),
    "ablate": ("bench.cli.ablate:ablate", "Vary one factor at a time: train, run, test, draw."),
    "means": ("bench.cli.means:means", "Average a finished run over attacks and trackers."),
    "erasure": (
        "bench.cli.erasure:erasure",
        "Say who gets protected faces back: with a key, without, purified.",
    ),
    "plot": ("bench.cli.plot:plot", "Draw the figures of a finished run: PNG, SVG and PDF."),
    "power": ("bench.cli.power:power", "Say which difference a run could show, and what it takes."),
    "audit": ("bench.cli.audit:audit", "List every leakage in a finished run, and whether its rows say so."),
    "verify": ("bench.cli.verify:verify", "Check a finished run: every digest, and a sample made again."),
    "rerun": ("bench.cli.rerun:rerun", "Make a run again from its folder alone and compare."),
    "cloak": ("bench.photo_tools.commands.cloak:cloak", "Protect the photos of a folder."),
    "purify": (
        "bench.photo_tools.commands.purify:purify",
        "Purify the photos of a folder, as a tracker would.",
    ),
    "inspect": (
        "bench.photo_tools.commands.inspect:inspect",
        "Say what a change did to photos, and to recognisers' answers.",
    ),
    "erase": (
        "bench.photo_tools.commands.erase:erase",
        "Take the cloaks off the photos of a folder, with the key.",
    ),
    "list": (
        "bench.cli.catalogue:list_plugins",
        "List attacks, defenses, backbones, datasets, protocols, ...",
    ),
    "show": ("bench.cli.catalogue:show", "Show one plugin: parameters, threat model, paper."),
    "check": ("bench.cli.check:check", "Run the contract checks on a plugin, yours or a registered one."),
    "data": ("bench.cli.data:data", "List, add and fetch datasets."),
    "models": ("bench.cli.models:models", "List, fetch, verify and calibrate backbones."),
    "train": ("bench.cli.train:train", "Train a backbone, a purifier or an attack."),
    "new": ("bench.cli.new:new", "Write a working plugin package of your own, with its test."),
    "doctor": ("bench.cli.doctor:doctor", "Say what is here, what is missing, and how to get it."),
    "completion": ("bench.cli.completion:completion", "Print the completion script of a shell."),
}
"""Subcommand → where it is, and its line in ``bench --help``."""


PLUGINS = "cloakbench.commands"
"""Entry-point group of commands that methods bring along: name → ``module:click_command``."""


@cache
def plugin_commands() -> Mapping[str, tuple[str, str]]:
    """Return the commands of plugins as `COMMANDS` has them, sorted; none is imported.

    Raises:
        UsageError: two commands of one name.
    """
    from importlib import metadata

    from bench.errors import UsageError
    from bench.plugins.registry import Entry

    found: dict[str, Entry] = {}
    for point in metadata.entry_points(group=PLUGINS):
        entry = Entry(point.name, point.value, point.dist.name if point.dist else "unknown")
        # An editable install can list one distribution's entry points twice; that is no collision.
        other = found.setdefault(entry.name, entry)
        taken = COMMANDS[entry.name][0] if entry.name in COMMANDS else other.target
        if entry.name in COMMANDS or other != entry:
            raise UsageError(
                f"two commands are called '{entry.name}': {taken} and {entry.target} (from {entry.distribution}). "
                "Uninstall or rename one of them."
            )
    return {name: (found[name].target, found[name].summary()) for name in sorted(found)}


def load_command(name: str) -> click.Command:
    """Import a command by its name in `COMMANDS` or of a plugin, with all that `equip` adds.

    Raises:
        UsageError: a plugin's command cannot be imported or is none.
    """
    target = COMMANDS[name][0] if name in COMMANDS else plugin_commands()[name][0]
    module, _, attribute = target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in COMMANDS:
            raise
        raise _no_command(name, target, f"{type(error).__name__}: {error}") from error
    if not isinstance(command, click.Command):
        raise _no_command(name, target, f"it is a {type(command).__name__}, not a click command")
    return equip(command, name)


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`, then those of plugins."""
        del ctx
        return [*COMMANDS, *plugin_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, None where there is no such name.

        Raises:
            UsageError: a plugin's command cannot be imported or is none.
        """
        del ctx
        known = cmd_name in COMMANDS or cmd_name in plugin_commands()
        return load_command(cmd_name) if known else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name where there is no such command; give the command its defaults of a file."""
        if ctx.resilient_parsing:  # completing a word: nothing may fail, and no default matters
            return super().resolve_command(ctx, args)
        from bench.errors import unknown

        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS and name not in plugin_commands():
            known = self.list_commands(ctx)
            raise unknown("command", name, known, "See `bench --help`.")
        found = super().resolve_command(ctx, args)
        ctx.default_map = self._defaults(name, found[1])
        return found

    def _defaults(self, name: str, command: click.Command | None) -> dict[str, Any]:
        from bench.cli import config

        path = None if command is None or name in UNCONFIGURED else config.find()
        if command is None or path is None:
            return {}
        tables = config.read(path, [*COMMANDS, *plugin_commands()])
        found = config.defaults(path, command, tables.get(name, {}), name)
        if name in LEANS_ON:
            other = LEANS_ON[name]
            theirs = config.defaults(path, load_command(other), tables.get(other, {}), other)
            shared = {param.name for param in command.params} - OWN
            found = {key: value for key, value in theirs.items() if key in shared} | found
        return {name: found}

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete a command's name without importing any; its options need it only once it is named."""
        from click.shell_completion import CompletionItem

        lines = {name: line for name, (_, line) in {**COMMANDS, **plugin_commands()}.items()}
        found = [
            CompletionItem(name, help=line) for name, line in lines.items() if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        if plugin_commands():
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, line) for name, (_, line) in plugin_commands().items()])


def _no_command(name: str, target: str, reason: str) -> "UsageError":
    from bench.errors import UsageError

    return UsageError(f"command '{name}' cannot be had from {target}: {reason}.")


_EPILOG = """\b
Examples:
  bench run --attack fawkes --defense puface
  bench list attacks
  bench new attack my_cloak
  bench doctor

Each command says more: bench run --help. Options can also be set by environment (CLOAKBENCH_RUN_THREADS=1)
and in cloakbench.toml ([run] threads = 1); the command line wins.

\b
Exit codes:
  0    done, and nothing was found wrong
  1    something failed: a cell, a check, a comparison, a file that cannot be written
  2    what was requested cannot be done; nothing was computed
  130  interrupted; what was computed is kept
  141  whoever read the output went away
"""

UNCONFIGURED = frozenset({"doctor", "completion"})
"""Commands that work beside a broken ``cloakbench.toml``: one says what is wrong with it."""

FAILED = 1
INTERRUPTED = 130
NO_READER = 141
"""Exit codes besides those of `bench.errors`; the last two as a shell has them (128 + signal)."""

_NO_PLACE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EFBIG,
        errno.EBADF,
    }
)
"""What the system may answer that is the matter of the user, not of the program."""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="cloakbench", prog_name="bench")
def bench() -> None:
    """Cross face-cloaking attacks, defences and face-recognition backbones; measure what protects."""


bench.params += [quiet_option(), verbose_option()]


def main() -> None:
    """Run the command line; every expected error is one sentence and a non-zero exit code."""
    from bench.errors import BenchError

    ending = Ending()
    try:
        code = _run(ending)
    except (BenchError, click.ClickException, click.Abort, KeyboardInterrupt, OSError) as error:
        sentence, code = _judge(error)
        if ending.tracebacks:
            import traceback

            traceback.print_exc()
        if sentence:
            click.echo(sentence, err=True)
    if code:
        sys.exit(code)


def _run(ending: Ending) -> int:
    """Run the command named and return its exit code."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    output, plain = sys.stdout, False if os.environ.get("NO_COLOR") else None
    try:
        # Outside standalone mode click returns the code of `Context.exit` instead of leaving with it.
        code = bench.main(prog_name="bench", standalone_mode=False, color=plain, obj=ending)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except SystemExit:
        if sys.stdout is not output:  # click has wrapped it: nobody reads on
            return NO_READER
        raise
    sys.stdout.flush()  # here, where a full disk can still be told
    return code if isinstance(code, int) else 0


def _judge(error: BaseException) -> tuple[str, int]:
    """Return what is said of an error that ended a command, and the exit code.

    Raises:
        OSError: it is not the user's matter, so that the traceback should be seen.
    """
    from bench.errors import BenchError

    if isinstance(error, BenchError):
        return f"Error: {error}", error.exit_code
    if isinstance(error, click.ClickException):
        return _sentence(error), error.exit_code
    if isinstance(error, BrokenPipeError):
        _drop_output()
        return "", NO_READER
    if not isinstance(error, OSError):
        told = "Interrupted. What was computed is kept; the same command goes on from there."
        return told, INTERRUPTED
    if error.errno not in _NO_PLACE:
        raise error
    if error.filename is not None:
        return f"Error: cannot use '{error.filename}': {error.strerror}.", FAILED
    _drop_output()
    return f"Error: cannot write the output: {error.strerror}.", FAILED


def _sentence(error: click.ClickException) -> str:
    """Return click's message as one line, with where to read on."""
    text = " ".join(error.format_message().split())
    text = text.replace(" (Did you", " Did you").replace("?)", "?")  # click writes two in brackets
    text = text if text.endswith((".", "?")) else f"{text}."
    ctx = getattr(error, "ctx", None)
    return f"Error: {text} See `{ctx.command_path} --help`." if ctx else f"Error: {text}"


def _drop_output() -> None:
    """Send what is still to be written nowhere: Python would try it again when it ends, and complain."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
