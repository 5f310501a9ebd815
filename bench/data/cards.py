"""Weights of methods with their cards: a ``.safetensors`` and, beside it, a ``.json`` that says how it was made.

Here: reading and checking a card, choosing among the weights that are shipped or a user's own, and keeping what was
read. What a card says beyond that is its method's.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Concatenate, Generic, ParamSpec, TypeVar

import torch
from pydantic import Field, ValidationError

from bench.contracts import Frozen
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError


class WeightsCard(Frozen):
    """How one set of weights was made: what the cards of all trained methods state."""

    file: str = Field(description="name of the weights, beside the card")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the weights")
    domain: str = Field(description="kind of faces it was trained on, e.g. 'real'")
    dataset: str = Field(description="canonical name of the dataset")
    dataset_fingerprint: str = Field(description="digest of everything that decides its crops")
    training_identities: str = Field(description="on whose photos it was trained: '<dataset>/training'")
    parameters: int = Field(ge=1, description="number of trained parameters")
    steps: int = Field(ge=0, description="steps taken before the weights that were kept")
    batch: int = Field(ge=1, description="photos a step")
    trainer: str = Field(description="canonical trainer, with every parameter that is not a default")
    command: str = Field(description="the command that makes the weights again")
    seed: int
    wall_seconds: float = Field(ge=0, description="wall-clock time of the training")
    machine: str = Field(description="device and threads it was measured on")


C = TypeVar("C", bound=WeightsCard)


@dataclass(frozen=True)
class Shelf(Generic[C]):
    """The weights a method comes with, and those a user trained for it.

    Attributes:
        folder: of the weights that are shipped.
        prefix: what their names begin with.
        card: the model of a card.
        trainer: of ``bench train``.
    """

    folder: Path
    prefix: str
    card: type[C]
    trainer: str

    def shipped(self) -> tuple[Path, ...]:
        """Return the weights that are shipped, sorted by name."""
        return tuple(sorted(self.folder.glob(f"{self.prefix}-*.safetensors")))

    def read(self, weights: Path) -> C:
        """Return the card beside `weights`; these need not be there.

        Raises:
            DataError: there is no card, or it is not one of this method.
        """
        path = weights.with_suffix(".json")
        try:
            return self.card.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise DataError(
                f"{weights} has no card: {path.name} is missing beside it. `bench train {self.trainer}` writes both."
            ) from None
        except (ValidationError, ValueError) as error:
            raise DataError(
                f"{path} is not the card of weights by `bench train {self.trainer}`: {error}"
            ) from error

    def checked(self, weights: Path) -> C:
        """Return the card of weights that are there and are those of the card.

        Raises:
            DataError: weights or card are missing, or the digest is another.
        """
        card = self.read(weights)
        if not weights.is_file():
            raise DataError(f"{weights} is missing though its card is there. Train it again: {card.command}")
        if (found := sha256_of(weights)) != card.sha256:
            raise DataError(f"{weights} has SHA-256 {found}, its card says {card.sha256}. Train it again.")
        return card

    def files(self, weights: Path) -> tuple[Path, Path]:
        """Return weights and card, which both decide what the method computes.

        Raises:
            DataError: as `checked`.
        """
        self.checked(weights)
        return weights, weights.with_suffix(".json")

    def own(self, method: str, weights: Path, fits: Callable[[C], bool], unlike: Callable[[C], str]) -> Path:
        """Return weights that the user named for a method, if they fit.

        Args:
            method: who asks, for messages.
            weights: the path given.
            fits: whether weights of a card are what is wanted.
            unlike: says of a card that does not fit what it is for, what was wanted and what to do.

        Raises:
            UsageError: there is no such file, or it does not fit.
            DataError: it has no card.
        """
        if not weights.is_file():
            raise UsageError(f"{method}: weights={weights} is not a file.")
        card = self.read(weights)
        if not fits(card):
            raise UsageError(f"{method}: weights={weights} were trained for {unlike(card)}")
        return weights

    def fitting(self, fits: Callable[[C], bool]) -> tuple[Path, ...]:
        """Return the shipped weights whose cards fit, sorted by name.

        Raises:
            DataError: a card is not one.
        """
        return tuple(path for path in self.shipped() if fits(self.read(path)))

    def described(self, describe: Callable[[C], str]) -> str:
        """Return what is shipped, for messages: each name with its description, or ``none``."""
        return "; ".join(f"{path.stem}: {describe(self.read(path))}" for path in self.shipped()) or "none"


T = TypeVar("T")
P = ParamSpec("P")


def kept(read: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """Keep what a function reads from a file until the file changes; the last eight are kept.

    An attack that knows a purifier asks for its network at every step.

    Args:
        read: of a path and hashable arguments; called where gradients may be recorded later, and for a file that is
            not there, so that it says what is missing.
    """

    def of_content(path: Path, _modified: int, _size: int, *arguments: P.args, **named: P.kwargs) -> T:
        # Weights read where gradients are off could not carry one later.
        with torch.inference_mode(False):
            return read(path, *arguments, **named)

    remembered: Callable[..., T] = lru_cache(maxsize=8)(of_content)

    def kept_read(path: Path, /, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            state = path.stat()
        except OSError:
            return read(path, *arguments, **named)
        return remembered(path, state.st_mtime_ns, state.st_size, *arguments, **named)

    return kept_read
