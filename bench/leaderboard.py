"""The leaderboard: one row a cell, made from a run's folder alone.

A view over decisions and image measures, made again at will; the same folder gives the same bytes. Rates
are in [0, 1]. An empty value is never a zero: its reason is in `reason` or in the column of that name.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench import image_measures, measures
from bench.answers import Answers, Point
from bench.contracts import ConditionFacts, Frozen
from bench.doubt_columns import doubt_columns
from bench.errors import DataError
from bench.randomness import numpy_generator
from bench.reference_tests import reference_tests
from bench.run_folder import CellResult, RunFolder
from bench.slices import rank_columns
from bench.statistics import Estimate

COLUMNS: Mapping[str, str] = {
    "rank_low": "rank of the defence against this attack, over all backbones of the run: 1 + those surely better",
    "rank_high": "number of defences - those surely worse",
    "tie_group": "letters: defences that share one cannot be told apart",
    "ranking_reason": "why ranks and letters are empty",
    "dataset": "dataset, canonical",
    "protocol": "protocol, canonical",
    "attack": "attack, canonical",
    "defense": "defence, canonical",
    "backbone": "the tracker's backbone",
    "head": "the tracker's head",
    "condition": "which of the protocol's questions; empty where it has one",
    "seed": "seed of the methods' randomness",
    "asked": "True where the cell was asked for, False for a reference cell the plan added",
    "status": "ok or failed",
    "reason": "why the cell failed",
    "n_identities": "people measured",
    "n_probes": "probes of all people, each counted once",
    "asr": "attack success rate: share of a protected person's probes not recognised as theirs, mean over people",
    "asr_low": "lower end of its 95 % interval over people",
    "asr_high": "upper end",
    "asr_pooled": "the same over all probes",
    "asr_reason": "why asr or its interval is empty",
    "baseline_error": "ASR of attack none with defence none: what no cloak earned (impersonation: natural photos)",
    "defended_baseline_error": "ASR of attack none with this defence",
    "baseline_reason": "why one of the two baselines is empty",
    "normal_accuracy": "share of a normal person's probes that are recognised, mean over people",
    "normal_accuracy_low": "lower end of its 95 % interval over people",
    "normal_accuracy_high": "upper end",
    "normal_accuracy_pooled": "the same over all probes",
    "normal_accuracy_reason": "why normal_accuracy or its interval is empty",
    "recovery": "(ASR undefended - ASR) / (ASR undefended - baseline error), not clipped",
    "recovery_low": "lower end of its 95 % bootstrap interval over people",
    "recovery_high": "upper end",
    "recovery_reason": "why recovery is empty",
    "p": "p value of ASR against the same row under defence none (for defence none: attack none), sign-flip test, "
    "over all seeds",
    "p_holm": "p after Holm over all rows of this dataset, protocol and head",
    "p_holm_reason": "why p is empty",
    "effect_h": "Cohen's h of ASR against the same row under defence none (for defence none: attack none)",
    "effect_h_reason": "why effect_h is empty",
    "mdd": "smallest difference of ASR that this comparison would have found in 80 of 100 such runs, at the level that "
    "Holm's first step needs",
    "threshold": "the tracker accepts when the score is at least this; empty where it always answers",
    "threshold_for": "what the threshold was set for, e.g. FAR",
    "threshold_rate": "that rate as asked for",
    "threshold_rate_measured": "that rate as measured: FAR where it was set, FPIR on other strangers",
    "threshold_rate_low": "lower end of its 95 % interval over people",
    "threshold_rate_high": "upper end",
    "threshold_pairs": "comparisons (FAR) or searches (FPIR) of people who are not evaluated that it was set on",
    "threshold_people": "those people",
    "condition_reason": "why the condition has no threshold or no answers",
    "cloak_psnr": "PSNR of cloak against original, dB, mean over changed images",
    "cloak_ssim": "SSIM of cloak against original",
    "cloak_dssim": "(1 - SSIM) / 2",
    "cloak_lpips": "LPIPS (AlexNet) of cloak against original",
    "cloak_linf": "largest change of a pixel, grey levels of 255",
    "cloak_unchanged": "share of images the attack left as they were",
    "cloak_reason": "why the cloak's measures are empty",
    "purified_psnr": "PSNR of the purified image against the original (of cloaks; of photos for attack none)",
    "purified_ssim": "SSIM of the purified image against the original",
    "purified_dssim": "(1 - SSIM) / 2",
    "purified_lpips": "LPIPS of the purified image against the original",
    "purified_linf": "largest change of a pixel, grey levels of 255",
    "purified_unchanged": "share of images that came back as the original",
    "purified_reason": "why the purified image's measures are empty",
    "restored_psnr": "PSNR of what the protocol restored (erased) against the original",
    "restored_ssim": "SSIM of it",
    "restored_dssim": "(1 - SSIM) / 2",
    "restored_lpips": "LPIPS of it",
    "restored_linf": "largest change of a pixel, grey levels of 255",
    "restored_unchanged": "share of images that came back as the original",
    "restored_reason": "why the restored image's measures are empty",
    "restored_to_cloak_psnr": "PSNR of what the protocol restored against the cloak as posted, dB, mean over those "
    "that are not the cloak itself",
    "restored_to_cloak_unchanged": "share of images that came back as the cloak",
    "restored_to_cloak_reason": "why these two are empty",
    "lpips_reason": "why LPIPS is empty where other measures are there",
    "warnings": "why the harness doubts the row's numbers, each as code: sentence; empty where nothing is doubted",
    "surrogates": "backbones the attack used",
    "extractors": "backbones the defence was trained with",
    "access": "black-box or white-box (the tracker's backbone is a surrogate)",
    "extractor_is_tracker": "the tracker's backbone, by name or by its weights' SHA-256, trained the defence",
    "related": "a surrogate or extractor is of the tracker's family",
    "extractors_are_surrogates": "surrogates and extractors overlap",
    "attack_seen_by_defense": "seen, seen-with-other-parameters, unseen, not-trained",
    "attack_adapts_to_defense": "the attack was made against this defence",
    "identity_overlap": "an evaluated person's photos trained the backbone, defence or attack: yes, no, unknown",
    "identity_overlap_detail": "how many people, or why it is unknown",
    "background_overlap": "an evaluated person is among those of thresholds and distractors; empty: there are none",
    "dataset_note": "a caution about the dataset",
    "benchmark_version": "rows of different versions are not compared",
    "run": "digest of the specification",
}
"""Every column with its meaning, in order."""

MEASURES = ("psnr", "ssim", "dssim", "lpips", "linf")

KEY = ("dataset", "protocol", "attack", "defense", "backbone", "head", "condition", "seed")
"""What names a row."""

_WHOLE = ("rank_low", "rank_high", "n_identities", "n_probes", "threshold_pairs", "threshold_people")
_FLAGS = (
    "asked",
    "extractor_is_tracker",
    "related",
    "extractors_are_surrogates",
    "attack_adapts_to_defense",
)
_TEXTS = frozenset(
    {
        *(name for name in COLUMNS if name.endswith("_reason")),
        *(name for name in KEY if name != "seed"),
        *("tie_group", "status", "reason", "threshold_for", "warnings", "surrogates", "extractors", "access"),
        *("attack_seen_by_defense", "identity_overlap", "identity_overlap_detail", "background_overlap"),
        *("dataset_note", "benchmark_version", "run"),
    }
)

# What a spreadsheet passes over before it looks for a formula, and what begins one, in ASCII, full width and small.
_PASSED = r"[\s\x00-\x1f\u200b-\u200f\u2060\ufeff'\"]*"
_FORMULA = r"[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_RISKY_START = re.compile(rf"'*[\t\n]|{_PASSED}{_FORMULA}")
# Where the semicolon parts fields, a text that holds one is two.
_RISKY_REST = re.compile(rf";(?={_PASSED}{_FORMULA})")
_GUARDED_REST = re.compile(rf";'(?={_PASSED}{_FORMULA})")


@dataclass(frozen=True)
class _Row:
    """One cell under one condition, and how to get at its references."""

    point: Point
    condition: str
    answers: Answers

    @property
    def cell(self) -> CellResult:
        return self.answers.cells[self.point]

    def rows(self, attack: str, defense: str) -> pd.DataFrame | None:
        """Return the decisions of a reference cell under this condition, None where there are none."""
        return self.answers.rows(self.point._replace(attack=attack, defense=defense), self.condition)

    def people(self, attack: str, defense: str) -> pd.DataFrame | None:
        """Return everyone's rates in a reference cell, None where there are none."""
        return self.answers.people(self.point._replace(attack=attack, defense=defense), self.condition)


