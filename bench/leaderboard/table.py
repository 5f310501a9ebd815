"""The leaderboard: one row a cell, made from a run's folder alone.

A view over decisions and image measures, made again at will; the same folder gives the same bytes. Rates
are in [0, 1]. An empty value is never a zero: its reason is in `reason` or in the column of that name.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.analysis.comparison_groups import rank_columns
from bench.analysis.reference_tests import reference_tests
from bench.analysis.results import Measure, Results
from bench.analysis.warnings import warning_columns
from bench.analysis.worst_case import worst_columns
from bench.contracts import ConditionFacts
from bench.leaderboard.columns import COLUMNS, MEASURES, WHOLE
from bench.run.folder import CellResult, RunFolder
from bench.run.spec import Cell
from bench.stats import rates
from bench.stats.intervals import Estimate
from bench.stats.rates import CellSummary


@dataclass(frozen=True)
class _Row:
    """One cell under one condition, and how to get at its references."""

    point: Cell
    condition: str
    results: Results

    @property
    def cell(self) -> CellResult:
        return self.results.cells[self.point]

    def summary(self, attack: str, defense: str) -> CellSummary | None:
        """Return the rates of a reference cell under this condition, None where there are none."""
        return self.results.summary(self.point._replace(attack=attack, defense=defense), self.condition)

    def rates(self, attack: str, defense: str, measure: Measure = "asr") -> "pd.Series[float] | None":
        """Return each identity's rates in a reference cell, None where there are none."""
        point = self.point._replace(attack=attack, defense=defense)
        return self.results.rates_of(point, self.condition, measure)


def build(folder: RunFolder) -> pd.DataFrame:
    """Return the leaderboard of a run, one row a cell with the columns of `COLUMNS`.

    Raises:
        DataError: not a run's folder, or one of its files is missing or damaged.
    """
    return of_results(Results.of(folder))


def of_results(results: Results) -> pd.DataFrame:
    """Return `build` of a run whose results are at hand, so that its decisions are read once."""
    rows = [
        _row(_Row(point, condition, results))
        for point in results.cells
        for condition in results.conditions(point)
    ]
    leaderboard = pd.DataFrame(rows, columns=list(COLUMNS))
    tested = leaderboard.assign(
        **reference_tests(results, leaderboard),
        **rank_columns(results, leaderboard),
        **worst_columns(results, leaderboard),
    )
    warned: dict[str, Any] = {**warning_columns(results, tested)}
    complete = tested.assign(**warned)
    # A missing count or rank must not turn the others into floats.
    return complete.astype(dict.fromkeys(WHOLE, "Int64"))


def _row(row: _Row) -> dict[str, Any]:
    cell, facts = row.cell, row.results.facts
    columns: dict[str, Any] = {
        "dataset": facts.spec.dataset,
        "split": facts.spec.split,
        "protocol": facts.spec.protocol,
        "task": facts.task,
        **cell.model_dump(
            include={"attack", "defense", "backbone", "head", "seed", "requested", "status", "reason"}
        ),
        "condition": row.condition,
        "ranked_over": "",
        **cell.threat.model_dump(),
        "dataset_note": facts.caution,
        "footnote": "",
        "benchmark_version": facts.benchmark_version,
        "run": facts.run,
    }
    found = rates_of(row.results, row.point, row.condition)
    return columns | found | _all_image_columns(row) if found else columns


def rates_of(results: Results, point: Cell, condition: str) -> dict[str, Any]:
    """Return what decisions alone give of a cell under a condition; nothing where it has none.

    Args:
        results: of the run.
        point: the cell.
        condition: one of the cell's.
    """
    facts, row = results.facts_of(point), _Row(point, condition, results)
    if facts is None or condition not in facts:
        return {}
    columns, own = _condition_columns(facts[condition]), results.summary(point, condition)
    return columns if own is None else columns | _rate_columns(own) | _reference_columns(row)


def _condition_columns(fact: ConditionFacts) -> dict[str, Any]:
    return {
        "threshold": fact.threshold,
        "threshold_for": fact.rate_name,
        "threshold_rate": fact.rate_wanted,
        "threshold_rate_measured": fact.rate,
        "threshold_rate_low": fact.rate_low,
        "threshold_rate_high": fact.rate_high,
        "threshold_pairs": fact.pairs,
        "threshold_identities": fact.identities,
        "gallery_cloaked": fact.gallery_cloaked,
        "gallery_cloaked_low": fact.gallery_cloaked_low,
        "gallery_cloaked_high": fact.gallery_cloaked_high,
        "gallery_missed": fact.gallery_missed,
        "gallery_missed_low": fact.gallery_missed_low,
        "gallery_missed_high": fact.gallery_missed_high,
        "probes_missed": fact.probes_missed,
        "probes_missed_low": fact.probes_missed_low,
        "probes_missed_high": fact.probes_missed_high,
        "condition_reason": fact.reason,
    }


