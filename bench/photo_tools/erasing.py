"""Taking cloaks off again: what is to be done (`plan`), and doing it (`erase`).

Whether a photo is one of ours, and whether the key is the right one, is known from the record that
`cloaking` left beside the cloaks, before anything is written. In a whole photo the record says where the faces
lie: each is cut out again, erased, and put back as `bench.faces.paste_back` does.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from bench import __version__
from bench.contracts import CROP_SIZE, MICRO_BATCH, Attack, Context
from bench.errors import BenchError, DataError, MethodError, UsageError
from bench.faces.paste_back import Place, paste_back_all, place_of, take_crop
from bench.faces.pixels import Pixels
from bench.faces.whole_photo import PhotoFile
from bench.photo_tools import keys, photo_files
from bench.photo_tools.applied import AppliedAttack, MethodRequest, erasable_attacks
from bench.photo_tools.changing import Advance, Counted, shown
from bench.photo_tools.keys import Key
from bench.photo_tools.photo_folders import (
    Photo,
    Refusal,
    find_photos,
    png,
    read_bytes,
    to_tensor,
    without_ending,
)
from bench.photo_tools.records import (
    CLOAKS,
    ERASED,
    CloakedPhoto,
    CloakRecord,
    EraseRecord,
    PhotoRecord,
    check_folders,
    check_inputs,
    check_outputs,
    with_free_outputs,
    without_long_names,
    write_made,
)
from bench.plugins import factory
from bench.plugins import factory as methods
from bench.run.planning import check_writable
from bench.run.stages import erase as erase_stage

log = logging.getLogger("bench")


@dataclass(frozen=True)
class EraseRequest:
    """What is requested.

    Attributes:
        photos: the folder of cloaks, as `bench cloak` wrote it.
        out: the folder to write.
        key: the key file.
        attack: text of the attack; "" to take it from the record beside the cloaks.
        force: try a key that is not the cloaks' all the same.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: threads torch computes with; None for all cores.
        store: where what the attack learnt is kept; None for the default.
        dataset: whose pool counts; "" to take it from the record.
        backbones: surrogates; () to take them from the record.
    """

    photos: Path
    out: Path
    key: Path | None
    attack: str = ""
    force: bool = False
    device: str = "auto"
    threads: int | None = None
    store: Path | None = None
    dataset: str = ""
    backbones: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Cloak:
    """One photo to erase.

    Attributes:
        photo: the file.
        image_id: what it was called when it was cloaked.
        person: whose it was.
        crops: each face, 3×112×112 uint8.
        places: where they lie in the photo; () where the photo is a crop itself.
        sha256: of the file.
    """

    photo: Photo
    image_id: str
    person: str
    crops: tuple[torch.Tensor, ...] = field(repr=False)
    places: tuple[Place, ...]
    sha256: str


@dataclass(frozen=True)
class ErasePlan:
    """What is to be done; nothing is written yet.

    Attributes:
        request: what was requested.
        applied: the attack with all it works with.
        key: what is tried.
        pending: cloaks to erase.
        done: photos that an earlier call of the same command erased.
        refused: what cannot be erased.
        warnings: photos that are tried all the same, with what speaks against it.
        warnings: what speaks against all of them.
        uncloaked: photos that `bench cloak` copied because they show no face: there is nothing to erase.
        record: what is in the folder to write; a new one where there is none.
    """

    request: EraseRequest
    applied: AppliedAttack
    key: Key
    pending: tuple[Cloak, ...]
    done: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    remarks: tuple[Refusal, ...]
    warnings: tuple[str, ...]
    uncloaked: tuple[Photo, ...]
    record: EraseRecord = field(repr=False)


def plan(request: EraseRequest) -> ErasePlan:
    """Return what is to be done, with all checked that can be known before work starts.

    Raises:
        UsageError: no key, another key or attack than the cloaks', one that cannot be erased, or something would be
            written over.
        DataError: a key file or record that cannot be used.
    """
    if request.key is None:
        raise UsageError("erasing needs --key FILE, the key file that `bench cloak` made or was given.")
    check_folders(request.photos, request.out)
    photos, refused = find_photos(request.photos, ignore=(CLOAKS,))
    made = CloakRecord.read(request.photos / CLOAKS)
    key = keys.read(request.key)
    warnings = _check_key(key, made, request)
    _check_runs_no_file_of_a_record(made, request)
    _check_erasable(request.attack or (made.attack_text if made else ""), request.photos)
    applied = _applied(request, made)
    warnings += _check_weights(applied, made)
    check_writable(request.out.absolute(), "the folder")
    check_inputs(photos, request.out)
    uncloaked = _copies(photos, made)
    cloaks, unusable, remarks = _read([photo for photo in photos if photo not in uncloaked], made)
    record = _record(applied, key, request.out)
    named = with_free_outputs([cloak.photo for cloak in cloaks], record.photos)
    fitting, too_long = without_long_names(named, request.out)
    cloaks = [
        replace(cloak, photo=photo) for cloak, photo in zip(cloaks, named, strict=True) if photo in fitting
    ]
    pending = _pending(cloaks, record, request.out, by_person=applied.method.scope == "identity")
    waiting = {cloak.photo.name for cloak in pending}
    done = tuple(cloak.photo for cloak in cloaks if cloak.photo.name not in waiting)
    wanted = {cloak.photo.output: cloak.photo.name for cloak in pending}
    check_outputs(request.out, wanted, record.photos)
    return ErasePlan(
        request,
        applied,
        key,
        pending,
        done,
        (*refused, *unusable, *too_long),
        tuple(doubt for doubt in remarks if doubt.name in waiting),
        warnings,
        uncloaked,
        record,
    )


@dataclass(frozen=True)
class Erased:
    """What became of the photos.

    Attributes:
        restored: what was written.
        refused: what was not, with the reasons.
        partly: what was written with a face that is still cloaked, by this call or an earlier one.
    """

    restored: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    partly: tuple[Refusal, ...] = ()


NOTHING_CAME_OFF = "nothing came off: to the attack it is no cloak under this key"


def erase(planned: ErasePlan, advance: Advance = lambda _n: None) -> Erased:
    """Erase the cloaks of a plan; each photo is written whole, and only if the attack changed it.

    Args:
        planned: what is to be done.
        advance: called with the number of photos finished.

    Raises:
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    folder = _OutFolder(planned)
    if planned.pending:
        context = planned.applied.context(key=None)
        for cloaks in _batches(planned.pending, planned.applied.method):
            counted = Counted(advance, len(cloaks))
            folder.erase(cloaks, replace(context, advance=counted))
            counted.complete()
    return Erased(tuple(folder.restored), (*planned.refused, *folder.refused), folder.partly(planned.done))


