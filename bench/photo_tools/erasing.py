"""Taking cloaks off again: what is to be done (`plan`), and doing it (`erase`).

Whether a photo is one of ours, and whether the key is the right one, is known from the record that
`cloaking` left beside the cloaks, before anything is written. In a whole photo the record says where the faces
lie: each is cut out again, erased, and put back as `bench.faces.paste_back` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import __version__
from bench.contracts import MICRO_BATCH, Context, PersonMask
from bench.errors import UsageError
from bench.faces.pixels import Pixels
from bench.files import check_writable
from bench.photo_tools import keys, masks
from bench.photo_tools.applied import AppliedAttack, MethodRequest, erasable_attacks
from bench.photo_tools.changing import Advance, Counted, check_same
from bench.photo_tools.cloaks import Cloak, copied_photos, pending_cloaks, read_cloaks
from bench.photo_tools.erased_folder import NOTHING_CAME_OFF, ErasedFolder
from bench.photo_tools.face_editing import Edit
from bench.photo_tools.keys import Key
from bench.photo_tools.masks import MaskFile
from bench.photo_tools.photo_folders import Photo, Refusal, batches, find_photos
from bench.photo_tools.records import (
    CLOAKS,
    ERASED,
    CloakRecord,
    EraseRecord,
    check_folders,
    check_inputs,
    check_outputs,
    with_free_outputs,
    without_long_names,
)
from bench.plugins import factory
from bench.run.stages import erase as erase_stage

NO_MASK = (
    "nothing came off: the file has no mask for this subfolder; call it as when the photos were cloaked, or put "
    f"{CLOAKS} beside them"
)


@dataclass(frozen=True)
class EraseRequest:
    """What is requested.

    Attributes:
        photos: the folder of cloaks, as `bench cloak` wrote it.
        out: the folder to write.
        method: the attack; attack, dataset and surrogates that are empty are taken from the record beside the cloaks,
            and the seed always is.
        key: the key file; None where the masks are what takes cloaks off.
        masks: their file; None where there is a key.
        force: try a key that is not the cloaks' all the same.
    """

    photos: Path
    out: Path
    method: MethodRequest
    key: Path | None
    force: bool = False
    masks: Path | None = None


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
        remarks: photos that are tried all the same, with what speaks against it.
        warnings: what speaks against all of them.
        uncloaked: photos that `bench cloak` copied because they show no face: there is nothing to erase.
        record: what is in the folder to write; a new one where there is none.
    """

    request: EraseRequest
    applied: AppliedAttack
    key: Key | MaskFile
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
    check_folders(request.photos, request.out)
    photos, refused = find_photos(request.photos, ignore=(CLOAKS,))
    made = CloakRecord.read(request.photos / CLOAKS)
    key = _key(request)
    warnings = _check_key(key, made, request)
    _check_runs_no_file_of_a_record(made, request)
    known = made.attack_text if made else key.attack if isinstance(key, MaskFile) else ""
    _check_erasable(request.method.method or known, request.photos)
    applied = _applied(request, made, known)
    _check_sort(applied, key)
    if isinstance(key, MaskFile) and not request.force:
        key.check_attack(applied.name)
    warnings += _check_weights(applied, made)
    check_writable(request.out.absolute(), "the folder")
    check_inputs(photos, request.out)
    uncloaked = copied_photos(photos, made)
    cloaks, unusable, remarks = read_cloaks([photo for photo in photos if photo not in uncloaked], made)
    record = _record(applied, key, request.out)
    named = with_free_outputs([cloak.photo for cloak in cloaks], record.photos)
    fitting, too_long = without_long_names(named, request.out)
    cloaks = [
        replace(cloak, photo=photo) for cloak, photo in zip(cloaks, named, strict=True) if photo in fitting
    ]
    pending = pending_cloaks(cloaks, record, request.out, by_person=applied.by_person)
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
        tuple(remark for remark in remarks if remark.name in waiting),
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


