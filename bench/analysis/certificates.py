"""Which probes a smoothed tracker is certain to recognise, whatever small change an identity makes to its photos.

What lives here: the work (noisy embeddings of the run's gallery and probes), each probe's radius, and the curve. What
must not: bounds and radii as formulas (`bench.stats.smoothing`), networks (`bench.run.stages.smooth`). What is
certified, of whom, and what is not: docs/methods/smooth.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.contracts import PhotoSet
from bench.errors import MethodError, UsageError
from bench.faces.pixels import decode_pixels
from bench.quality.metrics import GREY_LEVELS
from bench.run.bound import Tracker
from bench.run.digest import environment
from bench.run.graph import Node
from bench.run.photo_sets import parts
from bench.run.planning import Prepared
from bench.run.stages.smooth import Moments, Noise, Smooth, decode_moments
from bench.stats.intervals import rate_interval
from bench.stats.smoothing import certified_radius, score_bounds

Floats = NDArray[np.float64]

RADII = 101
"""Points of a curve, evenly spaced from 0 to the largest radius of a probe."""

PROBE_COLUMNS: Mapping[str, str] = {
    "identity": "identity id of who is on the probe",
    "image": "image id of the probe",
    "own": "smoothed score of the own identity, as estimated",
    "own_low": "its lower bound",
    "other": "best smoothed score of another identity, as estimated",
    "other_high": "its upper bound",
    "recognised": "whether the own estimate is the higher one: the smoothed tracker's answer, not certified",
    "radius": "L2 norm of changes of the own gallery photos, pixels in [0, 1], below which recognition is certified; "
    "not positive: nothing is",
}
"""Column of `certified_probes` → what it means."""

CURVE_COLUMNS: Mapping[str, str] = {
    "radius": "L2 norm of a change, pixels in [0, 1]",
    "certified": "share of probes recognised under every change of that norm to each of the identity's gallery photos; "
    "mean over identities",
    "certified_low": "lower end of its 95 % interval over identities",
    "certified_high": "upper end",
    "certified_pooled": "the same, each probe with the same weight",
    "n_identities": "identities",
    "n_probes": "probes",
}
"""Column of `curve` → what it means."""


@dataclass(frozen=True)
class Smoothing:
    """How a tracker is smoothed and how sure a certificate is.

    Attributes:
        sigma: σ of the noise, in the unit of pixels in [0, 1].
        samples: noisy copies of each gallery photo.
        probe_samples: noisy copies of each probe; they decide its direction, of which nothing is estimated.
        failure: probability that any bound of the whole table fails.
        seed: of the noise.
    """

    sigma: float = 0.25
    samples: int = 1000
    probe_samples: int = 100
    failure: float = 0.001
    seed: int = 0


@dataclass(frozen=True)
class Work:
    """The noisy embeddings that certificates are made from.

    Attributes:
        gallery: of gallery photos, with covariances.
        probes: of probes.
    """

    gallery: tuple[Smooth, ...]
    probes: tuple[Smooth, ...]

    @property
    def nodes(self) -> tuple[Smooth, ...]:
        """Both."""
        return (*self.gallery, *self.probes)

    @property
    def passes(self) -> int:
        """Images that go through the backbone, cached ones too."""
        return sum(node.passes for node in self.nodes)


def tracker_of(prepared: Prepared, name: str | None) -> str:
    """Return the tracker whose certificates are wanted.

    Raises:
        UsageError: the run has none of that name, or several and none is named.
    """
    known = tuple(prepared.run.backbones)
    if name is None and len(known) == 1:
        return known[0]
    if name not in known:
        what = "several trackers" if name is None else f"no tracker '{name}'"
        raise UsageError(f"the run has {what}. Name one with --backbone: {', '.join(known)}.")
    return name


def work(prepared: Prepared, tracker: str, smoothing: Smoothing) -> Work:
    """Return the artefacts that certificates of a run's tracker need, without any defence."""
    gallery = Noise(smoothing.sigma, smoothing.samples, smoothing.seed)
    probes = Noise(smoothing.sigma, smoothing.probe_samples, smoothing.seed)
    return Work(
        _smoothed(prepared, tracker, "gallery", gallery, spread=True),
        _smoothed(prepared, tracker, "probes", probes, spread=False),
    )


def _smoothed(
    prepared: Prepared, tracker: str, photos: PhotoSet, noise: Noise, *, spread: bool
) -> tuple[Smooth, ...]:
    bound = Tracker(prepared.pipeline.backbone(tracker))
    here = environment(str(prepared.machine.device), prepared.machine.threads)
    label = f"{tracker} under noise, {photos}"
    each = noise.samples * bound.backbone.core_seconds
    found = []
    for shard in prepared.pipeline.natural(photos):
        named = list(zip(shard.ids, shard.identities, strict=True))
        for part in parts(named, each, "image"):
            chosen = tuple(image for image, _ in part)
            found.append(Smooth(label, here, bound, shard, chosen, noise, spread))
    return tuple(found)


