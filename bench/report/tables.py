"""The tables of significance as a report shows them: one fold a comparison, rounded for reading."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.analysis.claims import MARGIN
from bench.analysis.comparison_groups import EVERY, Axis, ComparisonGroup
from bench.leaderboard import significance_tables
from bench.leaderboard.names import NONE, NOTHING
from bench.leaderboard.significance_tables import KEPT, PAIRS, RANKINGS, SEEDS
from bench.leaderboard.view import RunView
from bench.report.document import Column, Folded, Table
from bench.report.wording import count, difference, p_text, percent, records
from bench.stats.rankings import Ranking

MOST_PAIRS = 3000
"""Pairs of methods that a report lists."""

_RANKED = (
    Column("Method"),
    Column("ASR", RANKINGS["asr"], numeric=True),
    Column("Rank", f"from {RANKINGS['rank_low']} to {RANKINGS['rank_high']}", numeric=True),
    Column("Letters", RANKINGS["tie_group"]),
    Column("Mean rank", RANKINGS["mean_rank"], numeric=True),
)
_PAIRS = (
    Column("First", PAIRS["first"]),
    Column("Second"),
    Column("ASR", PAIRS["asr_first"], numeric=True),
    Column("ASR", PAIRS["asr_second"], numeric=True),
    Column("Difference", f"{PAIRS['difference']}, in points, with its 95 % interval", numeric=True),
    Column("p (Holm)", PAIRS["p_holm"], numeric=True),
    Column("Significant", f"{PAIRS['significant']}; with caution: {PAIRS['caution']}"),
    Column("Cohen's h", numeric=True),
    Column("Min. detectable", PAIRS["minimum_detectable_difference"], numeric=True),
    Column("Identities", PAIRS["n_differing"], numeric=True),
)
_KEPT = (
    Column("Against"),
    Column("Head", RANKINGS["head"]),
    Column("Condition"),
    Column("Access"),
    Column("Defence"),
    Column("Accuracy", KEPT["normal_accuracy"], numeric=True),
    Column("Undefended", KEPT["undefended"], numeric=True),
    Column("Difference", f"in points, with its 90 % interval; {KEPT['difference_low']}", numeric=True),
    Column("p", KEPT["p"], numeric=True),
    Column("Within the margin", KEPT["not_worse"]),
)
_SEEDS = (
    Column("Attack"),
    Column("Defence"),
    Column("Tracker"),
    Column("Head"),
    Column("Condition"),
    Column("ASR", SEEDS["asr"], numeric=True),
    Column("SD of means", SEEDS["sd_of_seed_means"], numeric=True),
    Column("SD of seeds", SEEDS["sd_seeds"], numeric=True),
    Column("SD of identities", SEEDS["sd_identities"], numeric=True),
    Column("Seeds", numeric=True),
)


def comparisons(view: RunView, axis: Axis) -> list[Folded]:
    """Return one fold a comparison of two methods or more: its ranking, and every pair with its test.

    Of more pairs than `MOST_PAIRS` in all of the run, only the rankings: nobody reads so many.
    """
    whole = pairs_in(view) <= MOST_PAIRS
    return [
        Folded(
            f"{_named(one)}: {_verdict(ranking)}",
            tuple(
                _tables(
                    one,
                    ranking,
                    significance_tables.rankings([(one, ranking)]),
                    significance_tables.pairs([(one, ranking)] if whole else []),
                )
            ),
        )
        for one, ranking in view.ranked
        if one.axis == axis and len(one.rates.columns) > 1
    ]


def pairs_in(view: RunView) -> int:
    """Return how many pairs of methods all comparisons of a run have together."""
    return sum(len(ranking.pairs) for _, ranking in view.ranked)


def _named(one: ComparisonGroup) -> str:
    noun = "attack" if one.axis == "defense" else "defence"
    opponent = (
        f"the mean of {count(len(one.opponents), noun)}" if one.opponent == EVERY else f"`{one.opponent}`"
    )
    word = "Defences against" if one.axis == "defense" else "Attacks under"
    if one.opponent == "none":
        word, opponent = "Attacks", "without a defence"
    where = ", ".join(filter(None, (f"head {one.head}", one.condition, one.access)))
    return f"{word} {opponent} ({where})"


def _verdict(ranking: Ranking) -> str:
    if not ranking.methods:
        return ranking.reason or "not ranked"
    best = ranking.methods[0]
    tied = sum(bool(set(m.tie_group) & set(best.tie_group)) for m in ranking.methods[1:])
    others = len(ranking.methods) - 1
    return f"`{best.method}` first; not significantly different from it: {tied} of {others}"


def _tables(
    one: ComparisonGroup, ranking: Ranking, places: pd.DataFrame, pairs: pd.DataFrame
) -> Iterator[Table]:
    trackers = count(len(one.backbones), "tracker")
    about = f"{count(len(one.rates), 'identity', 'identities')}, mean of {trackers}"
    if ranking.omnibus is not None and ranking.omnibus.p is not None:
        about += f"; Friedman's test: {p_text(ranking.omnibus.p)}"
    if ranking.reason:
        about += f"; {ranking.reason}"
    yield Table(f"Ranking. {about}.", _RANKED, tuple(map(_place, records(places))))
    if len(pairs):
        rows = tuple(map(_pair, records(pairs)))
        yield Table("Every pair, the one with the better mean first.", _PAIRS, rows)


def _called(method: str, axis: str) -> str:
    """Return what a method is called: its name, and ``none`` in words."""
    return NOTHING[axis] if method == NONE else method


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["rank_low"], row["rank_high"]
    ranks = "NA" if low is None else f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"
    mean = "NA" if row["mean_rank"] is None else f"{row['mean_rank']:.2f}"
    return _called(row["method"], row["ranked"]), percent(row["asr"]), ranks, row["tie_group"] or "", mean


def _pair(row: dict[str, Any]) -> tuple[str, ...]:
    reason = row["reason"]
    return (
        _called(row["first"], row["ranked"]),
        _called(row["second"], row["ranked"]),
        percent(row["asr_first"]),
        percent(row["asr_second"]),
        _difference(row),
        f"NA: {reason}" if row["p_holm"] is None else p_text(row["p_holm"]),
        _significant(row),
        "NA" if row["effect_h"] is None else f"{row['effect_h']:+.2f}",
        percent(row["minimum_detectable_difference"]),
        f"{row['n_differing']} of {row['n_identities']}",
    )


def _significant(row: dict[str, Any]) -> str:
    if row["p_holm"] is None:
        return "not tested"
    if not row["significant"]:
        return "no"
    return "yes, with caution" if row["caution"] else "yes"


def _difference(row: dict[str, Any]) -> str:
    return difference(row["difference"], row["difference_low"], row["difference_high"])


def accuracy_kept(view: RunView) -> Table | None:
    """Return whether each defence keeps normal accuracy, None where the run has no defence to test."""
    rows = records(view.accuracy_kept)
    if not rows:
        return None
    caption = (
        f"Normal accuracy against no defence. The margin is {100 * MARGIN:.0f} percentage point: a defence that is not "
        "shown to stay within it may still do so."
    )
    return _lean(Table(caption, _KEPT, tuple(map(_kept, rows))))


def _kept(row: dict[str, Any]) -> tuple[str, ...]:
    shown = {True: "shown", False: "not shown", None: f"NA: {row['reason']}"}[row["not_worse"]]
    p = "NA" if row["p"] is None else p_text(row["p"])
    against = "mean of all" if row["against"] == EVERY else row["against"]
    rates = (percent(row["normal_accuracy"]), percent(row["undefended"]), _difference(row), p, shown)
    return against, row["head"], row["condition"], row["access"], row["defense"], *rates


def seeds(view: RunView) -> Table | None:
    """Return how much seeds vary, None for a run of one seed."""
    rows = records(significance_tables.seeds(view.results))
    if not rows:
        return None
    shares = ("asr", "sd_of_seed_means", "sd_seeds", "sd_identities")
    texts = tuple(
        (
            *(row[name] for name in ("attack", "defense", "backbone", "head", "condition")),
            *(percent(row[name]) for name in shares),
            "NA" if row["n_seeds"] is None else f"{row['n_seeds']:.0f}",
        )
        for row in rows
    )
    return _lean(Table("Standard deviations of the ASR over seeds and over identities.", _SEEDS, texts))


def _lean(table: Table) -> Table:
    """Return a table without the columns of text that are empty in every row."""
    keep = [i for i, _ in enumerate(table.columns) if any(row[i] for row in table.rows)]
    rows = tuple(tuple(row[i] for i in keep) for row in table.rows)
    return Table(table.caption, tuple(table.columns[i] for i in keep), rows)
