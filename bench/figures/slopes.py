"""Slopes: how each defence moves the attack success rate of every attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.figures import WIDTHS, Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.selection import NO_CLOAK, Panel, Selection, select
from bench.leaderboard.names import NOTHING
from bench.leaderboard.view import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 1.5  # inches of a panel
_ACROSS = {"column": 3, "page": 6}


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return slopes from no defence to each defence, one panel a defence, head and access, one line an attack.

    Raises:
        NotDrawableError: the run has no attack, or no defence besides ``none``, or not ``none``.
    """
    chosen = select(view, options)
    defenses = tuple(name for name in chosen.defenses if name != NO_CLOAK)
    if not defenses or len(defenses) == len(chosen.defenses):
        raise NotDrawableError(
            f"slopes lead from defence none to others, and the run has {words.listed(chosen.defenses)}. "
            "Run it with --defense none and another."
        )
    widest = max(style.text_width(chosen.short_defenses[name], style.TITLE_SIZE) for name in defenses)
    room = int((WIDTHS[options.width] - 0.4) / (widest + 0.08))
    across = style.across(len(defenses), max(1, min(_ACROSS[options.width], room)))
    lines = -(-len(defenses) // across)
    figure = style.new_figure(options, 0.45 + _HEIGHT * lines * len(chosen.panels))
    parts = style.parts_of(figure, len(chosen.panels))
    looks = style.looks(chosen.attacks)
    grids = []
    for part, panel in zip(parts, chosen.panels, strict=True):
        if len(chosen.panels) > 1:
            part.suptitle(panel.title(chosen.panels), x=0.01, ha="left")
        panels = style.grid_of(part, len(defenses), across, sharey=True)
        grids.append(panels)
        for place, (axes, defense) in enumerate(zip(panels, defenses, strict=True)):
            _panel(axes, chosen, panel, defense, looks)
            style.percent_axis(axes, label="ASR, %" if place % across == 0 else "")
    handles, labels = style.marks(looks, chosen.short_attacks, lines=True)
    from matplotlib.lines import Line2D

    handles.append(Line2D([], [], color=style.BASELINE, linewidth=0.8))
    labels.append(NOTHING["attack"])
    if not style.legend_in_spare_place(parts[0], grids[0], across, handles, labels, _HEIGHT - 0.3):
        style.legend_on_top(figure, handles, labels)
    return Drawing(
        figure, "Attack success without and with each defence", _caption(chosen), _alt(chosen, defenses)
    )


def _panel(axes: Axes, chosen: Selection, panel: Panel, defense: str, looks: dict[str, style.Look]) -> None:
    missing = []
    for number, (attack, look) in enumerate(looks.items()):
        ends = [chosen.rate(panel, attack, name) for name in (NO_CLOAK, defense)]
        values, low, high = (_percents(ends, name) for name in ("asr", "asr_low", "asr_high"))
        shift = style.dodge(number, len(looks), 0.12)
        places = np.array([0, 1]) + shift
        style.with_intervals(axes, places, values, (low, high), look, label=attack, joined=True)
        style.flag(axes, places[1], values[1], chosen.mark(attack, defense))
        if np.isnan(values).any():
            word = "failed" if any(chosen.failed(panel, attack, d) for d in (NO_CLOAK, defense)) else "NA"
            missing.append(f"{chosen.short_attacks[attack]}: {word}")
    baseline = _percents(
        [_row_of(chosen, panel, name) for name in (NO_CLOAK, defense)], "defended_baseline_error"
    )
    axes.plot([0, 1], baseline, color=style.BASELINE, linewidth=0.8, label=NO_CLOAK)
    style.note(axes, "\n".join(missing))
    axes.set_title(chosen.short_defenses[defense], loc="center")
    axes.set_xticks([0, 1], ["without", "with"])
    # Names of neighbours would touch in the middle.
    left, right = axes.get_xticklabels()
    left.set_horizontalalignment("left")
    right.set_horizontalalignment("right")
    axes.set_xlim(-0.12, 1.12)


def _row_of(chosen: Selection, panel: Panel, defense: str) -> dict[str, Any]:
    """Return the row of any attack with this defence: baselines are the same in all."""
    rows = (chosen.rate(panel, attack, defense) for attack in chosen.attacks)
    return next((row for row in rows if not pd.isna(row.get("defended_baseline_error"))), {})


def _percents(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray[Any, Any]:
    values = [row.get(name) for row in rows]
    return np.array([np.nan if pd.isna(value) else 100 * float(value) for value in values])


def _caption(chosen: Selection) -> str:
    rows = chosen.rates
    return words.joined(
        [
            "Attack success rate (ASR) without a defence (left) and with one (right), one panel a defence, one line an "
            "attack.",
            words.measured(chosen, rows["n_identities"]),
            words.mean_over(chosen, rows),
            words.INTERVALS,
            "Grey line: the error rate without any cloak.",
            words.adapted(chosen),
            words.full_names(chosen),
        ]
    )


def _alt(chosen: Selection, defenses: Sequence[str]) -> str:
    parts = []
    for attack in chosen.attacks:
        row = {d: chosen.rate(chosen.panels[0], attack, d).get("asr") for d in (NO_CLOAK, *defenses)}
        told = ", ".join(f"{words.percent(row[d])} with {d}" for d in defenses)
        parts.append(f"{attack}: {words.percent(row[NO_CLOAK])} without a defence, {told}")
    return f"Slopes of attack success rates in per cent, {chosen.panels[0].title(chosen.panels)}. {'; '.join(parts)}."
