"""Changing the faces of photos and writing what comes of it: what `cloaking` and `purifying` share.

Each photo is written whole and changed, copied as it is where it shows no face, or not at all; the record is written
before the files it names, and again when they are there. What must not be here: what changes faces, and whether it may.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.contracts import Context
from bench.errors import BenchError, DataError, MethodError
from bench.faces.alignment import Pixels as Image
from bench.faces.paste_back import Place, paste_back_all, take_crop
from bench.faces.pixels import Pixels
from bench.faces.whole_photo import PhotoFile
from bench.files import StoreError
from bench.photo_tools import photo_files
from bench.photo_tools.photo_files import Format
from bench.photo_tools.photo_folders import (
    FacedPhoto,
    Photo,
    Refusal,
    png,
    read_again,
    read_bytes,
    read_crop,
    read_faces,
)
from bench.photo_tools.records import WEAK, CloakedPhoto, FaceRecord, MadeRecord, earlier, write_made

log = logging.getLogger("bench")

RecordT = TypeVar("RecordT", bound=MadeRecord)

Mode = Literal["photos", "crops"]

NO_FACE = "no face was found; it was copied as it is"


@dataclass(frozen=True)
class Written:
    """How photos are written.

    Attributes:
        mode: whole photos, or the aligned crop of the largest face alone, as PNG.
        files: in which format; of whole photos only.
        without_location: whether the place is taken out of EXIF; likewise.
    """

    mode: Mode = "photos"
    files: Format = "keep"
    without_location: bool = False

    def ending(self, path: Path) -> str:
        """Return the file name ending of what is written of a photo."""
        return ".png" if self.mode == "crops" else photo_files.kind_of(path, self.files)[1]


@dataclass(frozen=True)
class Edit:
    """What changes faces.

    Attributes:
        name: canonical, for messages.
        by_person: whether all photos of a person are changed, and can be lost, together.
        change: takes faces and returns those it changed.
        must_change: whether a face that is left as it is means that the photo may not be written.
        hide: takes secrets out of a text.
    """

    name: str
    by_person: bool
    change: Callable[[Pixels, Context], Pixels]
    must_change: bool = True
    hide: Callable[[str], str] = lambda text: text

    def attempt(self, faces: Pixels, ctx: Context) -> Pixels | str:
        """Return the changed faces, or why the method failed on them.

        Raises:
            BenchError: weights or data are missing, which fails every photo alike.
        """
        try:
            return self.change(faces, ctx)
        except MethodError as error:
            return self.hide(str(error))
        except BenchError as error:
            error.args = (self.hide(str(error)),)
            raise
        except Exception as error:
            log.error("%s failed\n%s", self.name, self.hide(traceback.format_exc()))
            return self.hide(f"{self.name} failed on it: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Made:
    """A file to write, with what the record says of it."""

    photo: Photo
    payload: bytes
    record: CloakedPhoto


def pending(
    photos: Sequence[Photo],
    record: MadeRecord,
    out: Path,
    *,
    by_person: bool,
    alone: Collection[str] = frozenset(),
) -> tuple[Photo, ...]:
    """Return the photos that are not done; all of a person's where they are changed together.

    Args:
        photos: of a folder.
        record: of the folder to write.
        out: that folder.
        by_person: whether a person's photos are changed together.
        alone: people of whom that does not hold.
    """
    waiting = [photo for photo in photos if not _is_done(photo, record, out)]
    people = {photo.person for photo in waiting if by_person} - set(alone)
    return tuple(photo for photo in photos if photo in waiting or photo.person in people)


def _is_done(photo: Photo, record: MadeRecord, out: Path) -> bool:
    try:
        known = record.of(photo.name, sha256(read_bytes(photo.path)).hexdigest())
    except DataError:
        return False
    return (
        known is not None
        and known.is_there(out)
        and known.output == (photo.copy if known.copied else photo.output)
        and (known.protected or known.copied)
    )


def copies(photos: Sequence[Photo], record: MadeRecord) -> tuple[Photo, ...]:
    """Return the photos that were copied as they are."""
    return tuple(photo for photo, one in _recorded(photos, record) if one.copied)


def notes(photos: Sequence[Photo], record: MadeRecord) -> tuple[Refusal, ...]:
    """Return the photos that are not as they were in something else than their faces, and in what."""
    return tuple(
        Refusal(photo.name, "; ".join(one.notes)) for photo, one in _recorded(photos, record) if one.notes
    )


def weak(photos: Sequence[Photo], record: MadeRecord) -> tuple[Refusal, ...]:
    """Return the photos that show less than `WEAK` of what was to change in a face, and how much."""
    found = []
    for photo, one in _recorded(photos, record):
        if one.kept is not None and one.kept < WEAK:
            which = "" if len(one.faces) == 1 else f" in the faintest of its {len(one.faces)} faces"
            found.append(
                Refusal(photo.name, f"{int(100 * max(0.0, one.kept))}% of the change is left{which}")
            )
    return tuple(found)


def _recorded(photos: Sequence[Photo], record: MadeRecord) -> Iterator[tuple[Photo, CloakedPhoto]]:
    """Yield what was written of photos, in their order."""
    by_output = {one.output: one for one in record.photos.values() if one.output}
    for photo in photos:
        known = by_output.get(photo.output) or by_output.get(photo.copy)
        if known is not None:
            yield photo, known


class OutFolder(Generic[RecordT]):
    """The folder to write, and what became of each photo so far.

    Attributes:
        record: what is written beside the photos.
        changed: photos that were written.
        copied: photos without a face, written as they are.
        refused: what was not written, with the reasons.
        detected: how many crops were cut out of a larger photo.
    """

    def __init__(self, path: Path, record_file: str, record: RecordT, edit: Edit, how: Written) -> None:
        self.path = path
        self.record = record
        self.changed: list[Photo] = []
        self.copied: list[Photo] = []
        self.refused: list[Refusal] = []
        self.detected = 0
        self._record_file = record_file
        self._edit = edit
        self._how = how

    def read(self, photos: Sequence[Photo]) -> list[FacedPhoto]:
        """Return the photos with a face; those without are copied, or named where only crops are written."""
        found = []
        read = read_faces if self._how.mode == "photos" else read_crop
        for photo in photos:
            try:
                faced = read(photo)
            except DataError as error:
                self._refuse(photo, "", str(error))
                continue
            if faced.crops:
                found.append(faced)
            else:
                self._copy(faced)
        return found

    def edit(self, faced: Sequence[FacedPhoto], ctx: Context) -> None:
        """Change the faces of photos that belong together, and write those where that went well."""
        if not faced:
            return
        changed = self._edit.attempt(faces_of(faced), ctx)
        if isinstance(changed, Pixels):
            self._write(faced, changed)
        elif len(faced) > 1 and not self._edit.by_person:  # one photo's failure is not the others'
            for one in faced:
                self.edit([one], ctx)
        else:
            for one in faced:
                self._refuse(one.photo, one.sha256, changed)

    def _write(self, faced: Sequence[FacedPhoto], changed: Pixels) -> None:
        rows = {name: row for row, name in enumerate(changed.ids)}
        made: list[_Made] = []
        for one in faced:
            names = one.photo.face_ids(len(one.crops))
            wanted = [
                changed.images[rows[name]] if name in rows else crop
                for name, crop in zip(names, one.crops, strict=True)
            ]
            left = sum(torch.equal(new, old) for new, old in zip(wanted, one.crops, strict=True))
            if left and self._edit.must_change:
                which = "it" if left == len(wanted) else f"{left} of its {len(wanted)} faces"
                be = "it is" if left == len(wanted) else "they are"
                self._refuse(one.photo, one.sha256, f"the attack left {which} as {be}")
                continue
            try:
                made.append(self._made(one, wanted))
            except DataError as error:
                self._refuse(one.photo, one.sha256, str(error))
                continue
            self.detected += self._how.mode == "crops" and not one.is_crop
        self._put(made)

    def _put(self, made: Sequence[_Made]) -> None:
        """Write files, recorded before: whatever lies in the folder is in the record; and recorded as done after."""
        before = dict(self.record.photos)
        begun = {"protected": False, "unfinished": True}
        self._note({file.photo.name: file.record.model_copy(update=begun) for file in made})
        done: dict[str, CloakedPhoto] = {}
        failed: list[tuple[_Made, str]] = []
        try:
            for file in made:
                record = file.record
                try:
                    write_made(self.path / record.output, file.payload, record.replaced_sha256)
                except DataError as error:
                    failed.append((file, str(error)))
                    continue
                done[file.photo.name] = record
                self._remove_old_copy(before.get(file.photo.name), record)
                (self.copied if record.copied else self.changed).append(file.photo)
        finally:
            self.record = self.record.model_copy(update={"photos": before})
            # Where the disk is full the record that stands calls nothing protected that is not.
            with contextlib.suppress(*(() if len(done) == len(made) else (StoreError,))):
                self._note(done)
        for file, reason in failed:
            self._refuse(file.photo, file.record.source_sha256, reason)

    def _remove_old_copy(self, old: CloakedPhoto | None, new: CloakedPhoto) -> None:
        """Remove the unchanged copy that an earlier call made of what is written under another name now.

        Raises:
            StoreError: it cannot be removed.
        """
        if old is None or not old.copied or old.output == new.output or not old.ours(self.path):
            return
        path = self.path / old.output
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{path} is an unchanged copy of a photo that is written beside it, and cannot be removed: "
                f"{error.strerror}. Remove it, then run the same command again."
            ) from error

    def _made(self, faced: FacedPhoto, wanted: Sequence[Tensor]) -> _Made:
        photo = faced.photo
        if self._how.mode == "crops":
            payload = png(wanted[0])
            return _Made(photo, payload, self._record_of(photo, faced.sha256, payload))
        content = read_again(faced)
        if self._how.without_location:
            content = photo_files.without_location(content)
        images = [image.permute(1, 2, 0).numpy() for image in wanted]
        places = faced.places
        paste_back_all(content, places, images)
        kind = photo_files.kind_by_suffix(Path(photo.output).suffix)
        assert kind is not None, "outputs have endings of what is written"
        payload, notes = photo_files.encode(content, kind), photo_files.notes_as(content, kind)
        if kind == "JPEG":  # what is seen is what is left of it; a large photo must not be held twice
            del content
            seen = photo_files.read(payload)
        else:
            seen = content
        height, width = seen.upright().shape[:2]
        record = self._record_of(photo, faced.sha256, payload).model_copy(
            update={
                "width": width,
                "height": height,
                "notes": notes,
                "faces": tuple(
                    face_record(seen, place, image, crop.permute(1, 2, 0).numpy())
                    for place, image, crop in zip(places, images, faced.crops, strict=True)
                ),
            }
        )
        self._check_kept(record)
        return _Made(photo, payload, record)

    def _check_kept(self, record: CloakedPhoto) -> None:
        """Check that something of the cloak is left in every face; a purified face may look as it did.

        Raises:
            DataError: in one nothing is.
        """
        if self._edit.must_change and record.kept is not None and record.kept <= 0:
            raise DataError(
                f"nothing of the cloak would be left in a face (a share of {record.kept:.2f}): the face is too small, "
                "or the cloak too faint for the format. Take a larger photo, --format png or a stronger attack"
            )

    def _record_of(self, photo: Photo, source: str, payload: bytes, *, copied: bool = False) -> CloakedPhoto:
        output = photo.copy if copied else photo.output
        there = (old.ours(self.path) for old in self.record.photos.values() if old.output == output)
        return CloakedPhoto(
            protected=not copied,
            copied=copied,
            reason=NO_FACE if copied else "",
            source_sha256=source,
            output=output,
            output_sha256=sha256(payload).hexdigest(),
            replaced_sha256=next(filter(None, there), ""),
        )

    def _copy(self, faced: FacedPhoto) -> None:
        photo = faced.photo
        try:
            payload = read_bytes(photo.path)
        except DataError as error:
            self._refuse(photo, faced.sha256, str(error))
            return
        if sha256(payload).hexdigest() != faced.sha256:
            self._refuse(photo, faced.sha256, "it was changed while it was worked on; give the command again")
            return
        changed: tuple[str, ...] = ()
        if self._how.without_location:
            try:
                payload, changed = photo_files.copy_without_location(payload)
            except DataError as error:
                self._refuse(photo, faced.sha256, str(error))
                return
        record = self._record_of(photo, faced.sha256, payload, copied=True)
        self._put([_Made(photo, payload, record.model_copy(update={"notes": changed}))])

    def _refuse(self, photo: Photo, source_sha256: str, reason: str) -> None:
        """Note that nothing was written of a photo; what was made of it earlier stays, with its record."""
        old = self.record.photos.get(photo.name)
        record = CloakedPhoto(protected=False, source_sha256=source_sha256, reason=reason)
        if old is not None and old.ours(self.path):
            same = old.source_sha256 == source_sha256 and old.is_there(self.path)
            state = "this photo" if same else "an earlier state of the photo"
            what = "the cloak" if self._edit.must_change else "what was made"
            what = "an unchanged copy" if old.copied else what
            reason = f"{reason}; {self.path / old.output} stays, {what} of {state}"
            record = old.model_copy(update={"reason": reason})
        self.refused.append(Refusal(photo.name, reason))
        self._note({photo.name: record})

    def _note(self, photos: Mapping[str, CloakedPhoto]) -> None:
        """Write the record with these photos; cloaks of other photos of their names stay in it."""
        all_photos = dict(self.record.photos)
        for name, new in photos.items():
            old = all_photos.get(name)
            all_photos.pop(earlier(name, new.source_sha256), None)
            if (
                old is not None
                and old.is_made
                and (old.source_sha256, old.output) != (new.source_sha256, new.output)
            ):
                all_photos[earlier(name, old.source_sha256)] = old
            all_photos[name] = new
        self.record = self.record.model_copy(update={"photos": all_photos})
        self.record.write(self.path / self._record_file)

    def settle(self) -> None:
        """Record what a killed command wrote without saying so."""
        settled = self.record.settled(self.path)
        if settled != self.record:
            self.record = settled
            self.record.write(self.path / self._record_file)


def faces_of(faced: Sequence[FacedPhoto]) -> Pixels:
    """Return all faces of photos, with their ids and people.

    Raises:
        DataError: two have one id, so that one would get the other's change.
    """
    ids = tuple(name for one in faced for name in one.photo.face_ids(len(one.crops)))
    if len(set(ids)) != len(ids):
        raise DataError(f"two faces are called by one name among {', '.join(ids)}. Rename the photos.")
    return Pixels(
        torch.stack([crop for one in faced for crop in one.crops]),
        ids,
        tuple(person for one in faced for person in one.photo.people(len(one.crops))),
    )


def face_record(seen: PhotoFile, place: Place, wanted: Image, original: Image) -> FaceRecord:
    """Return what the record says of one face: where it lies, and what of the change is seen in the photo."""
    crop = take_crop(seen, place)
    missing = np.linalg.norm(crop.astype(np.float64) - wanted)
    requested = np.linalg.norm(wanted.astype(np.float64) - original)
    rms = missing / np.sqrt(wanted.size)
    a, b, c, d, e, f = (float(value) for value in place.matrix.ravel())
    return FaceRecord(
        matrix=(a, b, c, d, e, f),
        box=(place.left, place.top, place.right, place.bottom),
        crop_sha256=sha256(crop.tobytes()).hexdigest(),
        psnr=float(20 * np.log10(255 / rms)) if rms > 0 else None,
        kept=float(1 - missing / requested) if requested > 0 else None,
    )
