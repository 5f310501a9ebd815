"""Hashes of the code that decides a result: a plugin's or a stage's module, with the numerical modules it imports.

Code counts as its syntax tree (`bench.run.code_syntax`) and without the names of modules: a better message or a module
that moves recomputes nothing; a changed constant does.
"""

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.plugins import sources
from bench.plugins.registry import FILE_MODULE
from bench.plugins.sources import State
from bench.run.code_syntax import Code, code_of, read_code
from bench.run.digest import digest
from bench.run.remembered import remembered

NOT_NUMERICAL = frozenset(
    {
        "bench.contracts",  # abstract; behind CONTRACT_VERSION
        "bench.assets.catalogue",  # which data sets there are; the one used enters by its fingerprint
        "bench.datasets._lfw_source",  # where a dataset comes from; what was fetched enters by its fingerprint
        "bench.data.files",  # where files lie; what is in them enters by digest
        "bench.run.calls",  # checks what plugins return, undoes what they leave; behind CONTRACT_VERSION
        "bench.run.code_hashes",  # makes keys
        "bench.run.code_syntax",  # likewise
        "bench.run.device",  # where it is computed; what of that decides a byte enters as `environment`
        "bench.run.digest",  # makes keys
        "bench.run.graph",  # remembers what was computed
        "bench.data.folders",  # where a user's folders lie; their photos enter by fingerprint
        "bench.errors",  # words
        "bench.files",  # writes what was computed
        "bench.plugins.factory",  # builds what a text names; name and parameters enter by value
        "bench.plugins.process",  # undoes what plugins leave; behind CONTRACT_VERSION
        "bench.plugins.registry",  # finds plugins; those used enter by their own code
        "bench.plugins.sources",  # notices edited files
        "bench.plugins.syntax",  # reads a method's text
    }
)
"""Modules that decide no byte, or whose say enters the key another way: neither followed nor hashed."""


_NO_NUMBERS = frozenset({"pydantic", "typing_extensions"})
"""Third-party packages that check or describe parameters; the values enter keys themselves."""


_SUFFIXES = (".py", *EXTENSION_SUFFIXES)


def _file_of(module: str) -> Path | None:
    origin = getattr(sys.modules.get(module), "__file__", None)
    if origin:
        return Path(origin)
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return (
            None  # `from package import name` where name is no module, or a part that cannot be imported here
        )
    return Path(found.origin) if found and found.origin and found.origin.endswith(_SUFFIXES) else None


def _is_installed(top: str) -> bool:
    """Whether a top-level module is Python's or an installed package's; so is what cannot be found."""
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, AttributeError, ValueError):
        return True
    places = [found.origin or "", *(found.submodule_search_locations or ())] if found else []
    return not any(sources.is_own(place) for place in places)


