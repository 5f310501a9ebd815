"""Looking at plugins without torch, whose import takes ten times as long as all else that such a look needs.

What a plugin declares (parameters, threat model, card, paper) is not made of torch, but its module imports it. During a
look, imports of torch give stand-ins, which a module may name, subclass, call and decorate with. Whatever wants more
of torch fails, and the look is taken again with the real one. Nothing is computed with stand-ins, and nothing decided
by them: what torch would answer is either told to the stand-ins beforehand, or asking for it fails.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar

from bench.plugins import sources

T = TypeVar("T")

_STOOD_IN_FOR = ("torch", "torchvision", "safetensors.torch", "lpips")
"""Modules that torch is in, or that take it apart when they are imported."""

Answers = Mapping[str, Callable[..., Any]]
"""Path of a function of torch, e.g. ``torch.cuda.is_available`` → what is called in its place."""

_ALWAYS: Answers = {"torch.cuda.is_initialized": lambda: False}
"""What holds wherever torch is not imported yet."""

_answers: dict[str, Callable[..., Any]] = {}
"""What is known of torch at the moment."""


class _StandIn:
    """Something of torch by its path; whatever is taken from it or got by calling it is another."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(f"{self._path}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._path in _answers:
            return _answers[self._path](*args, **kwargs)
        decorated = args[0] if len(args) == 1 and not kwargs and callable(args[0]) else None
        return _StandIn(f"{self._path}()") if decorated is None else decorated

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StandIn) and self._path == other._path

    def __bool__(self) -> bool:
        name = self._path.rpartition(".")[2]
        if name.isidentifier() and name[0].isupper():
            return True  # a class
        raise TypeError(f"whether {self._path} is true only torch knows")

    def __hash__(self) -> int:
        return hash(self._path)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


class _Module(ModuleType):
    """A module that has whatever is looked for in it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(f"{self.__name__}.{name}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        ours = any(fullname == one or fullname.startswith(f"{one}.") for one in _STOOD_IN_FOR)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


def look(find: Callable[[], T]) -> T:
    """Return what a look at plugins finds, without torch where that is possible and torch is not here yet.

    Args:
        find: imports what it needs itself, and gives plain data: no plugin, and nothing of torch.

    Raises:
        BenchError: what `find` raises.
    """
    if "torch" in sys.modules:
        return find()
    try:
        with stand_ins():
            found = find()
            _check_plain(found)
            return found
    except (Exception, SystemExit):
        # A mistake of the user's or a stand-in's: with the real torch it shows.
        return find()


@dataclass
class StandIns:
    """Stand-ins that are imported in torch's place until they go.

    Attributes:
        before: names of the modules that were there before.
        packages: those that have seen a stand-in.
    """

    before: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))
    packages: frozenset[str] = frozenset()
    _finder: _Finder = field(default_factory=_Finder)

    def come(self, answers: Answers) -> None:
        """Take torch's place.

        Args:
            answers: what is known of torch.
        """
        _answers.update({**_ALWAYS, **answers})
        sys.meta_path.insert(0, self._finder)

    def go(self) -> None:
        """Go, once: who imports torch from now on gets torch, and who looks whether it is imported sees that it is not.

        Modules that have seen a stand-in are still there; see `forget`.
        """
        if self._finder not in sys.meta_path:
            return
        sys.meta_path.remove(self._finder)
        _answers.clear()
        for name in self._new():
            if isinstance(sys.modules[name], _Module):
                _remove(name)
        self.packages = _that_name(self._new(), frozenset())

    def forget(self) -> None:
        """Remove every module that has seen a stand-in, and whatever is nobody's package."""
        new = self._new()
        foreign = [name for name in self.packages if not _is_own(name)]
        packages = _that_name(new, self.packages) if foreign else self.packages
        for name in new:
            if _package(name) in packages or _is_own(name):
                _remove(name)
        sources.forget()

    def _new(self) -> list[str]:
        return [*{*sys.modules} - self.before]


@contextmanager
def stand_ins(answers: Answers = MappingProxyType({})) -> Iterator[StandIns]:
    """Import stand-ins for torch; afterwards no module that has seen one is left.

    Args:
        answers: what is known of torch.
    """
    standing = StandIns()
    standing.come(answers)
    try:
        yield standing
    finally:
        standing.go()
        standing.forget()


def _that_name(new: Collection[str], known: frozenset[str]) -> frozenset[str]:
    """Return the packages of new modules that name a stand-in, or a package that does, beside those that are known."""
    packages = known
    while True:
        more = {_package(name) for name in new if any(_is_of(it, packages) for it in _named_in(name))}
        if more <= packages:
            return packages
        packages |= more


def _is_own(name: str) -> bool:
    """Return whether a module is of this very package, or nobody's."""
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return _package(name) == _package(__name__) or sources.is_own(file)


def _package(name: str) -> str:
    return name.partition(".")[0]


def _named_in(name: str) -> list[Any]:
    return list(getattr(sys.modules[name], "__dict__", {}).values())


def _is_of(value: object, packages: Collection[str]) -> bool:
    """Return whether something is a stand-in, or a module, class or function of one of some packages."""
    if isinstance(value, _Module):
        return True
    if isinstance(value, ModuleType):
        return _package(value.__name__) in packages
    if isinstance(value, type | FunctionType):
        return _package(str(value.__module__)) in packages
    return type(value) is _StandIn


def _remove(name: str) -> None:
    """Remove a module, and its name in the package it is in."""
    module = sys.modules.pop(name)
    package, _, last = name.rpartition(".")
    parent = sys.modules.get(package)
    if parent is not None and vars(parent).get(last) is module:
        delattr(parent, last)


def _check_plain(value: object) -> None:
    """Refuse what is not made of plain data alone.

    Raises:
        TypeError: it is not.
    """
    if isinstance(value, dict):
        for key, one in value.items():
            _check_plain(key)
            _check_plain(one)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_plain(one)
    elif not (value is None or isinstance(value, str | int | float | bool)):
        raise TypeError(f"{type(value).__name__} is no plain data")
