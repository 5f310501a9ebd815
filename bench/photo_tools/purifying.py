"""Purifying the faces of photos, as a tracker would: what is to be done (`plan`), and doing it (`purify`).

The counterpart of `cloaking`, over the same plan: the faces of each photo go through a defence and back.
"""

from __future__ import annotations

from bench import __version__
from bench.contracts import MICRO_BATCH
from bench.photo_tools import changing
from bench.photo_tools.applied import AppliedDefense
from bench.photo_tools.changing import Advance, Change, PhotosOutcome, PhotosPlan, PhotosRequest
from bench.photo_tools.face_editing import Edit, Written
from bench.photo_tools.records import CLOAKS, ERASED, PURIFIED, PurifyRecord
from bench.run.stages import purify as purify_stage

PurifyPlan = PhotosPlan[AppliedDefense, PurifyRecord]

_PURIFYING = Change(
    record_file=PURIFIED,
    record=PurifyRecord,
    refuses=(PURIFIED,),
    fix="Purify what it was made from.",
    ignores=(CLOAKS, ERASED),  # the tracker's folder may be that of `bench cloak` itself
    called="photos",
    same={"defense": "purified by", "extractors": "purified with extractors"},
)


def plan(request: PhotosRequest) -> PurifyPlan:
    """Return what is to be done, with all checked that can be known before work starts.

    Raises:
        UsageError: folders, defence or extractors do not fit, or something would be written over.
        DataError: a record that cannot be used.
    """
    changing.check_photos(request, _PURIFYING)
    applied = AppliedDefense(request.method)
    how = request.how("keep")
    return changing.plan(request, _PURIFYING, applied, how, lambda _there: _record(applied, how))


def purify(planned: PurifyPlan, advance: Advance = lambda _n: None) -> PhotosOutcome:
    """Purify the photos of a plan; each is written whole, copied where it shows no face, or left out.

    Args:
        planned: what is to be done.
        advance: called with the number of photos finished.

    Raises:
        DataError: weights or data are missing.
        StoreError: the disk is full or the folder cannot be written.
    """
    applied = planned.applied
    edit = Edit(
        applied.name,
        applied.by_person,
        lambda pixels, ctx: purify_stage.purify(applied.method, pixels, ctx, MICRO_BATCH),
        must_change=False,
    )
    return changing.carry_out(planned, _PURIFYING, edit, applied.context, advance)


def _record(applied: AppliedDefense, how: Written) -> PurifyRecord:
    return PurifyRecord(
        cloakbench=__version__,
        defense=applied.name,
        defense_text=applied.text,
        code=applied.code,
        weights=applied.weights,
        extractors=applied.backbones,
        dataset=applied.dataset_text,
        seed=applied.seed,
        mode=how.mode,
        files=how.files,
        without_location=how.without_location,
    )