@cache
def _version(top: str) -> str:
    """Return name and version of the distribution that a top-level module is of, "" where it is of none."""
    try:
        return f"{top} {metadata.version(top)}"
    except metadata.PackageNotFoundError:
        names = _distributions().get(top, ())
        return " ".join(f"{name} {metadata.version(name)}" for name in sorted({*names}))


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Return top-level module → distributions; read from all that is installed, anew when something else is."""
    try:
        stamps = sorted(f"{each} {each.stat().st_mtime_ns}" for each in _installed())
    except OSError:  # a folder that may not be listed, a link to nowhere: nothing to tell a change by
        return metadata.packages_distributions()
    return remembered(("packages", sys.version, *stamps), metadata.packages_distributions)


def _installed() -> Iterator[Path]:
    """Yield where something is said about what is installed: archives on the path, and folders of their kinds."""
    for place in map(Path, sys.path):
        if place.is_dir():
            yield from (each for each in place.iterdir() if each.name.endswith((".dist-info", ".egg-info")))
        elif place.is_file():
            yield place


class _Closure:
    """Modules with the project modules they import, directly or not.

    Args:
        roots: names of modules; these are followed even where they are in `NOT_NUMERICAL`.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        names = [*roots]
        self._tops = dict.fromkeys(("bench", "attacks", "defenses", "fr_models"), True)
        self._tops |= dict.fromkeys((name.partition(".")[0] for name in names), True)
        # A plugin in a file has no package of its own: it may be made of all that is not installed.
        self._in_file = any(name.startswith(FILE_MODULE) for name in names)
        # The root package only hands out, when asked, what is followed under its own name.
        self.modules: dict[str, Code | None] = {"bench": None, **dict.fromkeys(NOT_NUMERICAL - {*names})}
        self.files: dict[Path, State] = {}
        waiting = list(names)
        passed: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in self.modules or name in passed or name.rpartition(".")[0] in NOT_NUMERICAL:
                continue
            passed.add(name)
            if not self._is_followed(name.partition(".")[0]):
                continue
            if "." in name:
                waiting.append(name.rpartition(".")[0])  # a module's packages run before it
            path = _file_of(name)
            if path is None:
                continue
            self.files[path] = sources.state(path)
            code = self.modules[name] = code_of(name, path, self.files[path])
            waiting += code.imported
        self._shallow = self._round({}, named_only=True)
        """Module → hash of its code, blind to the modules that imported names come from."""

    def _is_followed(self, top: str) -> bool:
        if top not in self._tops:
            self._tops[top] = self._in_file and not _is_installed(top)
        return self._tops[top]

    def packages(self) -> tuple[str, ...]:
        """Return the third-party packages that the code imports, with their versions, sorted."""
        tops = {top for top, followed in self._tops.items() if not followed}
        return tuple(sorted(filter(None, map(_version, tops - sys.stdlib_module_names - _NO_NUMBERS))))

    def hashes(self) -> tuple[str, ...]:
        """Return each module's hash once, sorted; a module that only imports has none.

        A module's hash holds those of the modules that its names lead to, and each round sees one import further:
        until no two modules are told apart that were not before.
        """
        known = self._shallow
        while True:
            found = self._round(known, named_only=False)
            if len({*found.values()}) <= len({*known.values()}):
                return tuple(sorted({*found.values()} - {""}))
            known = found

    def shallow(self, module: str) -> str:
        """Return the hash of one module's code, blind to the modules that imported names come from."""
        return self._shallow.get(module, "")

    def _round(self, known: Mapping[str, str], *, named_only: bool) -> dict[str, str]:
        """Return module → hash of its code, with what is known of the modules that its names lead to."""
        leads: dict[str, str] = {}

        def lead(path: str) -> str:
            if path not in leads:
                leads[path] = self._lead(path, known, named_only=named_only)
            return leads[path]

        return {
            module: digest([code.text, [lead(use) for use in code.uses]]) if code.text else ""
            for module, code in self.modules.items()
            if code
        }

    def _lead(
        self, path: str, known: Mapping[str, str], *, named_only: bool, seen: tuple[str, ...] = ()
    ) -> str:
        """Return where a path leads: its own name in a project module, with what is known of that module."""
        parts = path.split(".")
        ends = (end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in self.modules)
        end = next(ends, 0)
        if not end:
            return path
        if path in seen:
            return ""
        module, rest = ".".join(parts[:end]), parts[end:]
        own = ".".join([known.get(module, ""), *rest])
        code = self.modules[module]
        if code is None:
            return own

        def further(target: str) -> str:
            return self._lead(target, known, named_only=named_only, seen=(*seen, path))

        if not rest or rest[0] == "*":  # the module itself may give whatever it imports, under its own names
            given = () if named_only else sorted(code.bindings.items())
            handed_on = [f"{name}={further(target)}" for name, targets in given for target in targets]
            return "|".join([own, *handed_on, *([code.exported] if rest else [])])
        leads = [further(".".join([target, *rest[1:]])) for target in code.bindings.get(rest[0], ())]
        only_handed_on = len(leads) == 1 and rest[0] not in code.loose
        return leads[0] if only_handed_on else "|".join([own, *leads])


