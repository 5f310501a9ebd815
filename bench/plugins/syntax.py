"""How a method with its parameters is written: ``fawkes:mode=high,steps=40``; text only, nothing is imported.

A value in brackets keeps its commas: ``adaptive:attack=[pgd:eps=15,steps=5],defense=[jpeg + puface]``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.errors import UsageError

# Not a registered method with a plugin's file among its parameters.
_PYTHON_PLUGIN = re.compile(r"^(?![\w.-]+:\w+\s*=)(?P<name>.+?\.py:[A-Za-z_]\w*)(?::(?P<rest>.*))?$")

# A file of weights stands for the backbone that is registered under its ending. Not `name:parameter=….onnx`, which is
# a registered method with a path among its parameters.
_WEIGHTS_FILE = re.compile(r"^(?![\w-]+:\w+=)(?P<path>.+\.(?P<ending>(?i:onnx)))(?::(?P<rest>.*))?$")


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

    >>> split("jpeg:quality=75 + randompad:channel=[median + webp]", "+")
    ['jpeg:quality=75', 'randompad:channel=[median + webp]']

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

    >>> parse("adaptive:attack=[pgd:eps=15,steps=5],defense=jpeg").values
    {'attack': 'pgd:eps=15,steps=5', 'defense': 'jpeg'}
    >>> parse("fawkes:high,steps=40")
    MethodText(name='fawkes', values={'steps': '40'}, bare='high')
    >>> parse("fawkes:steps=40,steps=20")
    Traceback (most recent call last):
    bench.errors.UsageError: parameter 'steps' is given twice in 'fawkes:steps=40,steps=20'.

    Raises:
        UsageError: empty name, a parameter given twice, a stray text between parameters, or a bracket without its
            partner.
    """
    text = text.strip()
    _outside_brackets(text)  # a bracket without its partner is named in the whole text
    if match := _WEIGHTS_FILE.match(text):
        values, bare = _parameters(match["rest"] or "", text)
        if bare:
            raise UsageError(f"'{bare}' in '{text}' is not of the form parameter=value.")
        return MethodText(match["ending"].lower(), {"path": match["path"], **values})
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
