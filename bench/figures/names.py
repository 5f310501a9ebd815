"""What methods are called in figures: their canonical names where these are short, else a short form that is theirs.

A short form depends on the run's methods alone, so a method has the same one in every figure of a run.
"""

import re
from collections.abc import Mapping, Sequence

from bench import methods

LONGEST = 22
"""Characters of a name that stands as it is."""

LONGEST_WORD = 30
"""The same of a single method without parameters, of which nothing can be left out."""

_FOLDERS = re.compile(r"[^\s+&\[=]*/")
_CLASS = re.compile(r"[\w.-]+\.py:(?=\w)")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return canonical name → what it is called in figures; all different.

    A name of up to `LONGEST` characters stands. From a longer one, folders and files of plugins go first, then
    parameters that all variants of its method share (``…``); what is still too long keeps its method alone, numbered
    where there are several.

    Args:
        names: all methods of one axis of a run, in its order.
    """
    unique = list(dict.fromkeys(names))
    found = {name: _without_shared(name, unique) for name in unique}
    counts = list(found.values())
    long = [name for name in unique if _too_long(found[name]) or counts.count(found[name]) > 1]
    taken = {found[name] for name in unique if name not in long}
    for name in long:
        base = _base(name)
        alone = sum(_base(other) == base for other in long) == 1 and base not in taken
        cut = base if base.endswith("…") else f"{base}:…"
        found[name] = cut if alone and cut not in taken else _numbered(base, taken)
        taken.add(found[name])
    return found


def explained(names: Sequence[str], short: Mapping[str, str]) -> str:
    """Return a sentence with the full names of those that are shortened, "" where none is."""
    cut = [f"{short[name]} is {name}" for name in dict.fromkeys(names) if short[name] != name]
    return f"In the figure {'; '.join(cut)}." if cut else ""


def _too_long(text: str) -> bool:
    return len(text) > (LONGEST if ":" in text or " + " in text else LONGEST_WORD)


def _parts(name: str) -> list[str]:
    return methods.split(_CLASS.sub("", _FOLDERS.sub("", name)), "+")


def _base(name: str) -> str:
    """Return a method's name without its parameters; of a chain, the first step's."""
    parts = _parts(name)
    base = parts[0].partition(":")[0]
    base = base if len(base) <= LONGEST - 4 else f"{base[: LONGEST - 5]}…"
    return base if len(parts) == 1 else f"{base} + …"


def _without_shared(name: str, names: Sequence[str]) -> str:
    bare = " + ".join(_parts(name))
    variants = {other: _parts(other)[0] for other in names if _base(other) == _base(name)}
    if len(bare) <= LONGEST or len(_parts(name)) > 1 or len(variants) < 2:
        return bare
    parameters = {key: methods.split(one.partition(":")[2], ",") for key, one in variants.items()}
    shared = set.intersection(*(set(found) for found in parameters.values()))
    own = [one for one in parameters[name] if one not in shared]
    return f"{_base(name)}:…{','.join(own)}" if shared and own else bare


def _numbered(base: str, taken: set[str]) -> str:
    number = 2 if base in taken else 1
    while f"{base} #{number}" in taken:
        number += 1
    return f"{base} #{number}"
