"""What decides a result, as digests.

An artefact is addressed by the digest of everything that decides it (DESIGN 5): parameters, the code of the
plugin and of the numerical modules it calls, weights, upstream artefacts, seed and environment. Code is digested
as syntax trees without what cannot change a byte (docstrings, annotations, imports, the texts of errors) and
without the names of modules: a better message or a module that moves recomputes nothing.
"""

import ast
import hashlib
import importlib.util
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.plugins.registry import FILE_MODULE

NUMERICAL_PACKAGES = (
    "lpips",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pandas",
    "Pillow",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
)
"""Packages whose version can change a number; part of every artefact's key."""


NOT_NUMERICAL = frozenset(
    {
        "bench.contracts",  # abstract; behind CONTRACT_VERSION
        "bench.assets.catalogue",  # which data sets there are; the one used enters by its fingerprint
        "bench.data.files",  # where files lie; what is in them enters by digest
        "bench.run.digest",  # makes keys
        "bench.data.folders",  # where a user's folders lie; their photos enter by fingerprint
        "bench.errors",  # words
        "bench.files",  # writes what was computed
        "bench.plugins.factory",  # builds what a text names; name and parameters enter by value
        "bench.plugins.registry",  # finds plugins; those used enter by their own code
        "bench.plugins.syntax",  # reads a method's text
    }
)
"""Modules that decide no byte, or whose say enters the key another way: neither followed nor hashed."""


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _Stripper(ast.NodeTransformer):
    """Leaves of a module's tree what can decide a number, and notes what it imports.

    A use of an imported name becomes a name that is no Python identifier, ``import numpy.sum``: the full path,
    whatever the module calls it. `_Closure` says in its place what the path leads to.
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

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        return self._imports(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt]:
        return self._imports(node)

    def _imports(self, node: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
        """Keep an import only where the place decides what a name means there."""
        return [
            ast.Expr(ast.Tuple([ast.Name(name, ast.Store()), ast.Name(f"import {target}", ast.Load())]))
            for name, target in self._targets(node)
            if name in self.loose
        ]

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

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._inside(node, in_class=False)

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


@dataclass(frozen=True)
class _Code:
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


@cache
def _code(path: Path, package: str, _size: int, _mtime_ns: int) -> _Code:
    """Return a file's code, read once until the file changes."""
    if path.suffix != ".py":
        return _Code(_sha256(path.read_bytes()))  # compiled
    tree = ast.parse(path.read_bytes())
    stripper = _Stripper(package)
    stripper.survey(tree)
    stripped = stripper.visit(tree)
    text = _dump(stripped) if stripped.body else ""
    return _Code(
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


def _code_of(module: str, path: Path) -> _Code:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _code(path, package, *_state(path))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


_USE = re.compile(r"Name\(id='import (\w+=)?([\w.*]+)'")


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
        self.modules: dict[str, _Code | None] = {"bench": None, **dict.fromkeys(NOT_NUMERICAL - {*names})}
        self.files: dict[Path, tuple[int, int]] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.modules or name.rpartition(".")[0] in NOT_NUMERICAL:
                continue
            path = _project_file(name, packages)
            if path is None:
                continue
            code = self.modules[name] = _code_of(name, path)
            self.files[path] = _state(path)
            if "." in name:
                waiting.append(name.rpartition(".")[0])  # a module's packages run before it
            waiting += code.imported
        self._shallow: dict[str, str] = {}

    def hashes(self) -> tuple[str, ...]:
        """Return each module's hash once, sorted; a module that only imports has none."""
        codes = [code.text for code in self.modules.values() if code and code.text]
        return tuple(sorted({_sha256(_USE.sub(self._deep_use, text).encode()) for text in codes}))

    def shallow(self, module: str) -> str:
        """Return the hash of one module's code, blind to the modules that imported names come from."""
        code = self.modules.get(module)
        if code is None:
            return ""
        if module not in self._shallow:
            self._shallow[module] = _sha256(_USE.sub(self._shallow_use, code.text).encode())
        return self._shallow[module]

    def _shallow_use(self, use: re.Match[str]) -> str:
        return f"Name(id='import {use[1] or ''}{self._lead(use[2], named_only=True)}'"

    def _deep_use(self, use: re.Match[str]) -> str:
        return f"Name(id='import {use[1] or ''}{self._lead(use[2], named_only=False)}'"

    def _lead(self, path: str, *, named_only: bool, seen: tuple[str, ...] = ()) -> str:
        """Return where a path leads: its own name in a project module, with that module's shallow hash on demand."""
        parts = path.split(".")
        ends = (end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in self.modules)
        end = next(ends, 0)
        if not end:
            return path
        if path in seen:
            return ""
        module, rest = ".".join(parts[:end]), parts[end:]
        own = ".".join(["" if named_only else self.shallow(module), *rest])
        code = self.modules[module]
        if code is None:
            return own
        if rest and rest[0] != "*":
            handed_on = [".".join([target, *rest[1:]]) for target in code.bindings.get(rest[0], ())]
        else:  # the module itself may give whatever it imports
            handed_on = [] if named_only else [one for targets in code.bindings.values() for one in targets]
        leads = [self._lead(one, named_only=named_only, seen=(*seen, path)) for one in handed_on]
        only_handed_on = bool(rest) and len(leads) == 1 and rest[0] not in code.loose
        return leads[0] if only_handed_on else "|".join([own, *leads])


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def module_hash(module: str) -> str:
    """Return the hash of one module's own code; what it imports counts by name only."""
    return _Closure([module]).shallow(module)


_found: dict[tuple[tuple[str, str], ...], tuple[dict[Path, tuple[int, int]], tuple[str, ...]]] = {}


def code_hashes(*roots: str | type) -> tuple[str, ...]:
    """Return the hashes of the code of modules and of the numerical modules they import, directly or not.

    Followed are the harness' own packages and the root's own top-level package, without `NOT_NUMERICAL`;
    third-party packages enter by version (`environment`). A plugin loaded from a file is followed to the modules
    beside it. No hash holds a module's name or place.

    Args:
        roots: module names or plugin classes.
    """
    names = sorted({root if isinstance(root, str) else root.__module__ for root in roots})
    requested = tuple((name, str(getattr(sys.modules.get(name), "__file__", ""))) for name in names)
    files, hashes = _found.get(requested, ({}, ()))
    if not files or any(_state(path) != state for path, state in files.items()):
        # A context's generator is in every method's reach.
        closure = _Closure([*names, "bench.randomness"])
        hashes = closure.hashes()
        _found[requested] = closure.files, hashes
    return hashes


def code_digest(*roots: str | type) -> str:
    """Return the digest of `code_hashes` and of the contract they were written for."""
    from bench.contracts import CONTRACT

    return digest({"code": code_hashes(*roots), **CONTRACT})


def forget() -> None:
    """Forget what was read, for files that change within one tick of the file system's clock."""
    _code.cache_clear()
    _found.clear()


def package_versions(names: Iterable[str] = NUMERICAL_PACKAGES) -> dict[str, str]:
    """Return the installed version of each package, ``absent`` where it is not installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def _device_name(device: str) -> str:
    import torch

    kind = device.partition(":")[0]
    if kind != "cuda" or not torch.cuda.is_available():
        return kind
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {cudnn}"


def environment(device: str, threads: int) -> Mapping[str, Any]:
    """Return what of this machine can change a number: packages, device type, dtype, threads, CPU kernels."""
    import torch

    return {
        "packages": package_versions(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "machine": platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "device": _device_name(device),
        "dtype": "float32",
        "threads": threads,
    }
