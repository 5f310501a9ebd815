"""Any ONNX network as a backbone: ``--backbone model.onnx``, its card beside it or its preprocessing inline.

The card is ``model.json`` beside ``model.onnx`` with the fields of `bench.contracts.BackboneCard`, or those of a data
pack (`fr_models._user_card`); name, licence and embedding_dim may be missing. Parameters given inline override it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from bench.contracts import BackboneCard, Binding, MethodParams, Preprocessing
from bench.errors import DataError, UsageError
from bench.plugins import registry
from fr_models._onnx_backbone import OnnxBackbone
from fr_models._onnx_file import digest_of, load_model
from fr_models._onnx_graph import embedding_output
from fr_models._user_card import NAME, read_user_card

_PREPROCESSING = ("height", "width", "crop", "mean", "scale", "channels")
_DIGITS = 8
"""Hex digits that tell two networks of one name apart."""

_HOW = (
    "Say how it wants its pixels: give for instance mean=127.5,scale=128,channels=RGB (also height, width, "
    'crop) after the path, or write {card} beside it, e.g. {{"licence": "MIT", "preprocessing": {{"mean": 127.5, '
    '"scale": 0.0078125, "channels": "RGB"}}}}.'
)


class OnnxFile(OnnxBackbone):
    """A backbone from a user's ONNX file; written ``model.onnx:mean=127.5,scale=128``."""

    name = "onnx"

    class Params(MethodParams):
        """Parameters of a backbone from a file; what is not given comes from the card."""

        path: str = Field("", description="the ONNX file", json_schema_extra={"path": True})
        height: int | None = Field(
            None, ge=16, le=1024, description="input height", json_schema_extra={"unit": "pixels"}
        )
        width: int | None = Field(
            None, ge=16, le=1024, description="input width", json_schema_extra={"unit": "pixels"}
        )
        crop: tuple[int, int, int, int] | None = Field(
            None,
            description="top|left|height|width taken from the 112×112 crop",
            json_schema_extra={"unit": "pixels"},
        )
        mean: float | None = Field(
            None, ge=0, le=255, description="subtracted", json_schema_extra={"unit": "grey levels"}
        )
        scale: float | None = Field(
            None,
            gt=0,
            description="divided by after the mean is subtracted: (255·x − mean) / scale",
            json_schema_extra={"unit": "grey levels"},
        )
        channels: Literal["RGB", "BGR"] | None = Field(None, description="channel order of the input")
        embedding_dim: int | None = Field(None, gt=0, description="length of the embedding")
        label: str = Field("", description="name in tables; the file's name when empty")
        licence: str = Field("", description="licence of the weights")
        domain: str = Field("", description="kind of faces it was trained for; real when empty")
        family: str = Field("", description="backbones of one family are marked related")
        embed_with: Literal["torch", "onnxruntime"] | None = Field(
            None, description="what computes embeddings on a CPU; gradients always come from torch"
        )

    params: Params
    required = ("path",)

    def __init__(self, params: MethodParams | None = None) -> None:
        """Make the card.

        Raises:
            UsageError: no path, or neither a card nor preprocessing parameters.
            DataError: the file or its card cannot be read.
        """
        super().__init__(params)
        if not self.params.path:
            raise UsageError("backbone 'onnx' needs a file: onnx:path=model.onnx, or simply model.onnx.")
        self._path = Path(self.params.path).expanduser()
        if not self._path.is_file():
            raise DataError(f"{self._path} is not a file. Give the path of an ONNX network.")
        self._refuse_label()
        self._own_card = read_user_card(self.card_path) if self.card_path.is_file() else {}
        self.card = self._make_card()

    @property
    def given_name(self) -> str:
        """The label, else the card's name, else the file's with the first digits of its digest."""
        return self.card.name

    @property
    def card_path(self) -> Path:
        """Where the card is looked for."""
        return self._path.with_suffix(".json")

    def weights_path(self) -> Path:
        """Return the path of the ONNX file.

        Raises:
            DataError: it is not the one its card names by SHA-256.
        """
        wanted = self._own_card.get("sha256")
        if wanted and (found := digest_of(self._path)) not in (wanted, *self.card.equivalents):
            raise DataError(
                f"{self._path} has SHA-256 {found}, its card says {wanted}. Fix {self.card_path}."
            )
        return self._path

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the ONNX file, those beside it that hold its weights, and its card: their digests enter the key."""
        card = (self.card_path,) if self.card_path.is_file() else ()
        return (*super().files(binding), *card)

    def _refuse_label(self) -> None:
        label = self.params.label
        if label and not NAME.fullmatch(label):
            raise UsageError(
                f"label='{ascii(label)[1:-1]}' cannot stand in a table; use up to 64 letters, digits, spaces and "
                "any of '. _ - + @ ( )'."
            )
        if label in registry.BACKBONES.entries():
            raise UsageError(
                f"label={label} is the name of a registered backbone, which a table would take it for. Give another."
            )

    def _make_card(self) -> BackboneCard:
        given = self._own_card
        inline = {key: getattr(self.params, key) for key in _PREPROCESSING}
        inline = {key: value for key, value in inline.items() if value is not None}
        if self.params.scale is not None:
            inline["scale"] = 1 / self.params.scale  # a card states the factor, an identity the divisor
        if not inline and "preprocessing" not in given:
            lacks = f"no preprocessing in its card {self.card_path}" if given else "no card"
            raise UsageError(f"{self._path} has {lacks}. " + _HOW.format(card=self.card_path))
        fields: dict[str, Any] = {"licence": "not stated", **given}
        for key in ("licence", "domain", "family", "embedding_dim", "embed_with"):
            if value := getattr(self.params, key):
                fields[key] = value
        fields["file"] = self._path.name
        # Known by its content, so that a renamed copy of a surrogate is seen to be one.
        fields["sha256"] = digest_of(self._path)
        if "embedding_dim" not in fields:
            fields["embedding_dim"] = self._stated_dimension()
        try:
            stated = Preprocessing.model_validate(fields.get("preprocessing", {}))
            fields["preprocessing"] = Preprocessing.model_validate({**stated.model_dump(), **inline})
            fields["name"] = self._name(fields, overridden=bool(inline))
            return BackboneCard.model_validate(fields)
        except ValidationError as error:
            raise DataError(
                f"{self.card_path}: {_first(error)} " + _HOW.format(card="the card anew")
            ) from error

    def _name(self, fields: Mapping[str, Any], *, overridden: bool) -> str:
        """Return what tables call it: two networks never look alike that their user did not call alike.

        Where neither label nor card gives a name, the card's is a registered backbone's, or what the card says is
        overridden, digits of a digest over the file and its preprocessing follow: another mean, other embeddings.

        Raises:
            DataError: the card's name cannot stand in a table.
        """
        if self.params.label:
            return self.params.label
        called = fields.get("name") or ""
        if called and not (isinstance(called, str) and NAME.fullmatch(called)):
            raise DataError(
                f"{self.card_path}: the name {called!a} cannot stand in a table; use up to 64 letters, digits, "
                "spaces and any of '. _ - + @ ( )', or give label=NAME."
            )
        if called and not overridden and called not in registry.BACKBONES.entries():
            return str(called)
        parts = (
            fields["sha256"],
            fields["preprocessing"].model_dump_json(),
            fields.get("embed_with", "torch"),
        )
        digits = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:_DIGITS]
        return f"{called or _shown(self._path.stem)}@{digits}"

    def _stated_dimension(self) -> int:
        """Return the length of the embedding as the ONNX file states it; reads no outside weights.

        Raises:
            DataError: it is no readable ONNX file, states no length, or its output is no N×D.
        """
        graph = load_model(self._path, weights=False).graph
        shape = embedding_output(graph, self._path).type.tensor_type.shape.dim
        while len(shape) > 2 and shape[-1].dim_value == 1:
            shape = shape[:-1]
        if len(shape) > 2:
            sizes = "×".join(str(axis.dim_value or "N") for axis in shape)
            raise DataError(
                f"{self._path} gives {sizes} where N×D is wanted. Flatten its output (in torch: x.flatten(1)) and "
                "export it again."
            )
        if len(shape) != 2 or shape[1].dim_value <= 0:
            raise DataError(
                f"{self._path} does not state the length of its embedding. "
                f"Give embedding_dim=N, inline or in {self.card_path}."
            )
        return int(shape[1].dim_value)


def _shown(stem: str) -> str:
    """Return a file's name without what cannot stand in a table."""
    shown = "".join(sign if NAME.fullmatch(f"x{sign}") else "_" for sign in stem)[:40]
    return shown if NAME.fullmatch(shown) else f"x{shown}"


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    where = ".".join(str(part) for part in item["loc"]) or "card"
    return f"field '{where}' cannot be {item['input']!r}: {item['msg']}."
