"""The settings file as a command's defaults: its own table, those of its former names, and those it leans on."""

from pathlib import Path
from typing import Any

import click

from bench.cli import config
from bench.cli.commands import known_names, load_command
from bench.cli.names import FORMER, LEANS_ON
from bench.cli.options import OWN

UNCONFIGURED = frozenset({"doctor"})
"""Commands that work beside a broken ``cloakbench.toml``: this one says what is wrong with it."""


def defaults_of(name: str, words: list[str], command: click.Command) -> dict[str, Any]:
    """Return what the settings file says of a command, as click's ``default_map`` of `bench` wants it.

    Args:
        name: the command's.
        words: of the command line behind its name.
        command: the command.

    Raises:
        UsageError: the file cannot be read, or says what is no command's or option's.
    """
    path = None if name in UNCONFIGURED else config.find()
    if path is None:
        return {}
    tables = config.read(path, known_names())
    found = _former(path, tables, name, words)
    found = _merged(found, config.defaults(path, command, tables.get(name, {}), name))
    if name in LEANS_ON:
        other = LEANS_ON[name]
        theirs = config.defaults(path, load_command(other), tables.get(other, {}), other)
        shared = {param.name for param in command.params} - OWN
        found = {key: value for key, value in theirs.items() if key in shared} | found
    return {name: found}


def _former(path: Path, tables: "config.Tables", name: str, words: list[str]) -> dict[str, Any]:
    """Return what the tables of former names say of a command that is asked for as they stand for today."""
    found: dict[str, Any] = {}
    for old, (first, *rest) in FORMER.items():
        if old not in tables or first != name or not set(rest) <= set(words):
            continue
        own = config.defaults(path, load_command(old), tables[old], old)
        for word in reversed([word for word in rest if not word.startswith("-")]):
            own = {word: own}
        found = _merged(found, own)
    return found


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return both, a group's tables joined; where both say something the other's word counts."""
    both = {
        key: _merged(one[key], other[key])
        for key in one.keys() & other.keys()
        if isinstance(one[key], dict) and isinstance(other[key], dict)
    }
    return one | other | both
