"""Changing the faces of photos and writing what comes of it: what `bench.cloaking` and `bench.purifying` share.

Each photo is written whole and changed, copied as it is where it shows no face, or not at all; the record is written
before the files it names. What must not be here: what changes faces, and whether it may.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench import photo_files
from bench.alignment import Pixels as Image
from bench.cloak_records import CloakedPhoto, FaceRecord, MadeRecord
from bench.contracts import MICRO_BATCH, Context
from bench.errors import BenchError, DataError, MethodError
from bench.photo_files import Format, PhotoFile
from bench.photo_folders import (
    FacedPhoto,
    Photo,
    Refusal,
    png,
    read_again,
    read_bytes,
    read_crop,
    read_faces,
)
from bench.put_back import Place, put_back_all, take_crop
from bench.stages import Pixels
from bench.store import write_atomically

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


@dataclass(frozen=True)
class _Made:
    """A file to write, with what the record says of it."""

    photo: Photo
    payload: bytes
    record: CloakedPhoto


def batches(photos: Sequence[Photo], *, by_person: bool) -> Iterator[Sequence[Photo]]:
    """Yield what is changed, and can be lost, together."""
    if by_person:
        for person in dict.fromkeys(photo.person for photo in photos):
            yield [photo for photo in photos if photo.person == person]
        return
    for start in range(0, len(photos), MICRO_BATCH):
        yield photos[start : start + MICRO_BATCH]


def pending(photos: Sequence[Photo], record: MadeRecord, out: Path, *, by_person: bool) -> tuple[Photo, ...]:
    """Return the photos that are not done; all of a person's where they are changed together."""
    waiting = [photo for photo in photos if not _is_done(photo, record, out)]
    if by_person:
        people = {photo.person for photo in waiting}
        waiting = [photo for photo in photos if photo.person in people]
    return tuple(waiting)


def _is_done(photo: Photo, record: MadeRecord, out: Path) -> bool:
    known = record.photos.get(photo.name)
    if known is None or not known.is_there(out):
        return False
    if known.output != (photo.copy if known.copied else photo.output) or not (
        known.protected or known.copied
    ):
        return False
    try:
        return sha256(read_bytes(photo.path)).hexdigest() == known.source_sha256
    except DataError:
        return False


