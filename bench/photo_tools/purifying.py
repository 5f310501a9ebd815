"""Purifying the faces of photos, as a tracker would: what is to be done (`plan`), and doing it (`purify`).

The counterpart of `cloaking`, over the same machinery: the faces of each photo go through a defence and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bench import __version__
from bench.contracts import MICRO_BATCH, Binding, Context, Purifier
from bench.data.files import sha256_of
from bench.errors import UsageError
from bench.photo_tools.applied import default_dataset, files_of, machine_of, with_weights
from bench.photo_tools.cloaking import Advance, Counted, check_code, check_same, refuse_made, wanted_outputs
from bench.photo_tools.face_editing import Edit, OutFolder, Written, batches, copies, notes, pending, weak
from bench.photo_tools.photo_folders import Photo, Refusal, find_photos, load_detector, needs_detector
from bench.photo_tools.records import (
    PURIFIED,
    PurifyRecord,
    check_folders,
    check_inputs,
    check_outputs,
    with_free_outputs,
    without_long_names,
)
from bench.plugins import factory
from bench.run.code_hashes import code_digest
from bench.run.graph import Executor
from bench.run.pipeline import Pipeline
from bench.run.planning import check_writable
from bench.run.resolve import Resolved, resolve
from bench.run.spec import make_spec
from bench.run.stages import purify as purify_stage
from bench.run.store import Store, default_folder

_NOBODY = ""
"""Name of a tracker that nobody knows."""


@dataclass(frozen=True)
class PurifyRequest:
    """What is requested.

    Attributes:
        photos: the folder of photos, or one photo.
        out: the folder to write.
        defense: the defence's text, also several joined by ``+``.
        backbones: extractors of a defence that uses some; () for those of its weights.
        dataset: whose pool and training people count; "" for LFW where it is there, else synthetic.
        seed: of the defence's randomness.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: threads torch computes with; None for all cores.
        store: where what the defence learnt is kept; None for the default.
        how: whole photos or crops, and in which format.
    """

    photos: Path
    out: Path
    defense: str
    backbones: tuple[str, ...] = ()
    dataset: str = ""
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    store: Path | None = None
    how: Written = field(default_factory=Written)


class AppliedDefense:
    """A purifier with everything it works with.

    Args:
        asked: what is requested.

    Raises:
        UsageError: an unknown method, one that is no purifier or changes nothing, or no fitting weights.
        DataError: data are missing.
    """

    def __init__(self, requested: PurifyRequest) -> None:
        self.text = factory.normal("defenses", requested.defense)
        self.dataset_text = requested.dataset or default_dataset()
        self._requested = requested
        spec = {
            "attacks": ("none",),
            "defenses": (self.text,),
            "dataset": self.dataset_text,
            "seeds": (requested.seed,),
        }
        run = resolve(make_spec(spec))
        self.name = run.spec.defenses[0]
        defense = run.defenses[self.name]
        if not isinstance(defense, Purifier):
            raise UsageError(
                f"defence '{self.name}' changes the tracker, not photos. Give a purifier; see `bench list defenses`."
            )
        if not defense.changes_images:
            raise UsageError(f"defence '{self.name}' changes no photo, so that nothing would be purified.")
        self.defense: Purifier = defense
        self.run: Resolved = with_weights(run, defense, requested.backbones)
        self.binding: Binding = self.run.binding(defense, _NOBODY)
        self.weights = tuple(sha256_of(path) for path in files_of(defense, self.binding))

    @property
    def extractors(self) -> tuple[str, ...]:
        """The backbones it uses, by name."""
        return self.binding.backbones

    @property
    def code(self) -> str:
        """The digest of its code."""
        return code_digest(type(self.defense), *map(type, self.defense.parts()), "bench.run.stages.purify")

    @property
    def note(self) -> str:
        """The dataset's caution, where extractors, weights or training people make it count; or ""."""
        return self.run.dataset.note if self.extractors or self.weights or self.defense.requires_fit else ""

    @cached_property
    def _pipeline(self) -> Pipeline:
        return Pipeline(self.run, machine_of(self._requested.device, self._requested.threads))

    def context(self) -> Context:
        """Return the context for `Purifier.purify`.

        Raises:
            UsageError: the dataset has no people to learn from, or the device is not there.
            DataError: photos of theirs are missing.
            NodeError: what the defence learns could not be made.
        """
        pipeline = self._pipeline
        executor = Executor(Store(self._requested.store or default_folder()), pipeline.machine)
        bound = pipeline.method("defenses", self.name, _NOBODY, self._requested.seed)
        return bound.context(pipeline.machine, {node.address: executor.fetch(node) for node in bound.learnt})