def build(folder: RunFolder) -> pd.DataFrame:
    """Return the leaderboard of a run, one row a cell with the columns of `COLUMNS`.

    Raises:
        DataError: not a run's folder, or one of its files is missing or damaged.
    """
    answers = Answers.of(folder)
    rows = [
        _row(_Row(point, condition, answers))
        for point in answers.cells
        for condition in answers.conditions(point)
    ]
    board = pd.DataFrame(rows, columns=list(COLUMNS))
    added = (reference_tests(answers, board), rank_columns(answers, board), doubt_columns(answers, board))
    complete = board.assign(**{name: values for columns in added for name, values in columns.items()})
    # A missing count or rank must not turn the others into floats.
    return complete.astype(dict.fromkeys(_WHOLE, "Int64"))


def _row(row: _Row) -> dict[str, Any]:
    cell, facts = row.cell, row.answers.facts
    columns: dict[str, Any] = {
        "dataset": facts.spec.dataset,
        "protocol": facts.spec.protocol,
        **cell.model_dump(
            include={"attack", "defense", "backbone", "head", "seed", "asked", "status", "reason"}
        ),
        "condition": row.condition,
        **cell.threat.model_dump(),
        "dataset_note": facts.dataset_note,
        "benchmark_version": facts.benchmark_version,
        "run": facts.run,
    }
    decided = row.answers.decided(row.point)
    if decided is None:
        return columns
    columns |= _condition_columns(decided.conditions[row.condition])
    own = row.rows(cell.attack, cell.defense)
    if own is not None:
        columns |= _rate_columns(own) | _reference_columns(own, row)
    return columns | _all_image_columns(row)


