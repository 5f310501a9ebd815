"""What `bench cloak`, `purify` and `erase` write beside the photos: by what, of what, under which key they were made.

Never the key itself. A record is written before the files it names, and again when they are there: a file that is
there is in the record, so that a killed command goes on, no file of somebody else's is ever written over, and nothing
is called protected before it is written.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from bench.contracts import CROP_SIZE, Frozen
from bench.errors import DataError, UsageError
from bench.files import write_atomically
from bench.photo_tools.photo_files import SUFFIXES
from bench.photo_tools.photo_folders import Photo, Refusal, possible_ids, read_bytes, without_ending

CLOAKS = "cloaks.json"
ERASED = "erased.json"
PURIFIED = "purified.json"
FORMAT: Final = 1

WEAK = 0.3
"""A photo that shows less than this share of a face's cloak is named."""

PhotoRecordT = TypeVar("PhotoRecordT", bound="PhotoRecord")


class PhotoRecord(Frozen):
    """One photo."""

    source_sha256: str = Field("", description="of the file it was made from; empty: it could not be read")
    output: str = Field("", description="path inside the folder; empty: nothing was written")
    output_sha256: str = Field("", description="of that file")
    replaced_sha256: str = Field("", description="of what lay there before, in case it was not replaced yet")
    reason: str = Field("", description="why nothing was written, or not all")

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


class FaceRecord(Frozen):
    """One face of a whole photo: where it lies, and what of the change is seen there. No pixels."""

    matrix: tuple[float, float, float, float, float, float] = Field(
        description="rows of the 2×3 matrix from pixels of the upright photo to pixels of the crop"
    )
    box: tuple[int, int, int, int] = Field(
        description="left, top, right, bottom of what may have changed, pixels of the upright photo"
    )
    crop_sha256: str = Field(description="of the 112×112×3 bytes of the crop, taken from what was written")
    psnr: float | None = Field(
        description="of that crop against what was to be seen there, dB; absent: equal"
    )
    kept: float | None = Field(
        description="1 − ‖seen − wanted‖ / ‖wanted − original‖ of the crops; absent: nothing was to change"
    )


class CloakedPhoto(PhotoRecord):
    """One photo that was to be protected, or purified."""

    protected: bool = Field(description="whether what was written is cloaked; else it is a copy or nothing")
    copied: bool = Field(False, description="whether it was copied as it is, because no face was found")
    width: int = Field(0, ge=0, description="of the upright photo, pixels; 0: what was written is a crop")
    height: int = Field(0, ge=0, description="likewise")
    faces: tuple[FaceRecord, ...] = Field((), description="of a whole photo, the largest first")
    notes: tuple[str, ...] = Field((), description="what besides the faces is not as it was")
    unfinished: bool = Field(False, description="it is about to be written; a killed command leaves that")

    @property
    def kept(self) -> float | None:
        """The least share of a face's change that is seen; None where it is all, or not said."""
        return min((face.kept for face in self.faces if face.kept is not None), default=None)

    @property
    def is_made(self) -> bool:
        """Whether a changed photo was written, or was about to be."""
        return bool(self.output) and not self.copied


class _Record(Frozen):
    format: Literal[1] = FORMAT
    cloakbench: str = Field(description="version of CloakBench")

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
            raise DataError(f"{path} cannot be read: {error.strerror}. Fix its permissions.") from None
        except (ValueError, ValidationError):
            raise DataError(
                f"{path} is damaged, so that it does not say what these photos are. Restore it, or move it away."
            ) from None

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode(), "another folder to write to")


