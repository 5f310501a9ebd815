"""Where plugins are found: entry points, built-in and third-party alike, or a path on the command line.

One `Registry` a kind. Names are read from package metadata without importing anything; a class is imported when it is
used. Two plugins of one name are an error that names both; an unknown name suggests the nearest.
"""

import ast
import hashlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import tokenize
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bench.errors import BenchError, UsageError, unknown
from bench.plugins import shadowing, sources

if TYPE_CHECKING:
    from bench import contracts

T_co = TypeVar("T_co", covariant=True)
M_co = TypeVar("M_co", bound="contracts.Method", covariant=True)

FILE_MODULE = "cloakbench_plugin_"
"""What the module names of plugins loaded from a file begin with."""

_FILE_SIGN = ".py:"


@dataclass(frozen=True)
class Entry:
    """One registered plugin, not yet imported.

    Attributes:
        name: what the user types.
        target: ``module:Class``.
        distribution: the package that registers it.
        shared: whether other plugins of its kind are in the same module.
    """

    name: str
    target: str
    distribution: str
    shared: bool = False

    @property
    def module(self) -> str:
        """The module it is in."""
        return self.target.partition(":")[0]

    def summary(self) -> str:
        """Return the first line of the docstring of its module, which is not imported.

        In a module that it shares it is that of its class, or the text below the object's assignment.
        """
        module, _, name = self.target.partition(":")
        if (path := _source_of(module)) is None:
            return f"(module {module} cannot be found)"
        try:
            text = _docstring_within(path, name) if self.shared else _docstring(path)
            return text.strip().partition("\n")[0]
        except (SyntaxError, ValueError):
            return f"(module {module} is not valid Python)"


def _docstring(path: Path) -> str:
    """Return a module's docstring, "" where it has none; reads no further, as `bench list` reads every plugin."""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.STRING:
                return str(ast.literal_eval(token.string))
            if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING):
                break
    return ast.get_docstring(ast.parse(path.read_bytes())) or ""


def _docstring_within(path: Path, name: str) -> str:
    """Return the docstring of a class of a module, or the text below an assignment; "" where there is none."""
    body = ast.parse(path.read_bytes()).body
    for item, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(item, ast.ClassDef) and item.name == name:
            return ast.get_docstring(item) or ""
        if isinstance(item, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in item.targets
        ):
            text = below.value if isinstance(below, ast.Expr) else None
            return str(text.value) if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""
    return ""


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


# -- one registry a kind -------------------------------------------------------------------------------------


class _Named(ABC, Generic[T_co]):
    """The plugins of one kind by name; their entry-point group is ``cloakbench.<kind>``.

    Args:
        kind: in the plural, as in the group's name and on the command line.
        contract: name of the class in `bench.contracts` that is subclassed, or that the objects are of.
    """

    def __init__(self, kind: str, contract: str) -> None:
        self.kind, self._contract = kind, contract

    @property
    def contract(self) -> type[T_co]:
        """The class in `bench.contracts`; imported when it is needed, as the contracts import torch."""
        from bench import contracts

        found: type[T_co] = vars(contracts)[self._contract]
        return found

    @property
    def singular(self) -> str:
        """The singular of the kind, for messages."""
        return self.kind[:-1]

    def entries(self) -> Mapping[str, Entry]:
        """Return the registered plugins by name, sorted; imports none.

        Raises:
            UsageError: two plugins of one name, or a folder that hides the built-in ones.
        """
        return entries_of(self.kind)

    @abstractmethod
    def load(self, name: str) -> object:
        """Import a plugin by name."""

    def _imported(self, name: str) -> object:
        known = self.entries()
        if name not in known:
            raise unknown(self.singular, name, known, _UNKNOWN.format(command=f"bench list {self.kind}"))
        return imported(known[name], f"{self.singular} '{name}'")