def module_hash(module: str) -> str:
    """Return the hash of one module's own code; what it imports counts by name only."""
    return _Closure([module]).shallow(module)


@dataclass(frozen=True)
class _Read:
    """What was read of the code that roots are made of."""

    files: Mapping[Path, State]
    hashes: tuple[str, ...]
    packages: tuple[str, ...]


_found: dict[tuple[tuple[str, str], ...], _Read] = {}
_files_of: dict[str, Mapping[Path, State]] = {}
"""Code digest → the files it is of, as they were read."""


def code_hashes(*roots: str | type) -> tuple[str, ...]:
    """Return the hashes of the code of modules and of the numerical modules they import, directly or not.

    Followed are the harness' own packages and the root's own top-level package, without `NOT_NUMERICAL`; a class
    counts with all the classes it inherits from. A plugin loaded from a file is followed to whatever is not
    installed. No hash holds a module's name or place.

    Args:
        roots: module names or classes.

    Raises:
        UsageError: there is no module of a name, or a file was edited after this process imported it.
    """
    return _read(*roots).hashes


def _modules_of(root: str | type) -> set[str]:
    """Return the modules a root is made of: for a class, those of the classes it inherits from too."""
    if isinstance(root, str):
        if _file_of(root) is None:
            raise UsageError(f"'{root}' is no module whose code could be part of a key; check the name.")
        return {root}
    bases = {base.__module__ for base in root.__mro__} - NOT_NUMERICAL
    return {root.__module__, *(name for name in bases if sources.is_own(str(_file_of(name) or "")))}


def _read(*roots: str | type) -> _Read:
    sources.note_imported()
    names = sorted(set().union(*map(_modules_of, roots)))
    requested = tuple((name, str(getattr(sys.modules.get(name), "__file__", ""))) for name in names)
    known = _found.get(requested)
    if known is None or any(sources.state(path) != state for path, state in known.files.items()):
        # A context's generator is in every method's reach.
        closure = _Closure([*names, "bench.randomness"])
        known = _found[requested] = _Read(closure.files, closure.hashes(), closure.packages())
    return known


_digests: ContextVar[dict[tuple[str | type, ...], str] | None] = ContextVar("_digests", default=None)
"""Roots → digest, inside `looked_at_once`."""


@contextmanager
def looked_at_once() -> Iterator[None]:
    """Look whether files were edited once for each set of roots, not at every `code_digest`.

    A plan asks for the same few digests thousands of times. Whoever stores a result looks again (`check_unchanged`).
    """
    token = _digests.set({})
    try:
        yield
    finally:
        _digests.reset(token)


def code_digest(*roots: str | type) -> str:
    """Return the digest of `code_hashes`, of the versions of what they import, and of their contract."""
    known = _digests.get()
    if known is None:
        return _digest_of(roots)
    if roots not in known:
        known[roots] = _digest_of(roots)
    return known[roots]


def _digest_of(roots: tuple[str | type, ...]) -> str:
    from bench.contracts import CONTRACT

    known = _read(*roots)
    found = digest({"code": known.hashes, "packages": known.packages, **CONTRACT})
    _files_of[found] = known.files
    return found


def check_unchanged(key: Mapping[str, Any]) -> None:
    """Check that the code a key stands for is still in its files, before a result is stored under the key.

    Raises:
        UsageError: a file was edited since.
    """
    sources.note_imported()  # a method may import when it is called
    for text in _texts(key):
        for path, state in _files_of.get(text, {}).items():
            sources.check(path, state)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def forget() -> None:
    """Forget what was read, as a new process would: for tests that edit files."""
    read_code.cache_clear()
    _found.clear()
    _files_of.clear()
    sources.forget()