class OutFolder(Generic[RecordT]):
    """The folder to write, and what became of each photo so far.

    Attributes:
        record: what is written beside the photos.
        changed: photos that were written.
        copied: photos without a face, written as they are.
        refused: what was not written, with the reasons.
        detected: how many crops were cut out of a larger photo.
        noted: what besides the faces is not as it was.
    """

    def __init__(self, path: Path, record_file: str, record: RecordT, edit: Edit, how: Written) -> None:
        self.path = path
        self.record = record
        self.changed: list[Photo] = []
        self.copied: list[Photo] = []
        self.refused: list[Refusal] = []
        self.noted: list[Refusal] = []
        self.detected = 0
        self._record_file = record_file
        self._edit = edit
        self._how = how

    def read(self, photos: Sequence[Photo]) -> list[FacedPhoto]:
        """Return the photos with a face; those without are copied, or named where only crops are written."""
        found = []
        for photo in photos:
            try:
                faced = self._read(photo)
            except DataError as error:
                self._refuse(photo, "", str(error))
                continue
            if faced.crops:
                found.append(faced)
            else:
                self._copy(faced)
        return found

    def _read(self, photo: Photo) -> FacedPhoto:
        if self._how.mode == "photos":
            return read_faces(photo)
        crop = read_crop(photo)
        return FacedPhoto(photo, crop.sha256, (crop.image,), is_crop=not crop.detected)

    def edit(self, faced: Sequence[FacedPhoto], ctx: Context) -> None:
        """Change the faces of photos that belong together, and write those where that went well."""
        if not faced:
            return
        edit = self._edit
        try:
            changed = edit.change(faces_of(faced), ctx)
        except MethodError as error:
            self._failed(faced, ctx, edit.hide(str(error)))
        except BenchError as error:  # missing weights or data fail every photo alike
            error.args = (edit.hide(str(error)),)
            raise
        except Exception as error:
            log.error("%s failed\n%s", edit.name, edit.hide(traceback.format_exc()))
            reason = f"{edit.name} failed on it: {type(error).__name__}: {error}"
            self._failed(faced, ctx, edit.hide(reason))
        else:
            self._write(faced, changed)

    def _failed(self, faced: Sequence[FacedPhoto], ctx: Context, reason: str) -> None:
        if len(faced) > 1 and not self._edit.by_person:  # one photo's failure is not the others'
            for one in faced:
                self.edit([one], ctx)
            return
        for one in faced:
            self._refuse(one.photo, one.sha256, reason)

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
        # The record first: whatever lies in the folder is in it.
        self._note({file.photo.name: file.record for file in made})
        for file in made:
            write_atomically(self.path / file.photo.output, file.payload, "another folder")
            self.changed.append(file.photo)
            if file.record.notes:
                self.noted.append(Refusal(file.photo.name, "; ".join(file.record.notes)))

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
        put_back_all(content, places, images)
        kind = photo_files.kind_by_suffix(Path(photo.output).suffix)
        assert kind is not None, "outputs have endings of what is written"
        payload, notes = photo_files.encode(content, kind), content.notes
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
        return _Made(photo, payload, record)

    def _record_of(self, photo: Photo, source: str, payload: bytes, *, copied: bool = False) -> CloakedPhoto:
        old = self.record.photos.get(photo.name)
        return CloakedPhoto(
            protected=not copied,
            copied=copied,
            reason=NO_FACE if copied else "",
            source_sha256=source,
            output=photo.copy if copied else photo.output,
            output_sha256=sha256(payload).hexdigest(),
            replaced_sha256=old.ours(self.path) if old is not None else "",
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
        self._note({photo.name: self._record_of(photo, faced.sha256, payload, copied=True)})
        write_atomically(self.path / photo.copy, payload, "another folder")
        self.copied.append(photo)

    def _refuse(self, photo: Photo, source_sha256: str, reason: str) -> None:
        """Note that nothing was written of a photo; what was made of it earlier stays, with its record."""
        old = self.record.photos.get(photo.name)
        record = CloakedPhoto(protected=False, source_sha256=source_sha256, reason=reason)
        if old is not None and old.ours(self.path):
            same = old.source_sha256 == source_sha256 and old.is_there(self.path)
            state = "this photo" if same else "an earlier state of the photo"
            what = "the cloak" if self._edit.must_change else "what was made"
            reason = f"{reason}; {self.path / old.output} stays, {what} of {state}"
            record = old.model_copy(update={"reason": reason})
        self.refused.append(Refusal(photo.name, reason))
        self._note({photo.name: record})

    def _note(self, photos: Mapping[str, CloakedPhoto]) -> None:
        """Write the record with these photos."""
        self.record = self.record.model_copy(update={"photos": {**self.record.photos, **photos}})
        self.record.write(self.path / self._record_file)


def faces_of(faced: Sequence[FacedPhoto]) -> Pixels:
    """Return all faces of photos, with their ids and people."""
    return Pixels(
        torch.stack([crop for one in faced for crop in one.crops]),
        tuple(name for one in faced for name in one.photo.face_ids(len(one.crops))),
        tuple(person for one in faced for person in one.photo.people(len(one.crops))),
    )


def face_record(seen: PhotoFile, place: Place, wanted: Image, original: Image) -> FaceRecord:
    """Return what the record says of one face: where it lies, and what of the change is seen in the photo."""
    crop = take_crop(seen, place)
    missing = np.linalg.norm(crop.astype(np.float64) - wanted)
    asked = np.linalg.norm(wanted.astype(np.float64) - original)
    rms = missing / np.sqrt(wanted.size)
    a, b, c, d, e, f = (float(value) for value in place.matrix.ravel())
    return FaceRecord(
        matrix=(a, b, c, d, e, f),
        box=(place.left, place.top, place.right, place.bottom),
        crop_sha256=sha256(crop.tobytes()).hexdigest(),
        psnr=float(20 * np.log10(255 / rms)) if rms > 0 else None,
        kept=float(1 - missing / asked) if asked > 0 else None,
    )