def _condition_columns(fact: ConditionFacts) -> dict[str, Any]:
    return {
        "threshold": fact.threshold,
        "threshold_for": fact.rate_name,
        "threshold_rate": fact.rate_wanted,
        "threshold_rate_measured": fact.rate,
        "threshold_rate_low": fact.rate_low,
        "threshold_rate_high": fact.rate_high,
        "threshold_pairs": fact.pairs,
        "threshold_people": fact.identities,
        "condition_reason": fact.reason,
    }


def _all_image_columns(row: _Row) -> dict[str, Any]:
    cell, folder = row.cell, row.answers.folder
    no_cloak = "attack none changes nothing" if cell.attack == "none" else ""
    no_purifier = "" if cell.purified_measures else "the defence does not change images"
    restored = cell.restored_measures.get(row.condition, "")
    no_restored = "" if restored else "nothing is restored under this condition"
    return {
        **_image_columns(folder, "cloak", cell.cloak_measures, no_cloak),
        **_image_columns(folder, "purified", cell.purified_measures, no_purifier),
        **_image_columns(folder, "restored", restored, no_restored),
        **_to_cloak_columns(folder, cell.restored_to_cloak_measures.get(row.condition, ""), no_restored),
        "lpips_reason": row.answers.facts.lpips_reason,
    }


def _rate_columns(own: pd.DataFrame) -> dict[str, Any]:
    summary = measures.summarize(own)
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


