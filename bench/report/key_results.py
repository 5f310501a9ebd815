"""The key results of a run: which of its many comparisons they are about, their headline and their table.

What lives here: which numbers a reader takes away, each from the frames of `bench.leaderboard.view.RunView`. What must
not: any rate, interval or test of its own, nor a text longer than a label (`bench.report.phrases`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bench.analysis.claims import MARGIN
from bench.analysis.comparison_groups import EVERY, Axis, ComparisonGroup
from bench.analysis.results import Results
from bench.analysis.training_seeds import training_seeds
from bench.errors import UsageError
from bench.leaderboard import erasure, significance_tables
from bench.leaderboard.names import NONE, NOTHING
from bench.leaderboard.significance_tables import PAIRS
from bench.leaderboard.view import RunView
from bench.leaderboard.worst_case import is_bound
from bench.plugins import registry, syntax
from bench.report import phrases
from bench.report.document import Column
from bench.report.wording import (
    count,
    difference,
    matching,
    names,
    p_text,
    percent,
    points,
    records,
    sentence,
)
from bench.stats.rankings import Ranking
from bench.stats.significance import ALPHA

MOST = 8
"""Rows of one kind; the others are in the tables of significance."""

COLUMNS = (
    Column("What"),
    Column("Where"),
    Column("Value", numeric=True),
    Column("Against", numeric=True),
    Column("Difference", "in percentage points; of normal accuracy with its 90 % interval", numeric=True),
    Column("p (Holm)", phrases.P, numeric=True),
    Column("Detectable", f"points; {PAIRS['minimum_detectable_difference']}", numeric=True),
    Column("Verdict", "significant: p after Holm, and Friedman's test over all methods, at most 5 %"),
)

PLACE = ("head", "condition", "access")
"""Columns in which a comparison's methods agree; results at two places are never averaged."""

Row = Mapping[str, Any]
"""Column → value, None where it is empty."""


class KeyResult(NamedTuple):
    """A row of the table, in the order of `COLUMNS`; "" where there is nothing to compare with."""

    what: str
    where: str
    value: str
    against: str = ""
    difference: str = ""
    p: str = ""
    detectable: str = ""
    verdict: str = ""


class KeyResults(NamedTuple):
    """What a run shows: the first sentence, the rows of the table, and what they are to be read with."""

    headline: str
    rows: Sequence[KeyResult] = ()
    read_with: Sequence[tuple[str, str]] = ()


def key_results(view: RunView, focus: pd.DataFrame) -> KeyResults:
    """Return the key results of a run with its `focus_of`: of defences, else of attacks, else why there are none."""
    cells = list(view.results.cells.values())
    if all(cell.status != "ok" for cell in cells):
        return KeyResults(phrases.ALL_FAILED.format(reason=sentence(cells[0].reason)))
    if focus.empty:
        return _without_attack(view)
    if protocol_of(view) == "erasure":
        return _erasers(view, focus)
    return _defenses(view, focus) if any(focus["defense"] != "none") else _attacks(view, focus)


def real(results: Results, axis: Axis) -> tuple[str, ...]:
    """Return the methods of one axis of the run but ``none``."""
    return tuple(name for name in results.values(axis) if name != "none")


def protocol_of(view: RunView) -> str:
    """Return the name of the run's protocol, without its parameters."""
    return syntax.parse(view.facts.spec.protocol).name


def focus_of(view: RunView) -> pd.DataFrame:
    """Return the rows of ``view.means`` the key results are about: one a defence, the lowest ASR first.

    The run's first head; the protocol's own question (`Protocol.question`); black-box before white-box, as a tracker's
    backbone is seldom known; the mean of all attacks before a single one. Empty where no attack has a rate.
    """
    results, rows = view.results, view.means
    known = rows[rows["asr"].notna()]
    wanted = {
        "head": results.values("head"),
        "condition": _questions(_question_of(view), results.ranked_conditions()),
        "access": ("black-box", "white-box"),
        "against": (EVERY, *real(results, "attack")),
    }
    for column, preferred in wanted.items():
        there = set(known[column])
        choice = {column: next((one for one in preferred if one in there), min(there, default=""))}
        known, rows = matching(known, **choice), matching(rows, **choice)
    return rows.sort_values("asr", kind="stable")