def imported(entry: Entry, what: str) -> object:
    """Import what an entry names.

    Args:
        entry: of a plugin.
        what: kind and name, for messages.

    Raises:
        UsageError: its module cannot be imported.
    """
    module, _, attribute = entry.target.partition(":")
    from bench.plugins.process import calling  # imports torch

    try:
        with calling(what):
            return getattr(importlib.import_module(module), attribute)
    except BenchError:
        raise
    except Exception as error:  # a module may fail in any way
        raise UsageError(
            f"{what} of {entry.distribution} cannot be imported from {entry.target}: {type(error).__name__}: {error}"
        ) from error


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""What a plugin may be called."""

_UNKNOWN = (
    "See `{command}`, or give a file: ./mine.py:MyClass. What was just added to a package's entry points is found once "
    "the package is installed again."
)


class Registry(_Named[M_co]):
    """Plugins that are classes: registered, or given as ``FILE.py:Class``."""

    def load(self, name: str) -> type[M_co]:
        """Import a plugin's class by registered name or ``FILE.py:Class``.

        Raises:
            UsageError: unknown name; the file, class or import fails; or it is no plugin of this kind.
        """
        found = class_from_file(name) if _FILE_SIGN in name else self._imported(name)
        sources.note_imported()
        contract = f"bench.contracts.{self._contract}"
        if not (isinstance(found, type) and issubclass(found, self.contract)):
            raise UsageError(f"'{name}' is not one of the {self.kind}: it does not subclass {contract}.")
        if inspect.isabstract(found):
            lacking = ", ".join(sorted(found.__abstractmethods__))
            raise UsageError(f"'{name}' lacks {lacking}; {contract} says what it must do.")
        if not found.name:
            raise UsageError(f"'{name}' has no name; write name = \"…\" in its class, tables will carry it.")
        if not (isinstance(found.name, str) and _NAME.fullmatch(found.name)):
            raise UsageError(
                f"'{name}' calls itself {found.name!a:.120}, which tables, files and command lines cannot carry. A "
                "name is of 1 to 60 letters of ASCII, digits, '.', '_' and '-', and begins with a letter or digit."
            )
        return found

    def module_of(self, name: str) -> str:
        """Return the module that a name says the class is in, which may only import it: "" where none is registered."""
        if _FILE_SIGN in name:
            return _file_module(Path(name.rpartition(":")[0]).resolve())
        entry = self.entries().get(name)
        return entry.target.partition(":")[0] if entry else ""

    def baseline(self) -> str:
        """Return the name of the first plugin that declares itself a `Method.baseline`, "none" where none does."""
        return next((name for name in self.entries() if self.load(name).baseline), "none")


class ObjectRegistry(_Named[T_co]):
    """Plugins that are objects, e.g. a pool of backbones."""

    def load(self, name: str) -> T_co:
        """Import what is registered under a name.

        Raises:
            UsageError: unknown name, its import fails, or it is something else.
        """
        found = self._imported(name)
        if not isinstance(found, self.contract):
            target = self.entries()[name].target
            raise UsageError(
                f"{self.singular} '{name}' at {target} is not a bench.contracts.{self._contract}."
            )
        return found


@cache
def entries_of(kind: str) -> Mapping[str, Entry]:
    """Return what packages register in the group ``cloakbench.<kind>`` by name, sorted; imports none.

    Raises:
        UsageError: two of one name, or a folder that hides the built-in ones.
    """
    shadowing.check()
    found: dict[str, Entry] = {}
    for entry in registered(f"cloakbench.{kind}"):
        other = found.get(entry.name)
        # An editable install can list one distribution's entry points twice; that is no collision.
        if other is not None and other != entry:
            raise UsageError(
                f"two {kind} are called '{entry.name}': {other.target} (from {other.distribution}) and "
                f"{entry.target} (from {entry.distribution}). Uninstall or rename one of them."
            )
        found[entry.name] = entry
    modules = Counter(entry.module for entry in found.values())
    return {name: replace(e, shared=modules[e.module] > 1) for name, e in sorted(found.items())}


def registered(group: str) -> Iterator[Entry]:
    """Yield what packages register in a group of entry points, as they list it."""
    for point in _every_group().select(group=group):
        yield Entry(point.name, point.value, _name_of(point.dist) if point.dist else "unknown")


@cache
def _every_group() -> Any:  # Python 3.11 returns a class that later ones do not have
    """Return what packages register in every group: looking for one takes as long."""
    return metadata.entry_points()


@cache
def _name_of(distribution: metadata.Distribution) -> str:
    return distribution.name  # read from its file each time


def forget() -> None:
    """Forget what was found: packages may have been installed or taken away since."""
    entries_of.cache_clear()
    _every_group.cache_clear()


# -- all of them -------------------------------------------------------------------------------------------------

ATTACKS: "Registry[contracts.Attack]" = Registry("attacks", "Attack")
DEFENSES: "Registry[contracts.Defense]" = Registry("defenses", "Defense")
BACKBONES: "Registry[contracts.Backbone]" = Registry("backbones", "Backbone")
DATASETS: "Registry[contracts.Dataset]" = Registry("datasets", "Dataset")
PROTOCOLS: "Registry[contracts.Protocol]" = Registry("protocols", "Protocol")
TRAINERS: "Registry[contracts.Trainer]" = Registry("trainers", "Trainer")
POOLS: "ObjectRegistry[contracts.BackbonePool]" = ObjectRegistry("pools", "BackbonePool")
CHANNELS: "ObjectRegistry[contracts.ChannelGrid]" = ObjectRegistry("channels", "ChannelGrid")

CLASSES: "Mapping[str, Registry[contracts.Method]]" = {
    one.kind: one for one in (ATTACKS, DEFENSES, BACKBONES, DATASETS, PROTOCOLS, TRAINERS)
}
"""Kind → its registry, where plugins are classes."""

EVERY: Mapping[str, _Named[object]] = {**CLASSES, POOLS.kind: POOLS, CHANNELS.kind: CHANNELS}
"""Kind → its registry."""


def of(kind: str) -> "Registry[contracts.Method]":
    """Return the registry of a kind whose plugins are classes, for texts that name a kind.

    Raises:
        UsageError: unknown kind.
    """
    if kind not in CLASSES:
        raise unknown("kind of plugin", kind, CLASSES)
    return CLASSES[kind]


def kinds_of(name: str) -> list[str]:
    """Return the kinds a plugin is of: by registered name, or by what the class of a file subclasses.

    Raises:
        UsageError: it is of none, or the file cannot be imported.
    """
    if _FILE_SIGN in name:
        cls = class_from_file(name)
        for kind, one in CLASSES.items():
            if issubclass(cls, one.contract):
                one.load(name)  # says what else is wrong with it
                return [kind]
        raise UsageError(f"'{name}' subclasses none of the contracts in bench.contracts.")
    found = [kind for kind, one in CLASSES.items() if name in one.entries()]
    if not found:
        every = {entry for one in CLASSES.values() for entry in one.entries()}
        raise unknown("plugin", name, every, _UNKNOWN.format(command="bench list"))
    return found


def _file_module(path: Path) -> str:
    return f"{FILE_MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def class_from_file(name: str) -> type:
    """Import a class that is named ``FILE.py:Class``.

    Raises:
        UsageError: the file, its import or the class fails.
    """
    file_name, _, class_name = name.rpartition(":")
    path = Path(file_name).resolve()
    if not path.is_file():
        raise UsageError(f"'{file_name}' is not a file; a plugin by path is written ./mine.py:MyClass.")
    module_name = _file_module(path)
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise UsageError(f"'{file_name}' is not a Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        sources.note(path)
        from bench.plugins.process import calling  # imports torch

        try:
            with calling(f"plugin '{name}'"):
                spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise UsageError(f"{file_name} cannot be imported: {type(error).__name__}: {error}") from error
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    if class_name not in classes:
        raise unknown(f"class in {file_name}", class_name, classes)
    return classes[class_name]