def _reference_columns(own: pd.DataFrame, row: _Row) -> dict[str, Any]:
    baselines = {
        "baseline_error": _baseline(row, "none"),
        "defended_baseline_error": _baseline(row, row.cell.defense),
    }
    recovery = _recovery(own, row)
    return {
        **{name: estimate.value for name, estimate in baselines.items()},
        "baseline_reason": "; ".join(dict.fromkeys(e.reason for e in baselines.values() if e.value is None)),
        **_estimate("recovery", recovery),
        "recovery_reason": recovery.reason,
    }


def _baseline(row: _Row, defense: str) -> Estimate:
    """Return the error that no cloak earned: with attack none; of impersonation, with the natural photos."""
    if row.answers.recognises(row.condition):
        return measures.reference_error(row.rows("none", defense), f"none x {defense}")
    people = row.people(row.cell.attack, defense)
    if people is None:
        return Estimate.missing(f"reference cell {row.cell.attack} x {defense} is not there")
    error = 1 - float(people["normal_accuracy"].mean())
    return Estimate(error, reason="of natural photos against the same targets")


def _recovery(own: pd.DataFrame, row: _Row) -> Estimate:
    cell = row.cell
    if "none" in (cell.attack, cell.defense):
        return Estimate.missing("a recovery is of a defence against an attack")
    if row.answers.is_undefended(row.condition):
        return Estimate.missing("no defence acts under this condition")
    if reason := row.answers.dependence(row.point, row.condition):
        return Estimate.missing(reason)
    names = ("recovery", cell.attack, cell.defense, cell.backbone, cell.head, *filter(None, [row.condition]))
    rng = numpy_generator(row.answers.facts.spec.split_seed, *names)
    return measures.recovery_of(own, row.rows(cell.attack, "none"), row.rows("none", "none"), rng)


def _image_columns(folder: RunFolder, prefix: str, name: str, missing: str) -> dict[str, Any]:
    if missing or not name:
        return {f"{prefix}_reason": missing or "not measured"}
    summary = measures.summarize_images(image_rows(folder, name))
    columns: dict[str, Any] = {f"{prefix}_{key}": summary.means.get(key) for key in MEASURES}
    return {**columns, f"{prefix}_unchanged": summary.share_unchanged, f"{prefix}_reason": summary.reason}


def _to_cloak_columns(folder: RunFolder, name: str, missing: str) -> dict[str, Any]:
    prefix = "restored_to_cloak"
    columns = _image_columns(folder, prefix, name, missing)
    return {key: columns.get(key) for key in (f"{prefix}_psnr", f"{prefix}_unchanged", f"{prefix}_reason")}


