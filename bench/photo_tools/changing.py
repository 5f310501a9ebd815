"""What `cloaking` and `purifying` share: a request, the plan with its checks, doing it, and what became of the photos.

Which of a person's photos are changed is decided here, before any work, and that nothing of theirs is written over.
What must not be here: which method changes them (`applied`), reading photos (`photo_folders`), records (`records`),
writing (`face_editing`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.contracts import Context, Frozen
from bench.errors import UsageError
from bench.files import check_writable
from bench.photo_tools.applied import Applied, MethodRequest
from bench.photo_tools.face_editing import Edit, Mode, OutFolder, Written, copies, notes, pending, weak
from bench.photo_tools.photo_files import Format
from bench.photo_tools.photo_folders import (
    Photo,
    Refusal,
    batches,
    find_photos,
    load_detector,
    needs_detector,
)
from bench.photo_tools.records import (
    CLOAKS,
    ERASED,
    PURIFIED,
    MadeRecord,
    check_folders,
    check_inputs,
    check_outputs,
    with_free_outputs,
    without_long_names,
)

Advance = Callable[[int], None]

AppliedT = TypeVar("AppliedT", bound=Applied[Any])
RecordT = TypeVar("RecordT", bound=MadeRecord)

_MADE_BY: Mapping[str, str] = {CLOAKS: "bench cloak", ERASED: "bench erase", PURIFIED: "bench purify"}
"""Record beside photos → the command that made them."""

_SAME: Mapping[str, str] = {
    "weights": "made with weights",
    "dataset": "made with dataset",
    "seed": "made with seed",
    "mode": "made as",
    "files": "made as --format",
    "without_location": "made with --strip-location",
}
"""Fields in which all photos of a folder agree → how they are called; those of one kind of change go before."""


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
class PhotosRequest:
    """What is requested.

    Attributes:
        photos: the folder of photos, or one photo.
        out: the folder to write.
        method: by what.
        key: the key file of an erasable attack; made where it does not exist.
        masks: the file of masks of an attack that learns one a person; likewise.
        mode: whole photos or crops.
        files: in which format; None for PNG where the attack is erasable (erasing needs every value), and else each
            photo's own.
        without_location: whether the place is taken out of EXIF.
    """

    photos: Path
    out: Path
    method: MethodRequest
    key: Path | None = None
    mode: Mode = "photos"
    files: Format | None = None
    without_location: bool = False
    masks: Path | None = None

    def how(self, default: Format) -> Written:
        """Return how photos are written."""
        return Written(self.mode, self.files or default, self.without_location)


@dataclass(frozen=True)
class Change(Generic[RecordT]):
    """What sets cloaking and purifying apart, as far as their folders go.

    Attributes:
        record_file: name of the record beside what is written.
        record: its class.
        refuses: records beside photos that are not to be changed again.
        fix: what to do about these.
        ignores: records in the folder that is read, which are no photos.
        called: what is in the folder, e.g. ``cloaks``.
        same: further fields in which all photos of a folder agree → how they are called.
    """

    record_file: str
    record: type[RecordT]
    refuses: tuple[str, ...]
    fix: str
    ignores: tuple[str, ...]
    called: str
    same: Mapping[str, str]


@dataclass(frozen=True)
class PhotosPlan(Generic[AppliedT, RecordT]):
    """What is to be done; nothing is written yet.

    Attributes:
        request: what was requested.
        applied: the method with all it works with.
        pending: photos to change, all photos of a person where the method looks at them together.
        done: photos that an earlier call of the same command changed, or copied.
        refused: files that are no photos.
        how: whole photos or crops, and in which format.
        record: what is in the folder to write; a new one where there is none.
    """

    request: PhotosRequest
    applied: AppliedT
    pending: tuple[Photo, ...]
    done: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    how: Written
    record: RecordT = field(repr=False)


@dataclass(frozen=True)
class PhotosOutcome:
    """What became of the photos.

    Attributes:
        changed: what was written.
        refused: what was not, with the reasons; none of it is among what was written.
        copied: photos without a face, written as they are, by this call or an earlier one.
        noted: photos that are not as they were in something else too, likewise.
        weak: changed photos that show little of their change, likewise.
        detected: how many of the changed are crops cut out of a larger photo.
        record: what is in the folder now.
    """

    changed: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    copied: tuple[Photo, ...]
    noted: tuple[Refusal, ...]
    weak: tuple[Refusal, ...]
    detected: int
    record: MadeRecord = field(repr=False)


def check_photos(request: PhotosRequest, change: Change[Any]) -> None:
    """Check that photos may be read from where they are and written where they are to go.

    Raises:
        UsageError: one folder lies in the other, or the photos were made by a command whose photos are refused.
    """
    check_folders(request.photos, request.out)
    folder = request.photos.parent if request.photos.is_file() else request.photos
    for name in change.refuses:
        if (folder / name).exists():
            raise UsageError(
                f"{folder} holds {name}: these photos were made by `{_MADE_BY[name]}`. {change.fix}"
            )


def plan(
    request: PhotosRequest,
    change: Change[RecordT],
    applied: AppliedT,
    how: Written,
    record_of: Callable[[RecordT | None], RecordT],
    alone: Callable[[], Collection[str]] = frozenset,
) -> PhotosPlan[AppliedT, RecordT]:
    """Return what is to be done, with all checked that can be known before work starts.

    Args:
        request: checked by `check_photos`.
        change: which kind of change.
        applied: the method.
        how: whole photos or crops, and in which format.
        record_of: takes the folder's record, if it has one, and returns what this request would write.
        alone: asked after `record_of`, gives the people each of whose photos can be changed by itself, though the
            method looks at a person's photos together.

    Raises:
        UsageError: the folder holds other photos, or something would be written over.
        DataError: a record that cannot be used.
    """
    out = request.out
    photos, refused = find_photos(request.photos, change.ignores, how.ending)
    check_inputs(photos, out)
    there = change.record.read(out / change.record_file)
    record = record_of(there)
    if there is not None:
        called = {name: f"{change.called} {word}" for name, word in {**change.same, **_SAME}.items()}
        check_same(there, record, called, out)
        record = there.settled(out)
    check_writable(out.absolute(), "the folder")
    photos, too_long = without_long_names(with_free_outputs(photos, record.photos), out)
    waiting = pending(photos, record, out, by_person=applied.by_person, alone=alone())
    if there is not None and waiting:
        _check_code(there, applied.code, out)
    check_outputs(out, _wanted_outputs(waiting, how), record.photos)
    if needs_detector(waiting):
        load_detector()
    names = {photo.name for photo in waiting}
    done = tuple(photo for photo in photos if photo.name not in names)
    return PhotosPlan(request, applied, waiting, done, (*refused, *too_long), how, record)


def carry_out(
    planned: PhotosPlan[AppliedT, RecordT],
    change: Change[RecordT],
    edit: Edit,
    context: Callable[[], Context],
    advance: Advance,
) -> PhotosOutcome:
    """Change the photos of a plan; each is written whole and changed, copied where it shows no face, or left out.

    Whatever was written before an interruption stays, and the same request goes on from there.

    Args:
        planned: what is to be done.
        change: which kind of change.
        edit: what changes faces.
        context: gives what the method works with; called only where there is something to do.
        advance: called with the number of photos finished.

    Raises:
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    folder = OutFolder(planned.request.out, change.record_file, planned.record, edit, planned.how)
    folder.settle()
    if planned.pending:
        given = context()
        for photos in batches(planned.pending, by_person=edit.by_person):
            counted = Counted(advance, len(photos))
            folder.edit(folder.read(photos), replace(given, advance=counted))
            counted.complete()
    reported = (*folder.changed, *folder.copied, *planned.done)
    return PhotosOutcome(
        tuple(folder.changed),
        (*planned.refused, *folder.refused),
        copies(reported, folder.record),
        notes(reported, folder.record),
        weak(reported, folder.record),
        folder.detected,
        folder.record,
    )


