"""Protecting a person's own photos: what is to be done (`plan`), and doing it (`cloak`).

What lives here: the key of an erasable attack, and what a folder of cloaks is. Which photos are protected, and that
nothing else is ever written as if it were, is in `bench.photo_tools.changing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench import __version__
from bench.contracts import MICRO_BATCH
from bench.errors import UsageError
from bench.files import check_writable
from bench.photo_tools import changing, keys
from bench.photo_tools.applied import AppliedAttack
from bench.photo_tools.changing import Advance, Change, PhotosOutcome, PhotosPlan, PhotosRequest
from bench.photo_tools.face_editing import Edit, Written
from bench.photo_tools.keys import Key
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
    """

    key: Key | None = None

    @property
    def makes_key(self) -> bool:
        """Whether a new key file is made."""
        return self.applied.method.erasable and self.key is None


@dataclass(frozen=True)
class Cloaked(PhotosOutcome):
    """What became of the photos.

    Attributes:
        fingerprint: of the key; "" where there is none.
    """

    fingerprint: str = ""


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
    how = request.how("png" if applied.method.erasable else "keep")
    applied.check_surrogates_are_there()
    key: Key | None = None

    def record_of(there: CloakRecord | None) -> CloakRecord:
        nonlocal key
        key = _key(request, applied, there)
        return _record(applied, key, how)

    planned = changing.plan(request, _CLOAKING, applied, how, record_of)
    return CloakPlan(**vars(planned), key=key)


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
    edit = Edit(
        applied.name,
        applied.by_person,
        lambda pixels, ctx: cloak_stage.cloak(applied.method, pixels, ctx, MICRO_BATCH),
        hide=key.hidden_in if key else lambda text: text,
    )
    secret = key.secret if key else b""
    done = changing.carry_out(planned, _CLOAKING, edit, lambda: applied.context(secret), advance)
    return Cloaked(**vars(done), fingerprint=planned.record.key_fingerprint)


# -- before any work -------------------------------------------------------------------------------------------


def _key(request: PhotosRequest, applied: AppliedAttack, there: CloakRecord | None) -> Key | None:
    """Return the key of an erasable attack, None where its file is yet to be made."""
    path = request.key
    if not applied.method.erasable:
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
        surrogates=applied.backbones,
        dataset=applied.dataset_text,
        seed=applied.seed,
        mode=how.mode,
        files=how.files,
        without_location=how.without_location,
    )
