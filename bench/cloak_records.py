"""What `bench cloak` and `bench erase` write beside the photos: by what, of what and under which key they were made.

Never the key itself. A record is written before the files it names: a file that is there is in the record, so
that a killed command goes on, and no file of somebody else's is ever written over.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from bench.contracts import CROP_SIZE, Frozen
from bench.errors import DataError, UsageError
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
    reason: str = Field("", description="why nothing was written")

    def is_there(self, folder: Path) -> bool:
        """Say whether what was written is still there as it was written."""
        path = folder / self.output
        try:
            return bool(self.output) and sha256(path.read_bytes()).hexdigest() == self.output_sha256
        except OSError:
            return False


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


def check_outputs(out: Path, wanted: dict[str, str], made: dict[str, PhotoRecordT]) -> None:
    """Check that nothing would be written over but what the same command made.

    Args:
        out: the folder.
        wanted: path inside it → the photo it is to be made from.
        made: the photo → what the folder's record says of it.

    Raises:
        UsageError: names the first file in the way.
    """
    ours = {record.output: record for record in made.values() if record.output}
    for output in wanted:
        path = out / output
        if not (path.exists() or path.is_symlink()):
            continue
        record = ours.get(output)
        if path.is_symlink() or record is None or not record.is_there(out):
            what = "was changed since it was made" if record else "was not made by this command"
            raise UsageError(
                f"{path} {what} and would be written over. Move it away or name another folder to write to."
            )
