"""CASIA-WebFace: 494,414 photos of 10,575 identities, folders or insightface's train.rec; the user brings it.

Yi, Lei, Liao, Li, Learning Face Representation from Scratch, arXiv 1411.7923 (2014). Two layouts are read:
one folder an
identity with 250×250 photos (0000045/001.jpg), and train.rec with train.idx as insightface packs it (its
recognition/arcface_torch/dataset.py reads it so): 112×112 crops aligned to ArcFace's template. Untested on the real
files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field

from bench.datasets._published import (
    ALIGNED,
    PhotosAre,
    PublishedDataset,
    PublishedIdentity,
    PublishedParams,
    detected,
    folders_of,
    photos_of,
)
from bench.datasets._recordio import Record, RecordFile
from bench.errors import DataError
from bench.faces.alignment import Pixels, Points
from bench.faces.photos import read_photo

RECORDS = "train.rec"

CORPUS = "CASIA-WebFace"
"""What the cards of backbones trained on it call it."""


class CasiaWebFace(PublishedDataset):
    """Photos of identities of film from the web, often used to train backbones.

    A backbone trained on it has seen its identities: its card says ``CASIA-WebFace``. The folders are
    named by numbers that
    stand for names in public lists, so tables carry an index. For research; the people in it were not asked.
    """

    name = "casia-webface"
    paper = "Yi et al., Learning Face Representation from Scratch, arXiv 1411.7923 (2014)"
    note = "CASIA-WebFace: research only; photos from the web, the people were not asked"

    class Params(PublishedParams):
        """Parameters of CASIA-WebFace."""

        landmarks: PhotosAre = Field(
            "detect",
            description=f"of photos in folders: detect, or aligned where they are 112×112 crops; {RECORDS} is aligned",
        )

    params: Params

    @cached_property
    def _records(self) -> RecordFile | None:
        rec = self.root / RECORDS
        return RecordFile(rec) if rec.exists() else None

    def _find(self) -> Iterator[PublishedIdentity]:
        if self._records is not None:
            yield from _identities_of(self._records)
            return
        for name in folders_of(self.root):
            if photos := photos_of(self.root / name):
                yield PublishedIdentity(name, photos)

    @property
    def _points_version(self) -> str:
        return ALIGNED if self._records is not None or self.params.landmarks == "aligned" else detected()

    def _points_of(self, identity: PublishedIdentity, photo: str) -> Points | None:
        del identity, photo
        return None

    def _pixels(self, identity: PublishedIdentity, photo: str, called: str) -> Pixels:
        if self._records is None:
            return super()._pixels(identity, photo, called)
        try:
            content = self._records.read(int(photo)).content
        except DataError as error:
            raise DataError(f"{called}: {error}") from error
        return read_photo(content, called)

    def _open(self, identity: PublishedIdentity, photo: str) -> io.BufferedIOBase:
        if self._records is None:
            return super()._open(identity, photo)
        return io.BytesIO(self._records.read(int(photo)).content)

    @property
    def _packed(self) -> tuple[Path, ...]:
        return () if self._records is None else (self._records.idx, self._records.rec)

    def identities_in(self, corpus: str) -> frozenset[str] | None:
        """Return everyone for ``CASIA-WebFace``; see `Dataset.identities_in`."""
        return frozenset(self._published) if corpus == CORPUS else None


def _identities_of(records: RecordFile) -> Iterator[PublishedIdentity]:
    """Yield everyone in a file of records, sorted by label.

    Where record 0 has labels (first, last) it counts the records that say which photos are whose, each with labels
    (first photo, last photo); where it has none, every photo has its identity's number as its label.
    """
    if 0 not in records.offsets:
        yield from _by_label(records, sorted(records.offsets))
        return
    head = records.read(0)
    if head.flag == 0:
        yield from _by_label(records, sorted(records.offsets))
        return
    first, last = _range(head, records, 0)
    owner: dict[int, int] = {}
    for number in range(first, last):
        begin, end = _range(records.read(number), records, number)
        photos = tuple(f"{photo}" for photo in range(begin, end))
        if missing := [photo for photo in photos if int(photo) not in records.offsets]:
            raise DataError(
                f"{records.idx} has no record {missing[0]}, a photo of identity {number}. Fetch it again."
            )
        for photo in range(begin, end):
            if (other := owner.setdefault(photo, number)) != number:
                raise DataError(
                    f"{records.rec}: record {photo} is a photo of identities {other} and {number}. Fetch it again."
                )
        if photos:
            yield PublishedIdentity(str(number - first), photos)


def _range(record: Record, records: RecordFile, number: int) -> tuple[int, int]:
    if len(record.labels) < 2 or not 0 <= record.labels[0] <= record.labels[1]:
        raise DataError(
            f"{records.rec}, record {number}: its labels are {record.labels}, not two growing numbers. Fetch it again."
        )
    return int(record.labels[0]), int(record.labels[1])


def _by_label(records: RecordFile, numbers: list[int]) -> Iterator[PublishedIdentity]:
    photos: dict[int, list[str]] = {}
    for number in numbers:
        photos.setdefault(int(records.read(number).labels[0]), []).append(str(number))
    for label, found in sorted(photos.items()):
        yield PublishedIdentity(str(label), tuple(found))
