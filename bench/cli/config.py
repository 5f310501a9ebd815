"""Options from a file: ``cloakbench.toml`` here, or the one that ``CLOAKBENCH_CONFIG`` names.

One table a command, ``[run]`` or ``[models.verify]``, one key an option by its long name. Nearer wins: the
command line, the environment, the suite file of ``--config``, this file, what is built in.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from bench.cli.options import long_name
from bench.errors import UsageError, unknown

FILE = "cloakbench.toml"
"""The file looked for in the working folder."""

Tables = Mapping[str, Any]
"""Command → its table."""

VARIABLE = "CLOAKBENCH_CONFIG"
"""Environment variable that names another file; empty: none at all."""


def find() -> Path | None:
    """Return the file in force, None where there is none.

    Raises:
        UsageError: the environment names a file that does not exist.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        path = Path(named).expanduser()
        if named and not path.is_file():
            raise UsageError(f"{VARIABLE} names '{named}', which is no file. Correct it, or unset it.")
        return path if named else None
    here = Path(FILE)
    return here if here.is_file() else None


def read(path: Path, commands: Iterable[str]) -> Tables:
    """Return the tables of a file by command.

    Args:
        path: the file.
        commands: the names that a table may have.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has a table or key that is no command's.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}.") from error
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise UsageError(
                f"{path}: '{name}' stands outside a table. Options belong to a command, e.g. [run]."
            )
        if name not in commands:
            raise _located(path, name, unknown("command", name, commands))
    return tables


def defaults(path: Path, command: click.Command, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a command's table as click's ``default_map`` wants it, by parameter names.

    Args:
        path: the file, for messages.
        command: the command or group the table is of.
        table: long names of options, or tables of a group's commands.
        where: the table's name.

    Raises:
        UsageError: an unknown option or command, or a value that the option refuses.
    """
    if isinstance(command, click.Group):
        return _of_group(path, command, table, where)
    options = {
        long_name(param): param
        for param in command.params
        if isinstance(param, click.Option) and param.name != "help" and long_name(param)
    }
    found = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in options:
            raise _located(path, where, unknown("option", key, options))
        option = options[name]
        found[option.name or name] = _checked(path, where, key, option, value)
    return found


def _of_group(path: Path, group: click.Group, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {}
    for name, below in table.items():
        if name not in group.commands:
            raise _located(path, where, unknown("command", name, group.commands))
        if not isinstance(below, Mapping):
            message = (
                f"{name} is {_toml(below)}, but is a command. Its options stand in a table [{where}.{name}]."
            )
            raise _located(path, where, UsageError(message))
        found[name] = defaults(path, group.commands[name], below, f"{where}.{name}")
    return found


def _checked(path: Path, where: str, key: str, option: click.Option, value: Any) -> Any:
    several = isinstance(value, list) and (option.multiple or option.nargs != 1)
    values = [_typed(path, where, key, option, each) for each in (value if several else [value])]
    given = values if several or option.multiple else values[0]
    try:
        option.type_cast_value(click.Context(click.Command(where)), given)
    except click.ClickException as error:
        raise _located(path, where, UsageError(f"{key}: {error.message}")) from error
    return given


def _typed(path: Path, where: str, key: str, option: click.Option, value: Any) -> Any:
    """Return a value that is of the TOML type that the option takes: click would cut 6.7 to 6."""
    wanted, types = _toml_types(option)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        many = " or a list of such" if option.multiple else ""
        message = f"{key} is {_toml(value)}, but takes {wanted}{many}."
        raise _located(path, where, UsageError(message))
    if isinstance(option.type, click.Path) and isinstance(value, str):
        return str(Path(value).expanduser())  # no shell has done it
    return value


def _toml_types(option: click.Option) -> tuple[str, tuple[type, ...]]:
    """Return what an option takes of TOML, in words and as the types of `tomllib`."""
    if option.is_flag:
        return "true or false", (bool,)
    if isinstance(option.type, type(click.INT)):
        return "a whole number", (int,)
    if isinstance(option.type, type(click.FLOAT)):
        return "a number", (int, float)
    return "text in quotes", (str,)


def _toml(value: Any) -> str:
    """Return a value about as it is written in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, default=str)


def _located(path: Path, where: str, error: UsageError) -> UsageError:
    return UsageError(f"{path}, [{where}]: {error}")
