"""The summary table of a leaderboard, for readers: as texts, Markdown, LaTeX, and HTML that sorts and filters.

What lives here: which columns are shown and how a number is written. What must not: any number that is not in the
leaderboard. A number that is missing is NA, with its reason as a note under the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.leaderboard.adaptation import WORDS, in_short
from bench.leaderboard.adaptation import short as adapted
from bench.leaderboard.columns import COLUMNS, WARNINGS
from bench.leaderboard.names import NONE
from bench.leaderboard.worst_case import READING as WORST
from bench.leaderboard.worst_case import is_bound, sentences
from bench.run.spec import DEVELOPMENT_NOTE
from bench.stats.significance import ALPHA

Row = Mapping[str, Any]

MISSING = "NA"

_PERCENT = 100

READING = (
    "Ranks are of the defences against one attack: from 1 + the number significantly better to the number of defences "
    "- the number significantly worse; "
    "defences that share a letter are not significantly different. Bold: none is significantly "
    "better, and one is significantly worse. "
    "Intervals are 95 % over identities."
)
"""How to read the table, for captions."""


@dataclass(frozen=True)
class SummaryField:
    """One field of the table.

    Attributes:
        text: the value, `MISSING` where there is none.
        value: what it is sorted by; None: last.
        interval: its interval, or "".
        note: why it is missing, or "".
    """

    text: str
    value: float | str | None
    interval: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.interval}" if self.interval else self.text


@dataclass(frozen=True)
class SummaryColumn:
    """A column of the short form.

    Attributes:
        key: its name in HTML and in the address, e.g. ``asr``.
        heading: what stands above it.
        meaning: one sentence.
        numeric: whether it is a number.
        show: row of the leaderboard → field.
    """

    key: str
    heading: str
    meaning: str
    numeric: bool
    show: Callable[[Row], SummaryField]


@dataclass(frozen=True)
class SummaryTable:
    """The short form of a leaderboard.

    Attributes:
        columns: those shown; a name that is the same in every row of a column that may be left out is in `constant`.
        rows: one tuple of fields a row, in the leaderboard's order.
        best: for each row, whether no defence is significantly better than its own, and one is significantly worse.
        notes: the reasons of missing values, each once; their numbers begin with 1.
        constant: heading → the one value of a column left out for it.
        cautions: what must be known of the datasets, each once.
        worst: what must be known of the worst cases, a sentence each.
    """

    columns: tuple[SummaryColumn, ...]
    rows: tuple[tuple[SummaryField, ...], ...]
    best: tuple[bool, ...]
    notes: tuple[str, ...]
    constant: Mapping[str, str]
    cautions: tuple[str, ...] = ()
    worst: tuple[str, ...] = ()

    def number_of(self, note: str) -> int:
        """Return the number of a note."""
        return self.notes.index(note) + 1

    def left_out(self) -> str:
        """Return what is the same in every row, as a sentence, or ""."""
        same = "; ".join(f"{heading}: {value}" for heading, value in self.constant.items())
        return f"The same in every row: {same}." if same else ""

    def below(self) -> str:
        """Return the sentences that belong under the table, before its notes."""
        return " ".join(filter(None, [*self.cautions, *self.worst, WORST, READING, self.left_out()]))


def is_there(value: Any) -> bool:
    """Say whether a value of a row is neither missing nor empty."""
    return value is not None and not pd.isna(value) and value != ""


def _text(row: Row, name: str) -> str:
    value: Any = row.get(name)
    return str(value) if is_there(value) else ""


def named(name: str) -> Callable[[Row], SummaryField]:
    """Return what shows a column of texts as it is."""
    return lambda row: SummaryField(_text(row, name), _text(row, name))


def _number(value: Any) -> SummaryField:
    return SummaryField(str(value), float(value)) if is_there(value) else SummaryField("", None)


def _why(row: Row, *reasons: str) -> str:
    """Return why a row lacks a number: the cell's failure, else the first reason that is given."""
    found = (_text(row, name) for name in ("reason", *reasons))
    return next(filter(None, found), "the leaderboard gives no reason")


