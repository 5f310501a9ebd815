"""From a method's text to the method: built with its parameters, its canonical name, purifiers composed.

The same form (``fawkes:mode=high,steps=40``, see `bench.plugins.syntax`) serves the command line, suite files and
tables. The canonical form (parameters sorted, defaults dropped) is the method's name everywhere.

A field marked ``json_schema_extra={"method": "attack"}`` (or ``defense``, ``backbone``) holds the text of a method, one
marked ``attacks``, ``defenses`` or ``backbones`` several, joined by `` & ``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from weakref import WeakKeyDictionary

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bench.contracts import (
    Attack,
    Backbone,
    Dataset,
    Defense,
    Hardening,
    Method,
    MethodParams,
    Protocol,
    Purifier,
    Trainer,
)  # fmt: skip
from bench.errors import UsageError, unknown
from bench.plugins import registry
from bench.plugins.composition import Composition
from bench.plugins.hardened_composition import HardenedComposition
from bench.plugins.syntax import MethodText, parse, split

M = TypeVar("M", bound=Method)

log = logging.getLogger("bench")


def build(cls: type[M], text: MethodText) -> M:
    """Return an instance of `cls` with the parameters of `text`.

    Raises:
        UsageError: unknown parameter (with the nearest), wrong type or out of range (with what is valid).
    """
    values = dict(text.values)
    if text.bare:
        if not cls.shorthand:
            raise UsageError(
                f"'{text.bare}' in '{text.name}:{text.bare}' is not of the form parameter=value."
            )
        values = {cls.shorthand: text.bare, **values}
    values = _under_present_names(cls, values)
    fields = cls.Params.model_fields
    for key in values:
        if key not in fields:
            raise unknown(f"parameter of {text.name}", key, fields, f"See `bench list {text.name}`.")
    typed = {key: _from_text(value, fields[key]) for key, value in values.items()}
    typed |= {key: _normal_nested(typed[key], kind) for key in typed if (kind := nested_kind(fields[key]))}
    try:
        from bench.plugins.process import calling  # asks torch for its state

        with calling(f"'{text.name}'"):
            return cls(cls.Params.model_validate(typed))
    except ValidationError as error:
        raise UsageError(_explain(error, text.name, cls.Params)) from None


def _under_present_names(cls: type[Method], values: Mapping[str, str]) -> dict[str, str]:
    """Return parameters under their present names, with a warning for each former one.

    Raises:
        UsageError: one is given under both names.
    """
    found: dict[str, str] = {}
    for key, value in values.items():
        present = cls.renamed.get(key, key)
        if present in found or (present != key and present in values):
            former = next(old for old, new in cls.renamed.items() if new == present and old in values)
            raise UsageError(
                f"'{cls.name}' is given '{former}' and '{present}', which are one parameter. Keep '{present}'."
            )
        if present != key:
            log.warning("parameter '%s' of %s is now called '%s'", key, cls.name, present)
        found[present] = value
    return found


def _from_text(value: str, info: FieldInfo) -> Any:
    if get_origin(info.annotation) is Literal:  # pydantic takes no "2" for 2 there
        return {as_text(choice): choice for choice in get_args(info.annotation)}.get(value, value)
    kind = str(info.annotation)
    if value.lower() == "none" and "None" in kind:
        return None
    if "tuple" in kind:
        if nested_kind(info):
            return split(value, "&") if value.strip() else []
        return value.split("|") if value else []
    return value


def _explain(error: ValidationError, name: str, params: type[MethodParams]) -> str:
    parts = []
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else ""
        if not key:
            parts.append(f"parameters of '{name}': {item['msg']}.")
            continue
        info = params.model_fields[key]
        parts.append(
            f"parameter '{key}' of '{name}' cannot be '{item['input']}': {item['msg'].lower()} "
            f"({describe_type(info)}, default {default_text(info)})."
        )
    return " ".join(parts)


def describe_type(info: FieldInfo) -> str:
    """Return type, range and unit of a parameter in words, e.g. ``float, 0 … 255, grey levels``."""
    kind = _HELD.get(nested_kind(info)) or _type_name(info.annotation)
    bounds = _bounds(info)
    unit = info.json_schema_extra.get("unit") if isinstance(info.json_schema_extra, dict) else None
    return ", ".join(part for part in (kind, bounds, str(unit or "")) if part)


_HELD = {
    "attack": "an attack",
    "attacks": "attacks joined by &",
    "defense": "a defence",
    "defenses": "defences joined by &",
    "backbone": "a backbone",
    "backbones": "backbones joined by &",
}


def default_text(info: FieldInfo) -> str:
    """Return a parameter's default as it is written in a method's text."""
    value = info.get_default(call_default_factory=True, validated_data={})
    return " & ".join(_nested_texts(value, kind)) if (kind := nested_kind(info)) else as_text(value)


def _type_name(annotation: Any) -> str:
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return "|".join(as_text(argument) for argument in arguments)
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type_name(argument) for argument in arguments)
    if annotation is type(None):
        return "none"
    return annotation.__name__ if isinstance(annotation, type) and not arguments else str(annotation)


def _bounds(info: FieldInfo) -> str:
    signs = {"ge": "≥ ", "gt": "> ", "le": "≤ ", "lt": "< "}
    limits = [
        f"{sign}{as_text(value)}"
        for key, sign in signs.items()
        for item in info.metadata
        if (value := getattr(item, key, None)) is not None
    ]
    return " … ".join(limit.lstrip("≥≤ ") for limit in limits) if len(limits) == 2 else "".join(limits)


def as_text(value: Any) -> str:
    """Return a parameter's value as it is written in a method's text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, (tuple, list)):
        return "|".join(as_text(item) for item in value)
    return str(value)