# -- before any work -------------------------------------------------------------------------------------------


def _check_erasable(text: str, photos: Path) -> None:
    if not text:
        raise UsageError(
            f"{photos} has no {CLOAKS}, which says what its cloaks were made by. Put it back, or name the attack with "
            "--attack."
        )
    try:
        attack = factory.attack(text)
    except UsageError as error:
        raise UsageError(f"{error} Say with --attack where it is now.") from None
    if not attack.erasable:
        names = ", ".join(erasable_attacks()) or "none is registered"
        raise UsageError(f"attack '{methods.canonical(attack)}' cannot be erased. Those that can: {names}.")


def _check_key(key: Key, made: CloakRecord | None, request: EraseRequest) -> tuple[str, ...]:
    if made is None or key.fingerprint == made.key_fingerprint:
        return ()
    what = (
        f"the cloaks were made under key {made.key_fingerprint}, and {request.key} is key {key.fingerprint}"
    )
    if not request.force:
        raise UsageError(
            f"wrong key: {what}. Nothing was written; give the right file, or try it with --force."
        )
    return (f"wrong key: {what}. Tried all the same, as --force says.",)


def _check_runs_no_file_of_a_record(made: CloakRecord | None, request: EraseRequest) -> None:
    """Refuse code by path that only a record names: the folder may be somebody else's."""
    if made is None:
        return
    named = [] if request.attack else [("attack", made.attack_text, "--attack")]
    named += [] if request.dataset else [("dataset", made.dataset, "--dataset")]
    if not request.backbones:
        named += [("backbone", name, "--backbone, once for each surrogate") for name in made.surrogates]
    for what, text, option in named:
        if ".py:" in text:
            raise UsageError(
                f"{request.photos / CLOAKS} names the {what} '{text}', code in a file, which is not run because a "
                f"record says so. If you know and trust that file, name it with {option}."
            )


