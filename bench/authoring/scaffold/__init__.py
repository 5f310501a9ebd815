"""Plugin packages that ``bench new`` writes: templates, the names in them, and the writing.

A package made from a template is a working plugin: it installs, passes the contract checks and its own tests,
and computes something plain that is meant to be replaced. Templates are in ``templates/<kind>``; those in
``templates/common`` go into every package. They hold ``$name`` where a name goes (`string.Template`).
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import re
import secrets
import shutil
import string
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path

from bench.errors import UsageError
from bench.files import StoreError

KINDS = ("attack", "defense", "backbone", "protocol")
"""What can be written, in the singular."""

LONGEST = 30
"""Characters of a name; longer ones break lines of the package."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_SUFFIX = ".template"


@dataclass(frozen=True)
class Names:
    """What a plugin is called, in the forms that Python, packaging and the command line want.

    Attributes:
        kind: one of `KINDS`.
        plugin: what the user types, e.g. ``my-cloak``; the package's name too.
        module: e.g. ``my_cloak``.
        cls: e.g. ``MyCloak``.
    """

    kind: str
    plugin: str
    module: str
    cls: str

    @property
    def values(self) -> Mapping[str, str]:
        """What the templates' names stand for."""
        return {**asdict(self), "kinds": f"{self.kind}s", "version": metadata.version("cloakbench")}


def names(kind: str, name: str) -> Names:
    """Return the names of a plugin.

    Args:
        kind: one of `KINDS`.
        name: letters, digits and ``_`` or ``-``, e.g. ``my_cloak``.

    Raises:
        UsageError: the name is none, or is taken by Python, by a package that is installed or by a plugin.
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise UsageError(
            f"'{name}' cannot name a plugin. Use small letters, digits and single '_' or '-', at most "
            f"{LONGEST} of them, a letter first: my_cloak."
        )
    module, plugin = name.replace("-", "_"), name.replace("_", "-")
    _refuse_taken(kind, plugin, module)
    found = Names(kind, plugin, module, "".join(part.capitalize() for part in module.split("_")))
    _refuse_clashing(found)
    return found


def _refuse_clashing(of: Names) -> None:
    """Refuse a name under which the module or its test would hide something that they use."""
    other = Names(of.kind, "other", "other", "Other")
    if of.cls in _used(files(other)) - {other.cls} or hasattr(builtins, of.cls):
        raise UsageError(
            f"'{of.plugin}' makes a class '{of.cls}', and the package needs that name for something else. Choose "
            f"another name, e.g. my_{of.module}."
        )


def _used(contents: Mapping[str, str]) -> set[str]:
    """Return every name that Python files import, define or read."""
    found: set[str] = set()
    for name, text in contents.items():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.alias):
                    found.add((node.asname or node.name).partition(".")[0])
                elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    found.add(node.name)
                elif isinstance(node, ast.Name):
                    found.add(node.id)
    return found


def _refuse_taken(kind: str, plugin: str, module: str) -> None:
    from bench.plugins import registry

    known = registry.EVERY[f"{kind}s"].entries()
    if plugin in known:
        raise UsageError(
            f"there is {'an' if kind[0] in 'aeiou' else 'a'} {kind} called '{plugin}' already, from "
            f"{known[plugin].distribution}. Choose another name."
        )
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        raise UsageError(f"'{module}' is a word of Python's own. Choose another name, e.g. my_{module}.")
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise UsageError(
            f"a module '{module}' can be imported here already. Choose another name, e.g. my_{module}."
        )


def files(of: Names) -> Mapping[str, str]:
    """Return the package's files: path inside its folder → text."""
    sources = resources.files(__name__) / "templates"
    places = {
        "gitignore": ".gitignore",
        "module.py": f"src/{of.module}/__init__.py",
        "test.py": f"tests/test_{of.module}.py",
    }
    found = {}
    for folder in (sources / "common", sources / of.kind):
        for source in folder.iterdir():
            name = source.name.removesuffix(_SUFFIX)
            template = string.Template(source.read_text(encoding="utf-8"))
            found[places.get(name, name)] = template.substitute(of.values)
    found[f"src/{of.module}/py.typed"] = ""
    return dict(sorted(found.items()))


def write(folder: Path, contents: Mapping[str, str]) -> None:
    """Write a new folder of files, whole or not at all.

    Raises:
        UsageError: the folder exists.
        StoreError: it cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"'{folder}' exists already and is left as it is. Choose another with --out, or remove it."
        )
    begun = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.tmp")
    try:
        for name, text in contents.items():
            path = begun / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        begun.rename(folder)
    except OSError as error:
        shutil.rmtree(begun, ignore_errors=True)
        raise StoreError(
            f"cannot write '{folder}': {error.strerror or error}. Choose another place with --out."
        ) from error