def nested_kind(info: FieldInfo) -> str:
    """Return what a parameter holds: ``attack``, ``defense``, ``backbone``, or several; "" for no method."""
    extra = info.json_schema_extra
    return str(extra.get("method", "")) if isinstance(extra, dict) else ""


def nested(method: Method) -> list[tuple[str, str]]:
    """Return (kind of plugin, text) of each method among the parameters of another, as kept."""
    found = []
    for key, info in type(method.params).model_fields.items():
        if kind := nested_kind(info):
            texts = _nested_texts(getattr(method.params, key), kind)
            found += [(_plural(kind), text) for text in texts]
    return found


def _nested_texts(value: Any, kind: str) -> list[str]:
    if isinstance(value, (tuple, list)):
        return [str(text) for text in value]
    if not str(value or "").strip():
        return []
    return split(str(value), "&") if kind.endswith("s") else [str(value)]


def _normal_nested(value: Any, kind: str) -> Any:
    if value is None:
        return None
    texts = [normal(_plural(kind), text) for text in _nested_texts(value, kind)]
    return texts if isinstance(value, (tuple, list)) else " & ".join(texts)


@lru_cache(maxsize=1024)
def normal(kind: str, text: str) -> str:
    """Return a method's text in the form it is kept in: canonical, but with paths and plugins' files as given.

    Args:
        kind: ``attacks``, ``defenses`` or ``backbones``.
        text: e.g. ``jpeg:quality=75 + puface``.

    Raises:
        UsageError: it describes no method of that kind.
    """
    method = create(kind, text)
    if method.joins:
        return method.joins.join(normal(kind, member) for _, member in nested(method))
    return ":".join(filter(None, (parse(text).name, ",".join(_shown(method, whole=True)))))


def canonical(method: Method) -> str:
    """Return the method's name in every table: parameters sorted, defaults dropped.

    A user's own file stands there under its own name (`Method.given_name`).
    """
    if method.joins:
        return method.joins.join(canonical(part) for part in method.parts())
    return method.given_name or described(method)


