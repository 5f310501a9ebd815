"""Measures: views over decisions and over per-image quality (DESIGN 6).

What lives here: what a leaderboard's columns mean, as pure functions of data frames. What must not:
intervals themselves (`bench.stats.intervals`), files and tables.

Every rate is the mean over identities of the identity's own rate (macro); the pooled rate stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import DataError
from bench.stats.intervals import (
    Draws,
    Estimate,
    Floats,
    bootstrap_interval,
    difference_interval,
    rate_interval,
)

Rates = pd.Series  # identity id → rate in [0, 1]

LEAST_GAIN = 0.05
"""An attack must raise the error over the baseline by more than this, with confidence, for a recovery."""

ONE_ROTATION = "every identity is protected in the only rotation"
NEVER_PROTECTED = "no identity is ever protected"


@dataclass(frozen=True)
class CellSummary:
    """The rates of one cell.

    Attributes:
        n_identities: identities measured.
        n_probes: probes of all identities, each counted once whatever the number of rotations.
        asr: share of a protected identity's probes that are not recognised, macro.
        asr_pooled: the same over all probes, NaN where `asr` is missing.
        normal_accuracy: share of a normal identity's probes that are recognised, macro.
        normal_accuracy_pooled: the same over all probes, NaN where `normal_accuracy` is missing.
    """

    n_identities: int
    n_probes: int
    asr: Estimate
    asr_pooled: float
    normal_accuracy: Estimate
    normal_accuracy_pooled: float


@dataclass(frozen=True)
class ImageSummary:
    """Per-image measures in the mean over changed images.

    Attributes:
        means: measure → mean over changed images, None where missing for any of them.
        n_images: images compared.
        share_unchanged: share of them without any changed 8-bit value, None where none was compared.
        reason: why means are missing, else "".
        largest: measure → its largest value over all images, changed or not; none for no images.
    """

    means: Mapping[str, float | None]
    n_images: int
    share_unchanged: float | None
    reason: str = ""
    largest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Coded:
    """Decisions of one cell, each name a number that stands for it.

    Attributes:
        names: identity ids, sorted, each once; the index is named ``identity``.
        identity: of each decision, its identity's place in `names`.
        image: of each, a number that tells its probe from others.
        protected: of each, whether its identity's photos are cloaked.
        correct: of each, whether it is right.
        reference: of each, a number that tells the photo it was compared with from others, −1 for none; None
            where no decision has one.
    """

    names: pd.Index
    identity: NDArray[np.int64]
    image: NDArray[np.int64]
    protected: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    reference: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, decisions: pd.DataFrame) -> Coded:
        """Return rows of `bench.run.decisions.SCHEMA` so."""
        identity, names = pd.factorize(decisions["identity"].astype(str), sort=True)
        reference = None
        if "reference" in decisions and decisions["reference"].notna().any():
            reference = pd.factorize(decisions["reference"])[0].astype(np.int64)
        return cls(
            names=pd.Index(names, name="identity"),
            identity=identity.astype(np.int64),
            image=pd.factorize(decisions["image"])[0].astype(np.int64),
            protected=decisions["protected"].to_numpy(dtype=bool),
            correct=decisions["correct"].to_numpy(dtype=bool),
            reference=reference,
        )

    def only(self, rows: slice | NDArray[np.intp]) -> Coded:
        """Return some of the decisions; identities that have none are left out."""
        identity = self.identity[rows]
        there = np.bincount(identity, minlength=len(self.names)) > 0
        every = bool(there.all())
        return Coded(
            names=self.names if every else self.names[there],
            identity=identity if every else (np.cumsum(there) - 1)[identity],
            image=self.image[rows],
            protected=self.protected[rows],
            correct=self.correct[rows],
            reference=None if self.reference is None else self.reference[rows],
        )


@dataclass(frozen=True)
class PerIdentity:
    """Each identity's own rates, by arrays: what `per_identity` returns as a frame.

    Attributes:
        names: identity ids, sorted; the index is named ``identity``.
        n_probes: of each, its probes.
        asr: of each, in [0, 1], NaN for none.
        normal_accuracy: likewise.
    """

    names: pd.Index
    n_probes: NDArray[np.int64]
    asr: Floats
    normal_accuracy: Floats

    @classmethod
    def of(cls, decisions: Coded) -> PerIdentity:
        """Return the rates of the identities that have decisions, which are all in `decisions.names`."""
        labels, count = decisions.identity, len(decisions.names)
        protected, correct = decisions.protected, decisions.correct
        images = 1 + int(decisions.image.max(initial=0))
        probes = np.unique(labels * images + decisions.image)
        return cls(
            names=decisions.names,
            n_probes=np.bincount(probes // images, minlength=count),
            asr=_shares(labels[protected], ~correct[protected], count),
            normal_accuracy=_shares(labels[~protected], correct[~protected], count),
        )

    def frame(self) -> pd.DataFrame:
        """Return one row an identity."""
        columns = {name: getattr(self, name) for name in ("n_probes", "asr", "normal_accuracy")}
        return pd.DataFrame(columns, index=self.names)


def per_identity(decisions: pd.DataFrame) -> pd.DataFrame:
    """Return each identity's own rates.

    Args:
        decisions: rows of `bench.run.decisions.SCHEMA` of one cell.

    Returns:
        one row an identity, sorted by id (the index, named ``identity``), with

        - n_probes: its probes, each counted once;
        - asr: share of its decisions while protected that are wrong, NaN if it never was;
        - normal_accuracy: share of its decisions while normal that are right, averaged over its rotations;
          NaN if it never was normal.
    """
    return PerIdentity.of(Coded.of(decisions)).frame()


def _shares(labels: NDArray[np.int64], are: NDArray[np.bool_], groups: int) -> Floats:
    """Return of each group the share of its rows that are so; NaN where it has none."""
    counts = np.bincount(labels, minlength=groups)
    with np.errstate(invalid="ignore"):
        shares: Floats = np.bincount(labels, weights=are, minlength=groups) / counts
    return shares


def reference_groups(decisions: pd.DataFrame) -> pd.Series[Any]:
    """Return identity → group: identities that were compared with the same photo of somebody else share one.

    Args:
        decisions: rows of one cell and condition.
    """
    own = Coded.of(decisions)
    return pd.Series(groups_of(own), index=own.names)


def groups_of(decisions: Coded) -> NDArray[np.int64]:
    """Return `reference_groups` by the identity's place in `decisions.names`."""
    size, reference = len(decisions.names), decisions.reference
    if reference is None or (reference < 0).all():
        return np.arange(size)
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    known = reference >= 0
    photos = np.unique(reference[known], return_inverse=True)[1]
    nodes = size + int(photos.max()) + 1
    edges = np.unique(decisions.identity[known] * nodes + size + photos)
    graph = coo_matrix((np.ones(len(edges)), np.divmod(edges, nodes)), shape=(nodes, nodes))
    groups: NDArray[np.int64] = connected_components(graph, directed=False)[1][:size].astype(np.int64)
    return groups


