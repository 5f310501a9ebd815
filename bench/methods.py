"""How a method with its parameters is written: ``fawkes:mode=high,steps=40``.

The same form serves the command line, suite files and tables. The canonical form (parameters sorted,
defaults dropped) is the method's name everywhere.

A value in brackets keeps its commas: ``adaptive:attack=[pgd:eps=15,steps=5],defense=[jpeg + puface]``. A field
marked ``json_schema_extra={"method": "attack"}`` (or ``defense``) holds the text of a method, one marked
``attacks`` or ``defenses`` several, joined by `` & ``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bench.contracts import Attack, Defense, Method, MethodParams
from bench.errors import UsageError, unknown

# Not a registered method with a plugin's file among its parameters.
_PYTHON_PLUGIN = re.compile(r"^(?![\w.-]+:\w+\s*=)(?P<name>.+?\.py:[A-Za-z_]\w*)(?::(?P<rest>.*))?$")
# Not `name:parameter=….onnx`, which is a registered method with a path among its parameters.
_ONNX_FILE = re.compile(r"^(?![\w-]+:\w+=)(?P<path>.+\.onnx)(?::(?P<rest>.*))?$")


@dataclass(frozen=True)
class MethodText:
    """A method as written, before its class is known.

    Attributes:
        name: registered name, or ``FILE.py:Class``.
        values: parameter → text.
        bare: a text without ``=``, for methods with a shorthand.
    """

    name: str
    values: Mapping[str, str] = field(default_factory=dict)
    bare: str = ""


def split(text: str, separator: str) -> list[str]:
    """Split a text where a separator stands outside all brackets.

    Args:
        text: e.g. ``jpeg:quality=75 + puface``.
        separator: ``,``; or ``+`` or ``&``, which separate only with a space on either side, as numbers (1e+300)
            and names of files may have them.

    Raises:
        UsageError: a bracket without its partner.
    """
    pieces, start = [], 0
    for position in _outside_brackets(text):
        beside = text[max(position - 1, 0) : position] + text[position + 1 : position + 2]
        if text[position] == separator and (separator == "," or not beside.strip()):
            pieces.append(text[start:position])
            start = position + 1
    return [piece.strip() for piece in (*pieces, text[start:])]


def _outside_brackets(text: str) -> list[int]:
    """Return the positions that are in no brackets."""
    opened: list[int] = []
    outside = []
    for position, letter in enumerate(text):
        if letter == "[":
            opened.append(position)
        elif letter == "]" and not opened:
            raise UsageError(f"the bracket ']' at character {position + 1} of '{text}' was never opened.")
        elif letter == "]":
            opened.pop()
        elif not opened:
            outside.append(position)
    if opened:
        raise UsageError(f"the bracket '[' at character {opened[-1] + 1} of '{text}' is never closed.")
    return outside


def _without_brackets(value: str) -> str:
    """Return what is in the brackets, where one pair is around all of a value."""
    wrapped = value.startswith("[") and value.endswith("]") and not _outside_brackets(value)
    if not wrapped:
        return value
    inner = value[1:-1]
    try:
        _outside_brackets(inner)
    except UsageError:
        return value  # two pairs side by side, as in [a][b]
    return inner


def parse(text: str) -> MethodText:
    """Split a method's text into its name and parameters.

    Raises:
        UsageError: empty name, a parameter given twice, a stray text between parameters, or a bracket without its
            partner.
    """
    text = text.strip()
    _outside_brackets(text)  # a bracket without its partner is named in the whole text
    if match := _ONNX_FILE.match(text):
        values, bare = _parameters(match["rest"] or "", text)
        if bare:
            raise UsageError(f"'{bare}' in '{text}' is not of the form parameter=value.")
        return MethodText("onnx", {"path": match["path"], **values})
    if match := _PYTHON_PLUGIN.match(text):
        name, rest = match["name"], match["rest"] or ""
    else:
        name, _, rest = text.partition(":")
    if not name:
        raise UsageError(f"'{text}' names no method; write name or name:parameter=value,….")
    values, bare = _parameters(rest, text)
    return MethodText(name, values, bare)


def _parameters(rest: str, text: str) -> tuple[dict[str, str], str]:
    values: dict[str, str] = {}
    bare = ""
    for position, part in enumerate(part for part in split(rest, ",") if part):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if (not equals or key.startswith("[")) and position == 0:
            bare = _without_brackets(part)
        elif not equals:
            raise UsageError(f"'{part}' in '{text}' is not of the form parameter=value.")
        elif key in values:
            raise UsageError(f"parameter '{key}' is given twice in '{text}'.")
        else:
            values[key] = _without_brackets(value)
    return values, bare


def words(text: str) -> frozenset[str]:
    """Return plugins' files, values and bare texts of a method and of all methods in its values, nothing loaded."""
    found: set[str] = set()
    for several in split(text, "&"):
        for one in split(several, "+"):
            try:
                named = parse(one)
            except UsageError:
                continue  # a value that is no method
            values = {named.bare, *named.values.values()}
            found |= values | {named.name.rpartition(":")[0]}
            found |= {word for value in values if value != one for word in words(value)}
    return frozenset(found)


