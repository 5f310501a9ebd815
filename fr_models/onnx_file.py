"""Any ONNX network as a backbone: ``--backbone model.onnx``, its card beside it or its preprocessing inline.

The card is ``model.json`` beside ``model.onnx`` with the fields of `bench.contracts.BackboneCard`; name, licence and
embedding_dim may be missing. Parameters given inline override it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from bench.contracts import BackboneCard, Binding, MethodParams, Preprocessing
from bench.errors import DataError, UsageError
from fr_models._onnx_backbone import OnnxBackbone
from fr_models._onnx_file import digest_of, load_model
from fr_models._onnx_graph import embedding_output

_PREPROCESSING = ("height", "width", "crop", "mean", "scale", "channels")
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
        self.card = self._make_card()

    @property
    def card_path(self) -> Path:
        """Where the card is looked for."""
        return self._path.with_suffix(".json")

    def weights_path(self) -> Path:
        """Return the path of the ONNX file.

        Raises:
            DataError: it is not the one its card names by SHA-256.
        """
        if self.card.sha256 and (found := digest_of(self._path)) != self.card.sha256:
            raise DataError(
                f"{self._path} has SHA-256 {found}, its card says {self.card.sha256}. Fix {self.card_path}."
            )
        return self._path

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the ONNX file and, where there is one, its card: their digests enter the key."""
        card = (self.card_path,) if self.card_path.is_file() else ()
        return (*super().files(binding), *card)

    def _make_card(self) -> BackboneCard:
        given = self._read_card() if self.card_path.is_file() else None
        inline = {key: getattr(self.params, key) for key in _PREPROCESSING}
        inline = {key: value for key, value in inline.items() if value is not None}
        if self.params.scale is not None:
            inline["scale"] = 1 / self.params.scale  # a card states the factor, an identity the divisor
        if not inline and "preprocessing" not in (given or {}):
            lacks = "no card" if given is None else f"no preprocessing in its card {self.card_path}"
            raise UsageError(f"{self._path} has {lacks}. " + _HOW.format(card=self.card_path))
        fields: dict[str, Any] = {"licence": "not stated", **(given or {})}
        fields["name"] = self.params.label or fields.get("name") or self._path.stem
        for key in ("licence", "domain", "family", "embedding_dim", "embed_with"):
            if value := getattr(self.params, key):
                fields[key] = value
        fields["file"] = self._path.name
        # Known by its content, so that a renamed copy of a surrogate is seen to be one.
        fields["sha256"] = fields.get("sha256") or digest_of(self._path)
        if "embedding_dim" not in fields:
            fields["embedding_dim"] = self._stated_dimension()
        try:
            stated = Preprocessing.model_validate(fields.get("preprocessing", {}))
            fields["preprocessing"] = Preprocessing.model_validate({**stated.model_dump(), **inline})
            return BackboneCard.model_validate(fields)
        except ValidationError as error:
            raise DataError(
                f"{self.card_path}: {_first(error)} " + _HOW.format(card="the card anew")
            ) from error

    def _read_card(self) -> dict[str, Any]:
        try:
            card = json.loads(self.card_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.card_path} is not readable JSON: {error}.") from error
        if not isinstance(card, dict):
            raise DataError(f"{self.card_path} must hold one JSON object with the fields of a backbone card.")
        return card

    def _stated_dimension(self) -> int:
        """Return the length of the embedding as the ONNX file states it; reads no outside weights."""
        graph = load_model(self._path, weights=False).graph
        shape = embedding_output(graph, self._path).type.tensor_type.shape.dim
        while len(shape) > 2 and shape[-1].dim_value == 1:
            shape = shape[:-1]
        if len(shape) != 2 or shape[1].dim_value <= 0:
            raise DataError(
                f"{self._path} does not state the length of its embedding. "
                f"Give embedding_dim=N, inline or in {self.card_path}."
            )
        return int(shape[1].dim_value)


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    where = ".".join(str(part) for part in item["loc"]) or "card"
    return f"field '{where}' cannot be {item['input']!r}: {item['msg']}."
