"""What methods are called in figures: their canonical names where these are short, else a short form that is theirs.

A short form depends on the run's methods alone, so a method has the same one in every figure of a run.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from bench.plugins import syntax

LONGEST = 22
"""Characters of a name that stands as it is."""

LONGEST_CUT = 30
"""The same of a single method without parameters, and of what is left of a longer name."""

_FOLDERS = re.compile(r"[^\s+&\[=]*/")
_CLASS = re.compile(r"[\w.-]+\.py:(?=\w)")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return canonical name → what it is called in figures; all different.

    A name of up to `LONGEST` characters stands, without folders and files of plugins. Of a longer one the parameters
    stay in which variants of its method differ; of a chain, the methods. A method without variants keeps its name
    alone. Only what is then still too long, or taken, is numbered.

    Args:
        names: all methods of one axis of a run, in its order.
    """
    unique = list(dict.fromkeys(names))
    bare = {name: " + ".join(_parts(name)) for name in unique}
    found: dict[str, str] = {}
    # Those that are called what they are come first, then those that lost a folder alone.
    for name in sorted(unique, key=lambda name: bare[name] != name):
        if not _too_long(bare[name]) and bare[name] not in found.values():
            found[name] = bare[name]
    for name in unique:
        if name not in found:
            taken = set(found.values())
            cuts = (cut for cut in _cuts(name, unique) if len(cut) <= LONGEST_CUT and cut not in taken)
            found[name] = next(cuts, None) or _numbered(_base(name), taken)
    return {name: found[name] for name in unique}


def explained(names: Sequence[str], short: Mapping[str, str]) -> str:
    """Return a sentence with the full names of those that are shortened, "" where none is."""
    cut = [f"{short[name]} is {name}" for name in dict.fromkeys(names) if short[name] != name]
    return f"In the figure {'; '.join(cut)}." if cut else ""


def _too_long(text: str) -> bool:
    return len(text) > (LONGEST if ":" in text or " + " in text else LONGEST_CUT)


def _parts(name: str) -> list[str]:
    return syntax.split(_CLASS.sub("", _FOLDERS.sub("", name)), "+")


def _method(step: str) -> str:
    return step.partition(":")[0]


def _base(name: str) -> str:
    """Return a method's name without its parameters; of a chain, the first step's."""
    parts = _parts(name)
    base = _method(parts[0])
    base = base if len(base) <= LONGEST - 4 else f"{base[: LONGEST - 5]}…"
    return base if len(parts) == 1 else f"{base} + …"


def _cuts(name: str, names: Sequence[str]) -> Iterator[str]:
    """Yield shorter forms of a name, the one that says most first."""
    parts = _parts(name)
    if len(parts) > 1:
        yield " + ".join(map(_method, parts))
    else:
        base = _method(parts[0])
        own = _parameters(parts[0])
        variants = [_parts(other) for other in names if other != name]
        others = [_parameters(one[0]) for one in variants if len(one) == 1 and _method(one[0]) == base]
        # First what some variant has not, then what no variant has.
        for few in (
            [one for one in own if not all(one in other for other in others)],
            [one for one in own if not any(one in other for other in others)],
        ):
            if others and few:
                yield f"{base}:{','.join(few)}"
        if not others:
            yield base
    yield _base(name)


def _parameters(step: str) -> list[str]:
    return syntax.split(step.partition(":")[2], ",")


def _numbered(base: str, taken: set[str]) -> str:
    number = 2 if base in taken else 1
    while f"{base} #{number}" in taken:
        number += 1
    return f"{base} #{number}"
