"""The card beside a user's ONNX file: read, checked, and brought to the fields of `bench.contracts.BackboneCard`.

Two forms are read: those fields themselves, and those of the JSON files of a data pack (``input_height``,
``channel_order``, ``preprocessing.mean_255``, ``lfw_10fold_accuracy``, …), which say the same by other names. What a
card says twice must agree.

What lives here: texts and numbers. What must not: the network.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts import CROP_SIZE
from bench.errors import DataError
from bench.faces.alignment import TEMPLATE

NAME = re.compile(r"\w[\w .+@()-]{0,63}")
"""What may stand in tables as the name of a user's network."""

_SAME: Mapping[str, tuple[str, ...]] = {
    "input_height": ("preprocessing", "height"),
    "input_width": ("preprocessing", "width"),
    "channel_order": ("preprocessing", "channels"),
    "lfw_10fold_accuracy": ("lfw_accuracy",),
}
"""Field of a data pack → the card's own."""

_SAME_PREPROCESSING: Mapping[str, str] = {"mean_255": "mean", "scale_255": "scale"}

_OF_UNIT_PIXELS = ("mean_01", "std_01")  # the same two, for pixels in [0, 1]

_DESCRIBES = frozenset(
    {
        *(
            "format",
            "bytes",
            "source_sha256",
            "source_claim",
            "architecture",
            "changes_from_source",
            "checks",
        ),
        *("state_dict_file", "state_dict_sha256", "state_dict_vs_onnx_max_abs_diff"),
        *("lfw_10fold_std", "lfw_mean_threshold_cosine", "lfw_10fold_accuracy_with_flip_averaging"),
        *("lfw_protocol", "lfw_accuracy_stated_by_source"),
        *("rank1", "rank1_with_flip_averaging", "rank1_protocol"),
    }
)
"""Fields of a data pack that describe the file's making and its measurements; nothing here depends on them."""

_UNSTATED = "not stated by the source"

_FUSED = "the stated accuracy is of a photo's embedding and its mirror image's, fused"

_CLOSE = 1e-6