def _question_of(view: RunView) -> str:
    """Return the question of the run's protocol; "" where that is no longer installed."""
    try:
        return registry.PROTOCOLS.load(protocol_of(view)).question
    except UsageError:
        return ""


def _questions(own: str, conditions: Sequence[str]) -> tuple[str, ...]:
    """Return a run's conditions with the protocol's own question first, at whatever threshold it is asked."""
    at_a_threshold = (name for name in conditions if own and name.startswith(f"{own}, "))
    return (own, *at_a_threshold, *conditions)


def place(row: Row) -> dict[str, str]:
    """Return head, condition and access of a row."""
    return {name: row[name] for name in PLACE}


def place_text(row: Row) -> str:
    """Return the same as a text."""
    return ", ".join(filter(None, (f"head `{row['head']}`", row["condition"], row["access"])))


def rate(row: Row, name: str) -> str:
    """Return a rate of a row with its interval, or why it or its interval is empty."""
    value = percent(row[name], row[f"{name}_low"], row[f"{name}_high"])
    return value if row[f"{name}_low"] is not None else f"{value} ({row[f'{name}_reason']})"


def _ranking(view: RunView, axis: Axis, opponent: str, row: Row) -> Ranking:
    """Return the ranking of one comparison at a row's place, an empty one where the run has none."""
    found = (ranking for one, ranking in view.ranked if _is(one, axis, opponent, row))
    return next(found, Ranking((), reason="the run has no such comparison"))


def _is(one: ComparisonGroup, axis: Axis, opponent: str, row: Row) -> bool:
    """Return whether a comparison is the one at a row's place."""
    wanted = (axis, opponent, *place(row).values())
    return (one.axis, one.opponent, one.head, one.condition, one.access) == wanted


def _tied(ranking: Ranking, best: str) -> tuple[str, str]:
    """Return the methods that are not significantly different from the best, ``none`` among them, as a fact."""
    letters = {one.method: set(one.tie_group) for one in ranking.methods}
    tied = [name for name in letters if name != best and letters[name] & letters[best]]
    spoken = names(tied).replace(f"`{NONE}`", NOTHING["defense"])  # attack none is never ranked
    text = spoken if tied else "no other" if letters else ranking.reason
    return f"Not significantly different from `{best}`", text


def _compared(view: RunView, axis: Axis, row: Row, other: str, value_of_other: Any, where: str) -> KeyResult:
    """Return the ASR of a row's method with the test of its difference from another method's."""
    method, opponent = row["defense"], row["against"]
    if axis == "attack":
        method, opponent = opponent, method
    groups = [found for found in view.ranked if _is(found[0], axis, opponent, row)]
    found = records(significance_tables.pairs(groups, among=(method, other)))
    untested = dict.fromkeys(PAIRS) | {"reason": _ranking(view, axis, opponent, row).reason}
    test = next(iter(found), untested)
    if test["first"] == other:
        ends = {"": test["difference"], "_low": test["difference_high"], "_high": test["difference_low"]}
        test |= {f"difference{end}": None if value is None else -value for end, value in ends.items()}
    return _tested(method, test, where, rate(row, "asr"), f"{_against(other)}: {percent(value_of_other)}")


def _against(defense: str) -> str:
    """Return what is compared with: ``none`` is a defence here, as no attack is compared with attack ``none``."""
    return NOTHING["defense"] if defense == NONE else f"`{defense}`"


def _tested(method: str, test: Row, where: str, value: str, against: str) -> KeyResult:
    """Return a method's ASR with a test that has the columns of ``view.pairs``."""
    change, low, high = (test[f"difference{end}"] for end in ("", "_low", "_high"))
    verdict = f"not tested: {test['reason']}"
    if change is not None and test["p_holm"] is not None:
        direction = "lower" if change < 0 else "higher"
        verdict = f"significantly {direction}" if test["significant"] else "not significantly different"
        verdict += f", with caution: {test['caution']}" if test.get("caution") else ""
    tested = (difference(change, low, high), p_text(test["p_holm"]))
    detectable = points(test["minimum_detectable_difference"])
    return KeyResult(f"ASR, `{method}`", where, value, against, *tested, detectable, verdict)


