"""Protecting a person's own photos: what is to be done (`plan`), and doing it (`cloak`).

What lives here: which photos are protected, and that nothing else is ever written as if it were. What must not:
reading folders (`bench.photo_folders`), records (`bench.cloak_records`), attacks' surroundings
(`bench.applied_attacks`).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import torch

from bench import __version__, keys, stages
from bench.applied_attacks import AppliedAttack, AttackRequest
from bench.cloak_records import (
    CLOAKS,
    ERASED,
    CloakedPhoto,
    CloakRecord,
    check_folders,
    check_outputs,
    with_free_outputs,
)
from bench.contracts import MICRO_BATCH, Context
from bench.errors import BenchError, DataError, MethodError, UsageError
from bench.keys import Key
from bench.photo_folders import (
    Crop,
    Photo,
    Refusal,
    find_photos,
    load_detector,
    needs_detector,
    png,
    read_bytes,
    read_crop,
)
from bench.runner import check_writable
from bench.stages import Pixels
from bench.store import write_atomically

log = logging.getLogger("bench")

Advance = Callable[[int], None]
Read = tuple[Photo, Crop]


class Counted:
    """Passes on the images that a method says it finished, never more than there are.

    Args:
        advance: gets the numbers.
        total: images there are.
    """

    def __init__(self, advance: Advance, total: int) -> None:
        self._advance = advance
        self._left = total

    def __call__(self, count: int) -> None:
        """Count some images as finished."""
        counted = min(count, self._left)
        self._left -= counted
        self._advance(counted)

    def complete(self) -> None:
        """Count the rest: those that the method said nothing of."""
        self(self._left)


@dataclass(frozen=True)
class CloakRequest:
    """What is asked for.

    Attributes:
        photos: the folder of photos.
        out: the folder to write.
        attack: by what.
        key: the key file of an erasable attack; made where it does not exist.
    """

    photos: Path
    out: Path
    attack: AttackRequest
    key: Path | None = None


@dataclass(frozen=True)
class CloakPlan:
    """What is to be done; nothing is written yet.

    Attributes:
        request: what was asked for.
        applied: the attack with all it works with.
        pending: photos to protect, all photos of a person where the attack looks at them together.
        done: photos that an earlier call of the same command protected.
        refused: files that are no photos.
        key: of an erasable attack; None where there is none, or where its file is yet to be made.
        record: what is in the folder to write; a new one where there is none.
    """

    request: CloakRequest
    applied: AppliedAttack
    pending: tuple[Photo, ...]
    done: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    key: Key | None
    record: CloakRecord = field(repr=False)

    @property
    def makes_key(self) -> bool:
        """Whether a new key file is made."""
        return self.applied.attack.erasable and self.key is None


@dataclass(frozen=True)
class Cloaked:
    """What became of the photos.

    Attributes:
        protected: what was written.
        unprotected: what was not, with the reasons; none of it is among what was written.
        detected: how many of the protected were cut out of a larger photo.
        fingerprint: of the key; "" where there is none.
    """

    protected: tuple[Photo, ...]
    unprotected: tuple[Refusal, ...]
    detected: int
    fingerprint: str


def plan(request: CloakRequest) -> CloakPlan:
    """Return what is to be done, with all checked that can be known before work starts.

    Raises:
        UsageError: folders, attack, surrogates or key do not fit, or something would be written over.
        DataError: a key file or record that cannot be used.
    """
    check_folders(request.photos, request.out)
    photos, refused = find_photos(request.photos)
    _refuse_cloaks(request.photos)
    applied = AppliedAttack(request.attack)
    if not applied.attack.changes_images:
        raise UsageError(f"attack '{applied.name}' changes no photo, so that nothing would be protected.")
    applied.check_surrogates_are_there()
    there = CloakRecord.read(request.out / CLOAKS)
    key = _key(request, applied, there)
    record = _record(applied, key)
    if there is not None:
        _check_same(there, record, request.out)
        record = there
    check_writable(request.out.absolute(), "the folder")
    photos = with_free_outputs(photos, record.photos)
    pending = _pending(photos, record, request.out, by_person=applied.attack.scope == "identity")
    waiting = {photo.name for photo in pending}
    check_outputs(request.out, {photo.output: photo.name for photo in pending}, record.photos)
    if needs_detector(pending):
        load_detector()
    done = tuple(photo for photo in photos if photo.name not in waiting)
    return CloakPlan(request, applied, pending, done, refused, key, record)


def cloak(planned: CloakPlan, advance: Advance = lambda _n: None) -> Cloaked:
    """Protect the photos of a plan; each is written whole and protected, or not at all.

    Whatever was written before an interruption stays, and the same request goes on from there.

    Args:
        planned: what is to be done.
        advance: called with the number of photos finished.

    Raises:
        UsageError: the key file cannot be made.
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    request, applied = planned.request, planned.applied
    folder = _OutFolder(request.out, planned.record)
    if planned.pending:
        key = planned.key
        if planned.makes_key and request.key is not None:
            key = keys.create(request.key)
            folder.record = folder.record.model_copy(update={"key_fingerprint": key.fingerprint})
        folder.key = key
        context = applied.context(key.secret if key else b"")
        for photos in _batches(planned.pending, by_person=applied.attack.scope == "identity"):
            counted = Counted(advance, len(photos))
            read = folder.read(photos)
            folder.protect(applied, read, replace(context, advance=counted))
            counted.complete()
    return Cloaked(
        tuple(folder.protected),
        (*planned.refused, *folder.unprotected),
        folder.detected,
        folder.record.key_fingerprint,
    )