def measured(
    name: str, *reasons: str, factor: float = 1, decimals: int = 1, interval: bool = False
) -> Callable[[Row], SummaryField]:
    """Return what shows a column of numbers.

    Args:
        name: of the leaderboard's column.
        reasons: columns that say why it is empty, the cell's failure before them.
        factor: by which it is multiplied, 100 for per cent.
        decimals: behind the point.
        interval: whether its interval is shown.
    """

    def show(row: Row) -> SummaryField:
        value: Any = row.get(name)
        if not is_there(value):
            return SummaryField(MISSING, None, note=_why(row, *reasons))
        scaled = factor * float(value)
        low, high = _ends(row, name)
        text = f"{round(scaled, decimals) + 0.0:.{decimals}f}"  # not -0.0
        if not (interval and is_there(low) and is_there(high)):
            return SummaryField(text, scaled)
        ends = (f"{factor * float(end):.{decimals}f}" for end in (low, high))
        return SummaryField(text, scaled, f"[{', '.join(ends)}]")

    return show


def _ends(row: Row, name: str) -> tuple[Any, Any]:
    return row.get(f"{name}_low"), row.get(f"{name}_high")


def _rank(row: Row) -> SummaryField:
    low, high = _ends(row, "rank")
    if not (is_there(low) and is_there(high)):
        return SummaryField(MISSING, None, note=_why(row, "ranking_reason"))
    ranks = f"{int(low)}" if low == high else f"{int(low)}–{int(high)}"
    letters = _text(row, "tie_group")
    # The middle orders ranges that begin alike.
    return SummaryField(f"{ranks} {letters}".rstrip(), float(low) + float(high) / 1000)


def worst_case(row: Row) -> SummaryField:
    """Return the worst case of a row's defence, with ≥ where it may be higher still."""
    shown = measured("asr_worst", "asr_worst_reason", "condition_reason", factor=_PERCENT, interval=True)
    field = shown(row)
    over, of = (int(row[name]) if is_there(row.get(name)) else None for name in ("worst_over", "worst_of"))
    if field.note or not is_bound(over, of, _text(row, "worst_knows")):
        return field
    return replace(field, text=f"≥ {field.text}")


def threat_marks(row: Row) -> tuple[str, ...]:
    """Return what a reader must know of a row's threat model, a few words each."""
    access, seen, overlap = (
        _text(row, name) for name in ("access", "attack_seen_by_defense", "identity_overlap")
    )
    marks = (
        access,
        {"seen": "seen", "seen-with-other-parameters": "seen (other parameters)"}.get(seen, ""),
        in_short(row),
        "tracker trained defence" if row.get("extractor_is_tracker") else "",
        {"yes": "overlap", "unknown": "overlap unknown"}.get(overlap, ""),
        "later tracker" if row.get("model_time") == "later" else "",
    )
    return tuple(filter(None, marks))


def _threat(row: Row) -> SummaryField:
    text = ", ".join(threat_marks(row))
    return SummaryField(text, text)


def _warnings(row: Row) -> SummaryField:
    count = len(row.get(WARNINGS, ()))
    return SummaryField(str(count), float(count))


_ROUNDING = 1e-9
"""By how much two rates may differ that are the same number."""

