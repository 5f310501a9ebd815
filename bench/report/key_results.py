"""The key results of a run: the few numbers a reader takes away, each with its reference and its test.

What lives here: which numbers these are, taken from the tables below them in the report. What must not: any rate,
interval or test of its own, nor a text longer than a label (`bench.report.phrases`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import pandas as pd

from bench.analysis.claims import MARGIN
from bench.analysis.comparison_groups import EVERY, Axis
from bench.leaderboard import erasure
from bench.leaderboard.view import RunView
from bench.report import phrases
from bench.report.document import Column, Table
from bench.report.focus import Focus, Row, order, protocol_of
from bench.report.wording import count, difference, is_missing, p_text, percent, points, records
from bench.stats.significance import ALPHA

MOST = 8
"""Methods of one kind that become key results; the others are in the tables of significance."""

COLUMNS = (
    Column("What"),
    Column("Where"),
    Column("Value", numeric=True),
    Column("Against", numeric=True),
    Column("Difference", "in percentage points; of normal accuracy with its 90 % interval", numeric=True),
    Column("p (Holm)", phrases.P, numeric=True),
    Column("Detectable", phrases.DETECTABLE, numeric=True),
    Column("Verdict", "significant: p after Holm, and Friedman's test over all methods, at most 5 %"),
)


@dataclass(frozen=True)
class KeyResult:
    """One number with its evidence: the texts of a row, in the order of `COLUMNS`.

    Attributes:
        what: which rate of which method.
        where: attacks, defence or tracker, as far as results differ in it.
        value: in per cent, with its 95 % interval over identities.
        against: what it is compared with, and that rate; "" where it is compared with nothing.
        difference: value − reference, in percentage points.
        p: of the difference, NA where there is none.
        detectable: minimum detectable difference at 80 % power, in percentage points.
        verdict: what the test shows, or why there is none.
    """

    what: str
    where: str
    value: str
    against: str = ""
    difference: str = ""
    p: str = ""
    detectable: str = ""
    verdict: str = ""


def key_results(view: RunView, focus: Focus | None) -> tuple[KeyResult, ...]:
    """Return the key results of a run, () where no cell has a rate.

    Args:
        view: of a finished run.
        focus: what `bench.report.focus.choose_focus` chose.
    """
    if focus is None:
        return tuple(_without_attack(view))
    if protocol_of(view) == "erasure":
        return tuple(_erased(view, focus))
    if len(focus.defenses) > 1:
        return tuple(_defenses(focus))
    return tuple(_attacks(view, focus))


def table(results: Sequence[KeyResult], where: str) -> Table:
    """Return key results as a table of a report.

    Args:
        results: at least one.
        where: what all of them have in common.
    """
    return Table(phrases.KEY_RESULTS.format(where=where), COLUMNS, tuple(map(astuple, results)))


def common_ground(view: RunView, focus: Focus | None) -> str:
    """Return what all key results have in common: head, condition, access, trackers and sample."""
    if focus is None:
        return f"protocol {view.facts.spec.protocol}"
    head, condition, access = focus.key
    trackers = str(focus.any_row["backbones"]).split("|")
    sample = count(int(focus.any_row["n_identities"]), "identity", "identities")
    tracker = f"mean of {len(trackers)} trackers" if len(trackers) > 1 else f"tracker `{trackers[0]}`"
    return ", ".join(part for part in (f"head `{head}`", condition, access, tracker, sample) if part)


def best_defense(focus: Focus) -> str | None:
    """Return the defence with the lowest ASR, significant or not; None where the run has none but ``none``."""
    ranked = order(focus.ranking("defense", focus.against)) or list(focus.defenses)
    return next((name for name in ranked if name != "none"), None)


def attacks_named(focus: Focus) -> str:
    """Return the attacks of a focus as a place: one by name, several as their mean."""
    if focus.against != EVERY:
        return f"`{focus.against}`"
    return f"mean of {count(len(str(focus.any_row['attacks']).split('|')), 'attack')}"


# -- defences -----------------------------------------------------------------------------------------------


def _defenses(focus: Focus) -> Iterator[KeyResult]:
    """Yield each defence against none, the best against each attack, and what the best costs."""
    ranked = order(focus.ranking("defense", focus.against)) or list(focus.defenses)
    real = [name for name in ranked if name != "none"]
    for name in real[:MOST]:
        yield _defended(focus, focus.against, name, attacks_named(focus))
    if focus.against == EVERY:
        for attack in [one for one in focus.attacks if (one, real[0]) in focus.rows][:MOST]:
            yield _defended(focus, attack, real[0], f"`{attack}`")
    yield from _baseline(focus)
    yield accuracy(focus, real[0])


def _defended(focus: Focus, against: str, defense: str, where: str) -> KeyResult:
    """Return a defence's ASR against that of no defence."""
    return _compared(focus, "defense", against, (defense, "none"), where)


