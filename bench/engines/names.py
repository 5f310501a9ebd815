"""Engines by name: entry points of the group ``cloakbench.engines``, or ``FILE.py:Class``, with an argument behind."""

import re

from bench.errors import UsageError, unknown
from bench.plugins import registry
from bench.run.engine import Engine

INLINE = "inline"
"""The name for the run's own process."""

_FILE = re.compile(r"(?P<name>.+\.py:[A-Za-z_]\w*)(?::(?P<argument>.*))?")


def named(text: str) -> Engine | None:
    """Return an engine by name.

    Args:
        text: ``inline``, ``processes:2``, ``slurm``, ``./mine.py:MyEngine``; the engine reads what follows a further
            colon.

    Returns:
        None for `INLINE`.

    Raises:
        UsageError: unknown name, or an argument that the engine does not take.
    """
    from_file = _FILE.fullmatch(text)
    if from_file:
        name, argument = from_file["name"], from_file["argument"] or ""
        found: object = registry.class_from_file(name)
    else:
        name, _, argument = text.partition(":")
        if name == INLINE and not argument:
            return None
        found = _registered(name)
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise UsageError(f"'{name}' is no engine: it does not subclass bench.run.engine.Engine.")
    return found.of(argument)


def _registered(name: str) -> object:
    known = registry.entries_of("engines")
    if name not in known:
        raise unknown("engine", name, [INLINE, *known], "Or give a file: ./mine.py:MyEngine.")
    return registry.imported(known[name], f"engine '{name}'")
