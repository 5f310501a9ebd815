"""When the harness warns about a number: rules from measured facts to warnings.

Pure: facts in, warnings out. Each rule has a short code and one threshold; ``docs/warnings.md`` says why it is
where it is. A warning is a reason to look, not a verdict: a row keeps its numbers.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.quality.diagnosis import AttackDiagnosis, PurifierDiagnosis, SurrogateProbe
from bench.quality.near_duplicates import SamePhotos, stated_in

LINF_TOLERANCE = 0.5
"""Grey levels: what rounding to 8 bits can add to a change of one pixel."""

DSSIM_TOLERANCE = 5e-4
"""What rounding to 8 bits can add to DSSIM; about half a grey level of noise on a smooth face."""

UNCHANGED_SHARE = 0.05
"""Share of photos an attack may leave as they are."""

LEAST_MOVE = 1e-3
"""Cosine distance (2.6 degrees) that the median cloak must move on a surrogate."""

LEAST_ADVANTAGE = 1.5
"""Times as far as noise of the same energy and spectrum that the median cloak must move."""

LEAST_SLOPE = 1e-5
"""Cosine distance a grey level: with less, even 255 grey levels would add under 0.003 to first order."""

RETURNED_SHARE = 0.5
"""Share of cloaks from which a purifier counts as returning its input."""

LEAST_SPREAD = 0.05
"""Share of the spread between images that a purifier must leave, or it counts as returning a constant."""

SAME_PHOTO_SHARE = 0.01
"""Share of near-duplicates below which they are a flaw of the dataset to know of, not a leak that moves a rate."""

SAME_SCORE = 1e-6
"""Difference of scores up to which they are the same, rounding apart."""

SAME_PAIR_SCORE = 1.01e-4
"""The same of a pair's score and its threshold, which lies up to a step of 0.0001 above impostors'."""

ALPHA = 0.05
"""Level of the paired tests: of white-box against black-box, and of a row against its reference."""

RULES: Mapping[str, str] = {
    "over-budget": "an image is changed by more than the threat model declares",
    "unchanged": "photos came back from the attack as they were",
    "gradient-not-finite": "a surrogate's gradient holds NaN or infinity",
    "gradient-zero": "a surrogate's gradient is exactly zero",
    "gradient-vanishing": "a surrogate's gradient is too small to lead anywhere",
    "unmoved": "on a surrogate the embedding of the cloak is that of the photo",
    "like-noise": "the cloak moves no further than noise of the same size: the loss did not decrease",
    "white-box-below-black-box": "the attack succeeds less often on the backbone it was made on than elsewhere",
    "purifier-identity": "the purifier returns its input",
    "purifier-constant": "the purifier returns the same image whatever it is given",
    "unlike-spread": "a significant p value may be a false positive: few identities tell of the spread of a rate "
    "near 0 or 1",
    "same-photo": "probes show the same picture as a gallery photo, saved again",
    "same-score": "every answer has the same score: the tracker tells no photos apart",
    "not-diagnosed": "a check could not be made",
}
"""Every code with its meaning, in the order in which warnings of a row are given."""


@dataclass(frozen=True)
class RowWarning:
    """One warning.

    Attributes:
        code: one of `RULES`.
        sentence: what was found, with the numbers.
    """

    code: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


# -- attacks -------------------------------------------------------------------------------------------


def of_cloaks(rows: pd.DataFrame, max_linf: float | None, max_dssim: float | None) -> list[RowWarning]:
    """Return the warnings about the measures of all cloaks.

    Args:
        rows: `bench.quality.per_image.COLUMNS`, one row a photo the attack was given.
        max_linf: declared budget, grey levels; None for none.
        max_dssim: declared budget; None for none.
    """
    if rows.empty:
        return []
    parts = [
        _over(rows, "linf", max_linf, LINF_TOLERANCE, "a pixel by {:.0f} of {:g} grey levels"),
        _over(rows, "dssim", max_dssim, DSSIM_TOLERANCE, "DSSIM {:.4f} of {:g}"),
    ]
    over = [text for text in parts if text]
    found = [RowWarning("over-budget", ", ".join(over))] if over else []
    same = int((~rows["changed"].astype(bool)).sum())
    if same > UNCHANGED_SHARE * len(rows):
        found.append(
            RowWarning("unchanged", f"the attack left {_share(same, len(rows))} photos as they were")
        )
    return found


def _over(rows: pd.DataFrame, measure: str, limit: float | None, tolerance: float, largest: str) -> str:
    if limit is None:
        return ""
    count = int((rows[measure] > limit + tolerance).sum())
    text = largest.format(rows[measure].max(), limit)
    return f"{_share(count, len(rows))} cloaks exceed the declared budget (largest: {text})" if count else ""


def of_attack(diagnosis: AttackDiagnosis) -> list[RowWarning]:
    """Return the warnings about an attack on its surrogates.

    A surrogate gets one warning, that of the cause: where its gradient is zero, that its embedding did not
    move follows. Each code is given once, with every surrogate concerned. How far the undefended surrogate moves is
    not judged of an attack that works against a defence.
    """
    if diagnosis.reason:
        return [
            RowWarning("not-diagnosed", f"the surrogates could not be probed: {_inline(diagnosis.reason)}")
        ]
    by_surrogate: dict[str, list[SurrogateProbe]] = {}
    for probe in diagnosis.probes:
        by_surrogate.setdefault(probe.surrogate, []).append(probe)
    found: dict[str, list[str]] = {}
    for name, probes in by_surrogate.items():
        for code, rule in _SURROGATE_RULES.items():
            if diagnosis.adapts_to and code in _OF_MOVEMENT:
                continue
            if text := rule(probes):
                found.setdefault(code, []).append(f"on {name} {text}")
                break
    return [RowWarning(code, ", ".join(texts)) for code, texts in found.items()]


def _not_finite(probes: Sequence[SurrogateProbe]) -> str:
    bad = sum(not probe.finite for probe in probes)
    return f"the gradient is not finite for {_share(bad, len(probes))} cloaks" if bad else ""


def _zero(probes: Sequence[SurrogateProbe]) -> str:
    bad = sum(probe.slope == 0 for probe in probes)
    return f"the gradient is zero for {_share(bad, len(probes))} cloaks" if 2 * bad > len(probes) else ""


def _vanishing(probes: Sequence[SurrogateProbe]) -> str:
    slopes = [probe.slope for probe in probes if probe.slope is not None]
    if not slopes or statistics.median(slopes) >= LEAST_SLOPE:
        return ""
    return (
        f"one grey level along the gradient adds {statistics.median(slopes):.1e} to the cosine distance "
        f"(median of {len(slopes)}, at least {LEAST_SLOPE:g} expected)"
    )


def _unmoved(probes: Sequence[SurrogateProbe]) -> str:
    moved = statistics.median(probe.moved for probe in probes)
    if moved >= LEAST_MOVE:
        return ""
    return (
        f"cloaks are {moved:.1e} from their photos in cosine distance (median of {len(probes)}, at least "
        f"{LEAST_MOVE:g} expected)"
    )


def _like_noise(probes: Sequence[SurrogateProbe]) -> str:
    # A ratio of medians would hide that some photos move easily; tiny keeps a still surrogate from dividing by 0.
    tiny = 1e-12
    advantage = statistics.median(probe.moved / max(probe.random, tiny) for probe in probes)
    if advantage >= LEAST_ADVANTAGE:
        return ""
    return (
        f"cloaks move {advantage:.2f} times as far as noise of the same energy and spectrum (median of "
        f"{len(probes)}, at least {LEAST_ADVANTAGE:g} expected)"
    )


_SURROGATE_RULES: Mapping[str, Callable[[Sequence[SurrogateProbe]], str]] = {
    "gradient-not-finite": _not_finite,
    "gradient-zero": _zero,
    "gradient-vanishing": _vanishing,
    "unmoved": _unmoved,
    "like-noise": _like_noise,
}


_OF_MOVEMENT = frozenset({"unmoved", "like-noise"})
"""Rules that hold for attacks on the surrogate itself."""


# -- white-box and black-box ---------------------------------------------------------------------------


def of_access(difference: float | None, p: float | None, against: str) -> list[RowWarning]:
    """Return the warning that white-box success is below black-box success.

    Args:
        difference: mean over identities, white-box minus black-box; None where they cannot be compared.
        p: two-sided p value of the paired test; None likewise.
        against: the black-box side, in words.
    """
    if difference is None or p is None or difference >= 0 or p >= ALPHA:
        return []
    sentence = f"ASR is {-100 * difference:.1f} points lower white-box than {against} (p = {p:.2g})"
    return [RowWarning("white-box-below-black-box", sentence)]


# -- tests ---------------------------------------------------------------------------------------------


def of_test(p_holm: float | None, caution: str) -> list[RowWarning]:
    """Return the warning that a row is called significant where the sign-flip test errs too often.

    Args:
        p_holm: corrected p value of the row against its reference, None where there is none.
        caution: as `bench.stats.unlike_spread.unlike_spread` gives it of the two.
    """
    if p_holm is None or p_holm > ALPHA or not caution:
        return []
    return [RowWarning("unlike-spread", f"against its reference, {_inline(caution)}")]


# -- purifiers -----------------------------------------------------------------------------------------


def of_purifier(diagnosis: PurifierDiagnosis, *, cloaked: bool) -> list[RowWarning]:
    """Return the warnings about a purifier's images.

    Args:
        diagnosis: of its images.
        cloaked: whether it was given cloaks; natural photos may be returned unchanged.
    """
    if diagnosis.reason:
        return [
            RowWarning(
                "not-diagnosed", f"the purifier's images could not be compared: {_inline(diagnosis.reason)}"
            )
        ]
    changes = [change for shard in diagnosis.shards for change in shard.changes.values()]
    if not changes:
        return []
    sizes = [len(shard.changes) for shard in diagnosis.shards]
    given, returned = (
        sum(n * spread for n, spread in zip(sizes, spreads, strict=True)) / len(changes)
        for spreads in (
            [shard.spread_given for shard in diagnosis.shards],
            [shard.spread_returned for shard in diagnosis.shards],
        )
    )
    if returned < LEAST_SPREAD * given:
        sentence = (
            f"what it returns for {len(changes)} images differs by {returned:.2f} grey levels between images, "
            f"what it was given by {given:.2f} (standard deviation of a pixel)"
        )
        return [RowWarning("purifier-constant", sentence)]
    same = sum(change == 0 for change in changes)
    if cloaked and same >= RETURNED_SHARE * len(changes):
        return [
            RowWarning("purifier-identity", f"it returned {_share(same, len(changes))} cloaks as they were")
        ]
    return []


# -- photos --------------------------------------------------------------------------------------------


def of_photos(photos: SamePhotos, note: str) -> list[RowWarning]:
    """Return the warning that probes are gallery photos saved again: the tracker need not know the face.

    Args:
        photos: what was found.
        note: of the dataset; what it states is no news.
    """
    if photos.reason:
        reason = _inline(photos.reason)
        return [RowWarning("not-diagnosed", f"the photos could not be compared: {reason}")]
    few = photos.found < SAME_PHOTO_SHARE * photos.probes
    if not photos.found or few or photos.found <= stated_in(note):
        return []
    sentence = (
        f"{_share(photos.found, photos.probes)} probes are near-duplicates of a gallery photo, and recognised without "
        "knowing the face (`bench audit` names them)"
    )
    return [RowWarning("same-photo", sentence)]


# -- answers -------------------------------------------------------------------------------------------


def may_be_alike(answers: int, spread: float) -> bool:
    """Say whether scores differ so little that `of_scores` must look at the decisions.

    Args:
        answers: decisions that have a score.
        spread: largest minus smallest score.
    """
    return answers > 1 and spread <= SAME_SCORE


def of_scores(rows: pd.DataFrame) -> list[RowWarning]:
    """Return the warning that a tracker tells no photos apart, so that its rates are chance.

    One score for all is not enough: that of a head which is sure of every answer is 1, and the answers may be right.

    Args:
        rows: a row's decisions (`bench.run.decisions.SCHEMA`); scores are missing where there was no answer.
    """
    rows = rows[rows["score"].notna()]
    known = rows["score"]
    if not may_be_alike(len(known), known.max() - known.min()):
        return []
    if not (_all_tied(rows) or _one_answer(rows)):
        return []
    return [
        RowWarning(
            "same-score", f"all {len(known)} answers have the score {known.iloc[0]:.4g}: they are chance"
        )
    ]


def _all_tied(rows: pd.DataFrame) -> bool:
    """Say whether the true identity has the score of another everywhere, or a pair that of its threshold."""
    known = rows[rows["margin"].notna()]
    limits = known["reference"].notna().map({True: SAME_PAIR_SCORE, False: SAME_SCORE})
    return len(known) > 0 and bool((known["margin"].abs() <= limits).all())


def _one_answer(rows: pd.DataFrame) -> bool:
    """Say whether every rotation has one answer for photos of several identities."""
    answers = rows.groupby("fold")["predicted"].nunique(dropna=False)
    return len(set(rows["identity"])) > 1 and bool((answers == 1).all())


def _share(count: int, total: int) -> str:
    return f"{count} of {total}"


def _inline(reason: str) -> str:
    """Return a reason that cannot be taken for the end of a warning."""
    return " ".join(reason.replace(";", ",").split())