def _wanted_outputs(photos: Sequence[Photo], how: Written) -> dict[str, str]:
    """Return what may be written → what it is made from."""
    wanted = {photo.output: photo.name for photo in photos}
    if how.mode == "photos":
        wanted |= {photo.copy: photo.name for photo in photos}
    return wanted


def check_same(there: Frozen, requested: Frozen, called: Mapping[str, str], out: Path) -> None:
    """Check that a folder's record and what is requested agree in the fields called so.

    Raises:
        UsageError: a field differs; the message has both values.
    """
    olds, news = there.model_dump(), requested.model_dump()
    for name, what in called.items():
        if olds[name] != news[name]:
            old, new = (
                (", ".join(value) if isinstance(value, tuple) else str(value)) or "none"
                for value in (olds[name], news[name])
            )
            raise UsageError(
                f"{out} holds {what} {old}, and this is {new}. Name another folder to write to, or ask for the same."
            )


def _check_code(there: MadeRecord, code: str, out: Path) -> None:
    """Check that what is added to a folder is made by the code that its record names.

    Raises:
        UsageError: it would not be.
    """
    if there.code != code:
        raise UsageError(
            f"{out} holds what CloakBench {there.cloakbench} made with other code of this method (digest "
            f"{there.code[:12]}, now {code[:12]}). Name another folder to write the rest to."
        )
