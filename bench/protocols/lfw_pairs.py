"""What a backbone is worth by itself: LFW's 10-fold accuracy, and thresholds for given false-accept rates.

What lives here: reading LFW's list of pairs, the 10-fold protocol, calibration on impostor pairs. What must
not: the tracker's protocol. The two parts use different identities on purpose: accuracy uses LFW's own 6,000
pairs, which contain evaluated identities; thresholds use training identities only, never those pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Backbone, Dataset, Identity, Threshold
from bench.errors import DataError, UsageError
from bench.faces import pixels
from bench.protocols.thresholds import FAR_LEVELS, OperatingPoint, calibrate, cosines, shortage
from bench.randomness import numpy_generator
from bench.run.stages.embed import embed

CALIBRATED_ON = 2000
"""Identities that thresholds are set on, unless others are requested."""

_CHUNK = 256
_CPU = torch.device("cpu")

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
Advance = Callable[[int], None]


@runtime_checkable
class NamedPhotos(Protocol):
    """A dataset whose photos LFW's lists can name."""

    def image_id(self, identity: str, number: int) -> str:
        """Return the image id of an identity's photo."""

    def crops(self, ids: Sequence[str]) -> Tensor:
        """Return N×3×112×112 uint8 aligned crops."""


@dataclass(frozen=True)
class Pair:
    """Two photos and whether they show one identity.

    Attributes:
        fold: 0 … folds − 1.
        same: whether both show the same identity.
        first: (identity, number) as in LFW's list.
        second: likewise.
    """

    fold: int
    same: bool
    first: tuple[str, int]
    second: tuple[str, int]


@dataclass(frozen=True)
class Verification:
    """LFW accuracy of one backbone.

    Attributes:
        backbone: its name.
        accuracy: mean over the folds, in [0, 1].
        std: standard deviation over the folds (divisor: number of folds).
        threshold: mean of the folds' thresholds, a cosine.
        pairs: number of pairs scored.
        expected: what the card states; None where it states nothing.
        unlike: why the two are not to be compared; "" where they are.
    """

    backbone: str
    accuracy: float
    std: float
    threshold: float
    pairs: int
    expected: float | None
    unlike: str = ""

    @property
    def difference(self) -> float | None:
        """Measured minus expected accuracy; None where the card states nothing."""
        return None if self.expected is None else self.accuracy - self.expected