def described(method: Method) -> str:
    """Return a method's name with its parameters, sorted, defaults dropped.

    A parameter marked ``json_schema_extra={"path": True}`` shows its file name only, so that no table
    carries a path of the machine it was made on. A value stands in brackets where it would be misread without.
    """
    return ":".join(filter(None, (method.name, ",".join(_shown(method, whole=False)))))


def _shown(method: Method, *, whole: bool) -> list[str]:
    """Return ``parameter=value`` of those that are not at their default; paths whole, or the file's name only."""
    params = method.params
    # Elsewhere, as in a protocol's channels, '+' and '&' are a matter of the parameter itself.
    signs = ",[]+&" if isinstance(method, (Attack, Defense)) else ",[]"
    shown = []
    for key, info in sorted(type(params).model_fields.items()):
        value = getattr(params, key)
        default = info.get_default(call_default_factory=True, validated_data={})
        if value == default:
            continue
        extra = info.json_schema_extra
        if kind := nested_kind(info):
            text = _nested_text(value, kind, whole=whole)
            if text == _nested_text(default, kind, whole=whole):
                continue
        elif isinstance(extra, dict) and extra.get("path") and not whole:
            text = Path(str(value)).name
        else:
            text = as_text(value)
        misread = text != text.strip() or any(sign in text for sign in signs)
        shown.append(f"{key}=[{text}]" if misread else f"{key}={text}")
    return shown


def _plural(kind: str) -> str:
    return f"{kind.removesuffix('s')}s"


def _nested_text(value: Any, kind: str, *, whole: bool) -> str:
    written = normal if whole else _canonical_of
    return " & ".join(written(_plural(kind), text) for text in _nested_texts(value, kind))


@lru_cache(maxsize=256)
def _canonical_of(kind: str, text: str) -> str:
    return canonical(create(kind, text))


def kinds_of_text(text: str) -> list[str]:
    """Return the kinds of the plugin a text names, parameters and all; what is joined by `` + `` is a defence."""
    if len(split(text, "+")) > 1:
        return ["defenses"]
    return registry.kinds_of(parse(text).name)


def create(kind: str, text: str) -> Method:
    """Return the plugin instance that `text` (``name:parameter=value,…``) describes.

    Defences joined by `` + `` are one (`compose`).

    Args:
        kind: one of `registry.CLASSES`.
        text: of a method.

    Raises:
        UsageError: unknown kind, name or parameter, or a value out of range.
    """
    return defense(text) if kind == registry.DEFENSES.kind else _create(registry.of(kind), text)


def _create(known: registry.Registry[M], text: str) -> M:
    if len(split(text, "+")) > 1:
        raise UsageError(
            f"'{text}' joins {known.kind} by '+', which only purifiers can be. Name them one by one."
        )
    parsed = parse(text)
    made = build(known.load(parsed.name), parsed)
    _MODULES[made], _TEXTS[made] = known.module_of(parsed.name), text
    return made


_MODULES: WeakKeyDictionary[Method, str] = WeakKeyDictionary()

_TEXTS: WeakKeyDictionary[Method, str] = WeakKeyDictionary()


def text_of(method: Method) -> str:
    """Return the text that `create` made a method from, which makes it again; its canonical name if none did."""
    return _TEXTS.get(method) or canonical(method)


def modules_of(method: Method) -> tuple[str, ...]:
    """Return the module that a plugin's text names, which may not be its class's own; () if no text made it."""
    return tuple(filter(None, (_MODULES.get(method),)))


def attack(text: str) -> Attack:
    """Return the attack that `text` describes."""
    return _create(registry.ATTACKS, text)


def defense(text: str) -> Defense:
    """Return the defence that `text` describes; defences joined by `` + `` are one (`compose`)."""
    members = split(text, "+")
    if len(members) > 1:
        return compose(members)
    try:
        return _create(registry.DEFENSES, text)
    except UsageError as error:
        if "+" not in text:
            raise
        raise UsageError(f"{error} Purifiers are joined by '+' with a space on either side.") from error


def backbone(text: str) -> Backbone:
    """Return the backbone that `text` describes; weights are not loaded yet."""
    return _create(registry.BACKBONES, text)


