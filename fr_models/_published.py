"""Backbones from checkpoints that other projects publish, in the layout they publish them in.

What lives here: where the file is looked for, its loading under the publisher's key names, embedding. What
must not: any particular network or key name.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import AssetEntry, Backbone, BackboneCard, Binding, MethodParams, Recipe, Source
from bench.data.checkpoints import read_tensors
from bench.data.files import locate
from bench.errors import DataError
from bench.plugins import factory
from fr_models._layers import fold
from fr_models._torch_network import TorchNetwork

UNTESTED = "untested on the real file"
"""What a card says where its reader was only tested on files of the published layout."""

log = logging.getLogger("bench")

_SHOWN = 3
_COUNTER = "num_batches_tracked"  # of batch norm in training; older files lack it


class WeightsParams(MethodParams):
    """Parameters of every backbone whose file the user brings."""

    weights: str = Field(
        "",
        description="the file; where its card says, inside the data folder, when empty",
        json_schema_extra={"path": True},
    )


def noted(card: BackboneCard, given: str) -> BackboneCard:
    """Return a card that says what `weights` leaves to the user's word.

    Args:
        card: of the file that the parameters name.
        given: the parameter ``weights``, or "".
    """
    if not given:
        return card
    called = misnamed(card, given)
    word = "what the file of weights= was trained on is the user's word"
    # Its digest is not the card's: the file is known by its own.
    update = {"note": "; ".join(filter(None, (card.note, word, called))), "sha256": "", "equivalents": ()}
    return card.model_copy(update=update)


def misnamed(card: BackboneCard, given: str) -> str:
    """Return what is odd about a file's name, "" where it has the publisher's; a converted file keeps its stem."""
    name, published = Path(given).name, PurePosixPath(card.file).name
    if not given or Path(name).stem == PurePosixPath(published).stem:
        return ""
    return f"its name is {name}, the publisher's is {published}"


def warn_misnamed(card: BackboneCard, given: str) -> None:
    """Log that a file has another name than its publisher gives it: a sister of the network would load too."""
    if called := misnamed(card, given):
        log.warning(
            "%s: %s; depth and training data are as the parameters say, not as the file does",
            card.name,
            called,
        )


def locate_weights(backbone: Backbone, given: str) -> Path:
    """Return the file of a backbone whose publisher's file it is.

    Args:
        backbone: its card says where in the data folder it is looked for.
        given: the path a user gave instead, or "".

    Raises:
        DataError: there is no such file, or it is another than its card's; the message says how to get it.
    """
    card = backbone.card
    fix = (
        f"Run 'bench fetch {card.name}', or do so by hand: {backbone.how}"
        if backbone.recipes
        else backbone.how
    )
    if not given:
        return locate(
            card.file, card.sha256, equivalents=card.equivalents, fix=f"{fix} Or give weights=FILE."
        )
    path = Path(given).expanduser()
    if not path.is_file():
        raise DataError(f"{path} is not a file. {fix}")
    return path


def as_published(url: str) -> Recipe:
    """Return the recipe of a file that is used as its publisher hands it out, who states no digest of it."""
    return Recipe(sources=(Source(name=PurePosixPath(url).name, url=url),))


def fitted(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, what: str
) -> dict[str, Tensor]:
    """Return the tensors of a file that a network needs, as float32 where they are numbers with a point.

    Args:
        tensors: of the file, by the publisher's names.
        wanted: of the network, by the same names.
        path: the file, for messages.
        what: the network, for messages.

    Raises:
        DataError: tensors are missing, are of another shape, or are not the network's; the message names them.
    """
    needed = {name: value for name, value in wanted.items() if not name.endswith(_COUNTER)}
    found = {name: value for name, value in tensors.items() if not name.endswith(_COUNTER)}
    if missing := [name for name in needed if name not in found]:
        raise DataError(
            f"{path} is not {what}: it lacks {_some(missing)}. Give the file that its card names."
        )
    if extra := [name for name in found if name not in needed]:
        raise DataError(
            f"{path} is not {what}: it has {_some(extra)} too. Give the file that its card names."
        )
    odd = [n for n, value in needed.items() if value.shape != found[n].shape]
    if odd:
        shapes = f"{odd[0]} is {_shape(found[odd[0]])}, expected {_shape(needed[odd[0]])}"
        raise DataError(f"{path} is not {what}: {shapes}. Give the file that its card names.")
    counters = {name: value for name, value in wanted.items() if name.endswith(_COUNTER)}
    return counters | {name: _as_float32(found[name]) for name in needed}


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _shape(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a single number"


def _as_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


class CheckpointBackbone(TorchNetwork):
    """Base of backbones from a published checkpoint.

    A subclass gives `name`, `card` (of its default parameters), `how`, the network and the publisher's key names.

    Attributes:
        how: where to get the file and where to put it, in a sentence or two.
    """

    core_seconds: ClassVar[float] = 0.15
    Params = WeightsParams
    params: WeightsParams

    def __init__(self, params: MethodParams | None = None) -> None:
        super().__init__(params)
        card = noted(self.make_card(), self.params.weights)
        # Tables and trainers tell backbones apart by this name, so it says which parameters were given.
        self.card = card.model_copy(update={"name": factory.canonical(self)})

    def make_card(self) -> BackboneCard:
        """Return the card of the file that the parameters name."""
        return type(self).card

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the network, with weights as torch draws them."""

    @abstractmethod
    def published_names(self, network: nn.Module) -> Mapping[str, str]:
        """Return the network's own name of each tensor → the publisher's name of it, without `prefix`."""

    def own_tensors(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return those tensors of a file that are the network's, under the publisher's names without prefix."""
        return tensors

    def assets(self) -> tuple[AssetEntry, ...]:
        """Return the entry of the card's file; none where the user gives one of their own."""
        return () if self.params.weights else super().assets()

    def weights_path(self) -> Path:
        """Return the path of the checkpoint.

        Raises:
            DataError: it is missing; the message says where to get it.
        """
        return locate_weights(self, self.params.weights)

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the checkpoint: its digest enters the key."""
        del binding
        return (self.weights_path(),)

    def read(self) -> nn.Module:
        """Return the network as published, on the CPU, in training mode.

        Raises:
            DataError: the file is missing, cannot be read, or is not of this network.
        """
        path = self.weights_path()
        network = self.build()
        names = self.published_names(network)
        state = network.state_dict()
        wanted = {names[own]: value for own, value in state.items() if own in names}
        given = fitted(
            self.own_tensors(read_tensors(path)), wanted, path, f"the network of '{self.card.name}'"
        )
        network.load_state_dict(state | {own: given[published] for own, published in names.items()})
        return network

    def load(self, device: torch.device) -> None:
        """Read the network, with its batch norm folded.

        Raises:
            DataError: the file is missing, cannot be read, or is not of this network.
        """
        warn_misnamed(self.card, self.params.weights)
        network = fold(self.read().eval())
        self._network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