# -- before any work -------------------------------------------------------------------------------------------


def _refuse_cloaks(folder: Path) -> None:
    for name in (CLOAKS, ERASED):
        if (folder / name).exists():
            raise UsageError(
                f"{folder} holds {name}: these photos were made by `bench cloak` or `bench erase`. Cloak the originals."
            )


def _key(request: CloakRequest, applied: AppliedAttack, there: CloakRecord | None) -> Key | None:
    """Return the key of an erasable attack, None where its file is yet to be made."""
    path = request.key
    if not applied.attack.erasable:
        if path is not None:
            raise UsageError(
                f"attack '{applied.name}' cannot be erased and has no use for a key: leave out --key."
            )
        return None
    if path is None:
        raise UsageError(
            f"attack '{applied.name}' is erasable and needs --key FILE; a file that does not exist is made. Keep it: "
            "only its holder can erase the cloaks."
        )
    if request.out.resolve() in path.resolve().parents:
        raise UsageError(f"the key file {path} would lie among the photos to post. Keep it elsewhere.")
    if path.exists() or path.is_symlink():
        return keys.read(path)
    if there is not None:
        raise UsageError(
            f"{request.out} holds cloaks under key {there.key_fingerprint}, and {path} does not exist. Give that key, "
            "or name another folder to write to."
        )
    check_writable(path.absolute().parent, "--key")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the key file {path} cannot be created: its folder does not exist. Make it first.")
    return None


def _record(applied: AppliedAttack, key: Key | None) -> CloakRecord:
    return CloakRecord(
        cloakbench=__version__,
        attack=applied.name,
        key_fingerprint=key.fingerprint if key else "",
        attack_text=applied.text,
        code=applied.code,
        weights=applied.weights,
        surrogates=applied.surrogates,
        dataset=applied.dataset_text,
        seed=applied.seed,
    )


_SAME = {
    "attack": "by attack",
    "weights": "with weights",
    "surrogates": "with surrogates",
    "dataset": "with dataset",
    "seed": "with seed",
    "key_fingerprint": "under key",
}
"""Fields in which all cloaks of a folder agree → how they are called."""


def _check_same(there: CloakRecord, asked: CloakRecord, out: Path) -> None:
    for name, called in _SAME.items():
        old, new = (getattr(one, name) for one in (there, asked))
        if old != new:
            raise UsageError(
                f"{out} holds cloaks made {called} {shown(old)}, and this is {shown(new)}. Name another folder to "
                "write to, or ask for the same."
            )


def shown(value: object) -> str:
    """Return a field of a record as it stands in a sentence."""
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text or "none"


def _pending(
    photos: Sequence[Photo], record: CloakRecord, out: Path, *, by_person: bool
) -> tuple[Photo, ...]:
    waiting = [photo for photo in photos if not _is_done(photo, record, out)]
    if by_person:  # an attack that looks at all photos of a person must see them all again
        people = {photo.person for photo in waiting}
        waiting = [photo for photo in photos if photo.person in people]
    return tuple(waiting)


def _is_done(photo: Photo, record: CloakRecord, out: Path) -> bool:
    known = record.photos.get(photo.name)
    if known is None or not known.protected or known.output != photo.output or not known.is_there(out):
        return False
    try:
        return sha256(read_bytes(photo.path)).hexdigest() == known.source_sha256
    except DataError:
        return False


# -- the work --------------------------------------------------------------------------------------------------


