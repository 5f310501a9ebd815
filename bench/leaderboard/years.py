"""The means of a run by the year in which the tracker's weights were published: does a cloak outlive its surrogates?

What lives here: which trackers are of a year, and what a row says of time. What must not: the means themselves
(`bench.leaderboard.means`), dates of surrogates (`bench.run.model_time`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.claims import name_in_run
from bench.analysis.comparison_groups import access_of
from bench.analysis.results import Results
from bench.errors import UsageError
from bench.leaderboard import means
from bench.leaderboard.means import Mean
from bench.plugins import factory

UNKNOWN = "no date of publication is known of {}"

COLUMNS: Mapping[str, str] = {
    "year": "in which the weights of the row's trackers were published, as their cards say; empty: not known",
    "year_reason": "why year is empty",
    "model_time": "later: these trackers were published after every surrogate, in every cell of the row; not-later: in "
    "some cell they were not; empty: not known",
    **means.COLUMNS,
}
"""Every column with its meaning, in order."""


def released(backbone: str) -> str:
    """Return when a backbone's weights were published by its card, YYYY[-MM[-DD]]; "" where that is not known.

    A backbone that is no longer installed, or a file that is gone, has no date.
    """
    try:
        return factory.backbone(backbone).card.released
    except UsageError:
        return ""


def table(
    results: Results,
    attacks: Sequence[str] = (),
    backbones: Sequence[str] = (),
    dated: Callable[[str], str] = released,
) -> pd.DataFrame:
    """Return the means of a run over the trackers of each year, earliest first, and those without a date last.

    The year is that of the tracker's own backbone. A defence that puts another in its place says so by `model_time`.

    Args:
        results: of the run.
        attacks: only these, any text for each; empty for all of the run but ``none``.
        backbones: only these trackers, likewise.
        dated: backbone's name → when its weights were published.

    Raises:
        UsageError: the run has no such method, or no attack but ``none``.
    """
    chosen = {name_in_run("backbone", text, results) for text in backbones} or results.values("backbone")
    of_year: dict[str, list[str]] = {}
    for name in chosen:
        of_year.setdefault(dated(name)[:4], []).append(name)
    rows: list[dict[str, Any]] = []
    for year in sorted(of_year, key=lambda one: (not one, one)):
        names = sorted(of_year[year])
        reason = "" if year else UNKNOWN.format(", ".join(names))
        for one in means.means(results, attacks, names):
            time = {"year": year, "year_reason": reason, "model_time": _model_time(results, one)}
            rows.append({**time, **one.columns})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _model_time(results: Results, one: Mean) -> str:
    """Return whether the row's trackers are later than every surrogate of its attacks, by its cells."""
    attacks, trackers = (set(str(one.columns[name]).split("|")) for name in ("attacks", "backbones"))
    times = {
        cell.threat.model_time
        for point, cell in results.cells.items()
        if (point.defense, point.head, access_of(cell)) == (one.defense, one.head, one.access)
        and point.attack in attacks
        and point.backbone in trackers
    }
    if "not-later" in times:
        return "not-later"
    return "later" if times == {"later"} else ""
