"""The command line. Subcommands are imported when they are used, so that ``bench --help`` is quick.

Here: parsing, progress and tables. Not here: anything a Python caller would want; that is in `bench`.
"""

import importlib
import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.errors import UsageError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("bench.cli.run:run", "Run a matrix of attacks x defences x backbones."),
    "plan": ("bench.cli.run:plan", "Say what a run would compute, how long and how much disk."),
    "leaderboard": ("bench.cli.leaderboard:leaderboard", "Write the leaderboard of a finished run."),
    "compare": ("bench.cli.compare:compare", "Say whether A is better than B, or how two runs differ."),
    "significance": ("bench.cli.significance:significance", "Rank and test all methods of a finished run."),
    "ablate": ("bench.cli.ablate:ablate", "Vary one factor at a time: train, run, test, draw."),
    "means": ("bench.cli.means:means", "Average a finished run over attacks and trackers."),
    "erasure": (
        "bench.cli.erasure:erasure",
        "Say who gets protected faces back: with a key, without, purified.",
    ),
    "figure": ("bench.cli.figure:figure", "Draw the figure of a finished run."),
    "grid": ("bench.cli.grid:grid", "Show photos of a finished run: original, cloak, purified, erased."),
    "power": ("bench.cli.power:power", "Say which difference a run could show, and what it takes."),
    "audit": ("bench.cli.audit:audit", "List every leakage in a finished run, and whether its rows say so."),
    "verify": ("bench.cli.verify:verify", "Check a finished run: every digest, and a sample made again."),
    "rerun": ("bench.cli.rerun:rerun", "Make a run again from its folder alone and compare."),
    "cloak": ("bench.cli.cloak:cloak", "Protect the photos of a folder."),
    "erase": ("bench.cli.erase:erase", "Take the cloaks off the photos of a folder, with the key."),
    "list": (
        "bench.cli.catalogue:list_plugins",
        "List attacks, defenses, backbones, datasets, protocols, ...",
    ),
    "show": ("bench.cli.catalogue:show", "Show one plugin: parameters, threat model, paper."),
    "check": ("bench.cli.check:check", "Run the contract checks on a plugin, yours or a registered one."),
    "data": ("bench.cli.data:data", "List, add and fetch datasets."),
    "models": ("bench.cli.models:models", "List, fetch, verify and calibrate backbones."),
    "train": ("bench.cli.train:train", "Train a backbone, a purifier or an attack."),
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
    from bench.registry import Entry

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
        if cmd_name in COMMANDS:
            target = COMMANDS[cmd_name][0]
        elif cmd_name in plugin_commands():
            target = plugin_commands()[cmd_name][0]
        else:
            return None
        module, _, attribute = target.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            if cmd_name in COMMANDS:
                raise
            raise _no_command(cmd_name, target, f"{type(error).__name__}: {error}") from error
        if not isinstance(command, click.Command):
            raise _no_command(cmd_name, target, f"it is a {type(command).__name__}, not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name where there is no such command."""
        from bench.errors import unknown

        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS and name not in plugin_commands():
            known = self.list_commands(ctx)
            raise unknown("command", name, known, "See `bench --help`.")
        return super().resolve_command(ctx, args)

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


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: bench run --attack fawkes --defense puface",
)
@click.version_option(package_name="cloakbench", prog_name="bench")
def bench() -> None:
    """Cross face-cloaking attacks, defences and face-recognition backbones; measure what protects."""


def main() -> None:
    """Run the command line; every expected error is one sentence and a non-zero exit code."""
    from bench.errors import BenchError

    try:
        # Outside standalone mode click returns the code of `Context.exit` instead of leaving with it.
        code = bench.main(prog_name="bench", standalone_mode=False)
        if isinstance(code, int) and code:
            sys.exit(code)
    except BenchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted. What was computed is kept; the same command goes on from there.", err=True)
        sys.exit(130)
