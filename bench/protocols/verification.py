"""The verification protocol: whether the face before the camera is the identity it is compared with (1:1).

Two questions are asked of every cloak. Dodging: is an identity still accepted for its own enrolled photos, once
these are cloaked? Impersonation: is a cloaked photo accepted for the identity its cloak imitates? Both at
thresholds set in the run on impostors who are not evaluated. `docs/protocols/verification.md` states it in
words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from bench.contracts import ConditionFacts, Decided, Embedded, Identity, Trial, View
from bench.errors import MethodError, UsageError, unknown
from bench.protocols._rotation import Gallery, Probes, Rotation, RotationParams
from bench.protocols.heads import Vectors
from bench.protocols.thresholds import (
    FAR_LEVELS,
    Cosines,
    OperatingPoint,
    calibrate,
    cosines,
    pairs_of,
    rate_interval_of_pairs,
    shortage,
)
from bench.randomness import numpy_generator

PROTECTED, NORMAL = 0, 1
"""The two folds: everyone's photos cloaked, and nobody's. One identity's answer needs no other identity's photo."""


def _far_name(rate: float) -> str:
    return f"FAR {100 * rate:g} %"


def _cosine_name(cosine: float) -> str:
    return f"cosine {cosine:g}"


def _refuse_same_names(values: Sequence[float], name_of: Callable[[float], str]) -> None:
    """Raise ValueError where two values would share a condition, the second in place of the first."""
    first: dict[str, float] = {}
    for value in values:
        other = first.setdefault(name_of(value), value)
        if other != value:
            raise ValueError(f"{other!r} and {value!r} are both printed as '{name_of(value)}'; leave out one")


class VerificationProtocol(Rotation):
    """Comparisons of two photos at thresholds for given false-accept rates."""

    name = "verification"
    paper = "Sharif et al., Accessorize to a Crime (CCS 2016) name dodging and impersonation; rates as ISO/IEC 19795-1"
    heads = ("pair",)
    question = "dodging, FAR 1 %"

    class Params(RotationParams):
        """False-accept rates, and how many impostors set the thresholds."""

        far: tuple[float, ...] = Field(
            FAR_LEVELS,
            description="false-accept rates the thresholds are set for, joined by '|'",
            json_schema_extra={"unit": "share"},
        )
        cosine: tuple[float, ...] = Field(
            (),
            description="fixed thresholds besides, joined by '|', whatever false-accept rate they have; none as a rule",
            json_schema_extra={"unit": "cosine"},
        )
        impostors: int = Field(
            1000,
            ge=2,
            description="impostors the thresholds are set on, one photo each; all there are where there are fewer",
            json_schema_extra={"unit": "identities"},
        )
        folds: int = Field(
            1,
            ge=1,
            le=1,
            description="always 1: everyone is protected at once, as nobody is compared with anybody else",
            json_schema_extra={"unit": "rotations"},
        )

        @field_validator("far")
        @classmethod
        def _are_rates(cls, far: tuple[float, ...]) -> tuple[float, ...]:
            if not far or len(set(far)) < len(far) or not all(0 < rate < 1 for rate in far):
                raise ValueError("needs one rate or more, each between 0 and 1 and named once")
            _refuse_same_names(far, _far_name)
            return far

        @field_validator("cosine")
        @classmethod
        def _are_cosines(cls, cosine: tuple[float, ...]) -> tuple[float, ...]:
            if len(set(cosine)) < len(cosine) or not all(-1 <= threshold <= 1 for threshold in cosine):
                raise ValueError("needs cosines between -1 and 1, each named once")
            _refuse_same_names(cosine, _cosine_name)
            return cosine

    params: Params

    @property
    def views(self) -> Mapping[str, View]:
        """Enrolled photos go through the defence, presented ones do not; impostors are seen in both places."""
        return {
            "gallery": View(photos="gallery"),
            "cloaked gallery": View(photos="gallery", state="cloaked"),
            "probes": View(photos="probes", defended=False),
            "targets": View(photos="targets", defended=False),
            "enrolled impostors": View(photos="impostors"),
            "presented impostors": View(photos="impostors", defended=False),
        }

    def impostors(self, identities: Sequence[Identity], split_seed: int) -> Mapping[str, tuple[str, ...]]:
        """Draw impostors, with the first photo of each.

        Raises:
            UsageError: fewer than two identities.
        """
        return draw_impostors(self.name, identities, split_seed, self.params.impostors)

    def decide(self, views: Mapping[str, Embedded], trial: Trial) -> Decided:
        """Return the answer to every comparison, at every threshold that could be set.

        Raises:
            UsageError: the head is not known.
            MethodError: a probe or an imitated identity is missing, or embeddings are not finite.
        """
        import pandas as pd

        if trial.head not in self.heads:
            raise unknown("head", trial.head, self.heads)
        impostors = views["enrolled impostors"], views["presented impostors"]
        without = frozenset(views["targets"].identities)
        points = operating_points(*impostors, self.params.far, without=without)
        thresholds = {_far_name(rate): threshold_facts(rate, points[rate]) for rate in self.params.far}
        for fixed in self.params.cosine:
            thresholds[_cosine_name(fixed)] = fixed_facts(*impostors, fixed, without=without)
        requested = {"dodging": dodging(views, trial)}
        if trial.target_assignment:
            requested["impersonation"] = impersonation(views, trial)
        facts = {}
        frames = [_no_rows()]
        for question in ("dodging", "impersonation"):
            for threshold, fact in thresholds.items():
                name = f"{question}, {threshold}"
                if question not in requested:
                    facts[name] = ConditionFacts(reason="the attack imitates nobody in particular")
                    continue
                facts[name] = fact
                if fact.threshold is not None:
                    frames.append(requested[question].at(fact.threshold).assign(condition=name))
        return Decided(pd.concat(frames[1:] or frames, ignore_index=True), facts)


# -- thresholds ----------------------------------------------------------------------------------------------


def draw_impostors(
    protocol: str, identities: Sequence[Identity], split_seed: int, count: int
) -> Mapping[str, tuple[str, ...]]:
    """Return up to `count` identities that thresholds are set on, with the first photo of each.

    Args:
        protocol: whose thresholds, for the message.
        identities: of a dataset; those of role ``training`` are drawn from.
        split_seed: decides the draw.
        count: all there are where there are fewer.

    Raises:
        UsageError: fewer than two identities.
    """
    ordered = sorted((p for p in identities if p.role == "training"), key=lambda p: p.id)
    if len(ordered) < 2:
        raise UsageError(
            f"protocol '{protocol}' sets its thresholds on identities that are not evaluated, found {len(ordered)}. "
            "Use a dataset that has training identities, thousands if possible."
        )
    order = numpy_generator(split_seed, "impostors").permutation(len(ordered))
    return {ordered[i].id: ordered[i].photos[:1] for i in sorted(order[:count])}


def operating_points(
    enrolled: Embedded, presented: Embedded, rates: Sequence[float], without: frozenset[str] = frozenset()
) -> dict[float, OperatingPoint | str]:
    """Return rate → its operating point, or why there is none.

    Args:
        enrolled: one photo an impostor, as the gallery is treated.
        presented: the same photos, as probes are treated. Impostors seen on one side only are left out.
        rates: false-accept rates in (0, 1).
        without: impostors to leave out: identities whom cloaks imitate take part in the evaluation.

    Raises:
        MethodError: an embedding is not finite.
    """
    first, second = _impostors(enrolled, presented, without)
    found: dict[float, OperatingPoint | str] = {rate: shortage(rate, len(first)) for rate in rates}
    possible = [rate for rate in rates if not found[rate]]
    if possible:
        # Not the cell's seed: cells that differ in it alone have the same thresholds.
        points = calibrate(first, second, possible, numpy_generator(0, "FAR interval"))
        found |= dict(zip(possible, points, strict=True))
    return found


def fixed_facts(
    enrolled: Embedded, presented: Embedded, cosine: float, without: frozenset[str] = frozenset()
) -> ConditionFacts:
    """Return what a reader must know of a fixed threshold: the false-accept rate impostors have at it.

    Fewer than two impostors give no rate but the reason; the threshold is used all the same.

    Args:
        enrolled: as for `operating_points`.
        presented: likewise.
        cosine: the threshold.
        without: likewise.

    Raises:
        MethodError: an embedding is not finite.
    """
    first, second = _impostors(enrolled, presented, without)
    facts = ConditionFacts(
        threshold=cosine, rate_name="FAR", pairs=pairs_of(len(first)), identities=len(first)
    )
    if len(first) < 2:
        reason = f"the false-accept rate at a fixed threshold needs two impostors or more, found {len(first)}"
        return facts.model_copy(update={"reason": reason})
    accepted = cosines(first, second) >= np.float64(cosine)
    rate, low, high = rate_interval_of_pairs(accepted, numpy_generator(0, "FAR interval"))
    return facts.model_copy(update={"rate": rate, "rate_low": low, "rate_high": high})


def _impostors(
    enrolled: Embedded, presented: Embedded, without: frozenset[str]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return n×D embeddings of the impostors seen on both sides, in one order."""
    rows = [_row_of_identity(side) for side in (enrolled, presented)]
    identities = sorted((rows[0].keys() & rows[1].keys()) - without)
    first, second = (
        np.asarray(side.vectors)[[row[identity] for identity in identities]]
        for side, row in zip((enrolled, presented), rows, strict=True)
    )
    return first, second


