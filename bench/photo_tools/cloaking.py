"""Protecting a person's own photos: what is to be done (`plan`), and doing it (`cloak`).

What lives here: which photos are protected, and that nothing else is ever written as if it were. What must not:
reading photos (`bench.photo_tools.photo_folders`), records (`bench.photo_tools.records`), attacks' surroundings
(`bench.photo_tools.applied`), writing (`bench.photo_tools.face_editing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import __version__
from bench.contracts import MICRO_BATCH
from bench.errors import UsageError
from bench.photo_tools import keys
from bench.photo_tools.applied import AppliedAttack, AttackRequest
from bench.photo_tools.face_editing import Edit, OutFolder, Written, batches, copies, notes, pending, weak
from bench.photo_tools.keys import Key
from bench.photo_tools.photo_folders import Photo, Refusal, find_photos, load_detector, needs_detector
from bench.photo_tools.records import (
    CLOAKS,
    ERASED,
    PURIFIED,
    CloakRecord,
    MadeRecord,
    check_folders,
    check_inputs,
    check_outputs,
    with_free_outputs,
    without_long_names,
)
from bench.run.planning import check_writable
from bench.run.stages import cloak as cloak_stage

Advance = Callable[[int], None]


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
    """What is requested.

    Attributes:
        photos: the folder of photos, or one photo.
        out: the folder to write.
        attack: by what.
        key: the key file of an erasable attack; made where it does not exist.
        how: whole photos or crops, and in which format; None for whole photos, as PNG where the attack is erasable
            (erasing needs every value) and else in each photo's own format.
    """

    photos: Path
    out: Path
    attack: AttackRequest
    key: Path | None = None
    how: Written | None = None


@dataclass(frozen=True)
class CloakPlan:
    """What is to be done; nothing is written yet.

    Attributes:
        request: what was requested.
        applied: the attack with all it works with.
        pending: photos to protect, all photos of a person where the attack looks at them together.
        done: photos that an earlier call of the same command protected, or copied.
        refused: files that are no photos.
        key: of an erasable attack; None where there is none, or where its file is yet to be made.
        how: whole photos or crops, and in which format.
        record: what is in the folder to write; a new one where there is none.
    """

    request: CloakRequest
    applied: AppliedAttack
    pending: tuple[Photo, ...]
    done: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    key: Key | None
    how: Written
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
        detected: how many of the protected are crops cut out of a larger photo.
        fingerprint: of the key; "" where there is none.
        copied: photos without a face, written as they are, by this call or an earlier one.
        noted: photos that are not as they were in something else too, likewise.
        weak: protected photos that show little of their cloak, likewise.
    """

    protected: tuple[Photo, ...]
    unprotected: tuple[Refusal, ...]
    detected: int
    fingerprint: str
    copied: tuple[Photo, ...] = ()
    noted: tuple[Refusal, ...] = ()
    weak: tuple[Refusal, ...] = ()


def plan(request: CloakRequest) -> CloakPlan:
    """Return what is to be done, with all checked that can be known before work starts.

    Raises:
        UsageError: folders, attack, surrogates or key do not fit, or something would be written over.
        DataError: a key file or record that cannot be used.
    """
    check_folders(request.photos, request.out)
    refuse_made(request.photos, "Cloak the originals.")
    applied = AppliedAttack(request.attack)
    if not applied.attack.changes_images:
        raise UsageError(f"attack '{applied.name}' changes no photo, so that nothing would be protected.")
    how = request.how or Written(files="png" if applied.attack.erasable else "keep")
    photos, refused = find_photos(request.photos, ending=how.ending)
    check_inputs(photos, request.out)
    applied.check_surrogates_are_there()
    there = CloakRecord.read(request.out / CLOAKS)
    key = _key(request, applied, there)
    record = _record(applied, key, how)
    if there is not None:
        check_same(there, record, request.out, _SAME)
        record = there.settled(request.out)
    check_writable(request.out.absolute(), "the folder")
    photos, too_long = without_long_names(with_free_outputs(photos, record.photos), request.out)
    waiting = pending(photos, record, request.out, by_person=applied.attack.scope == "identity")
    check_code(there, applied.code, request.out, waiting)
    check_outputs(request.out, wanted_outputs(waiting, how), record.photos)
    if needs_detector(waiting):
        load_detector()
    names = {photo.name for photo in waiting}
    done = tuple(photo for photo in photos if photo.name not in names)
    return CloakPlan(request, applied, waiting, done, (*refused, *too_long), key, how, record)