class MadeRecord(_Record):
    """What a folder of cloaked or purified photos holds."""

    code: str = Field(description="digest of the method's code")
    weights: tuple[str, ...] = Field(description="SHA-256 of each file that decides what it makes")
    dataset: str = Field(
        description="whose training people it imitated or learnt from, and whose pool it used"
    )
    seed: int
    size: int = Field(CROP_SIZE, description="side of each crop in pixels")
    mode: Literal["photos", "crops"] = Field("crops", description="whole photos, or only aligned crops")
    files: str = Field("png", description="format that was requested")
    without_location: bool = Field(False, description="whether the place was taken out of EXIF")
    photos: dict[str, CloakedPhoto] = Field(
        {},
        description="path of the source → what became of it; with `//` and the begin of its SHA-256 behind it for an "
        "earlier photo of this name",
    )

    def of(self, name: str, source_sha256: str) -> CloakedPhoto | None:
        """Return what became of a photo with this content, None where that is not known."""
        for key in (name, earlier(name, source_sha256)):
            if key in self.photos and self.photos[key].source_sha256 == source_sha256:
                return self.photos[key]
        return None

    def settled(self, folder: Path) -> Self:
        """Return the record with what a killed command wrote without saying so."""
        photos = {
            name: one.model_copy(update={"unfinished": False, "protected": not one.copied})
            if one.unfinished and one.is_there(folder)
            else one
            for name, one in self.photos.items()
        }
        return self.model_copy(update={"photos": photos})


def earlier(name: str, source_sha256: str) -> str:
    """Return what an earlier photo of a name is called in a record; no photo can be called so."""
    return f"{name}//{source_sha256[:12]}"


class CloakRecord(MadeRecord):
    """What a folder of cloaks holds."""

    attack: str = Field(description="canonical name")
    key_fingerprint: str = Field("", description="of the key; empty where the attack has none")
    attack_text: str = Field(description="the attack as it was requested, files and all")
    surrogates: tuple[str, ...] = Field(description="backbones the attack used")


class PurifyRecord(MadeRecord):
    """What a folder of purified photos holds."""

    defense: str = Field(description="canonical name")
    defense_text: str = Field(description="the defence as it was requested, files and all")
    extractors: tuple[str, ...] = Field(description="backbones the defence used")


class EraseRecord(_Record):
    """What a folder of erased cloaks holds."""

    attack: str = Field(description="canonical name")
    key_fingerprint: str = Field("", description="of the key; empty where the attack has none")
    code: str = Field("", description="digest of the attack's code")
    weights: tuple[str, ...] = Field((), description="SHA-256 of each file that decides what comes off")
    photos: dict[str, PhotoRecord] = Field({}, description="path of the cloak → what became of it")


