"""Cards of cloaks that somebody else made: what they declare, and which file is whose cloak.

The card lies beside the images as ``card.json``. `bench import cloaks` writes it, the attack `precomputed` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from bench.contracts import Frozen
from bench.errors import DataError

CARD = "card.json"

F = TypeVar("F", bound=Frozen)


class CloakFile(Frozen):
    """One cloak."""

    file: str = Field(min_length=1, description="path inside the folder, with /")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file")


class CloakCard(Frozen):
    """What is declared of a folder of cloaks."""

    format: Literal[1] = 1
    method: str = Field(min_length=1, max_length=200, description="what made them, as its authors call it")
    paper: str = Field("", description="citation")
    surrogates: tuple[str, ...] = Field(
        (),
        description="recognition networks that took part in making them, by the harness' names where it has them",
    )
    training_identities: str = Field(
        "unknown",
        min_length=1,
        description="on whose photos the method was trained: none, unknown, or as here, e.g. lfw/training",
    )
    constraint: str = Field("", description="the visibility budget, in words and numbers")
    max_linf: float | None = Field(
        None,
        gt=0,
        le=255,
        description="largest change of a pixel that is allowed, grey levels; null: none is declared",
    )
    dataset: str = Field(min_length=1, description="canonical name of the dataset")
    dataset_fingerprint: str = Field(min_length=1, description="digest of everything that decides its crops")
    cloaks: Mapping[str, CloakFile] = Field(min_length=1, description="image id → its cloak")
    targets: Mapping[str, str] = Field(
        default_factory=dict,
        description="image id → identity id that its cloak imitates; empty: they imitate nobody in particular",
    )


def read_card(folder: Path) -> CloakCard:
    """Return the card of a folder of cloaks.

    Raises:
        DataError: there is none, or it is no card.
    """
    fix = f"`bench import cloaks {folder} --crops DIR` checks the images and writes it."
    return read_listing(folder, CARD, CloakCard, fix)


def read_listing(folder: Path, name: str, model: type[F], fix: str) -> F:
    """Return what a JSON file in a folder of images says of them.

    Args:
        folder: of the images.
        name: of the file.
        model: of its content.
        fix: a sentence that says how the file comes about.

    Raises:
        DataError: there is none, or it says something else.
    """
    path = folder / name
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"'{folder}' has no {name} that can be read ({error.strerror}). {fix}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} is not what it should be: {where}: {first['msg']}. {fix}") from error


def cloak_path(folder: Path, entry: CloakFile) -> Path:
    """Return where a cloak lies.

    Raises:
        DataError: the card names a file outside the folder.
    """
    path = (folder / entry.file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(
            f"{folder / CARD} names '{entry.file}', which is not in the folder. Write the card anew."
        )
    return path