SUMMARY_COLUMNS: tuple[SummaryColumn, ...] = (
    SummaryColumn("rank", "Rank", "Rank of the defence against this attack, with tie letters", True, _rank),
    SummaryColumn("dataset", "Dataset", COLUMNS["dataset"], False, named("dataset")),
    SummaryColumn("protocol", "Protocol", COLUMNS["protocol"], False, named("protocol")),
    SummaryColumn("attack", "Attack", COLUMNS["attack"], False, named("attack")),
    SummaryColumn("defense", "Defence", COLUMNS["defense"], False, named("defense")),
    SummaryColumn("backbone", "Backbone", COLUMNS["backbone"], False, named("backbone")),
    SummaryColumn("head", "Head", COLUMNS["head"], False, named("head")),
    SummaryColumn("condition", "Condition", COLUMNS["condition"], False, named("condition")),
    SummaryColumn("seed", "Seed", COLUMNS["seed"], True, lambda row: _number(row.get("seed"))),
    SummaryColumn("worst", "Worst case %", COLUMNS["asr_worst"], True, worst_case),
    SummaryColumn(
        "asr",
        "ASR %",
        COLUMNS["asr"],
        True,
        measured("asr", "asr_reason", "condition_reason", factor=_PERCENT, interval=True),
    ),
    SummaryColumn(
        "baseline",
        "Baseline error %",
        COLUMNS["baseline_error"],
        True,
        measured("baseline_error", "baseline_reason", "condition_reason", factor=_PERCENT),
    ),
    SummaryColumn(
        "accuracy",
        "Normal accuracy %",
        COLUMNS["normal_accuracy"],
        True,
        measured(
            "normal_accuracy", "normal_accuracy_reason", "condition_reason", factor=_PERCENT, interval=True
        ),
    ),
    SummaryColumn(
        "recovery",
        "Recovery %",
        COLUMNS["recovery"],
        True,
        measured("recovery", "recovery_reason", "condition_reason", factor=_PERCENT, interval=True),
    ),
    SummaryColumn("psnr", "PSNR dB", COLUMNS["cloak_psnr"], True, measured("cloak_psnr", "cloak_reason")),
    SummaryColumn(
        "ssim", "SSIM", COLUMNS["cloak_ssim"], True, measured("cloak_ssim", "cloak_reason", decimals=3)
    ),
    SummaryColumn(
        "lpips",
        "LPIPS",
        COLUMNS["cloak_lpips"],
        True,
        measured("cloak_lpips", "cloak_reason", "lpips_reason", decimals=3),
    ),
    SummaryColumn(
        "threat",
        "Threat",
        f"access; seen: the defence was trained on this attack; {adapted('exact')}: the attack is {WORDS['exact']}; "
        f"{adapted('partial')}: {WORDS['partial']}; recipe: it knows how trackers are hardened, not the weights; "
        "overlap: an evaluated identity trained a part; later tracker: its weights are newer than every surrogate's",
        False,
        _threat,
    ),
    SummaryColumn("warnings", "Warnings", "number of warnings about the row's numbers", True, _warnings),
)
"""Every column of the short form, in order."""

_IF_SEVERAL = frozenset({"dataset", "protocol", "condition", "seed"})
"""Columns shown only where their rows differ."""


def short(leaderboard: pd.DataFrame) -> SummaryTable:
    """Return the short form of a leaderboard.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
    """
    records = [{str(name): value for name, value in row.items()} for row in leaderboard.to_dict("records")]
    fields = {column.key: [column.show(row) for row in records] for column in SUMMARY_COLUMNS}
    columns, constant = [], {}
    for column in SUMMARY_COLUMNS:
        values = {field.text for field in fields[column.key]}
        if column.key not in _IF_SEVERAL or len(values) > 1:
            columns.append(column)
        elif any(values):
            constant[column.heading] = values.pop()
    rows = tuple(tuple(fields[column.key][i] for column in columns) for i in range(len(records)))
    notes = tuple(dict.fromkeys(field.note for row in rows for field in row if field.note))
    cautions = dict.fromkeys(
        f"{_text(row, 'dataset')}: {note.rstrip('.')}."
        for row in records
        if (note := _text(row, "dataset_note"))
    )
    return SummaryTable(
        tuple(columns),
        rows,
        _best(records),
        notes,
        constant,
        tuple(cautions),
        (*sentences(leaderboard), *_footnotes(leaderboard)),
    )


def _footnotes(leaderboard: pd.DataFrame) -> Iterator[str]:
    """Yield what is said of each run of a table of submissions."""
    said = leaderboard[["run", "footnote"]].drop_duplicates()
    yield from (f"Run {run}: {note}." for run, note in said.itertuples(index=False) if note)