def _row_of_identity(embedded: Embedded) -> dict[str, int]:
    return {identity: row for row, identity in enumerate(embedded.identities)}


def threshold_facts(rate: float, point: OperatingPoint | str) -> ConditionFacts:
    """Return what a reader must know of a threshold for a false-accept rate, or why there is none."""
    if isinstance(point, str):
        return ConditionFacts(rate_name="FAR", rate_wanted=rate, reason=point)
    return ConditionFacts(
        threshold=point.threshold,
        rate_name="FAR",
        rate_wanted=rate,
        rate=point.rate,
        rate_low=point.low,
        rate_high=point.high,
        pairs=point.pairs,
        identities=point.identities,
    )


# -- comparisons ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparisons:
    """Pairs of photos with their scores, before any threshold.

    Attributes:
        fold: `PROTECTED` or `NORMAL`.
        identity: the evaluated identity.
        image: image id of the photo presented, or of the cloak that claims to be somebody.
        reference: image id of the photo it is compared with; None where there is none left.
        claimed: identity id that is answered where the pair is accepted.
        score: cosine, NaN without a reference.
        accepting_is_right: whether the claim is true.
    """

    fold: NDArray[np.int16]
    identity: NDArray[Any]
    image: NDArray[Any]
    reference: NDArray[Any]
    claimed: NDArray[Any]
    score: Cosines
    accepting_is_right: bool

    @classmethod
    def of(cls, blocks: Sequence[_Block], *, accepting_is_right: bool) -> Comparisons:
        """Return the pairs of several blocks as one."""
        sizes = [block.scores.size for block in blocks]

        def column(values: Sequence[Any]) -> NDArray[Any]:
            return np.repeat(np.array(values, dtype=object), sizes)

        return cls(
            fold=np.repeat(np.array([block.fold for block in blocks], dtype=np.int16), sizes),
            identity=column([block.identity for block in blocks]),
            image=_names(name for b in blocks for name in b.images for _ in b.references),
            reference=_names(name for b in blocks for _ in b.images for name in b.references),
            claimed=column([block.claimed for block in blocks]),
            score=np.concatenate([block.scores.ravel() for block in blocks]),
            accepting_is_right=accepting_is_right,
        )

    def at(self, threshold: float) -> Any:
        """Return the decisions at a threshold, as a data frame without `condition`."""
        import pandas as pd

        accepted = self.score >= np.float64(threshold)  # in float64, as calibrated; NaN is not
        predicted = self.claimed.copy()
        predicted[~accepted] = None
        return pd.DataFrame(
            {
                "fold": self.fold,
                "identity": self.identity,
                "image": self.image,
                "reference": self.reference,
                "protected": self.fold == PROTECTED,
                "predicted": predicted,
                "correct": accepted == self.accepting_is_right,
                "score": self.score,
                "margin": np.asarray(self.score - np.float64(threshold), dtype=np.float32),
            }
        )


