"""What every plugin says of itself: name, paper, parameters, and the text that describes it again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.authoring.checks.given import bindings
from bench.authoring.checks.suite import Check
from bench.contracts import Attack, Defense, Method, MethodParams
from bench.errors import UsageError
from bench.plugins import factory, syntax

TRAINED = "says on which attacks and whose photos it was trained"
ROUND_TRIP = "its canonical name describes it again"

_WRITTEN = (
    "give parameters types whose text reads back: int, float, bool, str, Literal, or one of these or None"
)
TRAINED_ON = (
    "return a tuple of attacks from trained_on(self, binding), () for none; and 'none', 'DATASET/training' or "
    "'unknown' from training_identities(self, binding)"
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def checks(method: Method) -> Iterator[Check]:
    """Yield the checks of a plugin's declarations."""
    if method.joins:  # it has no name of its own
        yield Check(ROUND_TRIP, lambda: _wrong_joint_name(method), fix=_WRITTEN)
        return
    yield Check(
        "declares a name of letters, digits, '.', '_' and '-'",
        lambda: _wrong_name(method),
        fix='name = "my-method" in the class',
    )
    yield Check(
        "declares its paper as text",
        lambda: wrong_type("paper", method.paper, str),
        fix='paper = "Author et al., venue and year" in the class, or leave it out',
    )
    yield Check(
        "every parameter has a description and a default",
        lambda: _wrong_fields(method),
        fix='class Params(MethodParams): eps: float = Field(8, gt=0, le=255, description="L∞ bound")',
    )
    yield Check(ROUND_TRIP, lambda: _wrong_round_trip(method), fix=_WRITTEN)


def wrong_type(what: str, value: object, expected: type) -> str:
    """Say that a value is not of a type."""
    return "" if isinstance(value, expected) else f"{what} is {value!r}, not {expected.__name__}"


def wrong_choice(what: str, value: str, valid: tuple[str, ...]) -> str:
    """Say that a value is none of those that are valid."""
    return "" if value in valid else f"{what} is {value!r}. Valid: {', '.join(valid)}"


def wrong_training(defense: Defense) -> str:
    """Say what is wrong with what a defence says of its own training."""
    binding = next(bindings(defense))
    try:
        trained, identities = defense.trained_on(binding), defense.training_identities(binding)
    except UsageError:
        return ""  # no weights for this cell: the plan refuses it
    named = isinstance(trained, tuple) and all(isinstance(name, str) for name in trained)
    return "" if named and isinstance(identities, str) and identities else f"{trained!r}, {identities!r}"


def _wrong_name(method: Method) -> str:
    name = getattr(method, "name", "")
    return "" if isinstance(name, str) and _NAME.fullmatch(name) else f"name is {name!r}"


def _wrong_fields(method: Method) -> str:
    params: Any = method.Params
    if not (isinstance(params, type) and issubclass(params, MethodParams)):
        return f"Params is {method.Params!r}, not a bench.contracts.MethodParams"
    wrong = []
    for key, info in method.Params.model_fields.items():
        if not info.description:
            wrong.append(f"'{key}' has no description")
        if info.is_required():
            wrong.append(f"'{key}' has no default")
    return "; ".join(wrong)


def _wrong_joint_name(method: Method) -> str:
    written = factory.canonical(method)
    kind = "attacks" if isinstance(method, Attack) else "defenses"
    again = factory.canonical(factory.create(kind, written))
    return "" if again == written else f"'{written}' gives '{again}'"


def _wrong_round_trip(method: Method) -> str:
    written = factory.described(method)
    extras = {key: info.json_schema_extra for key, info in method.Params.model_fields.items()}
    paths = [key for key, extra in extras.items() if isinstance(extra, dict) and extra.get("path")]
    text = syntax.parse(written)
    # A path is written by its file name only, so that tables carry no path of the machine.
    full = {key: str(getattr(method.params, key)) for key in paths if key in text.values}
    for key, info in method.Params.model_fields.items():
        if factory.nested_kind(info) and key in text.values:
            value = getattr(method.params, key)
            full[key] = " & ".join(value) if isinstance(value, tuple) else str(value)
    again = factory.build(type(method), replace(text, values={**text.values, **full}))
    for key in method.Params.model_fields:
        found, given = getattr(again.params, key), getattr(method.params, key)
        if found != given:
            return f"'{written}' gives {key} = {found!r}, it was {given!r}"
    return ""
