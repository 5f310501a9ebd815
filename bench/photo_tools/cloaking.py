"""Protecting a person's own photos: what is to be done (`plan`), and doing it (`cloak`).

What lives here: the key of an erasable attack, the masks of one that learns them, and what a folder of cloaks is. Which
photos are protected, and that nothing else is ever written as if it were, is in `bench.photo_tools.changing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from bench import __version__
from bench.contracts import MICRO_BATCH, Attack, Context, PersonMask
from bench.errors import UsageError
from bench.faces.pixels import Pixels
from bench.files import check_writable
from bench.photo_tools import changing, keys, masks
from bench.photo_tools.applied import AppliedAttack
from bench.photo_tools.changing import Advance, Change, PhotosOutcome, PhotosPlan, PhotosRequest
from bench.photo_tools.face_editing import Edit, Written
from bench.photo_tools.keys import Key
from bench.photo_tools.masks import MaskFile, Masking
from bench.photo_tools.records import CLOAKS, ERASED, PURIFIED, CloakRecord
from bench.run.stages import cloak as cloak_stage

_CLOAKING = Change(
    record_file=CLOAKS,
    record=CloakRecord,
    refuses=(CLOAKS, ERASED, PURIFIED),
    fix="Cloak the originals.",
    ignores=(),
    called="cloaks",
    same={
        "attack": "made by attack",
        "surrogates": "made with surrogates",
        "key_fingerprint": "made under key",
    },
)


@dataclass(frozen=True)
class CloakPlan(PhotosPlan[AppliedAttack, CloakRecord]):
    """What is to be done; nothing is written yet.

    Attributes:
        key: of an erasable attack; None where there is none, or where its file is yet to be made.
        masks: of an attack that learns one a person; without any where its file is yet to be made.
    """

    key: Key | None = None
    masks: MaskFile | None = None

    @property
    def makes_key(self) -> bool:
        """Whether a new key file is made."""
        return takes_key(self.applied.method) and self.key is None

    @property
    def known(self) -> tuple[str, ...]:
        """Subfolders of photos to change whose person has a mask already; "." for photos in none."""
        there = self.masks.masks if self.masks else {}
        folders = (photo.name.rpartition("/")[0] or "." for photo in self.pending if photo.person in there)
        return tuple(dict.fromkeys(folders))


@dataclass(frozen=True)
class Cloaked(PhotosOutcome):
    """What became of the photos.

    Attributes:
        fingerprint: of the key, or of the file of masks; "" where there is neither.
        learnt: how many masks were learnt.
    """

    fingerprint: str = ""
    learnt: int = 0


def takes_key(attack: Attack) -> bool:
    """Whether an attack's cloaks are made under a key; the key of a mask is the mask itself."""
    return attack.erasable and not isinstance(attack, PersonMask)


def plan(request: PhotosRequest) -> CloakPlan:
    """Return what is to be done, with all checked that can be known before work starts.

    Raises:
        UsageError: folders, attack, surrogates or key do not fit, or something would be written over.
        DataError: a key file or record that cannot be used.
    """
    changing.check_photos(request, _CLOAKING)
    applied = AppliedAttack(request.method)
    if not applied.method.changes_images:
        raise UsageError(f"attack '{applied.name}' changes no photo, so that nothing would be protected.")
    if applied.method.edits_others:
        raise UsageError(
            f"attack '{applied.name}' makes decoys of other people's photos and leaves one's own as they are; these "
            "tools change one's own. Use another attack."
        )
    how = request.how("png" if applied.method.erasable else "keep")
    applied.check_surrogates_are_there()
    key: Key | None = None
    there_are: MaskFile | None = None

    def record_of(there: CloakRecord | None) -> CloakRecord:
        nonlocal key, there_are
        key, there_are = _key(request, applied, there), _masks(request, applied, there)
        return _record(applied, key or there_are, how)

    def alone() -> frozenset[str]:
        # A mask that is there is laid on each photo by itself.
        return frozenset(there_are.masks) if there_are else frozenset()

    planned = changing.plan(request, _CLOAKING, applied, how, record_of, alone)
    if there_are and any(photo.person not in there_are.masks for photo in planned.pending):
        there_are.check_growing(made_with_of(applied))
    return CloakPlan(**vars(planned), key=key, masks=there_are)