def _best(records: Sequence[Row]) -> tuple[bool, ...]:
    """Say of each row whether its defence is among those that none is significantly better than, and beats one."""
    scope = ("dataset", "protocol", "attack", "head", "condition", "access")
    own = [_ranking(row) for row in records]
    comparison_groups = [
        (run, *(_text(row, name) for name in scope)) for run, row in zip(own, records, strict=True)
    ]
    ranks = [row["rank_low"] if is_there(row.get("rank_low")) else None for row in records]
    significantly_different = {
        key for key, rank in zip(comparison_groups, ranks, strict=True) if rank is not None and rank > 1
    }
    return tuple(
        rank == 1 and key in significantly_different
        for key, rank in zip(comparison_groups, ranks, strict=True)
    )


def _ranking(row: Row) -> str:
    """Return the runs over whose cells a row is ranked."""
    return _text(row, "ranked_over") or _text(row, "run")


def display(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return the short form as texts, one row a row, one column a heading; empty values are `MISSING`.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
    """
    table = short(leaderboard)
    headings = [column.heading for column in table.columns]
    return pd.DataFrame([[str(field) for field in row] for row in table.rows], columns=headings, dtype=object)


def notes(leaderboard: pd.DataFrame) -> list[str]:
    """Return why values of the short form are missing, each reason once."""
    return list(short(leaderboard).notes)


def references_last(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of an attack against a defence first, then those without a defence, then those without an attack.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
    """
    place = 2 * (leaderboard["attack"] == NONE) + (leaderboard["defense"] == NONE)
    return leaderboard.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def by_attack(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by attack, the attacks and the rows of each in the order they had."""
    first = {attack: place for place, attack in enumerate(dict.fromkeys(leaderboard["attack"]))}
    return leaderboard.sort_values("attack", key=lambda column: column.map(first), kind="stable")


# -- what comes before all else -------------------------------------------------------------------------------


def development(leaderboard: pd.DataFrame) -> list[str]:
    """Return the sentence that says that rows are of the development split; nothing where none is.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
    """
    return [DEVELOPMENT_NOTE] if (leaderboard["split"] == "development").any() else []


def without_effect(leaderboard: pd.DataFrame, *, quote: str = "") -> list[str]:
    """Return what a reader must know first: attacks that undefended do no more than no cloak, a sentence a kind.

    They changed no photo; or in none of their rows under defence ``none`` is the ASR above the error without any
    cloak; or it is somewhere, but nowhere significantly.

    Args:
        leaderboard: with the columns of `bench.leaderboard.columns.COLUMNS`.
        quote: before and after a name.
    """
    own = leaderboard[(leaderboard["attack"] != "none") & (leaderboard["defense"] == "none")]
    known = own[own["asr"].notna() & own["baseline_error"].notna()]
    kinds: dict[str, list[str]] = {}
    for attack, rows in known.groupby("attack", sort=False):
        if kind := _lacks_effect(rows):
            kinds.setdefault(kind, []).append(str(attack))
    return [
        f"{kind}: {', '.join(f'{quote}{name}{quote}' for name in names)}. {_rates(known[known['attack'].isin(names)])}"
        for kind, names in kinds.items()
    ]


def _lacks_effect(rows: pd.DataFrame) -> str:
    """Return in which way an attack does no more than no cloak, "" where it does more."""
    above = rows[rows["asr"] > rows["baseline_error"] + _ROUNDING]
    if above.empty:
        return "No photo changed" if (rows["cloak_unchanged"] == 1).all() else "No effect"
    return "" if (above["p_holm"] <= ALPHA).any() else "No significant effect"


def _rates(rows: pd.DataFrame) -> str:
    asr, baseline = _range(rows["asr"]), _range(rows["baseline_error"])
    return f"ASR without a defence {asr}, without any cloak {baseline}: no defence can be judged by it."


def _range(rates: pd.Series[float]) -> str:
    low, high = (f"{_PERCENT * end:.1f}" for end in (rates.min(), rates.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"