def check_folders(photos: Path, out: Path) -> None:
    """Check that what is written cannot come among what is read.

    Args:
        photos: a folder, or one photo.
        out: the folder to write.

    Raises:
        UsageError: one folder is the other, or lies in it, or a file is in the way.
    """
    single = photos.is_file()
    source, target = photos.resolve(), out.resolve()
    if single:
        clash = _same(source.parent, target) or source == target
    else:
        # By the file system's own word too: it may take two spellings for one name.
        clash = any(_same(source, one) for one in (target, *target.parents)) or any(
            _same(target, one) for one in source.parents
        )
    if clash:
        raise UsageError(
            f"{out} and {photos} are one folder or one lies inside the other, so that what is written would come among "
            "what is read. Name another folder to write to."
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Name a folder to write to.")
    if single and out.suffix.lower() in SUFFIXES and not out.is_dir():
        raise UsageError(
            f"{out} is named like a photo, and what is written goes into a folder. Name a folder."
        )


def check_inputs(photos: Sequence[Photo], out: Path) -> None:
    """Check that no photo that is read lies, by way of a link, in the folder to write.

    Raises:
        UsageError: one does.
    """
    target = out.resolve()
    for photo in photos:
        if target in photo.path.resolve().parents:
            raise UsageError(
                f"{photo.path} lies in {out} by way of a link, so that what is written would come among what is read. "
                "Remove the link, or name another folder to write to."
            )


def _same(one: Path, other: Path) -> bool:
    if one == other:
        return True
    try:
        return one.samefile(other)
    except OSError:
        return False


def with_free_outputs(photos: Sequence[Photo], made: Mapping[str, PhotoRecord]) -> tuple[Photo, ...]:
    """Return photos with names to write that nothing else in the folder's record has.

    A photo keeps the name it has there; a new one takes none that another photo has or had, so that one file is never
    two photos'. Of a name that stands for another photo's cloak it is a new one: a second folder's photo, or an edited
    one.

    Args:
        photos: of a folder, each with the name it would have in an empty one.
        made: the photo → what the record says of it.
    """
    # Some file systems take a.png and A.png for one file.
    taken = {without_ending(record.output).lower() for record in made.values() if record.output}
    found = []
    for photo in photos:
        source = _source_beside_a_cloak(photo, made.get(photo.name))
        known = made.get(earlier(photo.name, source) if source else photo.name)
        name = without_ending(known.output) if known else ""
        name = name or _free(photo, taken, (f"{photo.id}-{source[:8]}",) if source else ())
        taken.add(name.lower())
        found.append(replace(photo, output=name + photo.output.removeprefix(photo.id)))
    return tuple(found)


def _source_beside_a_cloak(photo: Photo, known: PhotoRecord | None) -> str:
    """Return the SHA-256 of a photo that is another than the one whose cloak has its name; else ""."""
    if not (isinstance(known, CloakedPhoto) and known.is_made):
        return ""
    try:
        source = sha256(read_bytes(photo.path)).hexdigest()
    except DataError:  # named when it is to be read
        return ""
    return "" if source == known.source_sha256 else source


def _free(photo: Photo, taken: Collection[str], first: Sequence[str] = ()) -> str:
    for name in (*first, photo.id, *possible_ids(photo.name)):
        if name.lower() not in taken:
            return name
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
    inside = out.resolve()
    for output, source in wanted.items():
        path = out / output
        if not path.parent.resolve().is_relative_to(inside):
            raise UsageError(
                f"{path.parent} leads out of {out}. Remove the link, or name another folder to write to."
            )
        if not (path.exists() or path.is_symlink()):
            continue
        record = ours.get((output, source))
        if path.is_symlink() or record is None or not record.ours(out):
            what = "was changed since it was made" if record else "was not made by this command"
            raise UsageError(
                f"{path} {what} and would be written over. Move it away or name another folder to write to."
            )


def without_long_names(photos: Sequence[Photo], out: Path) -> tuple[tuple[Photo, ...], tuple[Refusal, ...]]:
    """Return the photos whose names fit into a folder, and the others with the reason."""
    there = next((one for one in (out.absolute(), *out.absolute().parents) if one.is_dir()), Path.cwd())
    try:
        most = os.pathconf(there, "PC_NAME_MAX")
    except (AttributeError, ValueError, OSError):
        most = 255
    fitting, refused = [], []
    for photo in photos:
        size = max(len(os.fsencode(name)) for path in (photo.output, photo.copy) for name in path.split("/"))
        if size <= most:
            fitting.append(photo)
        else:
            reason = f"it would be written under a name of {size} bytes, and the most is {most}; rename it"
            refused.append(Refusal(photo.name, reason))
    return tuple(fitting), tuple(refused)


def write_made(path: Path, payload: bytes, ours: str) -> None:
    """Write a photo, and never over anything but what the same command made.

    Args:
        path: the file.
        payload: its content.
        ours: SHA-256 of what may be written over; "" where nothing may.

    Raises:
        DataError: something else lies there by now, or the name is too long.
        StoreError: the disk is full or the folder cannot be written.
    """

    def place(temporary: Path, path: Path) -> None:
        try:
            if ours and path.is_file() and sha256(path.read_bytes()).hexdigest() == ours:
                temporary.replace(path)
            else:
                _place_new(temporary, path)
        except FileExistsError:
            raise DataError(
                f"{path} came to be, or was changed, while it was worked on; move it away and give the command again"
            ) from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise DataError(f"the name {path} is too long to be written; rename it") from None

    write_atomically(path, payload, "another folder to write to", place)


def _place_new(temporary: Path, path: Path) -> None:
    """Bring a file to a path at which there is none.

    Raises:
        FileExistsError: there is one.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        with path.open("xb"):  # a file system without links: take the name, then replace what was taken
            pass
        temporary.replace(path)
    else:
        temporary.unlink()
