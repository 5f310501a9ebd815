"""Measures: views over decisions and over per-image quality (DESIGN 6).

What lives here: what a leaderboard's columns mean, as pure functions of data frames. What must not:
intervals themselves (`bench.stats.intervals`), files and tables.

Every rate is the mean over identities of the identity's own rate (macro); the pooled rate stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import DataError
from bench.stats.intervals import Draws, Estimate, Floats, bootstrap_interval, rate_interval

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
    """

    means: Mapping[str, float | None]
    n_images: int
    share_unchanged: float | None
    reason: str = ""


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
    labels, names = pd.factorize(decisions["identity"].astype(str), sort=True)
    images, _ = pd.factorize(decisions["image"])
    correct = decisions["correct"].to_numpy(dtype=bool)
    protected = decisions["protected"].to_numpy(dtype=bool)
    each = np.unique(labels.astype(np.int64) * (1 + int(images.max(initial=0))) + images, return_index=True)[
        1
    ]
    return pd.DataFrame(
        {
            "n_probes": np.bincount(labels[each], minlength=len(names)),
            "asr": _shares(labels[protected], ~correct[protected], len(names)),
            "normal_accuracy": _shares(labels[~protected], correct[~protected], len(names)),
        },
        index=pd.Index(names, name="identity"),
    )


def _shares(labels: NDArray[np.intp], are: NDArray[np.bool_], groups: int) -> Floats:
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
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    identities = pd.Index(sorted(decisions["identity"].astype(str).unique()), name="identity")
    if "reference" not in decisions or not decisions["reference"].notna().any():
        return pd.Series(np.arange(len(identities)), index=identities)
    pairs = decisions[["identity", "reference"]].dropna().drop_duplicates()
    codes, photos = pd.factorize(pairs["reference"].astype(str))
    rows = identities.get_indexer(pairs["identity"].astype(str))
    size = len(identities) + len(photos)
    graph = coo_matrix((np.ones(len(pairs)), (rows, codes + len(identities))), shape=(size, size))
    groups = connected_components(graph, directed=False)[1][: len(identities)]
    return pd.Series(groups, index=identities)


def dependence(groups: pd.Series[Any]) -> str:
    """Return why the identities of a cell are not independent, or "" where they are.

    Cloaks of several identities that imitate one target are compared with the same photos; tests over identities
    would then call chance significant too often.

    Args:
        groups: as `reference_groups` returns them.
    """
    if groups.nunique() == len(groups):
        return ""
    return (
        f"{len(groups)} identities were compared with photos of {groups.nunique()} others, shared between them: "
        "identities are not independent here, and no test over them is given"
    )


def summarize_decisions(decisions: pd.DataFrame) -> CellSummary:
    """Return the rates of one cell with their intervals.

    Args:
        decisions: rows of `bench.run.decisions.SCHEMA` of one cell and condition.
    """
    return summarize(per_identity(decisions), reference_groups(decisions))


def summarize(identities: pd.DataFrame, groups: pd.Series[Any]) -> CellSummary:
    """Return the rates of one cell with their intervals.

    Args:
        identities: as `per_identity` returns them.
        groups: as `reference_groups` returns them.
    """
    probes = identities["n_probes"]
    # A pooled rate weighs each probe the same; a normal probe's rotations are one probe.
    return CellSummary(
        n_identities=len(identities),
        n_probes=int(probes.sum()),
        asr=_rate(identities["asr"], probes, NEVER_PROTECTED, groups),
        asr_pooled=_pooled(identities["asr"], probes),
        normal_accuracy=_rate(identities["normal_accuracy"], probes, ONE_ROTATION, groups),
        normal_accuracy_pooled=_pooled(identities["normal_accuracy"], probes),
    )


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