def cloak(planned: CloakPlan, advance: Advance = lambda _n: None) -> Cloaked:
    """Protect the photos of a plan; each is written whole and protected, copied where it shows no face, or left out.

    Args:
        planned: what is to be done.
        advance: called with the number of photos finished.

    Raises:
        UsageError: the key file cannot be made.
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    applied, key, path = planned.applied, planned.key, planned.request.key
    if planned.pending and planned.makes_key and path is not None:
        key = keys.create(path)
        record = planned.record.model_copy(update={"key_fingerprint": key.fingerprint})
        planned = replace(planned, record=record)
    if planned.pending and planned.masks and not planned.masks.path.exists():
        planned.masks.write()  # before any record names it, as a key is
    masking = _masking(planned)
    change: Callable[[Pixels, Context], Pixels] = (
        masking.cloak
        if masking
        else lambda pixels, ctx: cloak_stage.cloak(applied.method, pixels, ctx, MICRO_BATCH)
    )
    edit = Edit(applied.name, applied.by_person, change, hide=key.hidden_in if key else lambda text: text)
    secret = key.secret if key else b""
    done = changing.carry_out(planned, _CLOAKING, edit, lambda: applied.context(secret), advance)
    learnt = masking.learnt if masking else 0
    return Cloaked(**vars(done), fingerprint=planned.record.key_fingerprint, learnt=learnt)


def _masking(planned: CloakPlan) -> Masking | None:
    """Return what lays masks on photos; None where the attack learns none."""
    attack = planned.applied.method
    if not isinstance(attack, PersonMask) or planned.masks is None:
        return None
    return Masking(attack, planned.masks, frozenset(photo.person for photo in planned.pending))


# -- before any work -------------------------------------------------------------------------------------------


def _key(request: PhotosRequest, applied: AppliedAttack, there: CloakRecord | None) -> Key | None:
    """Return the key of an erasable attack, None where its file is yet to be made."""
    path = request.key
    if not takes_key(applied.method):
        if path is not None:
            why = "takes its own masks off" if applied.method.erasable else "cannot be erased"
            raise UsageError(f"attack '{applied.name}' {why} and has no use for a key: leave out --key.")
        return None
    if path is None:
        raise UsageError(
            f"attack '{applied.name}' is erasable and needs --key FILE; a file that does not exist is made. Keep it: "
            "only its holder can erase the cloaks."
        )
    _check_elsewhere(request, path, "the key file")
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


def _check_elsewhere(request: PhotosRequest, path: Path, what: str) -> None:
    if request.out.resolve() in path.resolve().parents:
        raise UsageError(f"{what} {path} would lie among the photos to post. Keep it elsewhere.")


def _masks(request: PhotosRequest, applied: AppliedAttack, there: CloakRecord | None) -> MaskFile | None:
    """Return the masks of an attack that learns one a person, without any where their file is yet to be made."""
    path = request.masks
    if not isinstance(applied.method, PersonMask):
        if path is not None:
            raise UsageError(f"attack '{applied.name}' learns no masks: leave out --masks.")
        return None
    if path is None:
        raise UsageError(
            f"attack '{applied.name}' learns a mask of each person and needs --masks FILE; a file that does not exist "
            "is made. Keep it: by it later photos wear the same masks."
        )
    _check_elsewhere(request, path, "the file of masks")
    if path.exists() or path.is_symlink():
        found = masks.read(path)
        found.check_attack(applied.name)
        return found if found.masks else replace(found, made_with=made_with_of(applied))
    if there is not None:
        raise UsageError(
            f"{request.out} holds cloaks under the masks {there.key_fingerprint}, and {path} does not exist. Give that "
            "file, or name another folder to write to."
        )
    check_writable(path.absolute().parent, "--masks")
    return masks.new(path, applied.name, made_with_of(applied))


def made_with_of(applied: AppliedAttack) -> str:
    """Return what decides a mask besides attack and photos, as one text."""
    decides = (
        *(applied.code, *applied.weights),
        *(*applied.backbones, *applied.surrogate_weights()),
        *(applied.dataset_text, str(applied.seed)),
    )
    return sha256("\n".join(decides).encode()).hexdigest()[:16]


def _record(applied: AppliedAttack, key: Key | MaskFile | None, how: Written) -> CloakRecord:
    return CloakRecord(
        cloakbench=__version__,
        attack=applied.name,
        key_fingerprint=key.fingerprint if key else "",
        attack_text=applied.text,
        code=applied.code,
        weights=applied.weights,
        surrogates=applied.backbones,
        dataset=applied.dataset_text,
        seed=applied.seed,
        mode=how.mode,
        files=how.files,
        without_location=how.without_location,
    )
