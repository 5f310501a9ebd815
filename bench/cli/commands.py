"""Finding and importing commands: those of `bench.cli.names` and those that plugins bring along."""

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import click

from bench.cli.names import COMMANDS, FORMER
from bench.cli.options import equip, long_name, variables_of

if TYPE_CHECKING:
    from bench.errors import UsageError
    from bench.plugins.registry import Entry

PLUGINS = "cloakbench.commands"
"""Entry-point group of commands that methods bring along: name → ``module:click_command``."""


@cache
def plugin_commands() -> "Mapping[str, Entry]":
    """Return the commands of plugins by name, sorted; none is imported.

    Raises:
        UsageError: two commands of one name.
    """
    from bench.errors import UsageError
    from bench.plugins.registry import registered

    found: dict[str, Entry] = {}
    for entry in registered(PLUGINS):
        # An editable install can list one distribution's entry points twice; that is no collision.
        other = found.setdefault(entry.name, entry)
        own = entry.name in COMMANDS or entry.name in FORMER
        if own or other != entry:
            taken = COMMANDS.get(entry.name, ("`bench` itself",))[0] if own else other.target
            raise UsageError(
                f"two commands are called '{entry.name}': {taken} and {entry.target} (from {entry.distribution}). "
                "Uninstall or rename one of them."
            )
    return dict(sorted(found.items()))


def load_command(name: str) -> click.Command:
    """Import a command by its name, today's or former, or a plugin's, with all that `equip` adds.

    Raises:
        UsageError: a plugin's command cannot be imported or is none.
    """
    if name in FORMER:
        return _load_former(name)
    target = COMMANDS[name][0] if name in COMMANDS else plugin_commands()[name].target
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


def _load_former(name: str) -> click.Command:
    words = [word for word in FORMER[name] if not word.startswith("-")]
    if not words:
        # An option of `bench` itself by now, which its parser sees before any command.
        return click.Command(name, params=[click.Argument(["words"], nargs=-1)])
    command = load_command(words[0])
    for word in words[1:]:
        assert isinstance(command, click.Group), "a former name leads to a command"
        command = command.commands[word]
    return command


def known_names() -> list[str]:
    """Return every name that a command answers to, the former ones too."""
    return [*COMMANDS, *FORMER, *plugin_commands()]


def variables() -> frozenset[str]:
    """Return the environment variables of every option of every command; imports them all.

    Raises:
        UsageError: a plugin's command cannot be imported.
    """
    found: set[str] = set()

    def collect(command: click.Command, path: tuple[str, ...]) -> None:
        if isinstance(command, click.Group):
            for name, below in command.commands.items():
                collect(below, (*path, name))
            return
        for param in command.params:
            if isinstance(param, click.Option) and long_name(param):
                found.update(variables_of(param, path))

    for name in (*COMMANDS, *plugin_commands()):
        collect(load_command(name), (name,))
    return frozenset(found)


def _no_command(name: str, target: str, reason: str) -> "UsageError":
    from bench.errors import UsageError

    return UsageError(f"command '{name}' cannot be had from {target}: {reason}.")
