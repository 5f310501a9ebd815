"""Rotation over identities: what protocols share that train a tracker on some identities' cloaks at a time.

Each identity's photos are dealt into gallery and probes. Identities are dealt into folds; in turn each fold is
protected, its gallery cloaked, while all others are normal, so that everyone is measured once as protected
and folds − 1 times as normal. `docs/protocol.md` states it in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bench.contracts import Embedded, Identity, MethodParams, Protocol, Split
from bench.errors import MethodError, UsageError
from bench.protocols.heads import Head, Labels, Scorer, Scores, Vectors
from bench.randomness import numpy_generator


class RotationParams(MethodParams):
    """How photos are dealt."""

    gallery_fraction: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="share of an identity's photos the tracker trains on",
        json_schema_extra={"unit": "share"},
    )
    max_gallery: int = Field(
        10, ge=1, description="most gallery photos an identity", json_schema_extra={"unit": "photos"}
    )
    min_probes: int = Field(
        2, ge=1, description="least probes an identity", json_schema_extra={"unit": "photos"}
    )
    max_probes: int = Field(
        10, ge=1, description="most probes an identity", json_schema_extra={"unit": "photos"}
    )
    folds: int = Field(
        10,
        ge=1,
        le=32767,
        description="rotations; never more than identities",
        json_schema_extra={"unit": "rotations"},
    )
    cloaked_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of a protected identity's gallery that is cloaked, at least one photo",
        json_schema_extra={"unit": "share"},
    )

    @model_validator(mode="after")
    def _ordered(self) -> RotationParams:
        if self.min_probes > self.max_probes:
            raise ValueError(f"min_probes {self.min_probes} is more than max_probes {self.max_probes}")
        return self


class Rotation(Protocol):
    """A protocol in which everyone is protected in one fold and normal in the others."""

    Params = RotationParams
    params: RotationParams

    def split(self, identities: Sequence[Identity], split_seed: int) -> Split:
        """Deal the identities of role ``evaluation`` into gallery, probes and folds.

        Who is in which list depends on an identity's own id and photos only; folds depend on all ids.

        Args:
            identities: of one dataset, any order; those of role ``training`` are left out.
            split_seed: the same for all cells of a dataset.

        Raises:
            UsageError: fewer than two identities, or someone with fewer than 1 + `min_probes` photos.
        """
        evaluated = sorted((p for p in identities if p.role == "evaluation"), key=lambda p: p.id)
        if len(evaluated) < 2:
            raise UsageError(
                f"protocol '{self.name}' needs at least 2 evaluated identities, found {len(evaluated)}. "
                "Use a dataset with more."
            )
        self._require_photos(evaluated)
        dealt = {identity.id: self._deal(identity, split_seed) for identity in evaluated}
        gallery = {name: photos for name, (photos, _) in dealt.items()}
        return Split(
            gallery=gallery,
            probes={name: photos for name, (_, photos) in dealt.items()},
            fold=self._folds([identity.id for identity in evaluated], split_seed),
            cloaked={name: photos[: self._n_cloaked(len(photos))] for name, photos in gallery.items()},
        )

    def _require_photos(self, identities: Sequence[Identity]) -> None:
        least = 1 + self.params.min_probes
        short = [identity for identity in identities if len(set(identity.photos)) < least]
        if short:
            first = short[0]
            raise UsageError(
                f"{len(short)} of {len(identities)} identities have too few photos, first '{first.id}' with "
                f"{len(set(first.photos))}; protocol '{self.name}' needs {least} (1 for the gallery and "
                f"{least - 1} as probes). Add photos, leave these identities out, or lower min_probes."
            )

    def _deal(self, identity: Identity, split_seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return one identity's gallery and probes."""
        params = self.params
        photos = sorted(set(identity.photos))
        order = numpy_generator(split_seed, "split", identity.id).permutation(len(photos))
        wanted = round_half_up(params.gallery_fraction * len(photos))
        n_gallery = max(1, min(wanted, params.max_gallery, len(photos) - params.min_probes))
        shuffled = [photos[i] for i in order]
        return tuple(shuffled[:n_gallery]), tuple(shuffled[n_gallery:][: params.max_probes])

    def _folds(self, ids: Sequence[str], split_seed: int) -> dict[str, int]:
        """Deal ids round-robin in a seeded order; sizes differ by one at most."""
        folds = min(self.params.folds, len(ids))
        draw = {name: numpy_generator(split_seed, "fold", name).random() for name in ids}
        fold = {name: rank % folds for rank, name in enumerate(sorted(ids, key=lambda i: (draw[i], i)))}
        return {name: fold[name] for name in ids}

    def _n_cloaked(self, n_gallery: int) -> int:
        return max(1, round_half_up(self.params.cloaked_share * n_gallery))


def round_half_up(value: float) -> int:
    """Return the nearest whole number, halves up (Python's round goes to even)."""
    return math.floor(value + 0.5)