def build(cls: type[Method], text: MethodText) -> Method:
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
    fields = cls.Params.model_fields
    for key in values:
        if key not in fields:
            raise unknown(f"parameter of {text.name}", key, fields, f"See `bench show {text.name}`.")
    typed = {key: _from_text(value, fields[key]) for key, value in values.items()}
    typed |= {key: _normal_nested(typed[key], kind) for key in typed if (kind := nested_kind(fields[key]))}
    try:
        return cls(cls.Params.model_validate(typed))
    except ValidationError as error:
        raise UsageError(_explain(error, text.name, cls.Params)) from None


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
    low = high = ""
    for item in info.metadata:
        for key, sign in (("ge", ""), ("gt", "> ")):
            if getattr(item, key, None) is not None:
                low = f"{sign}{as_text(getattr(item, key))}"
        for key, sign in (("le", ""), ("lt", "< ")):
            if getattr(item, key, None) is not None:
                high = f"{sign}{as_text(getattr(item, key))}"
    if low and high:
        return f"{low} … {high}"
    if low:
        return low if low.startswith(">") else f"≥ {low}"
    return (high if high.startswith("<") else f"≤ {high}") if high else ""


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
    """Return what a parameter holds: ``attack``, ``attacks``, ``defense``, ``defenses``, or "" for no method."""
    extra = info.json_schema_extra
    return str(extra.get("method", "")) if isinstance(extra, dict) else ""


def nested(method: Method) -> list[tuple[str, str]]:
    """Return (kind of plugin, text) of each method among the parameters of another, as kept."""
    found = []
    for key, info in type(method.params).model_fields.items():
        if kind := nested_kind(info):
            texts = _nested_texts(getattr(method.params, key), kind)
            found += [(f"{kind.removesuffix('s')}s", text) for text in texts]
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
    texts = [normal(f"{kind.removesuffix('s')}s", text) for text in _nested_texts(value, kind)]
    return texts if isinstance(value, (tuple, list)) else " & ".join(texts)


@lru_cache(maxsize=1024)
def normal(kind: str, text: str) -> str:
    """Return a method's text in the form it is kept in: canonical, but with paths and plugins' files as given.

    Args:
        kind: ``attacks`` or ``defenses``.
        text: e.g. ``jpeg:quality=75 + puface``.

    Raises:
        UsageError: it describes no method of that kind.
    """
    from bench import registry

    method = registry.create(kind, text)
    if method.joins:
        return method.joins.join(normal(kind, member) for _, member in nested(method))
    shown = _shown(method, whole=True)
    name = parse(text).name
    return f"{name}:{','.join(shown)}" if shown else name


def canonical(method: Method) -> str:
    """Return the method's name in every table: parameters sorted, defaults dropped.

    A parameter marked ``json_schema_extra={"path": True}`` shows its file name only, so that no table
    carries a path of the machine it was made on. A value stands in brackets where it would be misread without.
    """
    if method.joins:
        return method.joins.join(canonical(part) for part in method.parts())
    shown = _shown(method, whole=False)
    return f"{method.name}:{','.join(shown)}" if shown else method.name


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


def _nested_text(value: Any, kind: str, *, whole: bool) -> str:
    plural = f"{kind.removesuffix('s')}s"
    texts = _nested_texts(value, kind)
    return " & ".join(normal(plural, text) if whole else _canonical_of(plural, text) for text in texts)


@lru_cache(maxsize=256)
def _canonical_of(kind: str, text: str) -> str:
    from bench import registry

    return canonical(registry.create(kind, text))