def erase(planned: ErasePlan, advance: Advance = lambda _n: None) -> Erased:
    """Erase the cloaks of a plan; each photo is written whole, and only if the attack changed it.

    Args:
        planned: what is to be done.
        advance: called with the number of photos finished.

    Raises:
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    request, applied = planned.request, planned.applied
    edit = Edit(applied.name, applied.by_person, _change(applied, planned.key), hide=planned.key.hidden_in)
    nothing = NO_MASK if isinstance(planned.key, MaskFile) else NOTHING_CAME_OFF
    folder = ErasedFolder(request.out, planned.record, edit, nothing)
    if planned.pending:
        context = applied.context(key=None)
        for cloaks in batches(planned.pending, by_person=applied.by_person):
            counted = Counted(advance, len(cloaks))
            folder.erase(cloaks, replace(context, advance=counted))
            counted.complete()
    return Erased(tuple(folder.restored), (*planned.refused, *folder.refused), folder.partly(planned.done))


def _change(applied: AppliedAttack, key: Key | MaskFile) -> Callable[[Pixels, Context], Pixels]:
    """Return what takes cloaks off faces by a key, or by masks."""
    attack = applied.method
    if isinstance(key, MaskFile):
        assert isinstance(attack, PersonMask), "checked by plan"
        return masks.taking_off(attack, key)
    secret = key.secret
    return lambda faces, ctx: erase_stage.erase(attack, faces, secret, ctx, MICRO_BATCH)


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
        raise UsageError(f"attack '{factory.canonical(attack)}' cannot be erased. Those that can: {names}.")


def _key(request: EraseRequest) -> Key | MaskFile:
    if request.key is not None and request.masks is not None:
        raise UsageError(
            "--key and --masks are given, and cloaks come off by one of them: leave out the other."
        )
    if request.masks is not None:
        return masks.read(request.masks)
    if request.key is not None:
        return keys.read(request.key)
    raise UsageError(
        "erasing needs --key FILE, the key file that `bench cloak` made or was given; or --masks FILE, where the "
        "attack learns masks."
    )


def _check_sort(applied: AppliedAttack, key: Key | MaskFile) -> None:
    """Check that masks are given where the attack learns masks, and a key where it takes one."""
    if isinstance(applied.method, PersonMask) != isinstance(key, MaskFile):
        wanted, given = (
            ("--masks FILE, the file of its masks", "--key")
            if isinstance(applied.method, PersonMask)
            else ("--key FILE", "--masks")
        )
        raise UsageError(f"attack '{applied.name}' is erased by {wanted}, not by {given}.")


def _check_key(key: Key | MaskFile, made: CloakRecord | None, request: EraseRequest) -> tuple[str, ...]:
    if made is None or key.fingerprint == made.key_fingerprint:
        return ()
    given = request.key or request.masks
    what = f"the cloaks were made under key {made.key_fingerprint}, and {given} is key {key.fingerprint}"
    if not request.force:
        raise UsageError(
            f"wrong key: {what}. Nothing was written; give the right file, or try it with --force."
        )
    return (f"wrong key: {what}. Tried all the same, as --force says.",)


def _check_runs_no_file_of_a_record(made: CloakRecord | None, request: EraseRequest) -> None:
    """Refuse code by path that only a record names: the folder may be somebody else's."""
    if made is None:
        return
    named = [] if request.method.method else [("attack", made.attack_text, "--attack")]
    named += [] if request.method.dataset else [("dataset", made.dataset, "--dataset")]
    if not request.method.backbones:
        named += [("backbone", name, "--backbone, once for each surrogate") for name in made.surrogates]
    for what, text, option in named:
        if ".py:" in text:
            raise UsageError(
                f"{request.photos / CLOAKS} names the {what} '{text}', code in a file, which is not run because a "
                f"record says so. If you know and trust that file, name it with {option}."
            )


def _applied(request: EraseRequest, made: CloakRecord | None, known: str) -> AppliedAttack:
    given = request.method
    if made is None:
        return AppliedAttack(replace(given, method=given.method or known))
    requested = replace(
        given,
        method=given.method or made.attack_text,
        dataset=given.dataset or made.dataset,
        seed=made.seed,
        backbones=given.backbones or made.surrogates,
    )
    attack = factory.attack(requested.method)
    if factory.canonical(attack) != made.attack:
        raise UsageError(
            f"{request.photos} holds cloaks of {made.attack}, not of {factory.canonical(attack)}. Leave out --attack."
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


def _record(applied: AppliedAttack, key: Key | MaskFile, out: Path) -> EraseRecord:
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
    same = {"attack": "attack", "key_fingerprint": "key", "weights": "weights", "code": "code"}
    check_same(there, requested, {name: f"what was erased with {word}" for name, word in same.items()}, out)
    return there
