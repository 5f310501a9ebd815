"""What methods are called where readers see them: figures, boards, tables and reports.

What lives here: short names of methods, made from those of one run alone, so that a method has the same one in every
figure of it; labels that a user gives by ``--name``; and the words for ``none``. What must not: canonical names in
CSV files, which stay as they are.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

import pandas as pd

from bench.analysis.results import Results
from bench.errors import BenchError, UsageError, unknown
from bench.plugins import factory, syntax

NONE = "none"
"""The attack, or the defence, that does nothing."""

NOTHING: Mapping[str, str] = {"attack": "no cloak", "defense": "no defence"}
"""Column of the leaderboard → what `NONE` is called in it."""

AXES = ("attack", "defense", "backbone")
"""Columns of the leaderboard that hold methods."""

LONGEST = 22
"""Characters of a name that stands as it is."""

LONGEST_CUT = 34
"""The same of a single method without parameters, of what is left of a longer name, and of a label."""

_LONGEST_VALUES = (14, 8)
"""Characters of a parameter's value, and where there is less room; of a longer one the end is kept, by which files and
digests differ."""

_MOST = 4
"""Parameters that a short name has room for."""

_FOLDERS = re.compile(r"[^\s+&\[=]*/")
_FILE = re.compile(r"\.(safetensors|onnx|json)$")
_CLASS = re.compile(r"[\w.-]+\.py:(?=\w)")


def short_names(names: Sequence[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return canonical name → what it is called in figures; all different.

    A name of up to `LONGEST` characters stands, without folders and files of plugins. Of a longer one the parameters
    stay, in brackets, in which variants of its method differ: ``fawkes (budget .12)``. A method without variants
    keeps its name alone. Only what is then still too long, or taken, is numbered.

    Args:
        names: all methods of one axis of a run, in its order.
        given: labels of some of them, which go before all else.
    """
    unique = list(dict.fromkeys(names))
    found = {name: label for name, label in (given or {}).items() if name in unique}
    bare = {name: " + ".join(_steps(name)) for name in unique}
    # Those that are called what they are come first, then those that lost a folder alone.
    for name in sorted(unique, key=lambda name: bare[name] != name):
        if name not in found and not _too_long(bare[name]) and bare[name] not in found.values():
            found[name] = bare[name]
    for name in unique:
        if name not in found:
            taken = set(found.values())
            cuts = (cut for cut in _cuts(name, unique) if len(cut) <= LONGEST_CUT and cut not in taken)
            found[name] = next(cuts, None) or _numbered(_base(name), taken)
    return {name: found[name] for name in unique}


def explained(names: Sequence[str], short: Mapping[str, str], where: str = "In the figure") -> str:
    """Return a sentence with the full names of those that are shortened, "" where none is."""
    cut = [f"{short[name]} is {name}" for name in dict.fromkeys(names) if short[name] != name]
    return f"{where} {'; '.join(cut)}." if cut else ""


