"""A module's code as a syntax tree without what cannot change a byte: docstrings, annotations, imports, errors."""

import ast
import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bench.plugins.sources import State


@dataclass(frozen=True)
class Code:
    """One module's code.

    Attributes:
        text: the stripped tree; "" where nothing is left of it.
        imported: full names of what it imports, which may be modules.
        bindings: name → full paths of what imports bind it to.
        loose: names that something else binds too.
    """

    text: str
    imported: tuple[str, ...] = ()
    bindings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    loose: frozenset[str] = frozenset()


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
        self._in_class = False

    def survey(self, tree: ast.AST) -> None:
        """Note what is imported and which names are bound, before `visit`."""
        waiting = [tree]
        while waiting:
            node = waiting.pop()
            waiting += _alternative(node) if _for_types_only(node) else ast.iter_child_nodes(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, target in self._targets(node):
                    known = self.bindings.get(name, ())
                    self.bindings[name] = known if target in known else (*known, target)
                    self.imported |= {target.removesuffix(".*"), *self._modules(node)}
            else:
                self.loose |= _bound(node)
                self.hidden |= {node.arg} if isinstance(node, ast.arg) else set()
        self.loose |= {name for name, targets in self.bindings.items() if len(targets) > 1 or name == "*"}

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
        if not _for_types_only(node):
            return self.generic_visit(node)
        body: list[ast.AST] = []
        for statement in node.orelse:
            found = self.visit(statement)
            body += found if isinstance(found, list) else [found] if found else []
        return body

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return self.generic_visit(_WithoutTexts().visit(node))

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._inside(node, in_class=False)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  # ast's spelling

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node, in_class=True)

    def _inside(self, node: ast.AST, *, in_class: bool) -> ast.AST:
        outside, self._in_class = self._in_class, in_class
        node = self.generic_visit(node)
        self._in_class = outside
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Drop the annotation; in a class it makes a field, and ClassVar makes none."""
        constant = "ClassVar" in ast.dump(node.annotation)
        node.annotation = ast.Constant(constant and self._in_class)
        if node.value is not None and not self._in_class:
            return self.visit(ast.Assign([node.target], node.value))  # type: ignore[no-any-return]
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node


class _WithoutTexts(ast.NodeTransformer):
    """Empties every text."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, _node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _for_types_only(node: ast.AST) -> bool:
    """Whether it is ``if TYPE_CHECKING:``, which never runs."""
    if not isinstance(node, ast.If):
        return False
    test = node.test
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
    if path.suffix != ".py":
        return Code(hashlib.sha256(path.read_bytes()).hexdigest())  # compiled
    tree = ast.parse(path.read_bytes())
    stripper = _Stripper(package)
    stripper.survey(tree)
    stripped = stripper.visit(tree)
    text = _dump(stripped) if stripped.body else ""
    return Code(
        text, tuple(sorted(filter(None, stripper.imported))), stripper.bindings, frozenset(stripper.loose)
    )


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