def read_user_card(path: Path) -> dict[str, Any]:
    """Return the fields of `bench.contracts.BackboneCard` that a card states, not validated yet.

    Raises:
        DataError: it is not readable JSON, says a thing twice and differently, or holds signs that cannot be shown.
    """
    try:
        text = path.read_text(encoding="utf-8")
        card = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable JSON: {error}.") from error
    if not isinstance(card, dict):
        raise DataError(f"{path} must hold one JSON object with the fields of a backbone card.")
    try:
        return translated(_cleaned(card))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def translated(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card in the fields of `bench.contracts.BackboneCard`, those it does not know left as they are.

    Args:
        card: of either form.

    Raises:
        ValueError: it says a thing twice and differently, or asks for an alignment that crops here do not have.
    """
    fields = {key: value for key, value in card.items() if key not in _DESCRIBES}
    fields = _with_preprocessing(fields)
    for theirs, ours in _SAME.items():
        if theirs in fields:
            _state(fields, ours, fields.pop(theirs), theirs)
    _take_source(fields)
    _take_alignment(fields)
    if fields.pop("flip_averaging", False):
        fields.pop("lfw_accuracy", None)
        fields["note"] = "; ".join(filter(None, (fields.get("note", ""), _FUSED)))
    if fields.get("training_data") == _UNSTATED:
        fields["training_data"] = "unknown"
    return fields


def _with_preprocessing(fields: dict[str, Any]) -> dict[str, Any]:
    stated = fields.get("preprocessing")
    if not isinstance(stated, Mapping):
        return fields
    found = {key: value for key, value in stated.items() if key != "note"}
    fields = {**fields, "preprocessing": found}
    for theirs, ours in _SAME_PREPROCESSING.items():
        if theirs in found:
            _state(fields, ("preprocessing", ours), found.pop(theirs), theirs)
    unit = {key: found.pop(key) for key in _OF_UNIT_PIXELS if key in found}
    if len(unit) == len(_OF_UNIT_PIXELS):
        mean, std = (_positive(unit[key], key) for key in _OF_UNIT_PIXELS)
        _state(fields, ("preprocessing", "mean"), 255 * mean, "mean_01")
        _state(fields, ("preprocessing", "scale"), 1 / (255 * std), "std_01")
    elif unit:
        raise ValueError("give mean_01 and std_01 together, or mean and scale for pixels in 0 … 255")
    return fields


def _positive(value: Any, key: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value < 0
        or (key == "std_01" and value == 0)
    ):
        raise ValueError(f"field '{key}' cannot be {value!r}; it is a number for pixels in [0, 1]")
    return float(value)


def _state(fields: dict[str, Any], place: tuple[str, ...], value: Any, called: str) -> None:
    """Set a field that a card states under another name.

    Raises:
        ValueError: the card states another value under its own name.
    """
    *outer, key = place
    inner = fields.setdefault(outer[0], {}) if outer else fields
    if not isinstance(inner, dict):
        return  # refused for its type where the card is validated
    if key in inner and not _agree(inner[key], value):
        raise ValueError(
            f"'{'.'.join(place)}' is {inner[key]!r} and '{called}' is {value!r}, which are one thing. Keep one of them."
        )
    inner.setdefault(key, value)


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
    return bool(one == other)


def _take_source(fields: dict[str, Any]) -> None:
    """Write repository, commit and path as the one field `source`."""
    parts = [fields.pop(key, "") for key in ("source_repo", "source_commit", "source_path")]
    repository, commit, path = (str(part or "") for part in parts)
    if repository:
        told = ", ".join(filter(None, (f"{repository} @ {commit}" if commit else repository, path)))
        fields.setdefault("source", told)


def _take_alignment(fields: dict[str, Any]) -> None:
    """Turn a template of five points into the crop of ArcFace's 112×112 that has the points there.

    Raises:
        ValueError: no such crop has: the faces would be turned, scaled, or cut off.
    """
    stated = fields.get("alignment")
    if not isinstance(stated, Mapping):
        return
    del fields["alignment"]
    try:
        points = np.array(stated["template_xy"], dtype=np.float64)
        moved = (TEMPLATE - points).mean(axis=0)
        fits = points.shape == TEMPLATE.shape and np.allclose(points + moved, TEMPLATE, atol=0.01)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits or not np.allclose(moved, moved.round(), atol=0.01):
        raise ValueError(
            f"its alignment is '{stated.get('template_name', 'not named')}'; crops here have ArcFace's template on "
            "112×112, or a part of it without scaling. Give the crop that comes nearest as preprocessing.crop, and "
            "leave out alignment."
        )
    left, top = (int(value) for value in moved.round())
    if (left, top) == (0, 0):
        return
    preprocessing = fields.get("preprocessing")
    size = preprocessing if isinstance(preprocessing, Mapping) else {}
    height, width = size.get("height", CROP_SIZE), size.get("width", CROP_SIZE)
    _state(fields, ("preprocessing", "crop"), [top, left, height, width], "alignment.template_xy")


# -- texts -----------------------------------------------------------------------------------------------------------


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"field '{key}' is there twice")
        found[key] = value
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _cleaned(value: Any, where: str = "") -> Any:
    """Return a value of JSON with every run of white space as one space.

    Raises:
        ValueError: a text holds a sign that steers a terminal or turns the direction of writing.
    """
    if isinstance(value, dict):
        return {key: _cleaned(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, where) for item in value]
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    for sign in _unshowable(text):
        raise ValueError(
            f"field '{where}' holds the sign U+{ord(sign):04X}, which cannot be shown. Take it out."
        )
    return text


def _unshowable(text: str) -> Iterator[str]:
    return (sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf", "Cs"))
