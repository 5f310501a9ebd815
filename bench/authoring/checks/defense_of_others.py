"""What a defence must keep to that is neither a purifier nor a hardening: it declares what it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.authoring.checks.declarations import TRAINED, TRAINED_ON, wrong_training
from bench.authoring.checks.given import FILES, FIND_FILES, context
from bench.authoring.checks.suite import Check, attempt
from bench.contracts import Attack, Defense, Hardening, Method, PublicCloaks, Purifier

DECLARES = "is a Purifier or a Hardening, or declares what it is made of"


def checks(defense: Defense) -> Iterator[Check]:
    """Yield the checks of a defence made of others; what these do is checked where they stand alone."""
    yield Check(
        DECLARES,
        lambda: _undeclared(defense),
        fix="class MyDefense(Purifier): … with purify(self, faces, ctx), or class MyDefense(Hardening): …, or a "
        "property purifiers, hardening or public_cloaks that returns such parts",
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
    public: Any = defense.public_cloaks
    if not purifiers and hardening is None and public is None:
        return "it subclasses Defense and neither of the two, and declares no purifiers, hardening or public_cloaks"
    wrong = [type(each).__name__ for each in purifiers if not isinstance(each, Purifier)]
    if wrong:
        return f"purifiers holds a {wrong[0]}, which is no Purifier"
    if hardening is not None and not isinstance(hardening, Hardening):
        return f"hardening is a {type(hardening).__name__}, which is no Hardening"
    return "" if public is None else _wrong_public(public)


def _wrong_public(public: PublicCloaks) -> str:
    if not public.attacks:
        return "public_cloaks has no attacks"
    wrong = [type(each).__name__ for each in public.attacks if not isinstance(each, Attack)]
    if wrong:
        return f"public_cloaks has a {wrong[0]}, which is no Attack"
    return "" if 0 < public.share <= 1 else f"public_cloaks is of a share of {public.share}, not in (0, 1]"


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
    public = defense.public_cloaks
    attacks = () if public is None else public.attacks
    return [*defense.purifiers, *([] if defense.hardening is None else [defense.hardening]), *attacks]


def _inside(method: Method) -> Iterator[Method]:
    for part in method.parts():
        yield part
        yield from _inside(part)