def _compared(focus: Focus, axis: Axis, opponent: str, methods: tuple[str, str], where: str) -> KeyResult:
    """Return the ASR of the first of two methods against that of the second, with the test of the pair."""
    one, other = methods
    row, reference = (
        focus.rows.get((opponent, name) if axis == "defense" else (name, opponent)) for name in methods
    )
    pair = focus.pair(axis, opponent, one, other)
    return KeyResult(
        what=f"ASR, `{one}`",
        value=_rate(row),
        where=where,
        against="" if reference is None else f"`{other}`: {percent(reference['asr'])}",
        **_tested(pair, one, focus.ranking(axis, opponent).reason),
    )


def _tested(pair: Row | None, one: str, reason: str) -> dict[str, str]:
    """Return difference, p, verdict and detectable difference of a row of `significance_tables.PAIRS`."""
    if pair is None:
        return {"p": "NA", "verdict": _untested(reason)}
    ends = [pair[name] for name in ("difference", "difference_low", "difference_high")]
    if pair["first"] != one:
        ends = [None if is_missing(end) else -end for end in (ends[0], ends[2], ends[1])]
    untested = is_missing(pair["p_holm"])
    return {
        "difference": difference(*ends),
        "p": p_text(pair["p_holm"]),
        "detectable": points(pair["minimum_detectable_difference"]),
        "verdict": _untested(pair["reason"]) if untested else _verdict(bool(pair["significant"]), ends[0]),
    }


def _untested(reason: str) -> str:
    return phrases.UNTESTED.format(reason=reason or "no reason was recorded")


def _verdict(significant: bool, change: float) -> str:
    if not significant:
        return "not significantly different"
    return "significantly lower" if change < 0 else "significantly higher"


def _rate(row: Row | None) -> str:
    if row is None:
        return "NA: the run has no such cells"
    if is_missing(row["asr"]):
        return f"NA: {row['asr_reason']}"
    if is_missing(row["asr_low"]):
        return f"{percent(row['asr'])} ({row['asr_reason']})"
    return percent(row["asr"], row["asr_low"], row["asr_high"])


def _baseline(focus: Focus) -> Iterator[KeyResult]:
    baseline = focus.any_row["baseline_error"]
    if not is_missing(baseline):
        yield KeyResult("Error rate without any cloak", "", percent(baseline))


def accuracy(focus: Focus, defense: str) -> KeyResult:
    """Return a defence's normal accuracy against that of no defence, by the test of non-inferiority."""
    row = focus.rows[focus.against, defense]
    change = [row[f"accuracy_difference{end}"] for end in ("", "_low", "_high")]
    reason = row["not_worse_reason"] or row["normal_accuracy_reason"] or "no test was made"
    shown = None if is_missing(row["not_worse"]) else bool(row["not_worse"])
    verdict = phrases.KEPT.format(margin=f"{100 * MARGIN:g}", shown=phrases.SHOWN[shown])
    return KeyResult(
        what=f"Normal accuracy, `{defense}`",
        where="",
        value=percent(*(row[f"normal_accuracy{end}"] for end in ("", "_low", "_high"))),
        against=f"`none`: {percent(row['undefended_accuracy'])}",
        difference=difference(*change),
        p=p_text(row["accuracy_p"]),
        verdict=f"{verdict}: {reason}" if shown is None else verdict,
    )


# -- attacks ------------------------------------------------------------------------------------------------


def _attacks(view: RunView, focus: Focus) -> Iterator[KeyResult]:
    """Yield the strongest attack against no attack on each tracker, every other one against it, and PSNR."""
    defense = focus.defenses[0]
    under = f"defence `{defense}`"
    ranked = order(focus.ranking("attack", defense)) or list(focus.attacks)
    yield from (_against_nothing(row) for row in _rows(view, focus, ranked[0], defense)[:MOST])
    if len(ranked) > 1:
        yield KeyResult(f"ASR, `{ranked[0]}`", under, _rate(focus.rows.get((ranked[0], defense))))
    for name in ranked[1 : MOST + 1]:
        yield _compared(focus, "attack", defense, (name, ranked[0]), under)
    psnr = focus.any_row["cloak_psnr"]
    if not is_missing(psnr):
        yield KeyResult("PSNR of the cloaks against the photos", attacks_named(focus), f"{psnr:.1f} dB")


