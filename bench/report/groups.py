"""Who is protected less: the section of a report for groups that a file of the user's names.

What lives here: which rates of `bench.leaderboard.groups` stand in the map. What must not: any rate or test of its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bench.leaderboard import groups as by_group
from bench.leaderboard.names import NONE, NOTHING, short_names
from bench.leaderboard.view import RunView
from bench.report import phrases
from bench.report.document import Block, Bullets, Folded, Matrix, MatrixRow, Paragraph, Section
from bench.report.matrix import OPEN, rate_field
from bench.report.wording import count, matching, records

_PLACE = ("backbone", "head", "condition", "seed")


def groups_section(view: RunView, groups: Mapping[str, str], names: Mapping[str, str]) -> Section:
    """Return what the run says of groups: who differs, what could have been seen, and the ASR of each group as a map.

    Args:
        view: of the run.
        groups: identity id → group (`bench.leaderboard.groups.read_groups`).
        names: canonical name → label that was given by the user.

    Raises:
        DataError: a group has an identity that the run does not evaluate.
    """
    found = by_group.table(view.results, groups)
    without = by_group.left_out(view.results, groups)
    told = phrases.GROUPS + (
        f" {count(without, 'evaluated identity has', 'evaluated identities have')} no group and "
        f"{'is' if without == 1 else 'are'} left out."
        if without
        else ""
    )
    called = {
        axis: short_names(view.results.values(axis), {**names, NONE: NOTHING[axis]}) for axis in NOTHING
    }
    maps = tuple(_maps(found[found["measure"] == "asr"], called))
    folded = (Folded(count(len(maps) - OPEN, "more map"), maps[OPEN:]),) if len(maps) > OPEN else ()
    blocks: tuple[Block, ...] = (
        Paragraph(told, "note"),
        Bullets(tuple(by_group.sentences(found)) or (phrases.NO_GROUP_DIFFERS,)),
        *maps[:OPEN],
        *folded,
    )
    return Section("groups", "Who is protected less", blocks)


def _maps(asr: pd.DataFrame, called: Mapping[str, Mapping[str, str]]) -> Iterator[Matrix]:
    """Yield a map for each tracker, head, condition and seed: attack and defence down, groups across."""
    several = [axis for axis in _PLACE if len({*asr[axis]}) > 1]
    for place in asr[list(_PLACE)].drop_duplicates().to_dict("records"):
        rows = matching(asr, **{str(axis): value for axis, value in place.items()})
        where = ", ".join(
            f"{axis} `{place[axis]}`" for axis in _PLACE if axis in several or axis == "backbone"
        )
        yield _map(records(rows), where, called)


def _map(rows: list[dict[str, Any]], where: str, called: Mapping[str, Mapping[str, str]]) -> Matrix:
    rates = {(row["attack"], row["defense"], row["group"]): row["rate"] for row in rows}
    most: dict[str, int] = {}
    for row in rows:
        most[row["group"]] = max(most.get(row["group"], 0), row["n_identities"])
    pairs = dict.fromkeys((row["attack"], row["defense"]) for row in rows)
    first = [pair for pair in pairs if pair == (NONE, NONE)]
    order = list(called["attack"])
    cloaked = sorted(
        (pair for pair in pairs if pair[0] != NONE), key=lambda pair: (order.index(pair[0]), pair[1] != NONE)
    )
    return Matrix(
        phrases.GROUPS_CAPTION.format(where=where),
        tuple(f"{name} ({number})" for name, number in most.items()),
        tuple(
            MatrixRow(
                f"{called['attack'][attack]} × {called['defense'][defense]}",
                tuple(rate_field(rates.get((attack, defense, name))) for name in most),
            )
            for attack, defense in (*first, *cloaked)
        ),
        corner="Attack × defence",
    )
