"""The command `bench` itself: the list of its commands, which imports one only when it is called."""

from typing import TYPE_CHECKING, Any

import click

from bench.cli.commands import load_command, plugin_commands
from bench.cli.names import COMMANDS, FORMER, SECTIONS, renamed
from bench.cli.options import quiet_option, verbose_option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

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
  143  ended by SIGTERM; what was computed is kept
"""


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`, then those of plugins; former names are hidden."""
        del ctx
        return [*COMMANDS, *plugin_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, by a former name too; None where there is no such name.

        Raises:
            UsageError: a plugin's command cannot be imported or is none.
        """
        del ctx
        known = cmd_name in COMMANDS or cmd_name in FORMER or cmd_name in plugin_commands()
        return load_command(cmd_name) if known else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take a command's former name for its name today, and say so."""
        words, old = renamed(args)
        if old and not (ctx.resilient_parsing or {"-q", "--quiet"} & set(args)):
            click.echo(f"Note: `bench {old}` is now `bench {' '.join(FORMER[old])}`.", err=True)
        return super().parse_args(ctx, words)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name where there is no such command; give the command its defaults of a file."""
        if ctx.resilient_parsing:  # completing a word: nothing may fail, and no default matters
            return super().resolve_command(ctx, args)
        from bench.errors import unknown

        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS and name not in plugin_commands():
            raise unknown("command", name, self.list_commands(ctx), "See `bench --help`.")
        found = super().resolve_command(ctx, args)
        if found[1] is not None:
            from bench.cli.settings import defaults_of

            ctx.default_map = defaults_of(name, args[1:], found[1])
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete a command's name without importing any; its options need it only once it is named."""
        from click.shell_completion import CompletionItem

        lines = {name: line for section in _sections().values() for name, line in section.items()}
        found = [
            CompletionItem(name, help=line) for name, line in lines.items() if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, under headings, without importing them."""
        del ctx
        sections = _sections()
        width = max(len(name) for lines in sections.values() for name in lines)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{width}}", line) for name, line in lines.items()])


def _sections() -> dict[str, dict[str, str]]:
    """Return heading → command → its line; those of plugins last."""
    found = {
        heading: {name: line for name, (_, line) in commands.items()}
        for heading, commands in SECTIONS.items()
    }
    for name, entry in plugin_commands().items():
        heading = "Your own photos" if entry.distribution == "cloakbench" else "Commands of plugins"
        found.setdefault(heading, {})[name] = entry.summary()
    return found


def _print_completion(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell is None or ctx.resilient_parsing:
        return
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click's own three shells are those of --completion"
    # The script asks `bench` itself, so that plugins installed later are completed too.
    click.echo(found(ctx.command, {}, "bench", "_BENCH_COMPLETE").source())
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="cloakbench", prog_name="bench")
@click.option(
    "--completion",
    type=click.Choice(("bash", "zsh", "fish")),
    metavar="SHELL",
    is_eager=True,
    expose_value=False,
    callback=_print_completion,
    help="Print the script that makes SHELL (bash, zsh, fish) complete commands, options, names of methods and "
    'folders of runs: eval "$(bench --completion bash)".',
)
def bench(**_given: Any) -> None:
    """Cross face-cloaking attacks, defences and face-recognition backbones; measure what protects."""


bench.params += [quiet_option(), verbose_option()]
