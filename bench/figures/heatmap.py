"""Heat map: the attack success rate of every attack against every defence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.figures import WIDTHS, Drawing, FigureOptions, style, words
from bench.figures.selection import NO_CLOAK, Panel, Selection, select
from bench.leaderboard.adaptation import MARKS
from bench.leaderboard.view import RunView
from bench.stats.significance import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWER, HIGHER = "*", "†"
"""Marks of a rate that is significantly different from the one without a defence."""

FAILED, MISSING = "failed", "NA"

_ROW = 0.21  # inches of a row
_NAMES = 1.15  # inches of the names of attacks
_LEAST = 0.36  # inches of a cell that has room for a decimal and a mark
_SIZES = (style.TYPE_SIZE, 6.0, 5.5)  # points of the numbers: the largest at which all have their decimal
_ROUNDED = (6.0, 5.5, 5.0, 4.5)  # the same without decimals


@dataclass(frozen=True)
class Square:
    """One cell of the map.

    Attributes:
        rate: ASR in per cent, None where it cannot be given.
        text: what is written.
    """

    rate: float | None
    text: str


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return the map, one panel a head and access.

    Rates are means over trackers (`leaderboard.means`), white-box and black-box apart; the first row is the error
    rate without any cloak. A pair with a failed cell is marked, one without a rate is NA.

    Raises:
        NotDrawableError: the run has no attack.
    """
    chosen = select(view, options)
    rows = [NO_CLOAK, *chosen.attacks]
    panels = chosen.panels
    across = _across(options, len(panels), len(chosen.defenses))
    down = -(-len(panels) // across)
    side = _side(options, across, len(chosen.defenses))
    slanted = max(len(chosen.short_defenses[name]) for name in chosen.defenses)
    height = down * (_ROW * len(rows) + 0.28) + 0.25 + min(0.05 * slanted, 1.1)
    figure = style.new_figure(options, height)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    used = set()
    drawn = {panel: _squares(chosen, panel, rows, 1) for panel in panels}
    size = _size(drawn.values(), side, _SIZES)
    if size is None:
        drawn = {panel: _squares(chosen, panel, rows, 0) for panel in panels}
        size = _size(drawn.values(), side, _ROUNDED) or _ROUNDED[-1]
    for axes, (panel, squares) in zip(grid.flat, drawn.items(), strict=False):
        _paint(axes, squares, size)
        axes.set_title(panel.title(panels))
        used |= {mark for line in squares for square in line for mark in square.text}
    _label(figure, grid, chosen, rows)
    return Drawing(figure, "Attack success by attack and defence", _caption(chosen, used), _alt(chosen))


def _squares(chosen: Selection, panel: Panel, rows: list[str], decimals: int) -> list[list[Square]]:
    return [[_square(chosen, panel, a, d, decimals) for d in chosen.defenses] for a in rows]


def _size(panels: Iterable[list[list[Square]]], side: float, sizes: Sequence[float]) -> float | None:
    """Return the first size, in points, at which every text fits a cell `side` inches wide, None where none does."""
    widths = [style.text_width(square.text) for lines in panels for line in lines for square in line]
    longest = max(widths) / style.TYPE_SIZE
    return next((size for size in sizes if longest * size <= side - 0.01), None)


def _side(options: FigureOptions, across: int, defenses: int) -> float:
    """Return the inches of a cell's width."""
    return (WIDTHS[options.width] - _NAMES) / (across * defenses)


def _across(options: FigureOptions, panels: int, defenses: int) -> int:
    """Return how many panels stand side by side."""
    most = int((WIDTHS[options.width] - _NAMES) / (_LEAST * defenses)) if options.width == "page" else 1
    found = style.across(panels, max(1, most))
    return found if panels % found == 0 else 1


def _square(chosen: Selection, panel: Panel, attack: str, defense: str, decimals: int) -> Square:
    if attack == NO_CLOAK:
        known = [
            chosen.rate(panel, other, defense).get("defended_baseline_error") for other in chosen.attacks
        ]
        rate = next((value for value in known if value is not None and not pd.isna(value)), None)
        mark = ""
    else:
        rate = chosen.rate(panel, attack, defense).get("asr")
        mark = significance_mark(chosen, panel, attack, defense) + chosen.mark(attack, defense)
    if rate is None or pd.isna(rate):
        return Square(None, FAILED if chosen.failed(panel, attack, defense) else MISSING)
    return Square(100 * float(rate), f"{100 * float(rate):.{decimals}f}{mark}")


def significance_mark(chosen: Selection, panel: Panel, attack: str, defense: str) -> str:
    """Return the mark of a rate against the same attack without a defence, "" where they do not differ.

    Of the mean over trackers by the tested pairs of the comparison group, of one tracker by its row of the leaderboard.
    """
    if defense == NO_CLOAK:
        return ""
    if chosen.backbone is not None:
        return _mark_of_row(chosen, panel, attack, defense)
    table = chosen.pairs
    found = table[
        (table["against"] == attack)
        & (table["head"] == panel.head)
        & (table["access"] == panel.access)
        & (
            ((table["first"] == defense) & (table["second"] == NO_CLOAK))
            | ((table["first"] == NO_CLOAK) & (table["second"] == defense))
        )
    ]
    if found.empty or not bool(found.iloc[0]["significant"]):
        return ""
    # The first of a pair is the one with the lower rate.
    return LOWER if found.iloc[0]["first"] == defense else HIGHER


def _mark_of_row(chosen: Selection, panel: Panel, attack: str, defense: str) -> str:
    leaderboard = chosen.leaderboard
    rows = leaderboard[
        (leaderboard["attack"] == attack)
        & (leaderboard["defense"] == defense)
        & (leaderboard["head"] == panel.head)
    ]
    rows = rows[rows["p_holm"].astype(float) <= ALPHA]
    if rows.empty:
        return ""
    return LOWER if float(rows.iloc[0]["effect_h"]) < 0 else HIGHER


def _paint(axes: Axes, squares: list[list[Square]], size: float) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    colours = mpl.colormaps[style.HEAT]
    for y, line in enumerate(squares):
        for x, square in enumerate(line):
            known = square.rate is not None
            # The map's darkest fifth is left out: its steps look alike in print.
            colour = mpl.colors.to_hex(colours(0.82 * (square.rate or 0.0) / 100)) if known else "#ffffff"
            axes.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5),
                    1,
                    1,
                    facecolor=colour,
                    edgecolor="white" if known else "0.6",
                    hatch=None if known else "//////",
                    linewidth=0.6,
                )
            )
            box = {} if known else {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8}}
            axes.text(
                x,
                y,
                square.text,
                ha="center",
                va="center_baseline",
                fontsize=size,
                color=style.ink_on(colour),
                **box,
            )
    axes.set_xlim(-0.5, len(squares[0]) - 0.5)
    # A gap under the first row: it is no attack.
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.set_ylim(len(squares) - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label(figure: Figure, grid: np.ndarray[Any, Any], chosen: Selection, rows: list[str]) -> None:
    del figure
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(rows)), [chosen.short_attacks[name] for name in rows])
    for axes in grid[-1, :]:
        style.slant(axes, [chosen.short_defenses[name] for name in chosen.defenses])


