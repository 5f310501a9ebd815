"""Where plugins are found: entry points, built-in and third-party alike, or a path on the command line.

Names are read from package metadata without importing anything; a class is imported when it is used. Two
plugins of one name are an error that names both; an unknown name suggests the nearest.
"""

import ast
import hashlib
import importlib.machinery
import importlib.util
import inspect
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, UsageError, unknown

if TYPE_CHECKING:
    from bench.contracts import BackbonePool, Method

KINDS = ("attacks", "defenses", "backbones", "datasets", "protocols", "pools", "trainers")
"""What can be a plugin; the entry-point group of each is ``cloakbench.<kind>``."""

CLASS_KINDS = tuple(kind for kind in KINDS if kind != "pools")
"""Kinds whose plugins are classes; a pool is a plain object."""

FILE_MODULE = "cloakbench_plugin_"
"""What the module names of plugins loaded from a file begin with."""


@dataclass(frozen=True)
class Entry:
    """One registered plugin, not yet imported.

    Attributes:
        name: what the user types.
        target: ``module:Class``.
        distribution: the package that registers it.
    """

    name: str
    target: str
    distribution: str

    def summary(self) -> str:
        """Return the first line of the module's docstring, read without importing the module."""
        module = self.target.partition(":")[0]
        path = _source_of(module)
        if path is None:
            return f"(module {module} cannot be found)"
        try:
            return _docstring(path).strip().partition("\n")[0]
        except (SyntaxError, ValueError):
            return f"(module {module} is not valid Python)"


def _docstring(path: Path) -> str:
    """Return a module's docstring, "" where it has none; reads no further, as `bench list` reads every plugin.

    Raises:
        SyntaxError: it has none and is not Python.
        ValueError: likewise.
    """
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.STRING:
                return str(ast.literal_eval(token.string))
            if token.type not in _BEFORE_DOCSTRING:
                break
    return ast.get_docstring(ast.parse(path.read_bytes())) or ""


_BEFORE_DOCSTRING = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING})


def _source_of(module: str) -> Path | None:
    """Return a module's file, found without importing it or the packages it lies in."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    name = top
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, spec.submodule_search_locations)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def singular(kind: str) -> str:
    """Return the singular of a kind, for messages."""
    return kind[:-1]


@cache
def entries(kind: str) -> Mapping[str, Entry]:
    """Return the registered plugins of a kind by name.

    Raises:
        UsageError: unknown kind, or two plugins of one name.
    """
    if kind not in KINDS:
        raise unknown("kind of plugin", kind, KINDS)
    found: dict[str, Entry] = {}
    for point in metadata.entry_points(group=f"cloakbench.{kind}"):
        distribution = point.dist.name if point.dist else "unknown"
        entry = Entry(point.name, point.value, distribution)
        other = found.get(entry.name)
        # An editable install can list one distribution's entry points twice; that is no collision.
        if other is not None and other != entry:
            raise UsageError(
                f"two {kind} are called '{entry.name}': {other.target} (from {other.distribution}) and "
                f"{entry.target} (from {entry.distribution}). Uninstall or rename one of them."
            )
        found[entry.name] = entry
    return dict(sorted(found.items()))


def load_class(kind: str, name: str) -> "type[Method]":
    """Import a plugin's class by registered name or ``FILE.py:Class``.

    Raises:
        UsageError: unknown name, or the file, class or import fails.
    """
    from bench import contracts

    cls = _class_from_file(name) if ".py:" in name else _class_from_entry(kind, name)
    base = {
        "attacks": contracts.Attack,
        "defenses": contracts.Defense,
        "backbones": contracts.Backbone,
        "datasets": contracts.Dataset,
        "protocols": contracts.Protocol,
        "trainers": contracts.Trainer,
    }[kind]
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UsageError(
            f"'{name}' is not one of the {kind}: it does not subclass bench.contracts.{base.__name__}."
        )
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(cls.__abstractmethods__))
        raise UsageError(f"'{name}' lacks {lacking}; bench.contracts.{base.__name__} says what it must do.")
    if not isinstance(getattr(cls, "name", None), str):
        raise UsageError(f"'{name}' has no name; write name = \"…\" in its class, tables will carry it.")
    return cls


def _class_from_entry(kind: str, name: str) -> object:
    known = entries(kind)
    if name not in known:
        fix = f"See `bench list {kind}`, or give a file: ./mine.py:MyClass."
        raise unknown(singular(kind), name, known, fix)
    entry = known[name]
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except BenchError:
        raise
    except Exception as error:  # a module may fail in any way
        raise UsageError(
            f"{singular(kind)} '{name}' of {entry.distribution} cannot be imported from {entry.target}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _class_from_file(name: str) -> object:
    file_name, _, class_name = name.rpartition(":")
    path = Path(file_name).resolve()
    if not path.is_file():
        raise UsageError(f"'{file_name}' is not a file; a plugin by path is written ./mine.py:MyClass.")
    module_name = f"{FILE_MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise UsageError(f"'{file_name}' is not a Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise UsageError(f"{file_name} cannot be imported: {type(error).__name__}: {error}") from error
    classes = [key for key, value in vars(module).items() if isinstance(value, type)]
    if class_name not in classes:
        raise unknown(f"class in {file_name}", class_name, classes)
    return getattr(module, class_name)


def kinds_of(name: str) -> list[str]:
    """Return the kinds a plugin is of: by registered name, or by what the class of a file subclasses.

    Raises:
        UsageError: it is of none, or the file cannot be imported.
    """
    if ".py:" in name:
        return [_kind_of_file(name)]
    found = [kind for kind in CLASS_KINDS if name in entries(kind)]
    if not found:
        every = [entry for kind in CLASS_KINDS for entry in entries(kind)]
        raise unknown("plugin", name, every, "See `bench list`, or give a file: ./mine.py:MyClass.")
    return found


def _kind_of_file(name: str) -> str:
    refusal = ""
    for kind in CLASS_KINDS:
        try:
            load_class(kind, name)
        except UsageError as error:
            if "does not subclass" not in str(error):
                raise
            refusal = str(error)
        else:
            return kind
    raise UsageError(
        f"{refusal.partition(' is not one of')[0]} subclasses none of the contracts in bench.contracts."
    )


def pool(name: str) -> "BackbonePool":
    """Return a pool of helper backbones by name."""
    from bench.contracts import BackbonePool

    known = entries("pools")
    if name not in known:
        raise unknown("pool", name, known)
    found = _class_from_entry("pools", name)
    if not isinstance(found, BackbonePool):
        raise UsageError(f"pool '{name}' at {known[name].target} is not a bench.contracts.BackbonePool.")
    return found