def image_rows(folder: RunFolder, name: str) -> pd.DataFrame:
    """Return the image measures of one of a run's files, one row an image.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        payload = (folder.path / name).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{folder.path / name} is missing; run the same command again to write it.") from None
    return image_measures.from_bytes(payload, name).drop(columns="image")


def _estimate(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def to_csv(board: pd.DataFrame) -> str:
    """Return the leaderboard as CSV: floats with six decimals, empty for missing, safe in spreadsheets.

    Before what a spreadsheet would take for a formula, at the start of a text or after a semicolon in it, stands an
    apostrophe; a carriage return, which readers take for the end of a row, is a space. `read_csv` takes the
    apostrophes off again.
    """
    safe = board.copy()
    for name in safe.columns:
        if safe[name].dtype == object or pd.api.types.is_string_dtype(safe[name]):
            safe[name] = safe[name].map(_as_field)
    return str(safe.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def _as_field(value: Any) -> Any:
    return guarded(value) if isinstance(value, str) else value


def guarded(text: str) -> str:
    """Return a text as a field of a CSV that no spreadsheet takes for a formula."""
    line = _RISKY_REST.sub(";'", text.replace("\r", " "))
    return f"'{line}" if _RISKY_START.match(line) else line


def unguarded(field: str) -> str:
    """Return the text of a field that `guarded` made."""
    text = field[1:] if field.startswith("'") and _RISKY_START.match(field, 1) else field
    return _GUARDED_REST.sub(";", text)


def read_csv(path: Path) -> pd.DataFrame:
    """Return a leaderboard from a file that `to_csv` wrote, see `from_csv`.

    Raises:
        DataError: there is no such file, or it is no leaderboard.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        raise DataError(
            f"'{path}' does not exist. Give a finished run's folder, or a leaderboard's CSV."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read as CSV: {error}.") from None
    return from_csv(text, str(path))


def from_csv(text: str, name: str) -> pd.DataFrame:
    """Return the leaderboard of a CSV, with the types of its columns and without `to_csv`'s apostrophes.

    A missing number is NaN or NA, a missing text is "". Of a table that an older version wrote, which lacks columns,
    these are empty, and the columns of reasons among them say so.

    Args:
        text: of the CSV.
        name: what an error calls it.

    Raises:
        DataError: it is no leaderboard, or damaged.
    """
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except csv.Error as error:
        raise DataError(f"'{name}' cannot be read as CSV: {error}.") from None
    _check_header(name, header, rows)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    older = "not in the file, which an older version wrote"
    for column in COLUMNS:
        if column not in table.columns:
            table[column] = older if column.endswith("_reason") else "False" if column in _FLAGS else ""
    try:
        return pd.DataFrame({column: _typed(table[column]) for column in COLUMNS})
    except (ValueError, KeyError) as error:
        raise DataError(
            f"'{name}' is damaged: a column of numbers or of True and False has {error}."
        ) from None


def _check_header(name: str, header: list[str], rows: list[list[str]]) -> None:
    needed = (*KEY, "status", "n_identities", "asr", "normal_accuracy", "benchmark_version", "run")
    lacking = [column for column in needed if column not in header]
    strange = [column for column in header if column not in COLUMNS]
    if lacking or strange or len(set(header)) < len(header):
        what = (
            f"it lacks {', '.join(lacking)}"
            if lacking
            else f"it has {', '.join(strange) or 'a column twice'}"
        )
        raise DataError(
            f"'{name}' is not a leaderboard: {what}. `bench leaderboard RUN --csv FILE` writes one."
        )
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"'{name}' is damaged: row {line} has {len(row)} fields, not {len(header)}.")


def _typed(column: "pd.Series[Any]") -> "pd.Series[Any]":
    name = str(column.name)
    if name in _TEXTS:
        return column.map(unguarded).astype(object)
    if name in _FLAGS:
        return column.map({"True": True, "False": False}.__getitem__).astype(bool)
    numbers = pd.to_numeric(column.replace("", None), errors="raise")
    return numbers.astype(
        "Int64" if name in _WHOLE and name != "seed" else "int64" if name == "seed" else float
    )


class Condensed(Frozen):
    """A leaderboard row as the terminal shows it: rates in per cent."""

    attack: str
    defense: str
    backbone: str
    head: str
    condition: str
    seed: int
    asr: str
    baseline: str
    accuracy: str
    recovery: str
    psnr: str
    access: str
    status: str


def condense(board: pd.DataFrame) -> list[Condensed]:
    """Return the rows as a terminal shows them."""
    return [_condense(row) for row in board.to_dict("records")]


def _condense(row: Mapping[Any, Any]) -> Condensed:
    return Condensed(
        **{key: row[key] for key in ("attack", "defense", "backbone", "head", "condition", "seed", "status")},
        asr=_percent(row["asr"], row["asr_low"], row["asr_high"]),
        baseline=_percent(row["defended_baseline_error"]),
        accuracy=_percent(row["normal_accuracy"], row["normal_accuracy_low"], row["normal_accuracy_high"]),
        recovery=_percent(row["recovery"]),
        psnr="NA" if pd.isna(row["cloak_psnr"]) else f"{row['cloak_psnr']:.1f}",
        access=str(row["access"]),
    )


def _percent(value: Any, low: Any = None, high: Any = None) -> str:
    if value is None or pd.isna(value):
        return "NA"
    if low is None or pd.isna(low):
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
