"""The macro means a headline is made of: over attacks and trackers, within each identity first (DESIGN 7).

What lives here: which cells a mean takes, and its row. What must not: tests (`bench.stats.significance`), groups of
comparable cells (`bench.analysis.comparison_groups`), the measures of a cell (`bench.stats.rates`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.analysis.claims import LACKING, MARGIN, name_in_run
from bench.analysis.comparison_groups import (
    EVERY,
    ComparisonGroup,
    access_of,
    comparison_groups,
    mean_rates,
)
from bench.analysis.reference_tests import REFERENCE
from bench.analysis.results import Measure, Results
from bench.analysis.worst_case import COLUMNS as WORST
from bench.analysis.worst_case import over_trackers
from bench.errors import UsageError
from bench.leaderboard.adaptation import Adaptation, adaptation
from bench.leaderboard.columns import COLUMNS as LEADERBOARD
from bench.leaderboard.significance_tables import RANKINGS, accuracy_kept
from bench.run.spec import Cell
from bench.stats import rates as measures
from bench.stats.intervals import Estimate, rate_interval
from bench.stats.random_seeds import LEAST_SEEDS, non_inferiority_over_seeds
from bench.stats.significance import mean_over, non_inferiority

COLUMNS: Mapping[str, str] = {
    "against": f"the attack, or {EVERY} those in `attacks`",
    **{name: RANKINGS[name] for name in ("head", "condition", "access")},
    "defense": "canonical name",
    "attacks": "attacks averaged over, within each identity",
    "adapted": "of these attacks, those adapted to this very defence",
    "adapted_partial": "those adapted to a part of it, or to a whole that shares one",
    "backbones": "trackers averaged over, within each identity",
    "n_identities": "identities, the sample",
    "asr_worst": "worst case of the defence, the same in all its rows of this head, condition and access: each "
    "identity's highest ASR over all attacks of the table, averaged over seeds and the trackers that all of them meet, "
    "then the mean over identities",
    **{
        name: LEADERBOARD[name]
        for name in ("asr_worst_low", "asr_worst_high", "asr_worst_reason", "worst_over", "worst_of")
    },
    **{name: LEADERBOARD[name] for name in ("worst_attack", "worst_attack_asr", "worst_knows")},
    "asr": "attack success rate, mean over identities",
    "asr_low": "lower end of its 95 % interval over identities, by the rule of a single cell's rate",
    "asr_high": "upper end",
    "asr_reason": "why asr or its interval is empty",
    "undefended_asr": "the same without a defence",
    "baseline_error": "the same without attack and defence: error rate without any cloak",
    "defended_baseline_error": "the same without attack, with this defence",
    "normal_accuracy": "share of normal identities' probes that are recognised, mean over identities",
    "normal_accuracy_low": "lower end of its 95 % interval, as for asr",
    "normal_accuracy_high": "upper end",
    "normal_accuracy_reason": "why normal_accuracy or its interval is empty",
    "undefended_accuracy": "the same without a defence",
    "accuracy_difference": "normal_accuracy - undefended_accuracy",
    "accuracy_difference_low": "lower end of its 90 % interval, whose lower end decides",
    "accuracy_difference_high": "upper end",
    "margin": "what would count as worse",
    "accuracy_p": "one-sided non-inferiority test, not corrected for the number of rows",
    "not_worse": "shown to lose less than the margin; False is not shown, not worse",
    "not_worse_reason": "why there is no such test",
    "natural_psnr": "PSNR of natural gallery photos after the defence against themselves, dB",
    "purified_psnr": "PSNR of cloaks after the defence against the natural photos, dB",
    "purified_reason": "why one of the two is empty",
    "cloak_psnr": "PSNR of cloaks against the natural photos, dB, mean over changed photos",
    "cloak_linf": "largest change of a pixel, grey levels of 255, mean over changed photos",
    "cloak_linf_max": "the same, the largest of all photos",
    "cloak_reason": "why these three are empty",
}
"""Every column with its meaning, in order."""

_KEPT = {
    "accuracy_difference": "difference",
    "accuracy_difference_low": "difference_low",
    "accuracy_difference_high": "difference_high",
    "margin": "margin",
    "accuracy_p": "p",
    "not_worse": "not_worse",
    "not_worse_reason": "reason",
}
"""Columns that `bench.leaderboard.significance_tables.accuracy_kept` gives → their names there."""


@dataclass(frozen=True)
class Mean:
    """One defence against one attack, or the mean of several, under one head, condition and access.

    Attributes:
        against: the attack, or `EVERY`.
        head: the tracker's head.
        condition: of the protocol; empty where it has one.
        access: black-box or white-box.
        defense: canonical name.
        rates: each identity's own ASR, averaged over the cells; empty where one of them has no decisions.
        by_training: the same of each training of the defence; one where it is not told apart by trainings.
        columns: the row of `COLUMNS`.
        dependence: why identities are not independent, so that no test over them is given; or "".
    """

    against: str
    head: str
    condition: str
    access: str
    defense: str
    rates: "pd.Series[float]"
    by_training: "tuple[pd.Series[float], ...]"
    columns: Mapping[str, Any]
    dependence: str = ""


def means(
    results: Results,
    attacks: Sequence[str] = (),
    backbones: Sequence[str] = (),
    kept: pd.DataFrame | None = None,
) -> list[Mean]:
    """Return the means of every defence of a run, against each attack and against all of them.

    Args:
        results: of the run.
        attacks: only these, any text for each; empty for all of the run but ``none``.
        backbones: only these trackers, likewise.
        kept: `significance_tables.accuracy_kept` of what is chosen, where it is known.

    Raises:
        UsageError: the run has no such method, or no attack but ``none``.
    """
    chosen = _chosen(results, attacks, backbones)
    tests = _indexed(accuracy_kept(chosen) if kept is None else kept)
    accuracy = {_key(one): one for one in comparison_groups(chosen, "defense", "normal_accuracy")}
    groups = comparison_groups(chosen, "defense")
    worst = {place: over_trackers(chosen, *place) for place in dict.fromkeys(_key(one)[1:] for one in groups)}
    untested = {"reason": REFERENCE}
    return [
        _mean(
            chosen,
            one,
            accuracy.get(_key(one)),
            (str(defense),),
            tests.get((*_key(one), defense), untested),
            worst[_key(one)[1:]][str(defense)],
        )
        for one in groups
        for defense in one.rates.columns
    ]


def over_trainings(results: Results, defenses: Sequence[str], backbones: Sequence[str] = ()) -> list[Mean]:
    """Return the means of one defence that several trainings made, against each attack and against all of them.

    Each identity's rates are averaged over the trainings too. Whether normal accuracy is kept is tested over identities
    and trainings, where these are `LEAST_SEEDS` or more.

    Args:
        results: of the run.
        defenses: the defence under each training, canonical.
        backbones: only these trackers; empty for all.

    Raises:
        UsageError: the run has no attack but ``none``.
    """
    chosen = _chosen(results, (), backbones)
    accuracy = {_key(one): one for one in comparison_groups(chosen, "defense", "normal_accuracy")}
    return [
        _mean(
            chosen,
            one,
            own := accuracy.get(_key(one)),
            tuple(defenses),
            _kept(own, defenses),
            _worst_over(chosen, one, defenses),
        )
        for one in comparison_groups(chosen, "defense")
        if set(defenses) <= set(one.rates.columns)
    ]


def _worst_over(results: Results, one: ComparisonGroup, defenses: Sequence[str]) -> Mapping[str, Any]:
    """Return the worst case of a defence of one training; that of several is of each for itself."""
    if len(defenses) == 1:
        return over_trackers(results, *_key(one)[1:])[defenses[0]]
    return {**dict.fromkeys(WORST), "asr_worst_reason": "a worst case is of one training"}


def table(found: Sequence[Mean]) -> pd.DataFrame:
    """Return means as a table with the columns of `COLUMNS`."""
    return pd.DataFrame([one.columns for one in found], columns=list(COLUMNS))


def _chosen(results: Results, attacks: Sequence[str], backbones: Sequence[str]) -> Results:
    """Return the run as if it had only the methods named, and attack ``none``."""
    wanted = {
        axis: {name_in_run(axis, text, results) for text in texts} or set(results.values(axis))
        for axis, texts in (("attack", attacks), ("backbone", backbones))
    }
    if not wanted["attack"] - {"none"}:
        raise UsageError(
            "a mean is over attacks that cloak, and there is only none. "
            f"Attacks of this run: {', '.join(results.values('attack'))}."
        )
    wanted["attack"].add("none")
    cells = {
        point: cell
        for point, cell in results.cells.items()
        if point.attack in wanted["attack"] and point.backbone in wanted["backbone"]
    }
    return results if len(cells) == len(results.cells) else replace(results, cells=cells)


def _key(one: ComparisonGroup) -> tuple[str, str, str, str]:
    return one.opponent, one.head, one.condition, one.access


def _indexed(kept: pd.DataFrame) -> dict[tuple[str, ...], dict[str, Any]]:
    names = ["against", "head", "condition", "access", "defense"]
    return {
        tuple(row[name] for name in names): {str(key): value for key, value in row.items()}
        for row in kept.astype(object).where(kept.notna(), None).to_dict("records")
    }


def _kept(accuracy: ComparisonGroup | None, defenses: Sequence[str]) -> Mapping[str, Any]:
    """Return whether normal accuracy is kept in the mean over trainings, as `accuracy_kept` has it of a defence."""
    if "none" in defenses:
        return {"reason": REFERENCE}
    if accuracy is None or "none" not in accuracy.rates.columns:
        return {"reason": "normal accuracy without a defence is not known"}
    rates = accuracy.rates[[*defenses, "none"]]
    if accuracy.reason or rates.isna().any(axis=None):
        return {"reason": accuracy.reason or LACKING}
    own = [rates[name] for name in defenses]
    if len(own) < LEAST_SEEDS:
        test = non_inferiority(mean_over(own), rates["none"], MARGIN)
    else:
        test = non_inferiority_over_seeds(own, [rates["none"]] * len(own), MARGIN)
    return {
        "difference": test.difference.value,
        "difference_low": test.difference.low,
        "difference_high": test.difference.high,
        "margin": test.margin,
        "p": test.p,
        "not_worse": test.not_worse,
        "reason": test.reason,
    }


def _mean(
    results: Results,
    one: ComparisonGroup,
    accuracy: ComparisonGroup | None,
    defenses: tuple[str, ...],
    test: Mapping[str, Any],
    worst: Mapping[str, Any],
) -> Mean:
    place = (one.opponent, one.head, one.condition, one.access)
    points = [point for defense in defenses for point in _points(results, one, defense)]
    undefended = _points(results, one, "none")
    asr = estimate(results, points, one.condition, "asr", one.reason)
    normal = estimate(results, points, one.condition, "normal_accuracy", one.reason)
    if accuracy is None:
        normal = Estimate.missing("this condition has no decisions without a cloak")
    columns = {
        **dict(zip(("against", "head", "condition", "access"), place, strict=True)),
        "defense": "|".join(defenses),
        "attacks": "|".join(one.opponents),
        "adapted": _adapted(results, points, "exact"),
        "adapted_partial": _adapted(results, points, "partial"),
        "backbones": "|".join(one.backbones),
        "n_identities": len(one.rates),
        **worst,
        **_columns("asr", asr),
        "undefended_asr": _rate(results, undefended, one.condition, "asr"),
        "baseline_error": _rate(results, _without_attack(undefended), one.condition, "asr"),
        "defended_baseline_error": _rate(results, _without_attack(points), one.condition, "asr"),
        **_columns("normal_accuracy", normal),
        "undefended_accuracy": None
        if accuracy is None
        else _rate(results, undefended, one.condition, "normal_accuracy"),
        **{name: test.get(source) for name, source in _KEPT.items()},
        **_image_columns(results, points),
    }
    by_training = tuple(one.rates[defense].dropna() for defense in defenses)
    rates = mean_over(by_training) if all(map(len, by_training)) else by_training[0].iloc[:0]
    return Mean(*place, columns["defense"], rates, by_training, columns, one.reason)


def _points(results: Results, one: ComparisonGroup, defense: str) -> list[Cell]:
    """Return the cells of a comparison group that have this defence."""
    return [
        point
        for point, cell in results.cells.items()
        if point.defense == defense
        and point.head == one.head
        and point.attack in one.opponents
        and point.backbone in one.backbones
        and access_of(cell) == one.access
        and not results.not_applicable(point, one.condition)
    ]


def _adapted(results: Results, points: Sequence[Cell], kind: Adaptation) -> str:
    found = (point.attack for point in points if adaptation(results.cells[point].threat) == kind)
    return "|".join(dict.fromkeys(found))


def _without_attack(points: Sequence[Cell]) -> list[Cell]:
    return list(dict.fromkeys(point._replace(attack="none") for point in points))


def estimate(
    results: Results, points: Sequence[Cell], condition: str, measure: Measure, reason: str
) -> Estimate:
    """Return a rate averaged within each identity over cells, then over identities, with its interval.

    Args:
        results: of a run, or of several that share identities and photos.
        points: the cells; of a single one the interval is the leaderboard's, of several it follows the same rule
            with each identity's mean over the cells in place of its rate, and the answers of all cells in place of
            the probes.
        condition: of the protocol.
        measure: which rate.
        reason: why identities are not independent, so that there is no interval; or "".
    """
    summaries = [results.summary(point, condition) for point in points]
    if not points or any(one is None for one in summaries):
        return Estimate.missing(LACKING)
    if len(summaries) == 1 and summaries[0] is not None:
        return summaries[0].asr if measure == "asr" else summaries[0].normal_accuracy
    rates = mean_rates(results, points, condition, measure)
    if rates.isna().any():
        return Estimate.missing(measures.NEVER_PROTECTED if measure == "asr" else measures.ONE_ROTATION)
    if reason:
        return Estimate(float(rates.mean()), reason=reason)
    answers = sum(one.n_probes for one in summaries if one is not None)
    return rate_interval(rates.to_numpy(), answers)


def _rate(results: Results, points: Sequence[Cell], condition: str, measure: Measure) -> float | None:
    rates = mean_rates(results, points, condition, measure)
    return None if rates.isna().any() or not len(rates) else float(rates.mean())


def _columns(name: str, estimate: Estimate) -> dict[str, Any]:
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_reason": estimate.reason,
    }


# -- images ------------------------------------------------------------------------------------------------------


def _image_columns(results: Results, points: Sequence[Cell]) -> dict[str, Any]:
    cloaks = [results.cells[point].cloak_measures for point in points]
    purified = [results.cells[point].purified_measures for point in points]
    natural = [
        results.cells[point].purified_measures for point in _without_attack(points) if point in results.cells
    ]
    cloak_psnr, cloak_linf, cloak_max, why = _image_means(results, cloaks, "the cloaks were not measured")
    unpurified = "the defence does not change images, or was not measured"
    purified_psnr, _, _, why_purified = _image_means(results, purified, unpurified)
    natural_psnr, _, _, why_natural = _image_means(results, natural, unpurified)
    return {
        "natural_psnr": natural_psnr,
        "purified_psnr": purified_psnr,
        "purified_reason": "; ".join(dict.fromkeys(filter(None, (why_natural, why_purified)))),
        "cloak_psnr": cloak_psnr,
        "cloak_linf": cloak_linf,
        "cloak_linf_max": cloak_max,
        "cloak_reason": why,
    }


def _image_means(
    results: Results, files: Sequence[str], missing: str
) -> tuple[float | None, float | None, float | None, str]:
    """Return PSNR and L∞ in the mean over cells of a cell's own mean, and the largest L∞; or why there is none."""
    if not files or not all(files):
        return None, None, None, missing
    # Cells share files (trackers of one group, heads): each is read once, and counts as often as it is shared.
    found = {name: results.images(name) for name in dict.fromkeys(files)}
    for one in found.values():
        if one.reason:
            return None, None, None, one.reason
    psnr, linf = (
        sum(found[name].means[key] or 0.0 for name in files) / len(files) for key in ("psnr", "linf")
    )
    return psnr, linf, max(one.largest["linf"] for one in found.values()), ""