@dataclass(frozen=True)
class Calibration:
    """One calibrated threshold and how sure it is.

    Attributes:
        threshold: what goes into the card, with the interval of the FAR at that threshold.
        low: lower end of the 95 % interval of the threshold itself, bootstrap over identities, a cosine.
        high: upper end.
    """

    threshold: Threshold
    low: float
    high: float


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """Read LFW's view-2 list (``pairs.txt``): folds of n matched, then n mismatched pairs.

    Raises:
        DataError: the file is missing or not of that form; the message names the line.
    """
    try:
        # A mark of the byte order and blank lines at the end are left by some editors.
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"LFW's pairs {path} cannot be read: {error}. `bench fetch lfw` gets them."
        ) from error
    header = lines[0].split() if lines else []
    if len(header) != 2 or not all(word.isdecimal() for word in header):
        raise DataError(
            f"{path}, line 1: expected 'FOLDS PAIRS', e.g. '10 300', found {lines[0] if lines else ''!a:.80}."
        )
    folds, each = int(header[0]), int(header[1])
    if not folds * each:
        raise DataError(
            f"{path}, line 1: {folds} folds of {each} pairs are no pairs. Give a list that has some."
        )
    if len(lines) - 1 != 2 * folds * each:
        raise DataError(f"{path} has {len(lines) - 1} pairs, its first line says {2 * folds * each}.")
    return tuple(
        _pair(line, index // (2 * each), index % (2 * each) < each, f"{path}, line {index + 2}")
        for index, line in enumerate(lines[1:])
    )


def _pair(line: str, fold: int, same: bool, where: str) -> Pair:
    words = line.split("\t")
    if same and len(words) == 3:
        words = [words[0], words[1], words[0], words[2]]
    elif same or len(words) != 4:
        form = "PERSON NUMBER NUMBER" if same else "PERSON NUMBER PERSON NUMBER"
        raise DataError(f"{where}: expected {form}, separated by tabs.")
    if not (words[1].isdecimal() and words[3].isdecimal()):
        raise DataError(f"{where}: a photo's number is not a number.")
    return Pair(fold, same, (words[0], int(words[1])), (words[2], int(words[3])))


def best_threshold(similarity: Floats, same: Flags) -> float:
    """Return the threshold of the highest accuracy, accepting what is at least as similar.

    Of several it is the highest, which accepts the fewest impostors; between two similarities it is their
    middle.
    """
    order = np.argsort(similarity, kind="stable")
    sorted_similarity, sorted_same = similarity[order], same[order]
    # Cutting before position k rejects the first k: right are the impostors below and the same above.
    rejected = np.concatenate([[0], np.cumsum(~sorted_same)])
    accepted = np.concatenate([np.cumsum(sorted_same[::-1])[::-1], [0]])
    right = (rejected + accepted).astype(np.int64)
    tied = np.concatenate([[False], sorted_similarity[1:] == sorted_similarity[:-1], [False]])
    right[tied] = -1  # no threshold parts equal similarities
    cut = len(right) - 1 - int(np.argmax(right[::-1]))
    if cut == 0:
        return float(sorted_similarity[0])
    if cut == len(similarity):
        return float(np.nextafter(sorted_similarity[-1], np.inf))
    return float((sorted_similarity[cut - 1] + sorted_similarity[cut]) / 2)


def cross_validate(similarity: Floats, same: Flags, fold: Integers) -> tuple[Floats, Floats]:
    """Return each fold's accuracy at the threshold that is best on the other folds, and those thresholds.

    Huang et al., Labeled Faces in the Wild, UMass TR 07-49, section 4 (view 2).

    Args:
        similarity: one a pair; higher means more alike.
        same: whether the pair shows one identity.
        fold: fold of each pair, 0 … K − 1.
    """
    accuracies, thresholds = [], []
    for k in range(int(fold.max()) + 1):
        held_out = fold == k
        threshold = best_threshold(similarity[~held_out], same[~held_out])
        thresholds.append(threshold)
        accuracies.append(np.mean((similarity[held_out] >= threshold) == same[held_out]))
    return np.asarray(accuracies, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)


def verify_backbone(
    backbone: Backbone,
    dataset: Dataset,
    pairs_path: Path,
    device: torch.device = _CPU,
    advance: Advance = lambda _n: None,
    *,
    flip: bool = False,
) -> Verification:
    """Return the LFW accuracy of a loaded backbone, one embedding a photo.

    Args:
        backbone: after `load`.
        dataset: LFW; another has no photos LFW's list can name.
        pairs_path: LFW's ``pairs.txt``.
        device: where the backbone was loaded.
        advance: called with the number of photos embedded.
        flip: add the embedding of the mirrored photo to each, as some publishers do.

    Raises:
        UsageError: the dataset is not LFW.
        DataError: the list or a photo cannot be read.
    """
    if not isinstance(dataset, NamedPhotos):
        raise UsageError(f"LFW's pairs name photos that dataset '{dataset.name}' does not know; use lfw.")
    pairs = read_pairs(pairs_path)
    ends = [tuple(dataset.image_id(*photo) for photo in (p.first, p.second)) for p in pairs]
    ids = sorted({image_id for pair in ends for image_id in pair})
    vectors = _directions(backbone, dataset, ids, device, advance, flip=flip)
    row = {image_id: i for i, image_id in enumerate(ids)}
    first, second = (vectors[[row[pair[side]] for pair in ends]] for side in (0, 1))
    accuracies, thresholds = cross_validate(
        np.sum(first * second, axis=1),
        np.array([p.same for p in pairs]),
        np.array([p.fold for p in pairs], dtype=np.int64),
    )
    return Verification(
        backbone=backbone.card.name,
        accuracy=float(accuracies.mean()),
        std=float(accuracies.std()),
        threshold=float(thresholds.mean()),
        pairs=len(pairs),
        expected=backbone.card.lfw_accuracy,
        unlike=_unlike(backbone, flip),
    )


def _unlike(backbone: Backbone, flip: bool) -> str:
    """Return why what a card states was measured otherwise, "" where nothing says so."""
    fuses = backbone.accuracy_fuses_mirrored
    if fuses and not flip:
        return "it is of a photo's embedding and its mirror image's, added: --flip"
    if flip and not fuses:
        return "it is of one embedding a photo, or does not say: leave out --flip"
    return backbone.accuracy_unlike


def _directions(
    backbone: Backbone,
    dataset: Any,
    ids: Sequence[str],
    device: torch.device,
    advance: Advance,
    *,
    flip: bool = False,
) -> Floats:
    """Return N×D embeddings of unit length; with `flip` of the sum of a photo's and its mirror image's."""
    parts = []
    for start in range(0, len(ids), _CHUNK):
        chunk = tuple(ids[start : start + _CHUNK])
        crops = dataset.crops(chunk)
        seen = (crops, crops.flip(3)) if flip else (crops,)
        parts.append(
            sum(
                embed(backbone, pixels.Pixels(c, chunk, chunk), device, advance).vectors.astype(np.float64)
                for c in seen
            )
        )
    vectors = np.concatenate(parts)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float64)