def _rows(view: RunView, focus: Focus, attack: str, defense: str) -> list[dict[str, Any]]:
    """Return an attack's rows of the leaderboard under the focus, one a tracker and seed."""
    head, condition, access = focus.key
    board = view.leaderboard
    chosen = board["access"].replace("", "black-box") == access
    for column, value in (("attack", attack), ("defense", defense), ("head", head), ("condition", condition)):
        chosen &= board[column] == value
    return records(board[chosen])


def _against_nothing(row: Row) -> KeyResult:
    """Return a leaderboard row's ASR against the error rate without any cloak."""
    known = not is_missing(row["asr"]) and not is_missing(row["baseline_error"])
    change = row["asr"] - row["baseline_error"] if known else None
    p, verdict = row["p_holm"], _untested(row["p_holm_reason"] or "")
    if not is_missing(p) and change is not None:
        verdict = _verdict(p <= ALPHA, change)
    return KeyResult(
        what=f"ASR, `{row['attack']}`",
        value=percent(row["asr"], row["asr_low"], row["asr_high"]),
        against=f"no cloak: {percent(row['baseline_error'])}",
        difference=difference(change),
        p=p_text(p),
        detectable=points(row["minimum_detectable_difference"]),
        verdict=verdict,
        where=f"tracker `{row['backbone']}`, seed {row['seed']}",
    )


def _without_attack(view: RunView) -> Iterator[KeyResult]:
    """Yield the error rates of a run without attacks."""
    board = view.leaderboard
    for row in records(board[board["asr"].notna()].head(MOST)):
        parts = (f"tracker `{row['backbone']}`", f"head `{row['head']}`", row["condition"])
        yield KeyResult(
            what=f"Error rate without any cloak, `{row['defense']}`",
            value=percent(row["asr"], row["asr_low"], row["asr_high"]),
            where=", ".join(filter(None, parts)),
        )


# -- erasure ------------------------------------------------------------------------------------------------


def _erased(view: RunView, focus: Focus) -> Iterator[KeyResult]:
    """Yield what the first attack protects, and what each key and the strongest defences bring back of it."""
    rows = erased_rows(view)
    for row in records(rows.drop_duplicates(["backbone", "head"])):
        yield KeyResult("Protected pairs", f"tracker `{row['backbone']}`", _share(row, "protected"))
    for eraser in (*erasure.KEYS, *strongest_erasers(rows)):
        for row in records(rows[rows["eraser"] == eraser]):
            seen = row["attack_seen_by_defense"]
            yield KeyResult(
                what=f"Protected pairs undone, {eraser if row['kind'] == 'key' else f'defence `{eraser}`'}",
                value=_share(row, "undone"),
                where=f"tracker `{row['backbone']}`" + (f", attack {seen}" if seen else ""),
            )
    for eraser in strongest_erasers(rows):
        if (focus.against, eraser) in focus.rows:
            yield accuracy(focus, eraser)


def erased_rows(view: RunView) -> pd.DataFrame:
    """Return the rows of the run's first attack, with the columns of `bench.leaderboard.erasure.COLUMNS`."""
    rows = erasure.table(view.results)
    first: pd.DataFrame = rows[rows["attack"] == rows["attack"].iloc[0]]
    return first


def strongest_erasers(rows: pd.DataFrame) -> list[str]:
    """Return the defence with the highest mean over trackers, and where it has seen the attack the highest unseen.

    Args:
        rows: those of one attack, with the columns of `bench.leaderboard.erasure.COLUMNS`.
    """
    tried = rows[(rows["kind"] == "defence") & rows["undone"].notna()]
    unseen = tried[~tried["attack_seen_by_defense"].str.startswith("seen")]
    best = [str(some.groupby("eraser")["undone"].mean().idxmax()) for some in (tried, unseen) if len(some)]
    return list(dict.fromkeys(best))


def _share(row: Row, name: str) -> str:
    if is_missing(row[name]):
        return f"NA: {row[f'{name}_reason']}"
    return percent(row[name], row[f"{name}_low"], row[f"{name}_high"])
