"""Hashes of the code that decides a result: a plugin's or a stage's module, with the numerical modules it imports.

Code counts as its syntax tree (`bench.run.code_syntax`) and without the names of modules: a better message or a module
that moves recomputes nothing; a changed constant does.
"""

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.plugins import sources
from bench.plugins.registry import FILE_MODULE
from bench.plugins.sources import State
from bench.run.code_syntax import Code, code_of, read_code
from bench.run.digest import digest

NOT_NUMERICAL = frozenset(
    {
        "bench.contracts",  # abstract; behind CONTRACT_VERSION
        "bench.assets.catalogue",  # which data sets there are; the one used enters by its fingerprint
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


def _beside(module: str) -> set[str]:
    """Return what a plugin loaded from a file may import from its own folder."""
    origin = getattr(sys.modules.get(module), "__file__", None)
    if origin is None or not module.startswith(FILE_MODULE):
        return set()
    siblings = Path(origin).parent.iterdir()
    return {path.stem for path in siblings if path.suffix == ".py" or (path / "__init__.py").is_file()}


def _project_file(module: str, packages: frozenset[str]) -> Path | None:
    if module.partition(".")[0] not in packages:
        return None
    origin = getattr(sys.modules.get(module), "__file__", None)
    if origin:
        return Path(origin)
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, AttributeError, ValueError):
        return None  # `from package import name` where name is no module
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


class _Closure:
    """Modules with the project modules they import, directly or not.

    Args:
        roots: names of modules; these are followed even where they are in `NOT_NUMERICAL`.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        names = [*roots]
        own = {name.partition(".")[0] for name in names}.union(*map(_beside, names))
        packages = frozenset({"bench", "attacks", "defenses", "fr_models", *own})
        # The root package only hands out, when asked, what is followed under its own name.
        self.modules: dict[str, Code | None] = {"bench": None, **dict.fromkeys(NOT_NUMERICAL - {*names})}
        self.files: dict[Path, State] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.modules or name.rpartition(".")[0] in NOT_NUMERICAL:
                continue
            path = _project_file(name, packages)
            if path is None:
                continue
            self.files[path] = sources.state(path)
            code = self.modules[name] = code_of(name, path, self.files[path])
            if "." in name:
                waiting.append(name.rpartition(".")[0])  # a module's packages run before it
            waiting += code.imported
        self._shallow = self._round({}, named_only=True)
        """Module → hash of its code, blind to the modules that imported names come from."""

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


_found: dict[tuple[tuple[str, str], ...], tuple[Mapping[Path, State], tuple[str, ...]]] = {}
_files_of: dict[str, Mapping[Path, State]] = {}
"""Code digest → the files it is of, as they were read."""


def code_hashes(*roots: str | type) -> tuple[str, ...]:
    """Return the hashes of the code of modules and of the numerical modules they import, directly or not.

    Followed are the harness' own packages and the root's own top-level package, without `NOT_NUMERICAL`;
    third-party packages enter by version (`environment`). A plugin loaded from a file is followed to the modules
    beside it. No hash holds a module's name or place.

    Args:
        roots: module names or classes.

    Raises:
        UsageError: there is no module of a name, or a file was edited after this process imported it.
    """
    return _read(*roots)[1]


def _read(*roots: str | type) -> tuple[Mapping[Path, State], tuple[str, ...]]:
    """Return the files of `code_hashes` as they were read, and the hashes."""
    sources.note_imported()
    for root in roots:
        if isinstance(root, str) and _project_file(root, frozenset({root.partition(".")[0]})) is None:
            raise UsageError(f"'{root}' is no module whose code could be part of a key; check the name.")
    names = sorted({root if isinstance(root, str) else root.__module__ for root in roots})
    requested = tuple((name, str(getattr(sys.modules.get(name), "__file__", ""))) for name in names)
    known = _found.get(requested)
    if known is None or any(sources.state(path) != state for path, state in known[0].items()):
        # A context's generator is in every method's reach.
        closure = _Closure([*names, "bench.randomness"])
        known = _found[requested] = closure.files, closure.hashes()
    return known


def code_digest(*roots: str | type) -> str:
    """Return the digest of `code_hashes` and of the contract they were written for."""
    from bench.contracts import CONTRACT

    files, hashes = _read(*roots)
    found = digest({"code": hashes, **CONTRACT})
    _files_of[found] = files
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
