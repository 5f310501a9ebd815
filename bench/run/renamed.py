"""Names of fields that earlier versions wrote, and today's: finished runs and tables stay readable."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

log = logging.getLogger("bench")

RENAMED: Mapping[str, str] = {
    "asked": "requested",
    "background_overlap": "impostor_overlap",
    "mdd": "minimum_detectable_difference",
    "threshold_people": "threshold_identities",
}
"""Name in runs and leaderboards of version 0.1 → today's."""


def today(names: Iterable[str], where: str) -> list[str]:
    """Return names with those of an earlier version replaced, which is logged once.

    Args:
        names: of the fields of a file.
        where: the file, for the log.
    """
    given = list(names)
    old = [name for name in dict.fromkeys(given) if name in RENAMED]
    if old:
        changes = ", ".join(f"{name} is now {RENAMED[name]}" for name in old)
        log.info("%s has the names of an earlier version: %s", where, changes)
    return [RENAMED.get(name, name) for name in given]


def with_names_of_today(value: Any, where: str) -> Any:
    """Return what a JSON file holds with today's names of fields, in an object and in the objects inside it.

    Args:
        value: of the file; lists and objects are gone through, all else is returned as it is.
        where: the file, for the log.
    """
    old: list[str] = []

    def renamed(inner: Any) -> Any:
        if isinstance(inner, list):
            return [renamed(one) for one in inner]
        if not isinstance(inner, dict):
            return inner
        old.extend(inner.keys() & RENAMED.keys())
        return {RENAMED.get(name, name): renamed(one) for name, one in inner.items()}

    found = renamed(value)
    today(old, where)
    return found
