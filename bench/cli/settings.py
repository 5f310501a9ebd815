"""Options from a file: ``cloakbench.toml`` here, or the one that ``CLOAKBENCH_CONFIG`` names.

One table a command, ``[run]`` or ``[models.verify]``, one key an option by its long name. Nearer wins: the
command line, the environment, the suite file of ``--config``, this file (the table of the command itself, that of a
former name of its, that of a command it leans on), what is built in.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bench.cli.commands import known_names, load_command
from bench.cli.names import FORMER, LEANS_ON, former_below
from bench.cli.options import OWN, long_name
from bench.errors import UsageError, unknown

FILE = "cloakbench.toml"
"""The file looked for in the working folder."""

VARIABLE = "CLOAKBENCH_CONFIG"
"""Environment variable that names another file; empty: none at all."""

UNCONFIGURED = frozenset({"doctor"})
"""Commands that work beside a broken ``cloakbench.toml``: this one says what is wrong with it."""

Tables = Mapping[str, Any]
"""Command → its table."""


def defaults_of(name: str, words: list[str], command: click.Command) -> dict[str, Any]:
    """Return what the settings file says of a command, as click's ``default_map`` of `bench` wants it.

    Args:
        name: the command's.
        words: of the command line behind its name.
        command: the command.

    Raises:
        UsageError: the file cannot be read, or says what is no command's or option's.
    """
    path = None if name in UNCONFIGURED else find()
    if path is None:
        return {}
    tables = read(path)
    found: dict[str, Any] = {}
    if name in LEANS_ON:
        other = LEANS_ON[name]
        theirs = defaults(path, load_command(other), tables.get(other, {}), other)
        shared = {param.name for param in command.params} - OWN
        found = {key: value for key, value in theirs.items() if key in shared}
    for old, (first, *rest) in FORMER.items():
        table = _table_of(old, tables)
        # Asked for as the old name stands for.
        if table and first == name and set(rest) <= set(words):
            own = defaults(path, load_command(old), table, old)
            for word in reversed([word for word in rest if not word.startswith("-")]):
                own = {word: own}
            found = _merged(found, own)
    return {name: _merged(found, defaults(path, command, tables.get(name, {}), name))}


def _table_of(old: str, tables: Tables) -> Tables:
    """Return the table of a former name, which may be of a group and a command of it; {} without any."""
    found: Any = tables
    for word in old.split():
        found = found.get(word, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return both, a group's tables joined; where both say something the other's word counts."""
    both = {
        key: _merged(one[key], other[key])
        for key in one.keys() & other.keys()
        if isinstance(one[key], dict) and isinstance(other[key], dict)
    }
    return one | other | both


def find() -> Path | None:
    """Return the file in force, None where there is none.

    Raises:
        UsageError: the environment names a file that does not exist.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        return Path(FILE) if Path(FILE).is_file() else None
    path = Path(named).expanduser()
    if named and not path.is_file():
        raise UsageError(f"{VARIABLE} names '{named}', which is no file. Correct it, or unset it.")
    return path if named else None


def read(path: Path) -> Tables:
    """Return the tables of a file by command.

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
        if name not in known_names():
            raise _located(path, name, unknown("command", name, known_names()))
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
    found: dict[str, Any] = {}
    if isinstance(command, click.Group):
        for name, below in table.items():
            if name in former_below(where):
                continue
            if name not in command.commands:
                raise _located(path, where, unknown("command", name, command.commands))
            if not isinstance(below, Mapping):
                message = f"{name} is {_toml(below)}, but is a command. Its options stand in a table [{where}.{name}]."
                raise _located(path, where, UsageError(message))
            found[name] = defaults(path, command.commands[name], below, f"{where}.{name}")
        return found
    options = {
        long_name(param): param
        for param in command.params
        if isinstance(param, click.Option) and param.name != "help" and long_name(param)
    }
    for key, value in table.items():
        option = options.get(key.replace("_", "-"))
        if option is None:
            raise _located(path, where, unknown("option", key, options))
        try:
            found[str(option.name)] = _checked(key, option, value)
        except UsageError as error:
            raise _located(path, where, error) from error
    return found


def _checked(key: str, option: click.Option, value: Any) -> Any:
    """Return a value as the option takes it.

    Raises:
        UsageError: it is of another TOML type (click would cut 6.7 to 6), or the option refuses it.
    """
    wanted, types = _toml_types(option)
    several = isinstance(value, list) and (option.multiple or option.nargs != 1)
    values = value if several else [value]
    for each in values:
        if not isinstance(each, types) or (isinstance(each, bool) and bool not in types):
            many = " or a list of such" if option.multiple else ""
            raise UsageError(f"{key} is {_toml(each)}, but takes {wanted}{many}.")
    if isinstance(option.type, click.Path):
        values = [str(Path(each).expanduser()) for each in values]  # no shell has done it
    given = values if several or option.multiple else values[0]
    try:
        option.type_cast_value(click.Context(click.Command(key)), given)
    except click.ClickException as error:
        raise UsageError(f"{key}: {error.message}") from error
    return given


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
    return str(value).lower() if isinstance(value, bool) else json.dumps(value, default=str)


def _located(path: Path, where: str, error: UsageError) -> UsageError:
    return UsageError(f"{path}, [{where}]: {error}")
