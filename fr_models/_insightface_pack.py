"""What the recognition networks of insightface's model packs share; each is an ONNX file out of a zip archive.

deepinsight/insightface, python-package: model_zoo/arcface_onnx.py (RGB, (x − 127.5) / 127.5, 112×112), README (packs,
accuracies, licence).
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import torch

from bench.contracts import AssetEntry, BackboneCard, MethodParams, Preprocessing, Recipe, Source
from bench.errors import DataError
from fr_models._onnx_backbone import OnnxBackbone
from fr_models._published import UNTESTED, WeightsParams, locate_weights, noted, warn_misnamed

TERMS = (
    "insightface hands out its models, by hand or automatically, for non-commercial research purposes only "
    "(python-package/README.md)."
)

_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_LARGEST = 1 << 30
"""Bytes that a network of a pack may have; the largest published has 261 million."""

_LOOKED_AT = 8
_CENTRING, _SCALING = ("Sub", "_minus"), ("Mul", "_mul")


def pack_card(
    name: str,
    file: str,
    training_data: str,
    family: str,
    *,
    released: str,
    lfw_accuracy: float | None = None,
    sha256: str = "",
) -> BackboneCard:
    """Return the card of a pack's recognition network.

    Args:
        name: it is registered under.
        file: its name in the pack.
        training_data: as stated.
        family: of backbones that are marked related.
        released: when it was published.
        lfw_accuracy: as stated; None where it is not.
        sha256: as others state it; "" where nobody does.
    """
    return BackboneCard(
        name=name,
        file=f"weights/{name}/{file}",
        sha256=sha256,
        released=released,
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
    """Return where to get a pack's file by hand, in a sentence."""
    return (
        f"Get {file} out of {_RELEASE}/{pack}.zip (the package insightface keeps it as "
        f"~/.insightface/models/{pack}/{file}) and put it there."
    )


def pack_recipe(pack: str, file: str) -> Recipe:
    """Return the way to a pack's file through the pack, of which no digest is stated."""
    source = Source(name=f"{pack}.zip", url=f"{_RELEASE}/{pack}.zip")
    return Recipe(sources=(source,), convert=partial(take_member, member=file))


def take_member(sources: tuple[Path, ...], target: Path, *, member: str) -> None:
    """Write one file of a zip archive; nothing else of it is unpacked, and no path in it is followed.

    Args:
        sources: the archive.
        target: is written.
        member: the file's name, in whatever folder of the archive.

    Raises:
        DataError: it is no zip archive, is damaged, has not exactly one such file, or that is encrypted or too large.
    """
    (archive,) = sources
    try:
        with zipfile.ZipFile(archive) as pack:
            found = [info for info in pack.infolist() if PurePosixPath(info.filename).name == member]
            if len(found) != 1:
                raise DataError(f"{archive} has {len(found)} files '{member}', expected one. Fetch it again.")
            if found[0].file_size > _LARGEST:
                raise DataError(
                    f"'{member}' of {archive} says that it has {found[0].file_size:,} bytes; more than {_LARGEST:,} "
                    "are not unpacked. Fetch it again."
                )
            # It reads no more than the size stated, and compares its checksum at the end.
            with pack.open(found[0]) as unpacked, target.open("wb") as written:
                shutil.copyfileobj(unpacked, written)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}). Fetch it again.") from error


class InsightFacePack(OnnxBackbone):
    """Base of a pack's recognition network; a subclass gives `name`, `card`, `recipes` and `how`.

    Attributes:
        how: where to get the file by hand and where to put it, in a sentence or two.
    """

    core_seconds: ClassVar[float] = 0.15
    paper = "Deng et al., ArcFace, CVPR 2019"
    Params = WeightsParams
    params: WeightsParams
    accuracy_unlike = "insightface does not say how it was measured"
    terms = TERMS

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
        return locate_weights(self, self.params.weights)

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