def dataset(text: str) -> Dataset:
    """Return the dataset that `text` describes."""
    return _create(registry.DATASETS, text)


def protocol(text: str) -> Protocol:
    """Return the protocol that `text` describes."""
    return _create(registry.PROTOCOLS, text)


def trainer(text: str) -> Trainer:
    """Return the trainer that `text` describes."""
    return _create(registry.TRAINERS, text)


def purifiers(texts: Sequence[str], inside: str) -> tuple[Purifier, ...]:
    """Return the purifiers that texts describe.

    Args:
        texts: one method each.
        inside: what they are part of, for messages.

    Raises:
        UsageError: an unknown method, or one that is not a purifier.
    """
    found = []
    for text in texts:
        member = defense(text)
        if not isinstance(member, Purifier):
            raise UsageError(
                f"'{text}' in '{inside}' {_no_purifier(member)}; only purifiers can be put together. Give it as a "
                "defence of its own; see `bench list`."
            )
        found.append(member)
    return tuple(found)


def _no_purifier(defense: Defense) -> str:
    """Return what a defence does that a purifier does not, as a clause."""
    if defense.hardening is not None:
        return "changes the tracker itself"
    if len(defense.purifiers) > 1:
        return f"keeps {len(defense.purifiers)} views of each photo"
    return "is no purifier"


def compose(members: Sequence[str]) -> Defense:
    """Return the defence that applies purifiers one after another, and hardens the tracker where the last one does.

    Raises:
        UsageError: an unknown one, one that changes nothing, one that is no purifier before another, or a hardening
            that is not the last.
    """
    for text in members:
        if not text:
            raise UsageError(f"'{' + '.join(members)}' has a '+' with no defence beside it.")
    made = [defense(text) for text in members]
    _require_order(members, made)
    texts = tuple(normal("defenses", text) for text in members)
    if made[-1].hardening is None:
        purifiers(members, " + ".join(members))  # refused under the names given
        composed: Defense = Composition(
            Composition.Params(members=texts), purifiers(texts, " + ".join(texts))
        )
    else:
        composed = _hardened(members, texts)
    _TEXTS[composed] = " + ".join(texts)
    return composed


def _require_order(texts: Sequence[str], made: Sequence[Defense]) -> None:
    """Raise UsageError where a hardening is not the last of what is joined, or not the only one."""
    hardenings = [text for text, one in zip(texts, made, strict=True) if one.hardening is not None]
    if not hardenings or (len(hardenings) == 1 and made[-1].hardening is not None):
        return
    inside = " + ".join(texts)
    others = [text for text, one in zip(texts, made, strict=True) if one.hardening is None]
    valid = " + ".join([*others, hardenings[0]])
    if len(hardenings) == 1:
        raise UsageError(
            f"'{hardenings[0]}' in '{inside}' changes the tracker itself, so it comes last: purifiers, then one "
            f"hardening. Write '{valid}'."
        )
    raise UsageError(
        f"'{inside}' joins {len(hardenings)} defences that change the tracker itself ({', '.join(hardenings)}), and a "
        f"tracker is hardened once: purifiers, then one hardening. Write '{valid}', or name one of the others in it."
    )


def _hardened(given: Sequence[str], texts: tuple[str, ...]) -> HardenedComposition:
    """Return purifiers, or a defence of several views, joined with the hardening after them.

    Args:
        given: the members under the names given, for messages.
        texts: the same as they are kept.
    """
    inside = " + ".join(given)
    photos, backbone = defense(" + ".join(texts[:-1])), defense(texts[-1])
    if not isinstance(backbone, Hardening):
        raise UsageError(
            f"'{given[-1]}' in '{inside}' purifies and hardens by itself; give it as a defence of its own."
        )
    if not photos.changes_images:
        raise UsageError(f"'{given[0]}' in '{inside}' changes no image; leave it out.")
    return HardenedComposition(HardenedComposition.Params(members=texts), photos, backbone)
