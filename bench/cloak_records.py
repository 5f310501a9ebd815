"""What `bench cloak` and `bench erase` write beside the photos: by what, of what and under which key they were made.

Never the key itself. A record is written before the files it names: a file that is there is in the record, so
that a killed command goes on, and no file of somebody else's is ever written over.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from bench.contracts import CROP_SIZE, Frozen
from bench.errors import DataError, UsageError
from bench.photo_folders import Photo, possible_outputs
from bench.store import write_atomically

CLOAKS = "cloaks.json"
ERASED = "erased.json"
FORMAT: Final = 1

PhotoRecordT = TypeVar("PhotoRecordT", bound="PhotoRecord")


class PhotoRecord(Frozen):
    """One photo."""

    source_sha256: str = Field("", description="of the file it was made from; empty: it could not be read")
    output: str = Field("", description="path inside the folder; empty: nothing was written")
    output_sha256: str = Field("", description="of that file")
    replaced_sha256: str = Field("", description="of what lay there before, in case it was not replaced yet")
    reason: str = Field("", description="why nothing was written")

    def is_there(self, folder: Path) -> bool:
        """Say whether what was written is still there as it was written."""
        return bool(self.output) and self._found(folder) == self.output_sha256

    def ours(self, folder: Path) -> str:
        """Return the SHA-256 of what is there if it was written, or was about to be replaced; else ""."""
        found = self._found(folder) if self.output else None
        return found if found is not None and found in {self.output_sha256, self.replaced_sha256} else ""

    def _found(self, folder: Path) -> str | None:
        try:
            return sha256((folder / self.output).read_bytes()).hexdigest()
        except OSError:
            return None


class CloakedPhoto(PhotoRecord):
    """One photo that was to be protected."""

    protected: bool = Field(description="whether what was written is cloaked; nothing else is ever written")


class _Record(Frozen):
    format: Literal[1] = FORMAT
    cloakbench: str = Field(description="version of CloakBench")
    attack: str = Field(description="canonical name")
    key_fingerprint: str = Field("", description="of the key; empty where the attack has none")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the record in a file, None where there is no such file.

        Raises:
            DataError: it is damaged, or of another version.
        """
        try:
            found = json.loads(path.read_bytes())
            version = found.get("format") if isinstance(found, dict) else None
            if version != FORMAT and isinstance(version, int):
                raise DataError(
                    f"{path} is of version {version}, and this CloakBench reads version {FORMAT}. Use the one that "
                    "wrote it."
                )
            return cls.model_validate(found)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. Mend its permissions.") from None
        except (ValueError, ValidationError):
            raise DataError(
                f"{path} is damaged, so that it does not say what these photos are. Restore it, or move it away."
            ) from None

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode(), "another folder")


class CloakRecord(_Record):
    """What a folder of cloaks holds."""

    attack_text: str = Field(description="the attack as it was asked for, files and all")
    code: str = Field(description="digest of the attack's code")
    weights: tuple[str, ...] = Field(description="SHA-256 of each file that decides the cloaks")
    surrogates: tuple[str, ...] = Field(description="backbones the attack used")
    dataset: str = Field(
        description="whose training people it imitated or learnt from, and whose pool it used"
    )
    seed: int
    size: int = Field(CROP_SIZE, description="side of each cloak in pixels")
    photos: dict[str, CloakedPhoto] = Field({}, description="path of the source → what became of it")


class EraseRecord(_Record):
    """What a folder of erased cloaks holds."""

    code: str = Field("", description="digest of the attack's code")
    weights: tuple[str, ...] = Field((), description="SHA-256 of each file that decides what comes off")
    photos: dict[str, PhotoRecord] = Field({}, description="path of the cloak → what became of it")


def check_folders(photos: Path, out: Path) -> None:
    """Check that what is written cannot come among what is read.

    Raises:
        UsageError: one folder is the other, or lies in it, or a file is in the way.
    """
    source, target = photos.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UsageError(
            f"{out} and {photos} are one folder or one lies inside the other, so that what is written would come among "
            "what is read. Name another folder to write to."
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Name a folder to write to.")


def with_free_outputs(photos: Sequence[Photo], made: Mapping[str, PhotoRecord]) -> tuple[Photo, ...]:
    """Return photos with names to write that nothing else in the folder's record has.

    A photo keeps the name it has there; a new one takes none that another photo has or had, so that one file is never
    two photos'.

    Args:
        photos: of a folder, each with the name it would have in an empty one.
        made: the photo → what the record says of it.
    """
    # Some file systems take a.png and A.png for one file.
    taken = {record.output.lower() for record in made.values() if record.output}
    kept = {photo.name: made[photo.name].output for photo in photos if photo.name in made}
    found = []
    for photo in photos:
        output = kept.get(photo.name) or _free(photo, taken)
        taken.add(output.lower())
        found.append(replace(photo, output=output))
    return tuple(found)


def _free(photo: Photo, taken: Collection[str]) -> str:
    for output in (photo.output, *possible_outputs(photo.name)):
        if output.lower() not in taken:
            return output
    raise UsageError(f"every name that {photo.name} could be written to is taken. Rename it.")


def check_outputs(out: Path, wanted: dict[str, str], made: dict[str, PhotoRecordT]) -> None:
    """Check that nothing would be written over but what the same command made.

    Args:
        out: the folder.
        wanted: path inside it → the photo it is to be made from.
        made: the photo → what the folder's record says of it.

    Raises:
        UsageError: names the first file in the way.
    """
    ours = {(record.output, source): record for source, record in made.items() if record.output}
    for output, source in wanted.items():
        path = out / output
        if not (path.exists() or path.is_symlink()):
            continue
        record = ours.get((output, source))
        if path.is_symlink() or record is None or not record.ours(out):
            what = "was changed since it was made" if record else "was not made by this command"
            raise UsageError(
                f"{path} {what} and would be written over. Move it away or name another folder to write to."
            )