def _defenses(view: RunView, focus: pd.DataFrame) -> KeyResults:
    """Return each defence against none, the best against each attack and elsewhere, and what it costs."""
    found = records(focus[focus["defense"] != "none"].head(MOST))
    best, name = found[0], found[0]["defense"]
    elsewhere = [
        row
        for row in records(matching(view.means, defense=name))
        if (place(row) == place(best)) != (row["against"] == best["against"])
    ]
    elsewhere.sort(key=lambda row: place(row) != place(best))
    worst = _worst_cases(focus)
    rows = [*worst.rows, *(_defended(view, row, best) for row in (*found, *elsewhere[:MOST]))]
    rows += [KeyResult("Error rate without any cloak", "", percent(best["baseline_error"])), accuracy(best)]
    undefended = percent(best["undefended_asr"])
    first = rows[len(worst.rows)]
    mean = phrases.DEFENDED.format(defense=name, undefended=undefended, **first._asdict())
    headline = " ".join(filter(None, (worst.headline, mean)))
    tied = _tied(_ranking(view, "defense", best["against"], best), name)
    return KeyResults(_with_trainings(headline, view, "defense", name), rows, (tied, _trained(view, name)))


def _worst_cases(focus: pd.DataFrame) -> KeyResults:
    """Return the worst case of each defence, and a sentence on the one with the lowest mean; nothing where it has none.

    Defences are not ordered by it: one that no attack was made against would look the best.
    """
    undefended = next(iter(records(matching(focus, defense=NONE))), {"asr_worst": None})
    against = f"{_against(NONE)}: {percent(undefended['asr_worst'])}"
    defended = records(focus[focus["defense"] != NONE].head(MOST))
    rows = [_worst_case(row, against) for row in defended if row["asr_worst"] is not None]
    best = defended[0]
    if best["asr_worst"] is None:
        return KeyResults("", rows)
    headline = phrases.WORST.format(
        defense=best["defense"],
        value=rows[0].value,
        against=against,
        knows=phrases.KNOWS[best["worst_knows"]],
    )
    return KeyResults(headline, rows)


def _worst_case(row: Row, against: str) -> KeyResult:
    over, of = int(row["worst_over"]), int(row["worst_of"])
    attacks = count(of, "attack") if over == of else f"{over} of {count(of, 'attack')}"
    bound = "≥ " if is_bound(over, of, row["worst_knows"]) else ""
    return KeyResult(
        f"Worst case, `{row['defense']}`",
        f"{attacks}, the strongest `{row['worst_attack']}`",
        bound + percent(row["asr_worst"], row["asr_worst_low"], row["asr_worst_high"]),
        against,
        verdict=phrases.KNOWS[row["worst_knows"]],
    )


def _defended(view: RunView, row: Row, best: Row) -> KeyResult:
    """Return the ASR behind a defence against that behind none."""
    attacks = count(len(row["attacks"].split("|")), "attack")
    where = f"mean of {attacks}" if row["against"] == EVERY else f"against `{row['against']}`"
    elsewhere = "" if place(row) == place(best) else f", {place_text(row)}"
    return _compared(view, "defense", row, "none", row["undefended_asr"], where + elsewhere)


def accuracy(row: Row) -> KeyResult:
    """Return a defence's normal accuracy against that of no defence, from its row of ``view.means``."""
    shown = {True: "shown", False: "not shown", None: f"not tested: {row['not_worse_reason']}"}
    verdict = f"loss below {100 * MARGIN:g} point (one-sided): {shown[row['not_worse']]}"
    value, undefended = (
        rate(row, "normal_accuracy"),
        f"{_against(NONE)}: {percent(row['undefended_accuracy'])}",
    )
    change = difference(*(row[f"accuracy_difference{end}"] for end in ("", "_low", "_high")))
    what, p = f"Normal accuracy, `{row['defense']}`", p_text(row["accuracy_p"])
    return KeyResult(what, "", value, undefended, change, p, verdict=verdict)


def _trained(view: RunView, defense: str) -> tuple[str, str]:
    """Return which attacks, surrogates and trackers a defence was trained with, by the marks of its rows."""
    board = view.leaderboard
    rows = board[(board["defense"] == defense) & (board["attack"] != "none")]
    found = [
        text.format(names(list(rows.loc[rows[column] == value, whom].unique())))
        for (column, value, whom), text in phrases.TRAINED.items()
        if (rows[column] == value).any()
    ]
    return f"Training of `{defense}`", "; ".join(found) or phrases.UNTRAINED