def dependence(groups: NDArray[np.int64]) -> str:
    """Return why the identities of a cell are not independent, or "" where they are.

    Cloaks of several identities that imitate one target are compared with the same photos; tests over identities
    would then call chance significant too often.

    Args:
        groups: as `groups_of` returns them.
    """
    count = len(np.unique(groups))
    if count == len(groups):
        return ""
    return (
        f"{len(groups)} identities were compared with photos of {count} others, shared between them: "
        "identities are not independent here, and no test over them is given"
    )


def summarize_decisions(decisions: pd.DataFrame) -> CellSummary:
    """Return the rates of one cell with their intervals.

    Args:
        decisions: rows of `bench.run.decisions.SCHEMA` of one cell and condition.
    """
    own = Coded.of(decisions)
    return summarize(PerIdentity.of(own), groups_of(own))


def summarize(identities: PerIdentity, groups: NDArray[np.int64]) -> CellSummary:
    """Return the rates of one cell with their intervals.

    Args:
        identities: of the cell.
        groups: as `groups_of` returns them.
    """
    probes = identities.n_probes
    # A pooled rate weighs each probe the same; a normal probe's rotations are one probe.
    return CellSummary(
        n_identities=len(probes),
        n_probes=int(probes.sum()),
        asr=_rate(identities.asr, probes, NEVER_PROTECTED, groups),
        asr_pooled=_pooled(identities.asr, probes),
        normal_accuracy=_rate(identities.normal_accuracy, probes, ONE_ROTATION, groups),
        normal_accuracy_pooled=_pooled(identities.normal_accuracy, probes),
    )


