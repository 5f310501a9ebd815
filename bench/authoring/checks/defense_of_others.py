"""What a defence must keep to that is neither a purifier nor a hardening: it declares some that it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.authoring.checks.declarations import TRAINED, TRAINED_ON, wrong_training
from bench.authoring.checks.given import FILES, FIND_FILES, context
from bench.authoring.checks.suite import Check, attempt
from bench.contracts import Defense, Hardening, Method, Purifier

DECLARES = "is a Purifier or a Hardening, or declares some"


def checks(defense: Defense) -> Iterator[Check]:
    """Yield the checks of a defence made of others; what these do is checked where they stand alone."""
    yield Check(
        DECLARES,
        lambda: _undeclared(defense),
        fix="class MyDefense(Purifier): … with purify(self, faces, ctx), or class MyDefense(Hardening): …, or a "
        "property purifiers or hardening that returns such parts",
    )
    yield Check(
        "declares the same objects at each call, its parts or theirs",
        lambda: _strange(defense),
        DECLARES,
        fix="make them once, in __init__, and return them from parts(self) too",
    )
    yield Check(TRAINED, lambda: wrong_training(defense), fix=TRAINED_ON)
    yield Check(FILES, attempt(lambda: context(defense)), fix=FIND_FILES)


def _undeclared(defense: Defense) -> str:
    purifiers: Any = defense.purifiers
    hardening: Any = defense.hardening
    if not purifiers and hardening is None:
        return "it subclasses Defense and neither of the two, and declares no purifiers and no hardening"
    wrong = [type(each).__name__ for each in purifiers if not isinstance(each, Purifier)]
    if wrong:
        return f"purifiers holds a {wrong[0]}, which is no Purifier"
    if hardening is not None and not isinstance(hardening, Hardening):
        return f"hardening is a {type(hardening).__name__}, which is no Hardening"
    return ""


def _strange(defense: Defense) -> str:
    first, second = (_declared(defense) for _ in range(2))
    if [*map(id, first)] != [*map(id, second)]:
        return "a second call gave other objects"
    parts = {id(part) for part in _inside(defense)}
    strange = [each.name for each in first if id(each) not in parts]
    return (
        f"'{strange[0]}' is not among its parts, so neither its code nor its files decide a key"
        if strange
        else ""
    )


def _declared(defense: Defense) -> list[Method]:
    return [*defense.purifiers, *([] if defense.hardening is None else [defense.hardening])]


def _inside(method: Method) -> Iterator[Method]:
    for part in method.parts():
        yield part
        yield from _inside(part)