def _batches(photos: Sequence[Photo], *, by_person: bool) -> Iterator[Sequence[Photo]]:
    """Yield what is protected, and can be lost, together."""
    if by_person:
        for person in dict.fromkeys(photo.person for photo in photos):
            yield [photo for photo in photos if photo.person == person]
        return
    for start in range(0, len(photos), MICRO_BATCH):
        yield photos[start : start + MICRO_BATCH]


class _OutFolder:
    """The folder to write, and what became of each photo so far."""

    def __init__(self, path: Path, record: CloakRecord) -> None:
        self.path = path
        self.record = record
        self.key: Key | None = None
        self.protected: list[Photo] = []
        self.unprotected: list[Refusal] = []
        self.detected = 0

    def read(self, photos: Sequence[Photo]) -> list[Read]:
        """Return the faces of the photos that have one."""
        found = []
        for photo in photos:
            try:
                found.append((photo, read_crop(photo)))
            except DataError as error:
                self._refuse(photo, "", str(error))
        return found

    def protect(self, applied: AppliedAttack, read: Sequence[Read], ctx: Context) -> None:
        """Cloak photos that belong together and write those that the attack protected."""
        if not read:
            return
        pixels = Pixels(
            torch.stack([crop.image for _, crop in read]),
            tuple(photo.id for photo, _ in read),
            tuple(photo.person for photo, _ in read),
        )
        try:
            cloaks = stages.cloak(applied.attack, pixels, ctx, len(read))
        except MethodError as error:
            self._failed(applied, read, ctx, self._without_secret(str(error)))
        except BenchError as error:  # missing weights or data fail every photo alike
            error.args = (self._without_secret(str(error)),)
            raise
        except Exception as error:
            log.error("%s failed\n%s", applied.name, self._without_secret(traceback.format_exc()))
            reason = f"{applied.name} failed on it: {type(error).__name__}: {error}"
            self._failed(applied, read, ctx, self._without_secret(reason))
        else:
            self._write(read, cloaks)

    def _without_secret(self, text: str) -> str:
        return self.key.hidden_in(text) if self.key else text

    def _failed(self, applied: AppliedAttack, read: Sequence[Read], ctx: Context, reason: str) -> None:
        if len(read) > 1 and applied.attack.scope == "image":  # one photo's failure is not the others'
            for one in read:
                self.protect(applied, [one], ctx)
            return
        for photo, crop in read:
            self._refuse(photo, crop.sha256, reason)

    def _write(self, read: Sequence[Read], cloaks: Pixels) -> None:
        rows = {name: row for row, name in enumerate(cloaks.ids)}
        files: list[tuple[Photo, Crop, bytes]] = []
        for photo, crop in read:
            image = cloaks.images[rows[photo.id]] if photo.id in rows else crop.image
            if torch.equal(image, crop.image):
                self._refuse(photo, crop.sha256, "the attack left it as it is")
            else:
                files.append((photo, crop, png(image)))
        self._note({photo.name: self._protected(photo, crop, payload) for photo, crop, payload in files})
        for photo, crop, payload in files:
            write_atomically(self.path / photo.output, payload, "another folder")
            self.protected.append(photo)
            self.detected += crop.detected

    def _protected(self, photo: Photo, crop: Crop, payload: bytes) -> CloakedPhoto:
        old = self.record.photos.get(photo.name)
        return CloakedPhoto(
            protected=True,
            source_sha256=crop.sha256,
            output=photo.output,
            output_sha256=sha256(payload).hexdigest(),
            replaced_sha256=old.ours(self.path) if old is not None else "",
        )

    def _refuse(self, photo: Photo, source_sha256: str, reason: str) -> None:
        """Note that a photo was not protected; an earlier cloak of it stays, with its record."""
        old = self.record.photos.get(photo.name)
        record = CloakedPhoto(protected=False, source_sha256=source_sha256, reason=reason)
        if old is not None and old.ours(self.path):
            same = old.source_sha256 == source_sha256 and old.is_there(self.path)
            state = "this photo" if same else "an earlier state of the photo"
            reason = f"{reason}; {self.path / old.output} stays, the cloak of {state}"
            record = old.model_copy(update={"reason": reason})
        self.unprotected.append(Refusal(photo.name, reason))
        self._note({photo.name: record})

    def _note(self, photos: dict[str, CloakedPhoto]) -> None:
        """Write the record with these photos."""
        self.record = self.record.model_copy(update={"photos": {**self.record.photos, **photos}})
        self.record.write(self.path / CLOAKS)
