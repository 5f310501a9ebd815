"""The folder of photos whose cloaks came off: each is written whole, and only if the attack changed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from bench.contracts import Context
from bench.errors import DataError
from bench.faces.paste_back import paste_back_all
from bench.faces.pixels import Pixels
from bench.photo_tools import photo_files
from bench.photo_tools.cloaks import Cloak
from bench.photo_tools.face_editing import Edit
from bench.photo_tools.photo_folders import Photo, Refusal, png, read_bytes
from bench.photo_tools.records import ERASED, EraseRecord, PhotoRecord, write_made

NOTHING_CAME_OFF = "nothing came off: to the attack it is no cloak under this key"


class ErasedFolder:
    """The folder to write, and what became of each photo so far.

    Args:
        path: the folder.
        record: what is in it.
        edit: takes cloaks off.
        nothing: why nothing came off where a photo is left as it was.
    """

    def __init__(self, path: Path, record: EraseRecord, edit: Edit, nothing: str = NOTHING_CAME_OFF) -> None:
        self._path = path
        self._record = record
        self._edit = edit
        self._nothing = nothing
        self.restored: list[Photo] = []
        self.refused: list[Refusal] = []

    def erase(self, cloaks: Sequence[Cloak], ctx: Context) -> None:
        """Erase cloaks that belong together and write what came off."""
        named = [(cloak, replace(cloak.photo, output=f"{cloak.image_id}.png")) for cloak in cloaks]
        pixels = Pixels(
            torch.stack([crop for cloak in cloaks for crop in cloak.crops]),
            tuple(name for cloak, photo in named for name in photo.face_ids(len(cloak.crops))),
            tuple(
                person
                for cloak, photo in named
                for person in replace(photo, person=cloak.person).people(len(cloak.crops))
            ),
        )
        erased = self._edit.attempt(pixels, ctx)
        if isinstance(erased, Pixels):
            parts = torch.split(erased.images, [len(cloak.crops) for cloak in cloaks])
            self._write(list(zip(cloaks, parts, strict=True)))
        elif len(cloaks) > 1 and not self._edit.by_person:  # one photo's failure is not the others'
            for cloak in cloaks:
                self.erase([cloak], ctx)
        else:
            self.refused += [Refusal(cloak.photo.name, erased) for cloak in cloaks]

    def _write(self, erased: Sequence[tuple[Cloak, torch.Tensor]]) -> None:
        files, left = {}, {}
        for cloak, images in erased:
            same = sum(torch.equal(new, old) for new, old in zip(images, cloak.crops, strict=True))
            if same == len(cloak.crops):
                self.refused.append(Refusal(cloak.photo.name, self._nothing))
                continue
            left[cloak] = f"{same} of its {len(cloak.crops)} faces did not come off" if same else ""
            try:
                files[cloak] = _erased_file(cloak, images)
            except DataError as error:
                self.refused.append(Refusal(cloak.photo.name, str(error)))
        self._note(files, left)
        for cloak, payload in files.items():
            known = self._record.photos[cloak.photo.name]
            try:
                write_made(self._path / cloak.photo.output, payload, known.replaced_sha256)
            except DataError as error:
                self.refused.append(Refusal(cloak.photo.name, str(error)))
                continue
            self.restored.append(cloak.photo)

    def partly(self, done: Sequence[Photo]) -> tuple[Refusal, ...]:
        """Return the photos that were written with a face that is still cloaked."""
        records = ((photo, self._record.photos.get(photo.name)) for photo in (*self.restored, *done))
        return tuple(Refusal(photo.name, one.reason) for photo, one in records if one and one.reason)

    def _note(self, files: Mapping[Cloak, bytes], left: Mapping[Cloak, str]) -> None:
        """Write the record with these photos; what was made of an earlier state of theirs lies there until replaced."""
        photos = dict(self._record.photos)
        for cloak, payload in files.items():
            old = photos.get(cloak.photo.name)
            photos[cloak.photo.name] = PhotoRecord(
                source_sha256=cloak.sha256,
                output=cloak.photo.output,
                output_sha256=sha256(payload).hexdigest(),
                replaced_sha256=old.ours(self._path) if old is not None else "",
                reason=left[cloak],
            )
        if files:
            self._record = self._record.model_copy(update={"photos": photos})
            self._record.write(self._path / ERASED)


def _erased_file(cloak: Cloak, images: torch.Tensor) -> bytes:
    """Return the photo with its faces erased, as PNG.

    Raises:
        DataError: it is another than when it was read.
    """
    if not cloak.places:
        return png(images[0])
    content = photo_files.read(read_bytes(cloak.photo.path))
    if content.sha256 != cloak.sha256:
        raise DataError("it was changed while it was worked on; give the command again")
    faces = [image.permute(1, 2, 0).numpy() for image in images]
    paste_back_all(content, cloak.places, faces)
    return photo_files.encode(content, "PNG")