@dataclass(frozen=True)
class _Block:
    """Every photo of `images` against every one of `references`, all of one identity and one claim.

    Attributes:
        fold: `PROTECTED` or `NORMAL`.
        identity: the evaluated identity.
        claimed: the identity claimed.
        images: image ids.
        references: image ids; (None,) where no photo is left.
        scores: len(images) × len(references) cosines.
    """

    fold: int
    identity: str
    claimed: str
    images: tuple[str, ...]
    references: tuple[str | None, ...]
    scores: Cosines


def _names(names: Iterator[str | None]) -> NDArray[Any]:
    return np.array(list(names), dtype=object)


def dodging(views: Mapping[str, Embedded], trial: Trial) -> Comparisons:
    """Return each probe against each enrolled photo of its own identity, cloaked and natural.

    Photos that a defence dropped are not compared. An identity with none left gives a row a probe without
    reference, never accepted.

    Raises:
        MethodError: a probe is missing, or an embedding is not finite.
    """
    gallery = Gallery.of(views["gallery"], views["cloaked gallery"], trial.split)
    probes = Probes.of(views["probes"], views["probes"], trial.split, gallery.identities)
    ids = (*views["gallery"].ids, *views["cloaked gallery"].ids)
    bounds = np.searchsorted(probes.labels, np.arange(len(gallery.identities) + 1))
    blocks = []
    for fold, rows_of in ((PROTECTED, gallery.protected), (NORMAL, gallery.natural)):
        for label, rows in enumerate(rows_of):
            own = slice(bounds[label], bounds[label + 1])
            images = probes.images[own]
            identity = gallery.identities[label]
            references = tuple(ids[row] for row in rows)
            scores = cosines(probes.natural[own], gallery.vectors(rows)) if references else _unknown(images)
            blocks.append(_Block(fold, identity, identity, images, references or (None,), scores))
    return Comparisons.of(blocks, accepting_is_right=True)