def recovery(
    undefended: Rates[Any], defended: Rates[Any], baseline: Rates[Any], rng: np.random.Generator | Draws
) -> Estimate:
    """Return how much of what an attack hid a defence brings back.

    (ASR undefended − ASR defended) / (ASR undefended − baseline error), over the same identities. 1: all of
    it; 0: nothing; not clipped, as a defence can do harm or beat the baseline.

    Args:
        undefended: ASR per identity, attack × defence ``none``.
        defended: ASR per identity, attack × defence.
        baseline: ASR per identity, ``none`` × ``none``.
        rng: decides the bootstrap over identities.

    Returns:
        an estimate; missing unless the lower end of the 95 % interval of the denominator, by paired
        bootstrap over identities, exceeds `LEAST_GAIN`.

    Raises:
        DataError: the identities differ.
    """
    columns = paired(undefended, defended, baseline)
    gain = bootstrap_interval(columns[:, [0, 2]], lambda mean: mean[..., 0] - mean[..., 1], rng)
    if gain.value is None or len(columns) < 2:
        return Estimate.missing(f"recovery needs at least 2 identities, got {len(columns)}")
    # Without variation there is no interval; the gain is then the same for everyone.
    bound = gain.value if gain.low is None else gain.low
    if bound <= LEAST_GAIN:
        return Estimate.missing(
            f"recovery not given: the attack raises the error by {gain.value:.3f}, lower 95 % bound "
            f"{bound:.3f}, not above {LEAST_GAIN}"
        )
    return bootstrap_interval(columns, _recovered, rng)


def recovery_of(
    defended: Rates[Any],
    undefended: Rates[Any] | None,
    baseline: Rates[Any] | None,
    rng: np.random.Generator | Draws,
) -> Estimate:
    """Return the recovery of a cell, or which of its reference cells is lacking (see `recovery`).

    Args:
        defended: ASR per identity, attack × defence.
        undefended: of attack × ``none``; None where that cell failed.
        baseline: of ``none`` × ``none``, likewise.
        rng: decides the bootstrap over identities.

    Raises:
        DataError: the cells have different identities.
    """
    if undefended is None or baseline is None:
        lacking = "attack × none" if undefended is None else "none × none"
        return Estimate.missing(f"reference cell {lacking} is not there")
    return recovery(undefended, defended, baseline, rng)


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
    changed = per_image["changed"].to_numpy(dtype=bool)
    measures = per_image[[name for name in per_image.columns if name != "changed"]].select_dtypes("number")
    if not changed.any():
        why = "no image was changed" if len(per_image) else "no images"
        share = 1.0 if len(per_image) else None
        return ImageSummary(dict.fromkeys(measures.columns), len(per_image), share, why)
    means = measures[changed].astype(float).mean(skipna=False)
    return ImageSummary(
        means={str(name): None if math.isnan(value) else float(value) for name, value in means.items()},
        n_images=len(per_image),
        share_unchanged=float(1 - changed.mean()),
    )


def _recovered(mean: Floats) -> Floats:
    """Map …×3 mean ASR (undefended, defended, baseline) to … recoveries."""
    result: Floats = (mean[..., 0] - mean[..., 1]) / (mean[..., 0] - mean[..., 2])
    return result


def _rate(rates: Rates[Any], probes: pd.Series[Any], reason: str, groups: pd.Series[Any]) -> Estimate:
    """Return the macro rate over the identities that have one; over groups of them where they share photos."""
    known = rates.notna().to_numpy()
    if not known.any():
        return Estimate.missing(reason)
    if groups.nunique() < len(groups):
        parts = rates[known].groupby(groups[known])
        columns = np.column_stack([parts.sum(), parts.size()]).astype(np.float64)
        rng = np.random.default_rng(0)  # the groups decide; nothing else may
        return bootstrap_interval(columns, lambda mean: mean[..., 0] / mean[..., 1], rng)
    return rate_interval(rates.to_numpy()[known], int(probes.to_numpy()[known].sum()))


def _pooled(rates: Rates[Any], probes: pd.Series[Any]) -> float:
    values = rates.to_numpy()
    known = ~np.isnan(values)
    return float(np.average(values[known], weights=probes.to_numpy()[known])) if known.any() else float("nan")