def _applied(request: EraseRequest, made: CloakRecord | None) -> AppliedAttack:
    requested = MethodRequest(
        method=request.attack or (made.attack_text if made else ""),
        device=request.device,
        threads=request.threads,
        store=request.store,
    )
    if made is None:
        return AppliedAttack(replace(requested, dataset=request.dataset, backbones=request.backbones))
    requested = replace(
        requested,
        dataset=request.dataset or made.dataset,
        seed=made.seed,
        backbones=request.backbones or made.surrogates,
    )
    attack = factory.attack(requested.method)
    if methods.canonical(attack) != made.attack:
        raise UsageError(
            f"{request.photos} holds cloaks of {made.attack}, not of {methods.canonical(attack)}. Leave out --attack."
        )
    return AppliedAttack(requested)


def _check_weights(applied: AppliedAttack, made: CloakRecord | None) -> tuple[str, ...]:
    if made is None:
        return ()
    if applied.weights != made.weights:
        raise UsageError(
            f"the weights of {applied.name} are others than those that made the cloaks (SHA-256 "
            f"{', '.join(made.weights) or 'none'}). Restore them."
        )
    if applied.code != made.code:
        return (
            f"the code of {applied.name} is another than when the cloaks were made (CloakBench {made.cloakbench}, this "
            f"is {__version__}). Tried all the same.",
        )
    return ()


def _copies(photos: Sequence[Photo], made: CloakRecord | None) -> tuple[Photo, ...]:
    copied = {one.output for one in made.photos.values() if one.copied} if made else set()
    return tuple(photo for photo in photos if photo.name in copied)


def _read(
    photos: Sequence[Photo], made: CloakRecord | None
) -> tuple[list[Cloak], list[Refusal], list[Refusal]]:
    """Return the cloaks, what is none, and what may not be what it was."""
    cloaks: list[Cloak] = []
    refusals, remarks = [], []
    known = _Known(made)
    for photo in photos:
        try:
            cloak, doubt = known.cloak(photo, photo_files.read(read_bytes(photo.path)))
        except DataError as error:
            refusals.append(Refusal(photo.name, str(error)))
            continue
        first = next((one for one in cloaks if one.image_id == cloak.image_id), None)
        if first is not None:
            reason = f"it is the same cloak as {first.photo.name}; erase it from a folder of its own"
            refusals.append(Refusal(photo.name, reason))
            continue
        cloaks.append(cloak)
        if doubt:
            remarks.append(Refusal(photo.name, doubt))
    return cloaks, refusals, remarks


class _Known:
    """The cloaks of a record, by content and by name."""

    def __init__(self, made: CloakRecord | None) -> None:
        self._made = made
        protected = [photo for photo in made.photos.values() if photo.is_made] if made else []
        self._by_content: Mapping[str, CloakedPhoto] = {photo.output_sha256: photo for photo in protected}
        self._by_name: Mapping[str, CloakedPhoto] = {photo.output: photo for photo in protected}
        self._by_id: Mapping[str, CloakedPhoto] = {without_ending(photo.output): photo for photo in protected}

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
        doubt = ""
        if record is not None and record.output_sha256 != content.sha256:
            doubt = "it was changed since it was cloaked, so that less of it may come back"
        origin = without_ending(record.output) if record else photo.id
        return Cloak(photo, origin, photo.person, crops, places, content.sha256), doubt

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


