"""What decides a result, as digests.

An artefact is addressed by the digest of everything that decides it (DESIGN 5): parameters, the source of
the plugin with the project modules it imports, weights, upstream artefacts, seed and environment. Source is
digested as its syntax tree without docstrings, so that editing a comment recomputes nothing.
"""

import ast
import hashlib
import importlib.util
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.registry import FILE_MODULE

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


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops docstrings and type annotations of nothing: only strings that stand alone as statements."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)


@cache
def _source_facts(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the digest of one module's code and the names it imports, relative ones with their dots."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest(), ()  # compiled
    tree = ast.parse(path.read_bytes())
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            joint = "." if node.module else ""
            imported += [f"{source}{joint}{alias.name}" for alias in node.names]
            imported += [source] if node.module else []
    code = ast.dump(_WithoutDocstrings().visit(tree))
    return hashlib.sha256(code.encode()).hexdigest(), tuple(sorted(set(imported)))


def _absolute(imported: str, module: str, path: Path) -> str:
    """Return the full name of what `module` at `path` imports; "" where it leads out of every package."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    try:
        return importlib.util.resolve_name(imported, package)
    except ImportError:
        return ""


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
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, AttributeError, ValueError):
        return None  # `from package import name` where name is no module
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def source_digest(*roots: str | type) -> str:
    """Return the digest of modules and of the project modules they import, directly or not.

    Followed are the harness' own packages and the root's own top-level package; third-party packages enter
    by version (`environment`). A plugin loaded from a file is followed to the modules beside it.

    Args:
        roots: module names or plugin classes.
    """
    names = [root if isinstance(root, str) else root.__module__ for root in roots]
    own = {name.partition(".")[0] for name in names}.union(*map(_beside, names))
    packages = frozenset({"bench", "attacks", "defenses", "fr_models", *own})
    # The root package only hands out, when asked, what is followed under its own name.
    found: dict[str, str] = {"bench": ""}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        origin = getattr(sys.modules.get(name), "__file__", None)
        path = Path(origin) if origin else _project_file(name, packages)
        if path is None or name.partition(".")[0] not in packages:
            continue
        found[name], imported = _source_facts(path)
        if "." in name:
            waiting.append(name.rpartition(".")[0])  # a module's packages run before it
        waiting += filter(None, (_absolute(one, name, path) for one in imported))
    return digest({name: value for name, value in found.items() if value})


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