def wanted_outputs(photos: tuple[Photo, ...], how: Written) -> dict[str, str]:
    """Return what may be written → what it is made from."""
    wanted = {photo.output: photo.name for photo in photos}
    if how.mode == "photos":
        wanted |= {photo.copy: photo.name for photo in photos}
    return wanted


def cloak(planned: CloakPlan, advance: Advance = lambda _n: None) -> Cloaked:
    """Protect the photos of a plan; each is written whole and protected, copied where it shows no face, or left out.

    Whatever was written before an interruption stays, and the same request goes on from there.

    Args:
        planned: what is to be done.
        advance: called with the number of photos finished.

    Raises:
        UsageError: the key file cannot be made.
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    request, applied, key = planned.request, planned.applied, planned.key
    attack, record = applied.attack, planned.record
    if planned.pending and planned.makes_key and request.key is not None:
        key = keys.create(request.key)
        record = record.model_copy(update={"key_fingerprint": key.fingerprint})
    by_person = attack.scope == "identity"
    edit = Edit(
        applied.name,
        by_person,
        lambda pixels, ctx: cloak_stage.cloak(attack, pixels, ctx, MICRO_BATCH),
        hide=key.hidden_in if key else lambda text: text,
    )
    folder = OutFolder(request.out, CLOAKS, record, edit, planned.how)
    folder.settle()
    if planned.pending:
        context = applied.context(key.secret if key else b"")
        for photos in batches(planned.pending, by_person=by_person):
            counted = Counted(advance, len(photos))
            faced = folder.read(photos)
            folder.edit(faced, replace(context, advance=counted))
            counted.complete()
    return Cloaked(
        tuple(folder.changed),
        (*planned.refused, *folder.refused),
        folder.detected,
        folder.record.key_fingerprint,
        *_said((*folder.changed, *folder.copied, *planned.done), folder.record),
    )


def _said(
    photos: tuple[Photo, ...], record: CloakRecord
) -> tuple[tuple[Photo, ...], tuple[Refusal, ...], tuple[Refusal, ...]]:
    """Return what a record has to say of photos, whenever they were written: copies, notes, weak cloaks."""
    return copies(photos, record), notes(photos, record), weak(photos, record)


# -- before any work -------------------------------------------------------------------------------------------


def refuse_made(photos: Path, fix: str, made_by: tuple[str, ...] = (CLOAKS, ERASED, PURIFIED)) -> None:
    """Refuse a folder, or a photo in one, that holds what a command made.

    Raises:
        UsageError: it does; the message ends with the fix.
    """
    folder = photos.parent if photos.is_file() else photos
    commands = {CLOAKS: "bench cloak", ERASED: "bench erase", PURIFIED: "bench purify"}
    for name in made_by:
        if (folder / name).exists():
            raise UsageError(f"{folder} holds {name}: these photos were made by `{commands[name]}`. {fix}")


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


def _record(applied: AppliedAttack, key: Key | None, how: Written) -> CloakRecord:
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
        mode=how.mode,
        files=how.files,
        without_location=how.without_location,
    )


_SAME = {
    "attack": "cloaks made by attack",
    "weights": "cloaks made with weights",
    "surrogates": "cloaks made with surrogates",
    "dataset": "cloaks made with dataset",
    "seed": "cloaks made with seed",
    "key_fingerprint": "cloaks made under key",
    "mode": "cloaks made as",
    "files": "cloaks made as --format",
    "without_location": "cloaks made with --strip-location",
}
"""Fields in which all cloaks of a folder agree → how they are called."""


def check_same(there: MadeRecord, requested: MadeRecord, out: Path, fields: Mapping[str, str]) -> None:
    """Check that a folder's record and what is requested agree.

    Raises:
        UsageError: a field differs; the message has both values.
    """
    for name, called in fields.items():
        old, new = (getattr(one, name) for one in (there, requested))
        if old != new:
            raise UsageError(
                f"{out} holds {called} {shown(old)}, and this is {shown(new)}. Name another folder to write to, or ask "
                "for the same."
            )


def check_code(there: MadeRecord | None, code: str, out: Path, waiting: Sequence[Photo]) -> None:
    """Check that what is added to a folder is made by the code that its record names.

    Raises:
        UsageError: it would not be.
    """
    if there is not None and waiting and there.code != code:
        raise UsageError(
            f"{out} holds what CloakBench {there.cloakbench} made with other code of this method (digest "
            f"{there.code[:12]}, now {code[:12]}). Name another folder to write the rest to."
        )


def shown(value: object) -> str:
    """Return a field of a record as it stands in a sentence."""
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text or "none"