def _record(applied: AppliedAttack, key: Key, out: Path) -> EraseRecord:
    requested = EraseRecord(
        cloakbench=__version__,
        attack=applied.name,
        key_fingerprint=key.fingerprint,
        code=applied.code,
        weights=applied.weights,
    )
    there = EraseRecord.read(out / ERASED)
    if there is None:
        return requested
    for name, called in (
        ("attack", "attack"),
        ("key_fingerprint", "key"),
        ("weights", "weights"),
        ("code", "code"),
    ):
        old, new = getattr(there, name), getattr(requested, name)
        if old != new:
            raise UsageError(
                f"{out} holds what was erased with {called} {shown(old)}, and this is {shown(new)}. Name another "
                "folder to write to."
            )
    return there


def _pending(
    cloaks: Sequence[Cloak], record: EraseRecord, out: Path, *, by_person: bool
) -> tuple[Cloak, ...]:
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


# -- the work --------------------------------------------------------------------------------------------------


def _batches(cloaks: Sequence[Cloak], attack: Attack) -> list[list[Cloak]]:
    if attack.scope == "identity":
        people = dict.fromkeys(cloak.person for cloak in cloaks)
        return [[cloak for cloak in cloaks if cloak.person == person] for person in people]
    return [list(cloaks[start : start + MICRO_BATCH]) for start in range(0, len(cloaks), MICRO_BATCH)]


class _OutFolder:
    """The folder to write, and what became of each photo so far."""

    def __init__(self, planned: ErasePlan) -> None:
        self._planned = planned
        self._path = planned.request.out
        self._record = planned.record
        self.restored: list[Photo] = []
        self.refused: list[Refusal] = []

    def erase(self, cloaks: Sequence[Cloak], ctx: Context) -> None:
        """Erase cloaks that belong together and write what came off."""
        attack, name, key = self._planned.applied.method, self._planned.applied.name, self._planned.key
        named = [(cloak, replace(cloak.photo, output=f"{cloak.image_id}.png")) for cloak in cloaks]
        pixels = Pixels(
            torch.stack([crop for cloak in cloaks for crop in cloak.crops]),
            tuple(name for cloak, photo in named for name in photo.face_ids(len(cloak.crops))),
            tuple(person for cloak, photo in named for person in photo.people(len(cloak.crops))),
        )
        try:
            erased = erase_stage.erase(attack, pixels, key.secret, ctx, MICRO_BATCH)
        except MethodError as error:
            self._failed(cloaks, ctx, key.hidden_in(str(error)))
        except BenchError as error:  # missing weights or data fail every photo alike
            error.args = (key.hidden_in(str(error)),)
            raise
        except Exception as error:
            log.error("%s failed\n%s", name, key.hidden_in(traceback.format_exc()))
            reason = f"{name} failed on it: {type(error).__name__}: {error}"
            self._failed(cloaks, ctx, key.hidden_in(reason))
        else:
            parts = torch.split(erased.images, [len(cloak.crops) for cloak in cloaks])
            self._write(list(zip(cloaks, parts, strict=True)))

    def _failed(self, cloaks: Sequence[Cloak], ctx: Context, reason: str) -> None:
        if len(cloaks) > 1 and self._planned.applied.method.scope == "image":
            for cloak in cloaks:  # one photo's failure is not the others'
                self.erase([cloak], ctx)
            return
        self.refused += [Refusal(cloak.photo.name, reason) for cloak in cloaks]

    def _write(self, erased: Sequence[tuple[Cloak, torch.Tensor]]) -> None:
        files, left = {}, {}
        for cloak, images in erased:
            same = sum(torch.equal(new, old) for new, old in zip(images, cloak.crops, strict=True))
            if same == len(cloak.crops):
                self.refused.append(Refusal(cloak.photo.name, NOTHING_CAME_OFF))
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
