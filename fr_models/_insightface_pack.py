"""What the recognition networks of insightface's model packs share; each is an ONNX file the user brings.

deepinsight/insightface, python-package: model_zoo/arcface_onnx.py (RGB, (x − 127.5) / 127.5, 112×112), README (packs,
accuracies, licence).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from bench.contracts import AssetEntry, BackboneCard, MethodParams, Preprocessing
from bench.errors import DataError
from fr_models._onnx_backbone import OnnxBackbone
from fr_models._published import UNTESTED, WeightsParams, locate_weights, noted, warn_misnamed

_LOOKED_AT = 8
_CENTRING, _SCALING = ("Sub", "_minus"), ("Mul", "_mul")


def pack_card(
    name: str, file: str, training_data: str, family: str, lfw_accuracy: float | None = None
) -> BackboneCard:
    """Return the card of a pack's recognition network."""
    return BackboneCard(
        name=name,
        file=f"weights/{name}/{file}",
        licence="non-commercial research purposes only (insightface, python-package/README.md)",
        source=f"deepinsight/insightface, release v0.7, pack {name.removeprefix('insightface-')}, {file}",
        training_data=training_data,
        family=family,
        embedding_dim=512,
        preprocessing=Preprocessing(mean=127.5, scale=1 / 127.5, channels="RGB"),
        lfw_accuracy=lfw_accuracy,
        embed_with="onnxruntime",
        note=UNTESTED,
    )


def pack_source(pack: str, file: str) -> str:
    """Return where to get a pack's file, in a sentence."""
    return (
        f"Get {file} out of https://github.com/deepinsight/insightface/releases/download/v0.7/{pack}.zip (the package "
        f"insightface keeps it as ~/.insightface/models/{pack}/{file}) and put it there."
    )


class InsightFacePack(OnnxBackbone):
    """Base of a pack's recognition network; a subclass gives `name`, `card` and `how`.

    Attributes:
        how: where to get the file and where to put it, in a sentence or two.
    """

    core_seconds: ClassVar[float] = 0.15
    paper = "Deng et al., ArcFace, CVPR 2019"
    Params = WeightsParams
    params: WeightsParams
    accuracy_unlike = "insightface does not say how it was measured"

    def __init__(self, params: MethodParams | None = None) -> None:
        super().__init__(params)
        self.card = noted(type(self).card, self.params.weights)

    def assets(self) -> tuple[AssetEntry, ...]:
        """Return the entry of the card's file; none where the user gives one of their own."""
        return () if self.params.weights else super().assets()

    def weights_path(self) -> Path:
        """Return the path of the ONNX file.

        Raises:
            DataError: it is missing; the message says where to get it.
        """
        return locate_weights(self.card, self.params.weights, self.how)

    def load(self, device: torch.device) -> None:
        """Read the network and try it once.

        Raises:
            DataError: as `OnnxBackbone.load`; or the graph standardises its pixels itself, as those made by MXNet do.
        """
        warn_misnamed(self.card, self.params.weights)
        path = self.weights_path()
        if standardises(path):
            raise DataError(
                f"{path} subtracts and scales its pixels itself, so it is not the file of '{self.name}'. "
                f"Use it as --backbone {path.name}:mean=0,scale=1,channels=RGB."
            )
        super().load(device)


def standardises(path: Path) -> bool:
    """Say whether a graph standardises its pixels itself, by the rule of insightface's arcface_onnx.py.

    The rule: among the first eight nodes one is called Sub… or _minus…, and one Mul… or _mul….

    Raises:
        DataError: the file is no readable ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (DecodeError, ValueError, OSError) as error:
        raise DataError(f"{path} is no readable ONNX file ({error}). Fetch it again.") from error
    names = [node.name for node in graph.node[:_LOOKED_AT]]
    return any(n.startswith(_CENTRING) for n in names) and any(n.startswith(_SCALING) for n in names)