@dataclass(frozen=True)
class PurifyPlan:
    """What is to be done; nothing is written yet.

    Attributes:
        request: what was requested.
        applied: the defence with all it works with.
        pending: photos to purify.
        done: photos that an earlier call of the same command purified, or copied.
        refused: files that are no photos.
        record: what is in the folder to write; a new one where there is none.
    """

    request: PurifyRequest
    applied: AppliedDefense
    pending: tuple[Photo, ...]
    done: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    record: PurifyRecord = field(repr=False)


@dataclass(frozen=True)
class Purified:
    """What became of the photos.

    Attributes:
        purified: what was written.
        refused: what was not, with the reasons.
        copied: photos without a face, written as they are, by this call or an earlier one.
        noted: photos that are not as they were in something else too, likewise.
        weak: purified photos that show little of what the defence changed, likewise.
    """

    purified: tuple[Photo, ...]
    refused: tuple[Refusal, ...]
    copied: tuple[Photo, ...]
    noted: tuple[Refusal, ...]
    weak: tuple[Refusal, ...] = ()


_SAME = {
    "defense": "photos purified by",
    "weights": "photos purified with weights",
    "extractors": "photos purified with extractors",
    "dataset": "photos purified with dataset",
    "seed": "photos purified with seed",
    "mode": "photos written as",
    "files": "photos written as --format",
    "without_location": "photos written with --strip-location",
}
"""Fields in which all purified photos of a folder agree → how they are called."""


def plan(request: PurifyRequest) -> PurifyPlan:
    """Return what is to be done, with all checked that can be known before work starts.

    Raises:
        UsageError: folders, defence or extractors do not fit, or something would be written over.
        DataError: a record that cannot be used.
    """
    check_folders(request.photos, request.out)
    refuse_made(request.photos, "Purify what it was made from.", (PURIFIED,))
    applied = AppliedDefense(request)
    ignore = ("cloaks.json", "erased.json")  # the tracker's folder may be that of `bench cloak` itself
    photos, refused = find_photos(request.photos, ignore, request.how.ending)
    check_inputs(photos, request.out)
    there = PurifyRecord.read(request.out / PURIFIED)
    record = _record(applied, request)
    if there is not None:
        check_same(there, record, request.out, _SAME)
        record = there.settled(request.out)
    check_writable(request.out.absolute(), "the folder")
    photos, too_long = without_long_names(with_free_outputs(photos, record.photos), request.out)
    waiting = pending(photos, record, request.out, by_person=False)
    check_code(there, applied.code, request.out, waiting)
    check_outputs(request.out, wanted_outputs(waiting, request.how), record.photos)
    if needs_detector(waiting):
        load_detector()
    names = {photo.name for photo in waiting}
    done = tuple(photo for photo in photos if photo.name not in names)
    return PurifyPlan(request, applied, waiting, done, (*refused, *too_long), record)


def purify(planned: PurifyPlan, advance: Advance = lambda _n: None) -> Purified:
    """Purify the photos of a plan; each is written whole, copied where it shows no face, or left out.

    Args:
        planned: what is to be done.
        advance: called with the number of photos finished.

    Raises:
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    request, applied = planned.request, planned.applied
    edit = Edit(
        applied.name,
        by_person=False,
        change=lambda pixels, ctx: purify_stage.purify(applied.defense, pixels, ctx, MICRO_BATCH),
        must_change=False,
    )
    folder = OutFolder(request.out, PURIFIED, planned.record, edit, request.how)
    folder.settle()
    if planned.pending:
        context = applied.context()
        for photos in batches(planned.pending, by_person=False):
            counted = Counted(advance, len(photos))
            folder.edit(folder.read(photos), replace(context, advance=counted))
            counted.complete()
    said = (*folder.changed, *folder.copied, *planned.done)
    return Purified(
        tuple(folder.changed),
        (*planned.refused, *folder.refused),
        copies(said, folder.record),
        notes(said, folder.record),
        weak(said, folder.record),
    )


def _record(applied: AppliedDefense, request: PurifyRequest) -> PurifyRecord:
    return PurifyRecord(
        cloakbench=__version__,
        defense=applied.name,
        defense_text=applied.text,
        code=applied.code,
        weights=applied.weights,
        extractors=applied.extractors,
        dataset=applied.dataset_text,
        seed=request.seed,
        mode=request.how.mode,
        files=request.how.files,
        without_location=request.how.without_location,
    )