def _unknown(images: Sequence[str]) -> Cosines:
    return np.full((len(images), 1), np.nan, dtype=np.float32)


def impersonation(views: Mapping[str, Embedded], trial: Trial) -> Comparisons:
    """Return each cloaked photo, cloaked and natural, against each photo of the identity its cloak imitates.

    Cloaks that a defence dropped are not compared; an identity with none left gives a row a photo without
    reference, not accepted.

    Raises:
        MethodError: a photo's cloak imitates nobody, or someone without photos; or an embedding is not finite.
    """
    targets = _photos_by_identity(views["targets"])
    blocks: list[_Block] = []
    for fold, view in ((PROTECTED, views["cloaked gallery"]), (NORMAL, views["gallery"])):
        vector = partial(_vector, view, {image: row for row, image in enumerate(view.ids)})
        for identity in sorted(trial.split.cloaked):
            images = trial.split.cloaked[identity]
            aimed = [(image, *_target(image, trial.target_assignment, targets)) for image in images]
            own = [
                _Block(fold, identity, target, (image,), photos, cosines(seen, vectors))
                for image, target, photos, vectors in aimed
                if (seen := vector(image)) is not None
            ]
            blocks += own or [
                _Block(fold, identity, target, (image,), (None,), _unknown([image]))
                for image, target, _, _ in aimed
            ]
    return Comparisons.of(blocks, accepting_is_right=False)


def _vector(view: Embedded, rows: Mapping[str, int], image: str) -> Vectors | None:
    """Return a photo's embedding, 1×D; None where the view lacks it."""
    row = rows.get(image)
    return None if row is None else np.asarray(view.vectors)[row : row + 1]


def _photos_by_identity(view: Embedded) -> dict[str, tuple[tuple[str, ...], Vectors]]:
    """Return identity id → image ids, sorted, and their embeddings."""
    rows: dict[str, list[int]] = {}
    for row in sorted(range(len(view.ids)), key=lambda row: view.ids[row]):
        rows.setdefault(view.identities[row], []).append(row)
    return {
        identity: (tuple(view.ids[row] for row in found), np.asarray(view.vectors)[found])
        for identity, found in rows.items()
    }


def _target(
    image: str, target_assignment: Mapping[str, str], targets: Mapping[str, tuple[tuple[str, ...], Vectors]]
) -> tuple[str, tuple[str, ...], Vectors]:
    """Return whom a photo's cloak imitates, with that identity's photos."""
    target = target_assignment.get(image)
    if target is None or target not in targets:
        raise MethodError(
            f"the cloak of '{image}' aims at {target!r}, who is not among the {len(targets)} identities that can be "
            "imitated. See the attack's assign_targets()."
        )
    return (target, *targets[target])


def _no_rows() -> Any:
    """Return decisions of nothing, with the columns' types."""
    nothing = np.array([], dtype=object)
    empty = Comparisons(
        np.array([], dtype=np.int16), nothing, nothing, nothing, nothing, np.array([], dtype=np.float32), True
    )
    return empty.at(0.0).assign(condition=nothing)