def _all_image_columns(row: _Row) -> dict[str, Any]:
    cell, results = row.cell, row.results
    no_cloak = "attack none changes nothing" if cell.attack == "none" else ""
    no_purifier = "" if cell.purified_measures else "the defence does not change images"
    restored = cell.restored_measures.get(row.condition, "")
    no_restored = "" if restored else "nothing is restored under this condition"
    return {
        **_image_columns(results, "cloak", cell.cloak_measures, no_cloak),
        **_image_columns(results, "purified", cell.purified_measures, no_purifier),
        **_image_columns(results, "restored", restored, no_restored),
        **_to_cloak_columns(results, cell.restored_to_cloak_measures.get(row.condition, ""), no_restored),
        "lpips_reason": results.facts.lpips_reason,
        **_detector_columns(row),
    }


def _detector_columns(row: _Row) -> dict[str, Any]:
    """Return how often the defence's detector flags cloaks, and natural photos."""
    if not row.cell.detection:
        return {"detector_reason": "the defence has no detector, or several"}
    cloaks, photos = row.results.flagged_shares(row.cell.detection)
    if row.cell.attack == "none":
        cloaks = Estimate.missing("attack none makes no cloaks")
    return {
        **_estimate("detector_tpr", cloaks),
        **_estimate("detector_fpr", photos),
        "detector_reason": "; ".join(dict.fromkeys(filter(None, (cloaks.reason, photos.reason)))),
    }


def _rate_columns(summary: CellSummary) -> dict[str, Any]:
    return {
        "n_identities": summary.n_identities,
        "n_probes": summary.n_probes,
        "asr_pooled": summary.asr_pooled,
        "asr_reason": summary.asr.reason,
        "normal_accuracy_pooled": summary.normal_accuracy_pooled,
        "normal_accuracy_reason": summary.normal_accuracy.reason,
        **_estimate("asr", summary.asr),
        **_estimate("normal_accuracy", summary.normal_accuracy),
    }


def _reference_columns(row: _Row) -> dict[str, Any]:
    baselines = {
        "baseline_error": _baseline(row, "none"),
        "defended_baseline_error": _baseline(row, row.point.defense),
    }
    recovery = _recovery(row)
    return {
        **{name: estimate.value for name, estimate in baselines.items()},
        "baseline_reason": "; ".join(dict.fromkeys(e.reason for e in baselines.values() if e.value is None)),
        **_estimate("recovery", recovery),
        "recovery_reason": recovery.reason,
    }


def _baseline(row: _Row, defense: str) -> Estimate:
    """Return the error rate without any cloak: with attack none; of impersonation, with the natural photos."""
    if row.results.recognises(row.condition):
        return rates.reference_error(row.summary("none", defense), f"none x {defense}")
    accuracy = row.rates(row.point.attack, defense, "normal_accuracy")
    if accuracy is None:
        return Estimate.missing(f"reference cell {row.point.attack} x {defense} is not there")
    error = 1 - float(accuracy.mean())
    return Estimate(error, reason="of natural photos against the same targets")


def _recovery(row: _Row) -> Estimate:
    cell, own = row.point, row.rates(row.point.attack, row.point.defense)
    if "none" in (cell.attack, cell.defense):
        return Estimate.missing("a recovery is of a defence against an attack")
    if row.results.is_undefended(row.condition):
        return Estimate.missing("no defence acts under this condition")
    if reason := row.results.dependence(row.point, row.condition):
        return Estimate.missing(reason)
    if own is None:
        return Estimate.missing("the cell has no decisions")
    return rates.recovery_of(
        own,
        row.rates(cell.attack, "none"),
        row.rates("none", "none"),
        row.results.draws(len(own)),
        row.results.gain(row.point, row.condition),
    )


def _image_columns(results: Results, prefix: str, name: str, missing: str) -> dict[str, Any]:
    if missing or not name:
        return {f"{prefix}_reason": missing or "not measured"}
    summary = results.images(name)
    columns: dict[str, Any] = {f"{prefix}_{key}": summary.means.get(key) for key in MEASURES}
    return {**columns, f"{prefix}_unchanged": summary.share_unchanged, f"{prefix}_reason": summary.reason}


def _to_cloak_columns(results: Results, name: str, missing: str) -> dict[str, Any]:
    prefix = "restored_to_cloak"
    columns = _image_columns(results, prefix, name, missing)
    return {key: columns.get(key) for key in (f"{prefix}_psnr", f"{prefix}_unchanged", f"{prefix}_reason")}


def _estimate(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