@dataclass(frozen=True)
class Gallery:
    """The gallery in both states of every identity.

    Attributes:
        identities: ids, sorted; a label is an index into it.
        states: natural embeddings and cloaked ones, as the views have them; a row counts through both.
        natural: label → rows when the identity is normal; several a photo where the defence keeps several views of it.
        protected: label → rows when the identity is protected, likewise.
        fold: label → the rotation in which the identity is protected.
    """

    identities: tuple[str, ...]
    states: tuple[Vectors, Vectors]
    natural: tuple[NDArray[np.intp], ...]
    protected: tuple[NDArray[np.intp], ...]
    fold: NDArray[np.int16]

    @classmethod
    def of(cls, as_natural: Embedded, as_cloaked: Embedded, split: Split) -> Gallery:
        """Return the gallery of two views: every photo natural, and those of `Split.cloaked` cloaked."""
        identities = tuple(sorted(split.gallery))
        natural, cloaked = _rows_by_image(as_natural), _rows_by_image(as_cloaked, len(as_natural.ids))

        def rows(name: str, is_cloaked: frozenset[str]) -> NDArray[np.intp]:
            found = (
                (cloaked if image in is_cloaked else natural).get(image, ()) for image in split.gallery[name]
            )
            return np.array([row for of_image in found for row in of_image], dtype=np.intp)

        return cls(
            identities,
            (_array(as_natural), _array(as_cloaked)),
            tuple(rows(name, frozenset()) for name in identities),
            tuple(rows(name, frozenset(split.cloaked[name])) for name in identities),
            np.array([split.fold[name] for name in identities], dtype=np.int16),
        )

    @property
    def folds(self) -> int:
        """The number of rotations."""
        return 1 + int(self.fold.max())

    @cached_property
    def unaltered(self) -> NDArray[np.bool_]:
        """Label → whether the protected state equals the natural one (attack ``none``)."""
        pairs = zip(self.natural, self.protected, strict=True)
        return np.array([np.array_equal(self.vectors(a), self.vectors(b)) for a, b in pairs])

    def vectors(self, rows: NDArray[np.intp]) -> Vectors:
        """Return the embeddings in some rows, not copied where they follow one another: nobody may write to them."""
        natural, cloaked = self.states
        if not len(rows):
            return natural[:0]
        start, stop, first = int(rows[0]), int(rows[-1]) + 1, len(natural)
        if stop - start == len(rows) and (np.diff(rows) == 1).all() and (stop <= first or start >= first):
            return natural[start:stop] if stop <= first else cloaked[start - first : stop - first]
        found = np.empty((len(rows), *natural.shape[1:]), dtype=np.result_type(natural, cloaked))
        is_cloaked = rows >= first
        found[~is_cloaked] = natural[rows[~is_cloaked]]
        found[is_cloaked] = cloaked[rows[is_cloaked] - first]
        return found

    def chosen(self, is_protected: NDArray[np.bool_]) -> tuple[Vectors, Labels]:
        """Return embeddings and labels of the photos, with the identities of `is_protected` (K booleans) cloaked."""
        states = zip(is_protected, self.natural, self.protected, strict=True)
        rows = [protected if chosen else natural for chosen, natural, protected in states]
        labels: Labels = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        return self.vectors(np.concatenate(rows)), labels

    def fit(self, head: Head, is_protected: NDArray[np.bool_]) -> Scorer:
        """Train the head with the identities of `is_protected` (K booleans) cloaked."""
        return head.fit(*self.chosen(is_protected), len(self.identities))


@dataclass(frozen=True)
class Probes:
    """Every probe of every identity, sorted by (identity, image).

    Attributes:
        images: image ids.
        labels: index of each probe's identity.
        natural: M×D embeddings as used while the identity is normal.
        protected: the same while the identity is protected.
    """

    images: tuple[str, ...]
    labels: Labels
    natural: Vectors
    protected: Vectors

    @classmethod
    def of(cls, natural: Embedded, protected: Embedded, split: Split, identities: Sequence[str]) -> Probes:
        """Return the probes of `identities` as used while their identity is normal, and while protected."""
        named = [(k, image) for k, name in enumerate(identities) for image in sorted(split.probes[name])]
        images = tuple(image for _, image in named)
        labels = np.array([k for k, _ in named], dtype=np.intp)
        as_normal = _select(natural, images)
        return cls(
            images, labels, as_normal, as_normal if protected is natural else _select(protected, images)
        )

    @cached_property
    def unaltered(self) -> bool:
        """Whether both states are the same."""
        return self.natural is self.protected or np.array_equal(self.natural, self.protected)

    def score(self, scorer: Scorer) -> tuple[Scores, Scores]:
        """Return M×K scores of the natural and of the protected probes."""
        natural = scorer(self.natural)
        return natural, natural if self.unaltered else scorer(self.protected)


def _array(embedded: Embedded) -> Vectors:
    vectors: Vectors = np.asarray(embedded.vectors)
    return vectors


def _rows_by_image(embedded: Embedded, first: int = 0) -> Mapping[str, tuple[int, ...]]:
    """Return image id → its rows, counted from `first`."""
    found: dict[str, tuple[int, ...]] = {}
    for row, image in enumerate(embedded.ids, first):
        found[image] = (*found.get(image, ()), row)
    return found


def _positions(embedded: Embedded) -> Mapping[str, int]:
    return {image: row for row, image in enumerate(embedded.ids)}


def _select(embedded: Embedded, images: Sequence[str]) -> Vectors:
    positions = _positions(embedded)
    missing = [image for image in images if image not in positions]
    if missing:
        raise MethodError(
            f"{len(missing)} of {len(images)} probes have no embedding, first '{missing[0]}'. "
            "A defence may drop gallery photos but not probes."
        )
    chosen: Vectors = _array(embedded)[[positions[image] for image in images]]
    return chosen


def scores_by_fold(head: Head, gallery: Gallery, probes: Probes) -> Iterator[Scores]:
    """Yield the M×K scores of each rotation, for which the head is trained; equal galleries train once."""
    nobody = np.zeros(len(gallery.identities), dtype=bool)
    untouched: tuple[Scores, Scores] | None = None
    for fold in range(gallery.folds):
        columns = gallery.fold == fold
        if gallery.unaltered[columns].all():
            untouched = untouched or probes.score(gallery.fit(head, nobody))
            of_natural, of_protected = untouched
        else:
            of_natural, of_protected = probes.score(gallery.fit(head, columns))
        yield np.where(columns[probes.labels][:, None], of_protected, of_natural)
