"""The answers of one cell: the protocol, with all its views and the tracker."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from bench.contracts import Binding, Decided, Embedded, PhotoSet, Protocol, Split, Trial, View
from bench.data.files import sha256_of
from bench.faces.pixels import Pixels, decode_pixels, join_pixels, overlay_pixels
from bench.plugins import factory
from bench.run import calls, decisions
from bench.run.bound import Plugin, Tracker
from bench.run.code_hashes import code_digest
from bench.run.device import Machine
from bench.run.digest import digest
from bench.run.embeddings import decode_embedded, join, overlay
from bench.run.graph import Advance, FieldsOnly, Node, Payloads


@dataclass(frozen=True)
class Kept:
    """One image that the tracker keeps of each photo of a view, as artefacts.

    Attributes:
        natural: shards of natural photos, as embeddings or as images.
        edits: shards of what is laid over them.
    """

    natural: tuple[Node, ...]
    edits: tuple[Node, ...]


@dataclass(frozen=True)
class Shown:
    """A view as artefacts.

    Attributes:
        view: what the protocol wants.
        kept: how the tracker keeps it; several where the defence keeps several images of a photo.
    """

    view: View
    kept: tuple[Kept, ...]


@dataclass(frozen=True, eq=False)
class Dealt(FieldsOnly):
    """Who is evaluated, on which photos: one for all cells of a run, and in their keys by its digest.

    Attributes:
        split: as `Protocol.split` returned it; a run's folder has it in ``splits.json``.
        impostors: as `Protocol.impostors` returned it.
    """

    split: Split
    impostors: Mapping[str, tuple[str, ...]]

    @cached_property
    def key_fields(self) -> Mapping[str, str]:
        """Digests of what ``splits.json`` holds, and of the impostors."""
        return {"split": digest(vars(self.split)), "impostors": digest(self.impostors)}


@dataclass(frozen=True, eq=False)
class Decide(Node):
    """The decisions of one cell.

    Attributes:
        protocol: takes views and tracker, returns decisions.
        binding: of the protocol, for its files.
        head: of the tracker.
        dealt: who is evaluated, on which photos.
        views: view's name → its artefacts.
        assignments: shards of whom the cloaks imitate; () where nobody asks.
        given_targets: image id → whom its cloak imitates, where the protocol says whom; {} else.
        tracker: for heads that train end to end; None for those that need embeddings only.
        seed: of the cell; 0 for heads that need embeddings only.
    """

    stage: ClassVar[str] = "decide"
    streams: ClassVar[bool] = True
    protocol: Plugin[Protocol]
    binding: Binding
    head: str
    dealt: Dealt
    views: Mapping[str, Shown]
    assignments: tuple[Node, ...] = ()
    given_targets: Mapping[str, str] = field(default_factory=dict)
    tracker: Tracker | None = None
    seed: int = 0

    @property
    def inputs(self) -> tuple[Node, ...]:
        kept = (each for shown in self.views.values() for each in shown.kept)
        views = (node for each in kept for node in (*each.natural, *each.edits))
        return (*views, *self.assignments, *(self.tracker.learnt if self.tracker else ()))

    @property
    def images(self) -> int:
        return 1

    @property
    def size(self) -> int:
        split = self.dealt.split
        return sum(len(images) for images in split.probes.values()) * split.folds * 12

    @property
    def core_seconds(self) -> float:
        if self.tracker is None:
            return 0.5
        gallery, probes = (self._photos(each) for each in ("gallery", "probes"))
        shown = [view.kept for view in self.views.values() if view.view.photos == "gallery"]
        unaltered = all(kept == shown[0] for kept in shown)  # by no cloak: one training serves every rotation
        trainings = 1 if unaltered else self.dealt.split.folds
        passes = trainings * (self.protocol.method.training_passes(gallery) + probes)
        return passes * self.tracker.backbone.core_seconds

    def _photos(self, photos: PhotoSet) -> int:
        """Return how many images the tracker is shown of a set of photos, in the view that has most of them."""
        views = (shown.kept for shown in self.views.values() if shown.view.photos == photos)
        return max((sum(node.images for each in kept for node in each.natural) for kept in views), default=0)

    def key_fields(self) -> Mapping[str, Any]:
        protocol = self.protocol.method
        return {
            "protocol": self.protocol.name,
            "class": type(protocol).__qualname__,
            "params": protocol.params.model_dump(mode="json"),
            "protocol_code": code_digest(type(protocol), *factory.modules_of(protocol)),
            "head": self.head,
            "views": {name: shown.view.model_dump(mode="json") for name, shown in self.views.items()},
            "groups": {
                name: [[len(each.natural), len(each.edits)] for each in shown.kept]
                for name, shown in self.views.items()
            },
            "files": [sha256_of(path) for path in protocol.files(self.binding)],
            **self.dealt.key_fields,
            "given_targets": [[image, target] for image, target in sorted(self.given_targets.items())],
            "tracker": self.tracker.key_fields() if self.tracker else None,
            "seed": self.seed,
        }

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return decisions as Parquet (`bench.run.decisions`)."""
        decided = self._decided(payloads, machine)  # what the views show is let go before rows become bytes
        advance(1)
        return decisions.to_bytes(decided)

    def _decided(self, payloads: Payloads, machine: Machine) -> Decided:
        seen = self._views(payloads)
        assigned = (json.loads(payloads[node.address]) for node in self.assignments)
        tracker = self.tracker
        trial = Trial(
            split=self.dealt.split,
            head=self.head,
            impostors=self.dealt.impostors,
            target_assignment={
                **self.given_targets,
                **{image: target for shard in assigned for image, target in shard.items()},
            },
            seed=self.seed,
            faces={k: v.faces(machine.device) for k, v in seen.items() if isinstance(v, Pixels)},
            tracker=None if tracker is None else lambda: tracker.on(machine, payloads),
            device=machine.device,
        )
        embedded = {k: v for k, v in seen.items() if isinstance(v, Embedded)}
        with threadpool_limits(machine.threads):
            return calls.decide(self.protocol.method, embedded, trial)

    def _views(self, payloads: Payloads) -> dict[str, Embedded | Pixels]:
        """Return what each view shows; views of the same natural photos, e.g. with and without cloaks, share them."""
        natural: dict[tuple[str, ...], Embedded | Pixels] = {}
        seen: dict[str, Embedded | Pixels] = {}
        for name, shown in self.views.items():
            parts = []
            for kept in shown.kept:
                photos = tuple(node.address for node in kept.natural)
                if photos not in natural:
                    natural[photos] = _joined(kept.natural, payloads)
                parts.append(self._see(shown.view, kept, natural[photos], payloads))
            seen[name] = _together(parts)
        return seen

    def _see(
        self, view: View, kept: Kept, natural: Embedded | Pixels, payloads: Payloads
    ) -> Embedded | Pixels:
        """Return what a view shows: the natural photos, with the attack's edits laid over them where it has any."""
        if view.state == "natural":
            return natural
        wanted = self._wanted(view, natural)
        if not kept.edits and wanted.issuperset(natural.ids):
            return natural
        if isinstance(natural, Embedded):
            edits = (decode_embedded(payloads[node.address]) for node in kept.edits)
            return overlay(natural, edits, wanted)
        changed = (
            join_pixels([decode_pixels(payloads[node.address]) for node in kept.edits])
            if kept.edits
            else None
        )
        return overlay_pixels(natural, changed, wanted)

    def _wanted(self, view: View, natural: Embedded | Pixels) -> frozenset[str]:
        """Return the ids of the photos that a view of edited ones shows."""
        if view.photos == "impostors":  # the decoys among them, and the others as they are
            return frozenset(natural.ids)
        split = self.dealt.split
        cloaked = split.cloaked if view.photos == "gallery" else split.probes
        return frozenset(image for images in cloaked.values() for image in images)


def _joined(nodes: Sequence[Node], payloads: Payloads) -> Embedded | Pixels:
    """Return shards of embeddings or of images as one."""
    if any(node.stage == "embed" for node in nodes):
        parts = (decode_embedded(payloads[node.address]) for node in nodes)
        return join(parts, sum(node.images for node in nodes))
    return join_pixels([decode_pixels(payloads[node.address]) for node in nodes])


def _together(parts: Sequence[Embedded | Pixels]) -> Embedded | Pixels:
    """Return several images of each photo, or their embeddings, as one: rows that share a photo's id."""
    if len(parts) == 1:
        return parts[0]
    pixels = [part for part in parts if isinstance(part, Pixels)]
    if pixels:
        return join_pixels(pixels)
    vectors = [part for part in parts if isinstance(part, Embedded)]
    return Embedded(
        np.concatenate([part.vectors for part in vectors]),
        tuple(name for part in vectors for name in part.ids),
        tuple(name for part in vectors for name in part.identities),
    )