def _caption(chosen: Selection, used: set[str]) -> str:
    rows = chosen.rates
    marked = sorted(used & {LOWER, HIGHER})
    tested = (
        "sign-flip test over identities, Holm over the rows of the leaderboard"
        if chosen.backbone
        else "sign-flip test over identities, Holm over the pairs of defences; and Friedman's test over the defences"
    )
    meanings = {LOWER: "lower", HIGHER: "higher"}
    return words.joined(
        [
            "Attack success rate (ASR) in per cent of every attack (rows) against every defence (columns).",
            words.measured(chosen, rows["n_identities"]),
            words.mean_over(chosen, rows),
            "The row 'no cloak' is the error rate without any cloak"
            + ("." if rows["backbones"].nunique() < 2 else ", on the trackers of the row below it."),
            *(
                f"{mark}: {meanings[mark]} than the same attack without a defence (p ≤ {ALPHA}: {tested})."
                for mark in marked
            ),
            "" if marked else "No rate is significantly different from the same attack without a defence.",
            words.adapted(chosen) if used & set(MARKS.values()) else "",
            *_gaps(chosen),
            "White-box and black-box rates are never averaged."
            if len({p.access for p in chosen.panels}) > 1
            else "",
            words.full_names(chosen),
        ]
    )


def _gaps(chosen: Selection) -> Iterator[str]:
    """Yield what hatched cells mean, where there are any."""
    if chosen.rates["asr"].isna().any():
        yield f"Hatched: {FAILED} or {MISSING}, no rate for everyone."


def _alt(chosen: Selection) -> str:
    rates = chosen.rates.dropna(subset=["asr"])
    if rates.empty:
        return "A heat map without a single rate: every pair failed or is missing."
    ordered = rates.sort_values("asr", kind="stable")
    low, high = ordered.iloc[0], ordered.iloc[-1]

    def said(row: pd.Series[Any]) -> str:
        return (
            f"{words.percent(row['asr'])} % ({row['against']} against {row['defense']}, head {row['head']})"
        )

    return (
        f"Heat map of {words.counted(len(chosen.attacks), 'attack')} by "
        f"{words.counted(len(chosen.defenses), 'defence')}. The attack success rate lies between {said(low)} "
        f"and {said(high)}."
    )
