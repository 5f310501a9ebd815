"""Cloaks that are to be erased: which photos of a folder are ours, where their faces lie, and which are still to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bench.contracts import CROP_SIZE
from bench.errors import DataError
from bench.faces.paste_back import Place, place_of, take_crop
from bench.faces.whole_photo import PhotoFile
from bench.photo_tools import photo_files
from bench.photo_tools.photo_folders import (
    Photo,
    Refusal,
    person_of,
    read_bytes,
    to_tensor,
    without_ending,
)
from bench.photo_tools.records import CLOAKS, CloakedPhoto, CloakRecord, EraseRecord


@dataclass(frozen=True, eq=False)
class Cloak:
    """One photo to erase.

    Attributes:
        photo: the file.
        image_id: what it was called when it was cloaked.
        crops: each face, 3×112×112 uint8.
        places: where they lie in the photo; () where the photo is a crop itself.
        sha256: of the file.
        person: whose it was when it was cloaked.
    """

    photo: Photo
    image_id: str
    crops: tuple[torch.Tensor, ...] = field(repr=False)
    places: tuple[Place, ...]
    sha256: str
    person: str


def copied_photos(photos: Sequence[Photo], made: CloakRecord | None) -> tuple[Photo, ...]:
    """Return the photos that were copied as they are, so that there is nothing to erase."""
    copied = {one.output for one in made.photos.values() if one.copied} if made else set()
    return tuple(photo for photo in photos if photo.name in copied)


def read_cloaks(
    photos: Sequence[Photo], made: CloakRecord | None
) -> tuple[list[Cloak], list[Refusal], list[Refusal]]:
    """Return the cloaks, what is none, and what may not be what it was."""
    cloaks: list[Cloak] = []
    refusals, remarks = [], []
    known = _Known(made)
    for photo in photos:
        try:
            cloak, remark = known.cloak(photo, photo_files.read(read_bytes(photo.path)))
        except DataError as error:
            refusals.append(Refusal(photo.name, str(error)))
            continue
        first = next((one for one in cloaks if one.image_id == cloak.image_id), None)
        if first is not None:
            reason = f"it is the same cloak as {first.photo.name}; erase it from a folder of its own"
            refusals.append(Refusal(photo.name, reason))
            continue
        cloaks.append(cloak)
        if remark:
            remarks.append(Refusal(photo.name, remark))
    return cloaks, refusals, remarks


class _Known:
    """The cloaks of a record, by content and by name."""

    def __init__(self, made: CloakRecord | None) -> None:
        self._made = made
        protected = [photo for photo in made.photos.values() if photo.is_made] if made else []
        self._by_content = {photo.output_sha256: photo for photo in protected}
        self._by_name = {photo.output: photo for photo in protected}
        self._by_id = {without_ending(photo.output): photo for photo in protected}

    def cloak(self, photo: Photo, content: PhotoFile) -> tuple[Cloak, str]:
        """Return a cloak and what speaks against it.

        Raises:
            DataError: it is not one of ours, or of another size.
        """
        record = (
            self._by_content.get(content.sha256)
            or self._by_name.get(photo.name)
            or self._by_id.get(photo.id)  # posted photos come back as JPEG
        )
        if self._made and record is None:
            raise DataError(f"it is not among the cloaks of {CLOAKS}; erasing it would make nothing of it")
        crops, places = self._faces(content, record)
        remark = ""
        if record is not None and record.output_sha256 != content.sha256:
            remark = "it was changed since it was cloaked, so that less of it may come back"
        origin = without_ending(record.output) if record else photo.id
        person = person_of(record.output) if record else photo.person
        return Cloak(photo, origin, crops, places, content.sha256, person), remark

    def _faces(
        self, content: PhotoFile, record: CloakedPhoto | None
    ) -> tuple[tuple[torch.Tensor, ...], tuple[Place, ...]]:
        height, width = content.upright().shape[:2]
        side = self._made.size if self._made else CROP_SIZE
        was = (record.width, record.height) if record and record.faces else (side, side)
        if (width, height) != was:
            raise DataError(
                f"it is {width}×{height} pixels and the cloak was {was[0]}×{was[1]}; erasing needs the photo as it was "
                "written"
            )
        if record is None or not record.faces:
            return (to_tensor(content.seen()),), ()
        places = tuple(
            place_of(np.array(face.matrix, dtype=np.float64).reshape(2, 3), height, width)
            for face in record.faces
        )
        return tuple(to_tensor(take_crop(content, place)) for place in places), places


def pending_cloaks(
    cloaks: Sequence[Cloak], record: EraseRecord, out: Path, *, by_person: bool
) -> tuple[Cloak, ...]:
    """Return the cloaks that are not erased yet; all of a person's where they are erased together."""
    waiting = {cloak for cloak in cloaks if not _is_done(cloak, record, out)}
    people = {cloak.person for cloak in waiting if by_person}
    return tuple(cloak for cloak in cloaks if cloak in waiting or cloak.person in people)


def _is_done(cloak: Cloak, record: EraseRecord, out: Path) -> bool:
    known = record.photos.get(cloak.photo.name)
    return (
        known is not None
        and known.source_sha256 == cloak.sha256
        and known.output == cloak.photo.output
        and known.is_there(out)
    )