def read(nodes: Iterable[Smooth], fetch: Callable[[Node], bytes]) -> Moments:
    """Return the moments of several artefacts as one."""
    found = [decode_moments(fetch(node)) for node in nodes]
    return Moments(
        tuple(name for each in found for name in each.ids),
        tuple(name for each in found for name in each.identities),
        np.concatenate([each.means for each in found]),
        np.concatenate([each.covariances for each in found]),
    )


def certified_probes(gallery: Moments, probes: Moments, smoothing: Smoothing) -> pd.DataFrame:
    """Return each probe's scores, their bounds and its radius, with the columns of `PROBE_COLUMNS`.

    An identity's score is the largest inner product of the probe's direction with the mean embedding of one of its
    photos. Of all bounds of the table together, one each for every probe and photo, the probability that any fails is
    at most `Smoothing.failure`.

    Args:
        gallery: of two identities or more, with covariances; each mean over `Smoothing.samples` copies.
        probes: with noise of their own, so that their directions are independent of the gallery's samples.
        smoothing: σ, samples and probability.

    Raises:
        MethodError: a probe's mean embedding has no direction.
    """
    lengths = np.linalg.norm(probes.means, axis=1)
    if not (lengths > 0).all():
        raise MethodError(f"the mean embedding of probe {probes.ids[int(lengths.argmin())]} under noise is 0")
    directions = probes.means / lengths[:, None]
    scores = directions @ gallery.means.T
    variances = np.stack(
        [((directions @ each.astype(np.float64)) * directions).sum(1) for each in gallery.covariances], axis=1
    )
    failure = smoothing.failure / scores.size
    low, high = score_bounds(scores, variances, smoothing.samples, failure)
    is_own = np.array(probes.identities, dtype=object)[:, None] == np.array(gallery.identities, dtype=object)
    own, own_low = (np.where(is_own, each, -np.inf).max(1) for each in (scores, low))
    other, other_high = (np.where(is_own, -np.inf, each).max(1) for each in (scores, high))
    table = pd.DataFrame(
        {
            "identity": probes.identities,
            "image": probes.ids,
            "own": own,
            "own_low": own_low,
            "other": other,
            "other_high": other_high,
            "recognised": own > other,
            "radius": certified_radius(own_low, other_high, smoothing.sigma),
        }
    )
    return table.sort_values(["identity", "image"], ignore_index=True)


def curve(probes: pd.DataFrame, radii: Sequence[float] | Floats | None = None) -> pd.DataFrame:
    """Return the share of probes certified at each radius, with the columns of `CURVE_COLUMNS`.

    Args:
        probes: as `certified_probes` returns them.
        radii: None for `RADII` of them up to the largest one of a probe.
    """
    if radii is None:
        radii = np.linspace(0, max(float(probes["radius"].max()), 0.0), RADII)
    rows = []
    for radius in dict.fromkeys(float(each) for each in radii):
        certified = probes["radius"] > radius
        rates = certified.groupby(probes["identity"]).mean()
        found = rate_interval(rates.to_numpy(), len(probes))
        rows.append(
            {
                "radius": radius,
                "certified": found.value,
                "certified_low": found.low,
                "certified_high": found.high,
                "certified_pooled": float(certified.mean()),
                "n_identities": len(rates),
                "n_probes": len(probes),
            }
        )
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def cloak_sizes(prepared: Prepared, tracker: str, fetch: Callable[[Node], bytes]) -> pd.DataFrame:
    """Return the L2 norms of the run's real cloaks, one row an attack and seed: what no certificate here reaches.

    Args:
        prepared: the run.
        tracker: against which the cloaks were made.
        fetch: gives an artefact's payload.
    """
    rows = []
    for attack in prepared.run.spec.attacks:
        for seed in prepared.run.spec.seeds:
            edited = prepared.pipeline.edited(attack)
            cloaks = prepared.pipeline.cloaks(attack, tracker, seed, edited)
            if cloaks:
                norms = _norms(prepared.pipeline.natural(edited), cloaks, fetch)
                rows.append({"attack": attack, "seed": seed, **_summary(norms)})
    return pd.DataFrame(rows, columns=["attack", "seed", "photos", "l2_min", "l2_median", "l2_max"])


def _norms(photos: Sequence[Node], cloaks: Sequence[Node], fetch: Callable[[Node], bytes]) -> Floats:
    """Return the L2 norm of what each cloak changes, pixels in [0, 1]; photos left alone are not counted."""
    norms: list[float] = []
    for shard, edits in zip(photos, cloaks, strict=True):
        before, after = decode_pixels(fetch(shard)), decode_pixels(fetch(edits))
        rows = {name: row for row, name in enumerate(before.ids)}
        changes = after.images.double() - before.images[[rows[name] for name in after.ids]].double()
        norms += (changes.flatten(1).norm(dim=1) / GREY_LEVELS).tolist()
    return np.array(norms)


def _summary(norms: Floats) -> dict[str, Any]:
    if not len(norms):
        return {"photos": 0, "l2_min": None, "l2_median": None, "l2_max": None}
    return {
        "photos": len(norms),
        "l2_min": float(norms.min()),
        "l2_median": float(np.median(norms)),
        "l2_max": float(norms.max()),
    }