def flagged_share(identities: Sequence[str], flagged: Sequence[bool]) -> Estimate:
    """Return the share of photos that a detector flags: the mean over identities of each one's own share.

    >>> flagged_share(("a", "a", "b"), (True, False, True)).value
    0.75

    Args:
        identities: whom each photo shows.
        flagged: of each photo, whether it is flagged.

    Returns:
        a true-positive rate of cloaks, a false-positive rate of natural photos, with the interval of `rate_interval`;
        missing for no photos.
    """
    shares = pd.Series(flagged, dtype=np.float64).groupby(list(identities)).mean()
    return rate_interval(shares, len(identities))


def paired(*rates: Rates[Any]) -> Floats:
    """Return n×m rates of the same n identities, sorted by id, one column an argument.

    Raises:
        DataError: the identities differ.
    """
    first = rates[0] if rates[0].index.is_monotonic_increasing else rates[0].sort_index()
    for other in rates[1:]:
        if first.index.equals(other.index):
            continue
        odd = first.index.symmetric_difference(other.index)
        if len(odd):
            raise DataError(
                f"cells to be compared have different identities, e.g. '{odd[0]}' ({len(odd)} in all). "
                "Compare cells of one dataset and split seed."
            )
    ordered = (one if first.index.equals(one.index) else one.loc[first.index] for one in rates)
    return np.column_stack([one.to_numpy(dtype=np.float64) for one in ordered])


def gain_of(undefended: Rates[Any], baseline: Rates[Any]) -> Estimate:
    """Return by how much an attack raises the error, with its interval (`difference_interval`).

    Args:
        undefended: ASR per identity, attack × defence ``none``.
        baseline: ASR per identity, ``none`` × ``none``.

    Raises:
        DataError: the identities differ.
    """
    return difference_interval(*paired(undefended, baseline).T)


def recovery(
    undefended: Rates[Any],
    defended: Rates[Any],
    baseline: Rates[Any],
    rng: np.random.Generator | Draws,
    gain: Estimate | None = None,
) -> Estimate:
    """Return how much of what an attack hid a defence brings back.

    (ASR undefended − ASR defended) / (ASR undefended − baseline error), over the same identities. 1: all of
    it; 0: nothing; not clipped, as a defence can do harm or beat the baseline.

    Args:
        undefended: ASR per identity, attack × defence ``none``.
        defended: ASR per identity, attack × defence.
        baseline: ASR per identity, ``none`` × ``none``.
        rng: decides the bootstrap over identities.
        gain: as `gain_of` returns it, where it is known.

    Returns:
        an estimate; missing unless the lower end of the 95 % interval of the denominator (`gain_of`) exceeds
        `LEAST_GAIN`.

    Raises:
        DataError: the identities differ.
    """
    columns = paired(undefended, defended, baseline)
    gain = gain_of(undefended, baseline) if gain is None else gain
    if gain.value is None or gain.low is None:
        return Estimate.missing(f"recovery needs at least 2 identities, got {len(columns)}")
    if gain.low <= LEAST_GAIN:
        return Estimate.missing(
            f"recovery not given: the attack raises the error by {gain.value:.3f}, lower 95 % bound "
            f"{gain.low:.3f}, not above {LEAST_GAIN}"
        )
    return bootstrap_interval(columns, _recovered, rng)


