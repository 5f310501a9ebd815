"""What `bench table significance` writes of a run: rankings, pairs, whether normal accuracy is kept, seeds.

What lives here: tables as data frames and their form as CSV, Markdown and LaTeX. What must not: the tests
themselves (`bench.stats.significance`, `bench.stats.rankings`) and which cells are compared (`comparison_groups`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.claims import MARGIN
from bench.analysis.comparison_groups import ComparisonGroup, comparison_groups, ranked
from bench.analysis.reference_tests import detectable
from bench.analysis.results import Results
from bench.analysis.worst_case import STRONGEST, worst_groups
from bench.run.spec import Cell
from bench.stats.rankings import Ranking, critical_difference
from bench.stats.significance import benjamini_hochberg, non_inferiority, seed_variance
from bench.stats.unlike_spread import unlike_spread

RANKINGS: Mapping[str, str] = {
    "ranked": "what is ranked: defense (lowest ASR first) or attack (highest first)",
    "against": "the attack the defences meet, or the defence the attacks meet; "
    f"{STRONGEST}: defences by their worst case, ranked only where an attack was made against each",
    "head": "the tracker's head",
    "condition": "the protocol's condition; empty where it has only one",
    "access": "black-box or white-box; never averaged",
    "backbones": "trackers averaged over, within each identity: those that every method meets under this access",
    "opponents": "attacks or defences averaged over, likewise",
    "method": "canonical name",
    "asr": "mean over identities",
    "mean_rank": "mean over identities of the method's rank, 1 the best, ties shared",
    "rank_low": "1 + number of methods significantly better",
    "rank_high": "number of methods - number significantly worse",
    "tie_group": "letters: methods that share one are not significantly different",
    "friedman_p": "Friedman's test over the comparison group; empty for fewer than three methods",
    "critical_difference": "of mean ranks, Nemenyi at 5 % (Demsar 2006); for comparison with other papers",
    "minimum_detectable_difference": "largest minimum detectable difference in ASR of the group's pairs, at 80 % power "
    "after correction for the pairs; empty where a pair could not be tested",
    "n_identities": "identities: the sample size",
    "reason": "why the comparison group is not ranked, or all its methods are tied",
}
"""Columns of the table of rankings."""

PAIRS: Mapping[str, str] = {
    **{
        name: RANKINGS[name]
        for name in ("ranked", "against", "head", "condition", "access", "backbones", "opponents")
    },
    "first": "the method with the better mean",
    "second": "the other",
    "asr_first": "its ASR",
    "asr_second": "the other's",
    "difference": "asr_first - asr_second",
    "difference_low": "lower end of its 95 % interval",
    "difference_high": "upper end",
    "p": "sign-flip test over identities",
    "p_holm": "after Holm over the group's pairs",
    "p_bh": "after Benjamini and Hochberg over the group's pairs: for marks in a figure, not for claims",
    "significant": "p_holm and the p value of Friedman's test are at most 0.05",
    "effect_h": "Cohen's h",
    "minimum_detectable_difference": "minimum detectable difference in ASR at 80 % power, after correction for the "
    "pairs",
    "n_identities": "identities",
    "n_differing": "identities whose rates differ",
    "reason": "why there is no p",
    "caution": "why a significant p may be a false positive: near 0 or 1, with unlike spread between identities",
}
"""Columns of the table of pairs."""

KEPT: Mapping[str, str] = {
    **{name: RANKINGS[name] for name in ("against", "head", "condition", "access", "backbones", "opponents")},
    "defense": "canonical name",
    "normal_accuracy": "mean over identities",
    "undefended": "the same without a defence",
    "difference": "normal_accuracy - undefended",
    "difference_low": "lower end of its 90 % interval, whose lower end decides",
    "difference_high": "upper end",
    "margin": "non-inferiority margin",
    "p": "one-sided non-inferiority test, not corrected for the number of rows",
    "not_worse": "non-inferior: shown to lose less than the margin; False: not shown, which is not 'worse'",
    "n_identities": "identities",
    "reason": "why there is no p",
}
"""Columns of the table of normal accuracy."""


SEEDS: Mapping[str, str] = {
    "attack": "canonical name",
    "defense": "canonical name",
    "backbone": "the tracker's backbone",
    "head": RANKINGS["head"],
    "condition": RANKINGS["condition"],
    "asr": "mean over identities and seeds",
    "sd_of_seed_means": "standard deviation of the seeds' mean ASR: what another seed would change in a table",
    "sd_seeds": "standard deviation between seeds, without that between identities",
    "sd_identities": "standard deviation between identities, without that between seeds",
    "sd_residual": "residual standard deviation: of an identity under one seed",
    "n_identities": "identities",
    "n_seeds": "seeds",
    "reason": "why the deviations are empty",
}
"""Columns of the table of seeds."""


def ranked_groups(results: Results) -> list[tuple[ComparisonGroup, Ranking]]:
    """Return every comparison group of a run, ranked: defences against each attack, attacks under each defence."""
    return [*ranked(results, "defense"), *ranked(results, "attack")]


def ranked_by_worst_case(results: Results) -> list[tuple[ComparisonGroup, Ranking]]:
    """Return the defences of a run, ranked by their worst case where an attack was made against each of them."""
    return [(one, one.rank(results.facts.spec.split_seed)) for one in worst_groups(results)]


def rankings(found: Sequence[tuple[ComparisonGroup, Ranking]]) -> pd.DataFrame:
    """Return the place of every method of every comparison group."""
    rows = [row for one, ranking in found for row in _ranking_rows(one, ranking)]
    return pd.DataFrame(rows, columns=list(RANKINGS))


def pairs(
    found: Sequence[tuple[ComparisonGroup, Ranking]], among: Collection[str] | None = None
) -> pd.DataFrame:
    """Return every pair of methods of every comparison group with its test.

    Args:
        found: the groups.
        among: only pairs of these methods, which are corrected for all the same; None for every pair.
    """
    rows = [row for one, ranking in found for row in _pair_rows(one, ranking, among)]
    return pd.DataFrame(rows, columns=list(PAIRS))


def accuracy_kept(results: Results, margin: float = MARGIN) -> pd.DataFrame:
    """Return for each defence whether normal accuracy is shown to stay within a margin of no defence."""
    rows = [
        _kept_row(one, str(name), margin)
        for one in comparison_groups(results, "defense", "normal_accuracy")
        for name in one.rates.columns
        if name != "none" and "none" in one.rates.columns
    ]
    return pd.DataFrame(rows, columns=list(KEPT))


def seeds(results: Results) -> pd.DataFrame:
    """Return for each cell of the matrix how much seeds vary, apart from identities; empty for a single seed."""
    groups: dict[tuple[Cell, str], list[Cell]] = {}
    for point in results.cells:
        for condition in results.conditions(point):
            groups.setdefault((point._replace(seed=0), condition), []).append(point)
    several = {key: points for key, points in groups.items() if len(points) > 1}
    rows = [_seed_row(results, place, condition, points) for (place, condition), points in several.items()]
    return pd.DataFrame(rows, columns=list(SEEDS))


def _seed_row(results: Results, place: Cell, condition: str, points: Sequence[Cell]) -> dict[str, Any]:
    columns: dict[str, Any] = {**place._asdict(), "condition": condition}
    found = [results.rates_of(point, condition, "asr") for point in points]
    rates = [one for one in found if one is not None]
    if len(rates) < len(points):
        return columns | {"reason": f"{len(rates)} of {len(points)} seeds have decisions"}
    variance = seed_variance(rates)
    return columns | {
        "asr": variance.mean,
        "sd_of_seed_means": variance.seed_means,
        "sd_seeds": variance.seeds,
        "sd_identities": variance.identities,
        "sd_residual": variance.residual,
        "n_identities": variance.n_identities,
        "n_seeds": variance.n_seeds,
        "reason": variance.reason,
    }


def _group_columns(one: ComparisonGroup) -> dict[str, Any]:
    return {
        "ranked": one.axis,
        "against": one.opponent,
        "head": one.head,
        "condition": one.condition,
        "access": one.access,
        "backbones": "|".join(one.backbones),
        "opponents": "|".join(one.opponents),
    }


def _ranking_rows(one: ComparisonGroup, ranking: Ranking) -> Iterator[dict[str, Any]]:
    n, k = one.rates.shape
    shared = {
        **_group_columns(one),
        "n_identities": n,
        "reason": ranking.reason if k > 1 else "one method is no ranking",
        "friedman_p": None if ranking.omnibus is None else ranking.omnibus.p,
    }
    if not ranking.methods or k < 2:
        yield from ({**shared, "method": name, "asr": _mean(one.rates[name])} for name in one.rates.columns)
        return
    shared["critical_difference"] = critical_difference(k, n)
    if all(test.found.p is not None for test in ranking.pairs.values()):
        m = len(ranking.pairs)
        rates = {name: one.rates[name] for name in one.rates.columns}
        shared["minimum_detectable_difference"] = max(
            detectable(rates[a], rates[b], m) for a, b in ranking.pairs
        )
    for method in ranking.methods:
        yield {
            **shared,
            "method": method.method,
            "asr": method.mean,
            **{name: getattr(method, name) for name in ("mean_rank", "rank_low", "rank_high", "tie_group")},
        }


def _mean(rates: "pd.Series[float]") -> float | None:
    return None if rates.isna().any() else float(rates.mean())


def _pair_rows(
    one: ComparisonGroup, ranking: Ranking, among: Collection[str] | None
) -> Iterator[dict[str, Any]]:
    marked = benjamini_hochberg({pair: test.found.p for pair, test in ranking.pairs.items()})
    for (first, second), test in ranking.pairs.items():
        if among is not None and not (first in among and second in among):
            continue
        found = test.found
        yield {
            **_group_columns(one),
            "first": first,
            "second": second,
            "asr_first": found.first,
            "asr_second": found.second,
            "difference": found.difference.value,
            "difference_low": found.difference.low,
            "difference_high": found.difference.high,
            "p": found.p,
            "p_holm": test.p_holm,
            "p_bh": marked[first, second],
            "significant": test.significant,
            "effect_h": found.effect_h,
            "minimum_detectable_difference": None
            if found.p is None
            else detectable(one.rates[first], one.rates[second], len(ranking.pairs)),
            "n_identities": found.n_identities,
            "n_differing": found.n_differing,
            "reason": found.reason,
            "caution": unlike_spread(one.rates[first], one.rates[second]) if test.significant else "",
        }


def _kept_row(one: ComparisonGroup, name: str, margin: float) -> dict[str, Any]:
    columns = {**_group_columns(one), "defense": name, "margin": margin}
    defended, undefended = one.rates[name], one.rates["none"]
    columns |= {"normal_accuracy": _mean(defended), "undefended": _mean(undefended)}
    if one.reason or defended.isna().any() or undefended.isna().any():
        return columns | {"reason": one.reason or "a cell failed or is not there"}
    test = non_inferiority(defended, undefended, margin)
    return columns | {
        "difference": test.difference.value,
        "difference_low": test.difference.low,
        "difference_high": test.difference.high,
        "p": test.p,
        "not_worse": test.not_worse,
        "n_identities": test.n_identities,
        "reason": test.reason,
    }


# -- forms ---------------------------------------------------------------------------------------------------


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV: floats with six significant digits, empty for missing."""
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def to_markdown(table: pd.DataFrame) -> str:
    """Return a table as GitHub's Markdown, rounded for reading; NA where a number cannot be given."""
    shown = _rounded(table)
    lines = ["| " + " | ".join(shown.columns) + " |", "|" + "---|" * len(shown.columns)]
    lines += ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in shown.to_numpy()]
    return "\n".join(lines) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """Return a table as a LaTeX tabular with booktabs' rules, rounded for reading."""
    shown = _rounded(table)
    numbers = [pd.api.types.is_numeric_dtype(table[name]) for name in table.columns]
    body = [" & ".join(map(_tex, row)) + r" \\" for row in [list(shown.columns), *shown.to_numpy()]]
    spec = "".join("r" if number else "l" for number in numbers)
    lines = [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


FORMS: Mapping[str, Callable[[pd.DataFrame], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
"""File name's ending → how a table is written."""

_TEX = {c: "\\" + c for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_RATES = frozenset(
    {
        "sd_of_seed_means",
        "sd_seeds",
        "sd_identities",
        "sd_residual",
        "asr",
        "asr_first",
        "asr_second",
        "normal_accuracy",
        "undefended",
        "minimum_detectable_difference",
        "margin",
    }
)
_DIFFERENCES = frozenset({"difference", "difference_low", "difference_high"})


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, r"\textbackslash{}" if c == "\\" else c) for c in text)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return texts: rates and differences in per cent, p values to four decimals."""
    shown = pd.DataFrame({name: [_text(name, value) for value in table[name]] for name in table.columns})
    empty = [name for name in shown.columns if (shown[name] == "").all()]
    return shown.drop(columns=empty)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):
        return "NA"
    if name in _RATES:
        return f"{100 * value:.1f} %"
    if name in _DIFFERENCES:
        return f"{100 * value:+.1f}"
    if name in ("p", "p_holm", "p_bh", "friedman_p"):
        return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
