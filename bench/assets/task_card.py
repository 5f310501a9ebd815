"""What a task is, for catalogues of data and for people: which photos it deals to what, and a Croissant card of that.

A task is a dataset, a protocol and a split (`bench.run.task`). The card is Croissant 1.0 (mlcommons.org/croissant/1.0)
with the fields of its extension for responsible AI. It describes the list of photos that is written beside it, which
has ids and no photo.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.contracts import AssetEntry
from bench.files import refuse_full, write_atomically
from bench.run.resolve import Resolved
from bench.run.task import task_of

CARD = "croissant.json"
PHOTOS = "photos.csv"

COLUMNS = {
    "identity": "opaque id of the person",
    "image": "image id; the dataset's own photos are had from its publishers",
    "role": "gallery: the tracker trains on it; probe: the tracker is asked about it; impostor: of nobody who is "
    "evaluated, sets thresholds or stands among the answers; target: cloaks may be made to pass for it",
    "fold": "rotation in which the identity is protected; empty for those who are not evaluated",
    "cloaked": "yes: it is cloaked in that rotation",
}
"""Columns of the list of photos."""

_TERMS = (
    *(
        "citeAs",
        "column",
        "equivalentProperty",
        "extract",
        "field",
        "fileObject",
        "fileProperty",
        "fileSet",
        "format",
    ),
    *(
        "includes",
        "isLiveDataset",
        "jsonPath",
        "key",
        "md5",
        "parentField",
        "path",
        "recordSet",
        "references",
        "regex",
    ),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
"""As Croissant 1.0 gives it."""

_DRAWN = "Faces are drawn by a program from seeds; no person is in it."
_NOT_STATED = "Not stated by its publishers, as far as the harness knows."


@dataclass(frozen=True)
class TaskCard:
    """A task as files.

    Attributes:
        task: its name with its version.
        photos: the list of photos, CSV.
        card: the Croissant card.
    """

    task: str
    photos: str
    card: dict[str, Any]

    def write(self, out: Path) -> None:
        """Write both into a folder that is empty or not there.

        Raises:
            UsageError: the folder holds something.
            StoreError: it cannot be written.
        """
        refuse_full(out)
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / PHOTOS, self.photos.encode())
        write_atomically(out / CARD, (json.dumps(self.card, indent=1, ensure_ascii=False) + "\n").encode())


def task_card(run: Resolved) -> TaskCard:
    """Return the card of a run's task; reads ids, no pixels.

    Args:
        run: dataset, protocol, split and split seed.
    """
    task = task_of(run.dataset, run.protocol, run.spec.split)
    photos = _as_csv(run)
    return TaskCard(task, photos, _card(run, task, photos))


def _as_csv(run: Resolved) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(run))
    return stream.getvalue()


def _rows(run: Resolved) -> Iterator[tuple[str, str, str, int | str, str]]:
    split = run.split
    for identity in sorted(split.gallery):
        cloaked = set(split.cloaked[identity])
        for image in split.gallery[identity]:
            yield identity, image, "gallery", split.fold[identity], "yes" if image in cloaked else ""
        for image in split.probes[identity]:
            yield identity, image, "probe", split.fold[identity], ""
    named = set(run.given_targets.values()) - split.gallery.keys()
    for identity in sorted(run.impostors.keys() - named):  # nobody who is imitated sets a threshold
        for image in run.impostors[identity]:
            yield identity, image, "impostor", "", ""
    for one in run.roles.others:
        if one.id in named:
            for image in one.photos:
                yield one.id, image, "target", "", ""


def _card(run: Resolved, task: str, photos: str) -> dict[str, Any]:
    version = task.rpartition("-v")[2]
    entries = run.dataset.assets()
    licence = "; ".join(entry.licence for entry in entries)
    drawn = run.dataset.domain == "synthetic"
    card: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": task,
        "description": _description(run),
        "version": f"{version}{'.0' * (2 - version.count('.'))}",
        "license": licence or ("Apache-2.0" if drawn else "the user's own photos"),
        "citeAs": run.dataset.paper or "none",
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": PHOTOS,
                "name": PHOTOS,
                "contentUrl": PHOTOS,
                "encodingFormat": "text/csv",
                "sha256": sha256(photos.encode()).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "photos",
                "name": "photos",
                "description": "Every photo of the task with what it is for.",
                "field": [_field(column, said) for column, said in COLUMNS.items()],
            }
        ],
    }
    if address := _address(entries):
        card["url"] = address
    return card | _responsible(run, drawn=drawn)


def _address(entries: Sequence[AssetEntry]) -> str:
    """Return where anyone gets the photos; "" where that is not known."""
    sources = (
        one for entry in entries for file in entry.files for way in file.recipes for one in way.sources
    )
    return next((source.url for source in sources if source.url), "")


def _description(run: Resolved) -> str:
    split, spec = run.split, run.spec
    counts = (sum(map(len, part.values())) for part in (split.gallery, split.probes))
    gallery, probes = counts
    return (
        f"Dataset {spec.dataset}, protocol {spec.protocol}, split {spec.split}, split seed {spec.split_seed}: "
        f"{len(split.gallery)} evaluated identities with {gallery} gallery photos and {probes} probes, protected in "
        f"{split.folds} rotations; fingerprint of the crops {run.fingerprint}."
    )


def _field(column: str, said: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"photos/{column}",
        "name": column,
        "description": said,
        "dataType": "sc:Text",
        "source": {"fileObject": {"@id": PHOTOS}, "extract": {"column": column}},
    }


def _responsible(run: Resolved, *, drawn: bool) -> dict[str, str]:
    """Return the fields of Croissant's extension for responsible AI."""
    entries = run.dataset.assets()
    collection = " ".join(entry.collection for entry in entries if entry.collection)
    biases = " ".join(entry.biases for entry in entries if entry.biases)
    return {
        "rai:dataCollection": _DRAWN if drawn else collection or _NOT_STATED,
        "rai:dataBiases": run.dataset.note if drawn else biases or _NOT_STATED,
        "rai:personalSensitiveInformation": (
            _DRAWN
            if drawn
            else "Photos of faces are biometric data of people. The list has opaque ids, no name, no photo."
        ),
        "rai:dataPreprocessingProtocol": (
            "Photos are aligned by five landmarks to 112×112 crops. Who is gallery, probe and impostor is drawn from "
            "the split seed and each identity's own id."
        ),
        "rai:dataUseCases": (
            "Measuring how far cloaks protect against face trackers, and what defences leave of that. Not for "
            "building a tracker, and not for telling groups of people apart."
        ),
        "rai:dataLimitations": (
            run.dataset.note
            or "Rates hold for people like these, photographed like this; intervals are over these people."
        ),
        "rai:dataReleaseMaintenancePlan": (
            "The version is raised when the same parameters give other photos, other crops or other rules; tables "
            "never mix versions."
        ),
    }