def calibration_identities(dataset: Dataset) -> tuple[Identity, ...]:
    """Return whose photos thresholds are set on: the training identities, else everybody.

    A user's folder keeps nobody apart; thresholds set on it are for other photos than its own.
    """
    everybody = dataset.identities()
    training = tuple(identity for identity in everybody if identity.role == "training")
    return training or everybody


def calibrate_thresholds(
    backbone: Backbone,
    dataset: Dataset,
    *,
    identities: int = CALIBRATED_ON,
    rates: Sequence[float] = FAR_LEVELS,
    seed: int = 0,
    resamples: int = 200,
    source: str = "",
    device: torch.device = _CPU,
    advance: Advance = lambda _n: None,
) -> tuple[Calibration, ...]:
    """Return the thresholds at which impostors are accepted at the given rates.

    One photo, the first, of each of `identities` of the `calibration_identities` (drawn by `seed`) is crossed with all
    others; so no pair is of one identity and nobody counts more than another.

    Args:
        backbone: after `load`.
        dataset: its identities of role ``training`` are used, never the evaluated ones; all where it has none.
        identities: how many of them; fewer are taken where there are fewer.
        rates: false-accept rates.
        seed: chooses the identities and the bootstraps' resamples.
        resamples: bootstrap resamples of identities for the interval of the threshold; that of the FAR takes
            `bench.protocols.thresholds.RESAMPLES`.
        source: the command that calibrated, for the card.
        device: where the backbone was loaded.
        advance: called with the number of photos embedded.

    Raises:
        UsageError: a rate outside (0, 1), or so few identities that fewer than 100 pairs would decide its threshold.
    """
    training = calibration_identities(dataset)
    rng = numpy_generator(seed, "calibrate", dataset.name)
    chosen = sorted(rng.permutation(len(training))[:identities])
    for rate in rates:
        if not 0 < rate < 1:
            raise UsageError(f"a false-accept rate lies between 0 and 1, got {rate}.")
        if lack := shortage(rate, len(chosen)):
            raise UsageError(
                f"{lack}: the identities of '{dataset.name}' to calibrate on are too few. "
                "Take more identities or a higher rate."
            )
    ids = [training[i].photos[0] for i in chosen]
    vectors = _directions(backbone, dataset, ids, device, advance)
    points = calibrate(vectors, vectors, rates, numpy_generator(seed, "FAR interval", dataset.name))
    first, second = np.triu_indices(len(ids), k=1)
    similarity = np.asarray(cosines(vectors, vectors)[first, second], dtype=np.float64)
    low, high = _intervals(similarity, np.stack([first, second]), rates, resamples, rng)
    return tuple(
        Calibration(_threshold(point, source), float(a), float(b))
        for point, a, b in zip(points, low, high, strict=True)
    )


def _threshold(point: OperatingPoint, source: str) -> Threshold:
    return Threshold(
        far=point.wanted,
        cosine=point.threshold,
        pairs=point.pairs,
        far_low=round(point.low, 6),
        far_high=round(point.high, 6),
        source=source,
    )


def _intervals(
    similarity: Floats,
    identities: Integers,
    rates: Sequence[float],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return the 95 % percentile interval of each threshold, resampling identities, not pairs.

    An identity drawn w times gives its pair with one drawn v times the weight w·v. `identities` is 2 × pairs: the
    indices of the two.
    """
    order = np.argsort(similarity)[::-1]
    ordered, (first, second) = similarity[order], identities[:, order]
    n = int(identities.max()) + 1
    found = np.empty((resamples, len(rates)))
    for row in found:
        weights = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        share = np.cumsum(weights[first] * weights[second])
        row[:] = ordered[np.searchsorted(share, np.asarray(rates) * share[-1])]
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    return low, high
