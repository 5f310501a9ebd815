"""The attack × defence matrix that a report opens with: the ASR of every pair, one matrix a head and access.

What lives here: which numbers of ``view.means`` stand in it. What must not: any rate of its own.
"""

from collections.abc import Iterator, Mapping

import pandas as pd

from bench.analysis.comparison_groups import EVERY
from bench.leaderboard.names import NONE, NOTHING, explained, short_names
from bench.leaderboard.view import RunView
from bench.report import phrases
from bench.report.document import Block, Folded, Matrix, MatrixField, MatrixRow, Paragraph
from bench.report.wording import count, matching, records

OPEN = 2
"""Matrices that are shown at once; others are folded."""


def matrices(view: RunView, focus: pd.DataFrame, names: Mapping[str, str]) -> tuple[Block, ...]:
    """Return the matrices of a run under the condition of its key results, that of their head and access first.

    Args:
        view: of the run.
        focus: rows of ``view.means`` the key results are about (`key_results.focus_of`).
        names: canonical name → label that was given by the user.
    """
    if focus.empty:
        return ()
    rows = matching(view.means, condition=focus["condition"].iloc[0])
    rows = rows[rows["against"] != EVERY]
    own = (focus["head"].iloc[0], focus["access"].iloc[0])
    panels = [own, *(one for one in _panels(rows) if one != own)]
    called = {
        axis: short_names(view.results.values(axis), {**names, NONE: NOTHING[axis]}) for axis in NOTHING
    }
    drawn = tuple(_matrix(matching(rows, head=head, access=access), called) for head, access in panels)
    folded = (Folded(f"{count(len(drawn) - OPEN, 'more matrix', 'more matrices')}", drawn[OPEN:]),)
    in_full = " ".join(
        filter(
            None,
            (explained([name for name in own if name != NONE], own, "In full,") for own in called.values()),
        )
    )
    reading = Paragraph(" ".join(filter(None, (phrases.MATRIX, in_full))), "note")
    return (*drawn[:OPEN], *(folded if len(drawn) > OPEN else ()), reading)


def _panels(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    yield from rows[["head", "access"]].drop_duplicates().itertuples(index=False, name=None)


def _matrix(rows: pd.DataFrame, called: Mapping[str, Mapping[str, str]]) -> Matrix:
    there = set(rows["defense"])
    defenses = sorted((name for name in called["defense"] if name in there), key=lambda name: name != NONE)
    attacks = [name for name in called["attack"] if name in set(rows["against"])]
    rates = {(row["against"], row["defense"]): row for row in records(rows)}
    undefended = {
        name: next(
            (
                error
                for attack in attacks
                if (error := rates.get((attack, name), {}).get("defended_baseline_error")) is not None
            ),
            None,
        )
        for name in defenses
    }
    first = rows.iloc[0]
    trackers = list(dict.fromkeys(name for one in rows["backbones"] for name in str(one).split("|")))
    where = ", ".join(filter(None, (f"head `{first['head']}`", first["condition"], first["access"])))
    caption = phrases.MATRIX_CAPTION.format(
        where=where,
        identities=count(int(rows["n_identities"].max()), "identity", "identities"),
        trackers=f"tracker `{trackers[0]}`" if len(trackers) == 1 else f"mean over {len(trackers)} trackers",
    )
    return Matrix(
        caption,
        tuple(called["defense"][name] for name in defenses),
        (
            MatrixRow(NOTHING["attack"], tuple(rate_field(undefended[name]) for name in defenses)),
            *(
                MatrixRow(
                    called["attack"][attack],
                    tuple(rate_field(rates.get((attack, name), {}).get("asr")) for name in defenses),
                )
                for attack in attacks
            ),
        ),
    )


def rate_field(rate: float | None) -> MatrixField:
    """Return a rate in [0, 1] as it stands in a matrix, NA where there is none."""
    return MatrixField("NA", None) if rate is None else MatrixField(f"{100 * rate:.1f}", float(rate))