def in_words(leaderboard: pd.DataFrame, labels: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return a leaderboard whose methods are called as readers are told: by their labels, and ``none`` in words.

    Args:
        leaderboard: with columns of `AXES`; left as it is.
        labels: canonical name → label, as `labels` gives them.
    """
    given = labels or {}
    words = {axis: {**given, **({NONE: NOTHING[axis]} if axis in NOTHING else {})} for axis in AXES}
    return leaderboard.assign(
        **{axis: [own.get(name, name) for name in leaderboard[axis]] for axis, own in words.items()}
    )


# -- labels -----------------------------------------------------------------------------------------------------


def labels(texts: Sequence[str], methods: Collection[str]) -> dict[str, str]:
    """Return canonical name → label of what was given as ``METHOD=LABEL``.

    Args:
        texts: METHOD is any text for a method; the longest part before a = that names one counts.
        methods: canonical names of the methods there are.

    Raises:
        UsageError: a text is not of this form, its method is not there, or a label is empty, too long or not its own.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, label = _labelled(text, methods)
        if name == NONE:
            raise UsageError(f"--name {text}: {NONE} is called {' and '.join(NOTHING.values())} everywhere.")
        if not label or len(label) > LONGEST_CUT or not label.isprintable():
            raise UsageError(f"--name {text}: a label is one line of 1 to {LONGEST_CUT} characters.")
        if found.get(name, label) != label:
            raise UsageError(
                f"--name {text}: {name} is called {found[name]!r} already. Leave one of them out."
            )
        found[name] = label
    spoken = [*found.values(), *NOTHING.values(), *(name for name in methods if name not in found)]
    for name, label in found.items():
        if spoken.count(label) > 1:
            raise UsageError(
                f"--name {name}={label}: something else is called {label!r} too. Give another label."
            )
    return found


def methods_of(results: Results) -> tuple[str, ...]:
    """Return the canonical names of a run's attacks, defences and trackers' backbones."""
    return tuple(dict.fromkeys(name for axis in AXES for name in results.values(axis)))


def _labelled(text: str, methods: Collection[str]) -> tuple[str, str]:
    places = [place for place, letter in enumerate(text) if letter == "="]
    if not places:
        raise UsageError(
            f"--name {text!r} is not METHOD=LABEL: the method as the run names it, then what figures call it."
        )
    # Parameters have a = of their own, and so may a label.
    for place in reversed(places):
        if (name := _there(text[:place], methods)) is not None:
            return name, text[place + 1 :].strip()
    raise unknown("method", text[: places[-1]], sorted(methods))


def _there(text: str, methods: Collection[str]) -> str | None:
    """Return the method of a text, None where none of those there is meant."""
    if text in methods:
        return text
    for kind in ("attacks", "defenses", "backbones"):
        try:
            name = factory.canonical(factory.create(kind, text))
        except BenchError:  # no method of this kind
            continue
        if name in methods:
            return name
    return None


# -- shorter names ----------------------------------------------------------------------------------------------


def _too_long(text: str) -> bool:
    return len(text) > (LONGEST if ":" in text or " + " in text else LONGEST_CUT)


def _steps(name: str) -> list[str]:
    return syntax.split(_CLASS.sub("", _FOLDERS.sub("", name)), "+")


def _method(step: str) -> str:
    return step.partition(":")[0]


def _chain(name: str) -> str:
    """Return a method's name without parameters, of a chain those of its steps."""
    return " + ".join(map(_method, _steps(name)))


def _base(name: str) -> str:
    """Return a short name without parameters; of a chain, that of the first step."""
    steps = _steps(name)
    base = _method(steps[0])
    base = base if len(base) <= LONGEST - 4 else f"{base[: LONGEST - 5]}…"
    return base if len(steps) == 1 else f"{base} + …"


def _cuts(name: str, names: Sequence[str]) -> Iterator[str]:
    """Yield shorter forms of a name, the best first: with as few parameters as tell it from its variants."""
    chain, own = _chain(name), _parameters(name)
    variants = [set(_parameters(other)) for other in names if other != name and _chain(other) == chain]
    if not variants:
        yield chain
    for size in range(1, min(len(own), _MOST) + 1 if variants else 0):
        for few in combinations(own, size):
            if not any(set(few) <= other for other in variants):
                if size == len(own):
                    yield " + ".join(_steps(name))
                yield from _in_brackets(chain, few)
    # What a variant has too, with more, is told from the others by what these lack.
    if telling := [one for one in own if not all(one in other for other in variants)]:
        yield from _in_brackets(chain, telling)
    yield _base(name)


def _parameters(name: str) -> list[str]:
    return [one for step in _steps(name) for one in syntax.split(step.partition(":")[2], ",") if one]


def _in_brackets(chain: str, parameters: Sequence[str]) -> Iterator[str]:
    for longest in _LONGEST_VALUES:
        yield f"{chain} ({', '.join(_spoken(one, longest) for one in parameters)})"


def _spoken(parameter: str, longest: int) -> str:
    """Return a parameter as it is read: ``budget .12`` of ``budget=0.12``."""
    key, _, value = parameter.partition("=")
    value = _FILE.sub("", value)
    value = re.sub(r"^(-?)0(?=\.\d)", r"\1", value)
    value = value if len(value) <= longest else f"…{value[1 - longest :]}"
    return f"{key.replace('_', ' ')} {value}"


def _numbered(base: str, taken: set[str]) -> str:
    number = 2 if base in taken else 1
    while f"{base} #{number}" in taken:
        number += 1
    return f"{base} #{number}"
