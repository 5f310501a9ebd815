"""How a method with its parameters is written: ``fawkes:mode=high,steps=40``.

The same form serves the command line, suite files and tables. The canonical form (parameters sorted,
defaults dropped) is the method's name everywhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bench.contracts import Method, MethodParams
from bench.errors import UsageError, unknown

_PYTHON_PLUGIN = re.compile(r"^(?P<name>.+\.py:[A-Za-z_]\w*)(?::(?P<rest>.*))?$")
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


def parse(text: str) -> MethodText:
    """Split a method's text into its name and parameters.

    Raises:
        UsageError: empty name, a parameter given twice, or a stray text between parameters.
    """
    text = text.strip()
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
    for position, part in enumerate(part for part in rest.split(",") if part):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and position == 0:
            bare = key
        elif not equals:
            raise UsageError(f"'{part}' in '{text}' is not of the form parameter=value.")
        elif key in values:
            raise UsageError(f"parameter '{key}' is given twice in '{text}'.")
        else:
            values[key] = value
    return values, bare


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
    try:
        return cls(cls.Params.model_validate(typed))
    except ValidationError as error:
        raise UsageError(_explain(error, text.name, cls.Params)) from None


def _from_text(value: str, info: FieldInfo) -> Any:
    kind = str(info.annotation)
    if value.lower() == "none" and "None" in kind:
        return None
    if "tuple" in kind:
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
            f"({describe_type(info)}, default {as_text(info.default)})."
        )
    return " ".join(parts)


def describe_type(info: FieldInfo) -> str:
    """Return type, range and unit of a parameter in words, e.g. ``float, 0 … 255, grey levels``."""
    kind = _type_name(info.annotation)
    bounds = _bounds(info)
    unit = info.json_schema_extra.get("unit") if isinstance(info.json_schema_extra, dict) else None
    return ", ".join(part for part in (kind, bounds, str(unit or "")) if part)


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


def canonical(method: Method) -> str:
    """Return the method's name in every table: parameters sorted, defaults dropped.

    A parameter marked ``json_schema_extra={"path": True}`` shows its file name only, so that no table
    carries a path of the machine it was made on.
    """
    params = method.params
    shown = []
    for key, info in sorted(type(params).model_fields.items()):
        value = getattr(params, key)
        if value == info.get_default(call_default_factory=True, validated_data={}):
            continue
        extra = info.json_schema_extra
        is_path = isinstance(extra, dict) and bool(extra.get("path"))
        shown.append(f"{key}={Path(str(value)).name if is_path else as_text(value)}")
    return f"{method.name}:{','.join(shown)}" if shown else method.name
