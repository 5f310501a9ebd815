"""A module's code as a syntax tree without what cannot change a byte: docstrings, imports, words, idle annotations."""

import ast
import builtins
import hashlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.plugins.sources import State
from bench.run.remembered import remembered


@dataclass(frozen=True)
class Code:
    """One module's code.

    Attributes:
        text: digest of the stripped tree with gaps for `uses`; "" where nothing is left of it.
        uses: full paths of the imported names it uses, in order.
        imported: full names of what it imports, which may be modules.
        bindings: name → full paths of what imports bind it to.
        loose: names that something else binds too, or that are looked up as texts.
        exported: what ``from module import *`` gives, as the module says; "" where it does not.
    """

    text: str
    uses: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    bindings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    loose: frozenset[str] = frozenset()
    exported: str = ""


class _Stripper(ast.NodeTransformer):
    """Leaves of a module's tree what can decide a number, and notes what it imports.

    A use of an imported name becomes a name that is no Python identifier, ``import numpy.sum``: the full path,
    whatever the module calls it. `bench.run.code_hashes` says in its place what the path leads to.
    """

    def __init__(self, package: str) -> None:
        self.package = package
        self.imported: set[str] = set()
        self.bindings: dict[str, tuple[str, ...]] = {}
        # Names that something besides one import binds. Where that is an argument, a use says the name as well;
        # otherwise uses stay as they are, and so does the import.
        self.hidden: set[str] = set()
        self.loose: set[str] = set()
        self.exported = ""
        self._in_class = False

    def survey(self, tree: ast.AST) -> None:
        """Note what is imported and which names are bound, before `visit`."""
        waiting = [tree]
        while waiting:
            node = waiting.pop()
            waiting += _alternative(node) if _never_runs(node) else ast.iter_child_nodes(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, target in self._targets(node):
                    known = self.bindings.get(name, ())
                    self.bindings[name] = known if target in known else (*known, target)
                    self.imported |= {target.removesuffix(".*"), *self._modules(node)}
            elif isinstance(node, ast.ClassDef):
                # What a class imports is an attribute of it.
                self.loose |= {
                    node.name,
                    *(name for each in _own_imports(node) for name, _ in self._targets(each)),
                }
            else:
                self.loose |= _bound(node)
                self.hidden |= {node.arg} if isinstance(node, ast.arg) else set()
        self.loose |= {name for name, targets in self.bindings.items() if len(targets) > 1}
        # Before it is imported, or where it is not, such a name means something else.
        self.loose |= self.bindings.keys() & set(dir(builtins))
        if "*" in self.bindings or any(_looks_up_names(node, self.bindings) for node in ast.walk(tree)):
            self.loose |= self.bindings.keys()

    def _source(self, node: ast.ImportFrom) -> str:
        try:
            return importlib.util.resolve_name("." * node.level + (node.module or ""), self.package)
        except ImportError:
            return ""  # leads out of every package

    def _targets(self, node: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
        if isinstance(node, ast.ImportFrom):
            source = self._source(node)
            return [(alias.asname or alias.name, f"{source}.{alias.name}") for alias in node.names]
        return [
            (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
            for alias in node.names
        ]

    def _modules(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        if isinstance(node, ast.ImportFrom):
            return [self._source(node)]
        return [alias.name for alias in node.names]

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
        """Keep an import only where the place decides what a name means there."""
        return [
            ast.Expr(ast.Tuple([ast.Name(name, ast.Store()), ast.Name(f"import {target}", ast.Load())]))
            for name, target in self._targets(node)
            if name in self.loose
        ]

    visit_ImportFrom = visit_Import  # noqa: N815  # ast's spelling

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.loose or node.id not in self.bindings:
            return node
        local = f"{node.id}=" if node.id in self.hidden else ""
        return ast.Name(f"import {local}{self.bindings[node.id][0]}", node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id.startswith("import "):
            return ast.Name(f"{node.value.id}.{node.attr}", node.ctx)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if _is_text(node.value) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if not _never_runs(node):
            return self.generic_visit(node)
        body: list[ast.AST] = []
        for statement in node.orelse:
            found = self.visit(statement)
            body += found if isinstance(found, list) else [found] if found else []
        return body

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Drop names of types, ``__all__`` and what a class says of its paper."""
        (target, *more) = node.targets
        name = target.id if isinstance(target, ast.Name) and not more else ""
        if name == "__all__":
            self.exported += _dump(node.value)
            return None
        if self._is_call_of(node.value, _TYPE_NAMES) or (
            self._in_class and _decides_nothing(name, node.value)
        ):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if self._is_call_of(node, ("pydantic.Field",)):
            node.keywords = [kept for each in node.keywords if (kept := _without_words(each))]
        elif _is_log_call(node):
            node = _without_texts(node)
        return self.generic_visit(node)

    def _path(self, node: ast.expr) -> str:
        """Return the full path of what an expression names, "" where no import says."""
        if isinstance(node, ast.Attribute):
            return f"{self._path(node.value)}.{node.attr}"
        known = isinstance(node, ast.Name) and node.id not in self.loose
        return self.bindings.get(node.id, ("",))[0] if known and isinstance(node, ast.Name) else ""

    def _is_call_of(self, node: ast.expr, paths: tuple[str, ...]) -> bool:
        return isinstance(node, ast.Call) and self._path(node.func) in paths

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = _without_texts(node.exc)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST | None:
        """Drop annotations that nobody reads, as a decorator may."""
        if any(self._path(each) == "typing.overload" for each in node.decorator_list):
            return None
        if not node.decorator_list:
            node.returns = None
            for arg in ast.walk(node.args):
                if isinstance(arg, ast.arg):
                    arg.annotation = None
        return self._inside(node, in_class=False)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  # ast's spelling

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node, in_class=True)

    def _inside(self, node: ast.AST, *, in_class: bool) -> ast.AST:
        outside, self._in_class = self._in_class, in_class
        node = self.generic_visit(node)
        self._in_class = outside
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Drop the annotation; in a class it stays, as dataclasses and pydantic read it."""
        if self._in_class:
            idle = isinstance(node.target, ast.Name) and _decides_nothing(node.target.id, node.value)
            return None if idle else self.generic_visit(node)
        if node.value is not None:
            return self.visit(ast.Assign([node.target], node.value))  # type: ignore[no-any-return]
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node


_TYPE_NAMES = ("typing.TypeVar", "typing.ParamSpec", "typing.TypeVarTuple")
_LOOKS_UP = frozenset({"globals", "locals", "eval", "exec"})
_LOGGERS = frozenset({"log", "logger", "logging"})
_LEVELS = frozenset({"debug", "info", "warning", "error", "critical", "exception"})


def _own_imports(node: ast.ClassDef) -> list[ast.Import | ast.ImportFrom]:
    """Return the imports in the body of a class, without those in its methods."""
    found: list[ast.Import | ast.ImportFrom] = []
    waiting: list[ast.AST] = [*node.body]
    while waiting:
        each = waiting.pop()
        if isinstance(each, ast.Import | ast.ImportFrom):
            found.append(each)
        elif not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            waiting += ast.iter_child_nodes(each)
    return found


def _looks_up_names(node: ast.AST, imported: Mapping[str, object]) -> bool:
    """Whether something may look an imported name up by its text."""
    if isinstance(node, ast.Attribute):
        of_import = isinstance(node.value, ast.Name) and node.value.id in imported
        return of_import and node.attr in ("__dict__", "modules")
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    given = node.args[0] if node.args else None
    of_module = given is None or (isinstance(given, ast.Name) and given.id in imported)
    return node.func.id in _LOOKS_UP or (node.func.id in ("vars", "dir", "getattr") and of_module)


def _is_log_call(node: ast.Call) -> bool:
    name = node.func
    to_log = (
        isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id in _LOGGERS
    )
    return to_log and isinstance(name, ast.Attribute) and name.attr in _LEVELS


def _without_texts(call: ast.Call) -> ast.Call:
    """Return a call with the texts that are its arguments emptied; what is computed inside them stays out too."""

    def emptied(value: ast.expr) -> ast.expr:
        return ast.Constant("") if _is_text(value) or isinstance(value, ast.JoinedStr) else value

    call.args = [emptied(value) for value in call.args]
    for keyword in call.keywords:
        keyword.value = emptied(keyword.value)
    return call


def _without_words(keyword: ast.keyword) -> ast.keyword | None:
    """Return an argument of pydantic's ``Field`` without what is only shown: description and unit."""
    if keyword.arg == "description":
        return None
    if keyword.arg == "json_schema_extra" and isinstance(keyword.value, ast.Dict):
        pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
        kept = [
            (key, value)
            for key, value in pairs
            if not (isinstance(key, ast.Constant) and key.value == "unit")
        ]
        keyword.value = ast.Dict([key for key, _ in kept], [value for _, value in kept])
        return keyword if kept else None
    return keyword


def _decides_nothing(name: str, value: ast.expr | None) -> bool:
    """Whether an attribute of a class is its paper."""
    return value is not None and name == "paper" and _is_text(value)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _never_runs(node: ast.AST) -> bool:
    """Whether it is ``if TYPE_CHECKING:`` or ``if __name__ == "__main__":``, which never runs in an import."""
    if not isinstance(node, ast.If):
        return False
    test = node.test
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__":
        (operator, *_), (other, *more) = test.ops, test.comparators
        main = isinstance(other, ast.Constant) and other.value == "__main__"
        return main and not more and isinstance(operator, ast.Eq)
    name = test.id if isinstance(test, ast.Name) else test.attr if isinstance(test, ast.Attribute) else ""
    return name == "TYPE_CHECKING"


def _alternative(node: ast.AST) -> list[ast.stmt]:
    return node.orelse if isinstance(node, ast.If) else []


def _bound(node: ast.AST) -> set[str]:
    """Return the names a node binds, in whatever scope, other than by an import."""
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Load) else {node.id}
    if isinstance(node, ast.Global | ast.Nonlocal):
        return set(node.names)
    if isinstance(node, ast.MatchMapping):
        return {node.rest or ""}
    # Functions, classes, exceptions, patterns and type parameters.
    name = getattr(node, "name", None)
    return {name} if isinstance(name, str) and not isinstance(node, ast.alias) else set()


@cache
def read_code(path: Path, package: str, _state: State) -> Code:
    """Return the code in a file in one state; `package` is where its relative imports start."""
    source = path.read_bytes()
    whole = hashlib.sha256(source).hexdigest()
    if path.suffix != ".py":
        return Code(whole)  # compiled
    known = remembered((whole, package, *_reader()), lambda: _as_json(_read(source, package)))
    return Code(
        known["text"],
        tuple(known["uses"]),
        tuple(known["imported"]),
        {name: tuple(paths) for name, paths in known["bindings"].items()},
        frozenset(known["loose"]),
        known["exported"],
    )


def _as_json(code: Code) -> dict[str, Any]:
    return {**vars(code), "loose": sorted(code.loose)}


@cache
def _reader() -> tuple[str, str]:
    """Return what decides how code is read: this module, and the Python whose syntax trees it takes apart."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), sys.version


def _read(source: bytes, package: str) -> Code:
    tree = ast.parse(source)
    stripper = _Stripper(package)
    stripper.survey(tree)
    stripped = stripper.visit(tree)
    text = _dump(stripped) if stripped.body else ""
    return Code(
        hashlib.sha256(_USE.sub(r"Name(id='import \1'", text).encode()).hexdigest() if text else "",
        tuple(use[2] for use in _USE.finditer(text)),
        tuple(sorted(filter(None, stripper.imported))),
        stripper.bindings,
        frozenset(stripper.loose),
        stripper.exported,
    )


_USE = re.compile(r"Name\(id='import (\w+=)?([\w.*]+)'")
"""A use of an imported name in a tree as text: its local name where an argument may hide it, and its path."""


def _dump(node: object) -> str:
    """Return a tree as text, alike under every Python: `ast.dump` shows empty fields in some."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    constant = isinstance(node, ast.Constant)
    fields = ((name, value) for name, value in ast.iter_fields(node) if constant or value not in (None, []))
    return f"{type(node).__name__}({', '.join(f'{name}={_dump(value)}' for name, value in fields)})"


def code_of(module: str, path: Path, state: State) -> Code:
    """Return the code of a module whose file is in a state, read once."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return read_code(path, package, state)