def _attacks(view: RunView, focus: pd.DataFrame) -> KeyResults:
    """Return the strongest attack against no cloak on each tracker, every other one against it, and PSNR."""
    at = place(records(focus)[0])
    means = matching(view.means, **at, defense="none").sort_values("asr", ascending=False, kind="stable")
    best, *others = records(means[means["against"] != EVERY])
    name, board = best["against"], view.leaderboard
    board = board.assign(access=board["access"].replace("", "black-box"))
    tested = records(matching(board, attack=name, defense="none", **at).head(MOST))
    rows = [
        *(_against_nothing(row) for row in tested),
        *(_compared(view, "attack", row, name, best["asr"], "mean") for row in others[:MOST]),
    ]
    if best["cloak_psnr"] is not None:
        rows.append(KeyResult(f"PSNR, cloaks of `{name}`", "", f"{best['cloak_psnr']:.1f} dB"))
    baseline = percent(best["baseline_error"])
    headline = phrases.ATTACKED.format(attack=name, value=rate(best, "asr"), baseline=baseline)
    tied = _tied(_ranking(view, "attack", "none", best), name)
    return KeyResults(_with_trainings(headline, view, "attack", name), rows, (tied,))


def _with_trainings(headline: str, view: RunView, axis: Axis, name: str) -> str:
    """Return a headline that says so where it is a claim about a trained method from too few trainings."""
    points = [point for point in view.results.cells if getattr(point, axis) == name]
    caution = training_seeds(view.results, points, (axis,)).caution()
    return f"{headline} {sentence(caution)}" if caution else headline


def _against_nothing(row: Row) -> KeyResult:
    """Return a leaderboard row's ASR against the error rate without any cloak."""
    asr, baseline, p = row["asr"], row["baseline_error"], row["p_holm"]
    change = None if asr is None or baseline is None else asr - baseline
    test = {**dict.fromkeys(PAIRS), **row, "difference": change, "reason": row["p_holm_reason"]}
    test["significant"] = p is not None and p <= ALPHA
    where = f"tracker `{row['backbone']}`, seed {row['seed']}"
    value = percent(asr, row["asr_low"], row["asr_high"])
    return _tested(row["attack"], test, where, value, f"no cloak: {percent(baseline)}")


def _without_attack(view: RunView) -> KeyResults:
    """Return the error rates of a run in which no attack has a rate."""
    board = view.leaderboard[view.leaderboard["asr"].notna()]
    rows = []
    for row in records(board.head(MOST)):
        where = ", ".join(filter(None, (f"tracker `{row['backbone']}`", row["head"], row["condition"])))
        value = percent(row["asr"], row["asr_low"], row["asr_high"])
        rows.append(KeyResult(f"Error rate without any cloak, `{row['defense']}`", where, value))
    if real(view.results, "attack") or not rows:
        return KeyResults(phrases.NO_RATE, rows)
    low, high = percent(board["asr"].min()), percent(board["asr"].max())
    return KeyResults(phrases.NO_ATTACK.format(low=low, high=high), rows)


def _erasers(view: RunView, focus: pd.DataFrame) -> KeyResults:
    """Return what the first attack protects, what keys and defences undo of it, and what the strongest costs."""
    table = erasure.table(view.results)
    table = matching(table, attack=table["attack"].iloc[0])
    undone = table[table["kind"] != "key"].groupby("eraser")["undone"].mean()
    ranked = list(undone.sort_values(ascending=False).index[:MOST])
    rows = [
        KeyResult("Protected pairs", f"tracker `{row['backbone']}`", rate(row, "protected"))
        for row in records(table.drop_duplicates(["backbone", "head"]))
    ]
    for eraser in (*erasure.KEYS, *ranked):
        for row in records(matching(table, eraser=eraser)):
            where = f"tracker `{row['backbone']}`"
            where += f", attack {row['attack_seen_by_defense']}" if eraser in ranked else ""
            rows.append(KeyResult(f"Protected pairs undone, eraser `{eraser}`", where, rate(row, "undone")))
    rows += [accuracy(row) for row in records(focus[focus["defense"].isin(ranked[:1])])]
    headline = phrases.ERASED.format(attack=table["attack"].iloc[0])
    return KeyResults(headline, rows, [_trained(view, name) for name in ranked[:1]])