def recovery_of(
    defended: Rates[Any],
    undefended: Rates[Any] | None,
    baseline: Rates[Any] | None,
    rng: np.random.Generator | Draws,
    gain: Estimate | None = None,
) -> Estimate:
    """Return the recovery of a cell, or which of its reference cells is lacking (see `recovery`).

    Args:
        defended: ASR per identity, attack × defence.
        undefended: of attack × ``none``; None where that cell failed.
        baseline: of ``none`` × ``none``, likewise.
        rng: decides the bootstrap over identities.
        gain: of the two, where it is known (`gain_of`).

    Raises:
        DataError: the cells have different identities.
    """
    if undefended is None or baseline is None:
        lacking = "attack × none" if undefended is None else "none × none"
        return Estimate.missing(f"reference cell {lacking} is not there")
    return recovery(undefended, defended, baseline, rng, gain)


def reference_error(summary: CellSummary | None, name: str) -> Estimate:
    """Return the ASR of a reference cell: the error rate without any cloak.

    Args:
        summary: of the cell with attack ``none``; None where it failed.
        name: the cell's, for the reason.
    """
    return Estimate.missing(f"reference cell {name} is not there") if summary is None else summary.asr


def summarize_images(per_image: pd.DataFrame | None, reason: str = "") -> ImageSummary:
    """Return image measures in the mean over changed images.

    Args:
        per_image: one row an image; a boolean column ``changed`` and a float column a measure. None where
            there is nothing to compare, as for attack ``none``.
        reason: why there is nothing, needed with None.

    Raises:
        ValueError: None without a reason.
        DataError: the column ``changed`` is missing.
    """
    if per_image is None:
        if not reason:
            raise ValueError("missing image measures need a reason")
        return ImageSummary({}, 0, None, reason)
    if "changed" not in per_image:
        raise DataError(f"image measures need a column 'changed', got {', '.join(per_image.columns)}.")
    measures = per_image.drop(columns="changed").select_dtypes("number")
    columns = {str(name): measures[name].to_numpy() for name in measures}
    return image_means(columns, per_image["changed"].to_numpy(dtype=bool))


def image_means(measures: Mapping[str, NDArray[Any]], changed: NDArray[np.bool_]) -> ImageSummary:
    """Return image measures in the mean over changed images.

    Args:
        measures: measure → its value of each image.
        changed: which images are.
    """
    largest = {name: float(np.fmax.reduce(values)) for name, values in measures.items() if len(values)}
    if not changed.any():
        why = "no image was changed" if len(changed) else "no images"
        share = 1.0 if len(changed) else None
        return ImageSummary(dict.fromkeys(measures), len(changed), share, why, largest)
    means = {name: float(values[changed].astype(np.float64).mean()) for name, values in measures.items()}
    return ImageSummary(
        means={name: None if math.isnan(value) else value for name, value in means.items()},
        n_images=len(changed),
        share_unchanged=float(1 - changed.mean()),
        largest=largest,
    )


def _recovered(mean: Floats) -> Floats:
    """Map …×3 mean ASR (undefended, defended, baseline) to … recoveries."""
    result: Floats = (mean[..., 0] - mean[..., 1]) / (mean[..., 0] - mean[..., 2])
    return result


def _rate(rates: Floats, probes: NDArray[np.int64], reason: str, groups: NDArray[np.int64]) -> Estimate:
    """Return the macro rate over the identities that have one; over groups of them where they share photos."""
    known = ~np.isnan(rates)
    if not known.any():
        return Estimate.missing(reason)
    answers = int(probes[known].sum())
    if len(np.unique(groups)) < len(groups):
        parts = pd.Series(rates[known]).groupby(groups[known])
        return rate_interval(parts.mean(), answers, sizes=parts.size())
    return rate_interval(rates[known], answers)


def _pooled(rates: Floats, probes: NDArray[np.int64]) -> float:
    known = ~np.isnan(rates)
    return float(np.average(rates[known], weights=probes[known])) if known.any() else float("nan")
