"""Per-identity spread: the attack success rate of every identity, by defence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.analysis.comparison_groups import access_of, mean_rates
from bench.figures import Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.selection import NO_CLOAK, Panel, Selection, select
from bench.leaderboard.view import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 1.7  # inches of a panel
_DOT = "#56B4E9"
_MEAN: Mapping[str, Any] = {"marker": "D", "color": "white", "markeredgecolor": "black", "markersize": 3.4}
_FEW = 40  # identities whose dots may be larger
_BINS = 26
_REACH = 0.4
_MANY = 1500  # points beyond which a vector file holds them as one picture


def rates_of(chosen: Selection, panel: Panel, attack: str) -> pd.DataFrame:
    """Return identities × defences: each identity's mean rate over the trackers of `Selection.rates`, %.

    A defence with a failed cell is left out.
    """
    results = chosen.view.results
    found: dict[str, Any] = {}
    for defense in chosen.defenses:
        row = chosen.rate(panel, attack, defense)
        trackers = str(row.get("backbones", "")).split("|")
        points = [
            point
            for point, cell in results.cells.items()
            if (point.attack, point.defense, point.head) == (attack, defense, panel.head)
            and point.backbone in trackers
            and access_of(cell) == panel.access
        ]
        rates = mean_rates(results, points, chosen.condition, "asr")
        if len(rates):
            found[defense] = 100 * rates
    return pd.DataFrame(found).sort_index()


def spread(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return how far to the side each value is drawn, so that equal ones stand beside each other.

    Values in [0, 100] are taken together in bins; the fullest bin reaches ± 0.4.
    """
    bins = np.round(np.asarray(values, dtype=float) / 100 * (_BINS - 1)).astype(int)
    most = max(int(np.bincount(bins).max()), 1) if len(bins) else 1
    step = min(2 * _REACH / most, 0.06)
    sides = np.zeros(len(bins))
    for one in np.unique(bins):
        places = np.flatnonzero(bins == one)
        sides[places] = step * (np.arange(len(places)) - (len(places) - 1) / 2)
    return sides


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return one panel an attack and a column a defence: a dot an identity, the quartiles and the mean.

    Raises:
        NotDrawableError: the run has no attack, or no rates of identities.
    """
    chosen = select(view, options)
    panels = [panel for panel in chosen.panels if panel.head == chosen.head]
    drawn = {
        (panel, attack): rates_of(chosen, panel, attack) for panel in panels for attack in chosen.attacks
    }
    drawn = {key: rates for key, rates in drawn.items() if len(rates)}
    if not drawn:
        raise NotDrawableError(f"no cell of head {chosen.head} has rates of identities; its cells failed.")
    names = max(len(chosen.short_defenses[name]) for name in chosen.defenses)
    fixed = 0.35 + min(0.05 * names, 1.1)
    across, rows, height = style.stacked(len(drawn), options.width, _HEIGHT, fixed)
    figure = style.new_figure(options, fixed + height * rows)
    grid = style.grid_of(figure, len(drawn), across, sharex=True, sharey=True)
    for place, (axes, ((panel, attack), rates)) in enumerate(zip(grid, drawn.items(), strict=True)):
        _panel(axes, rates, chosen.defenses)
        white = f", {panel.access}" if len(panels) > 1 or panel.access != "black-box" else ""
        axes.set_title(f"{chosen.short_attacks[attack]}{white}")
        style.percent_axis(axes, label="ASR, %" if place % across == 0 else "")
    style.label_columns(grid, across, [chosen.short_defenses[name] for name in chosen.defenses])
    style.legend_on_top(figure, *_legend())
    return Drawing(figure, "Attack success identity by identity", _caption(chosen, drawn), _alt(drawn))


def _panel(axes: Axes, rates: pd.DataFrame, defenses: tuple[str, ...]) -> None:
    many = rates.size > _MANY
    for place, defense in enumerate(defenses):
        if defense not in rates:
            axes.text(place, 50, "NA", ha="center", va="center", color="0.3")
            continue
        values = rates[defense].to_numpy(dtype=float)
        low, middle, high = np.percentile(values, [25, 50, 75])
        axes.plot(
            place + spread(values),
            values,
            "o",
            color=_DOT,
            markersize=1.6 if len(values) > _FEW else 2.6,
            markeredgewidth=0,
            label=f"identities|{defense}",
            rasterized=many,
        )
        axes.plot(
            [place, place],
            [low, high],
            color="black",
            linewidth=1.0,
            solid_capstyle="butt",
            label="quartiles",
        )
        axes.plot(
            [place - 0.12, place + 0.12], [middle, middle], color="black", linewidth=1.4, label="median"
        )
        axes.plot([place], [values.mean()], **_MEAN, label=f"mean|{defense}")
    axes.set_xlim(-0.6, len(defenses) - 0.4)


def _legend() -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    dot = Line2D([], [], linestyle="none", marker="o", color=_DOT, markersize=2.5, markeredgewidth=0)
    quartiles = Line2D([], [], color="black", linewidth=1.0)
    mean = Line2D([], [], linestyle="none", **_MEAN)
    return [dot, quartiles, mean], ["an identity", "quartiles, median across", "mean"]


def _caption(chosen: Selection, drawn: dict[tuple[Panel, str], pd.DataFrame]) -> str:
    one = next(iter(drawn.values()))
    return words.joined(
        [
            "Attack success rate (ASR) of every identity, one panel an attack, one column a defence: "
            "a dot is an identity, "
            "the line spans the quartiles with the median across it, the diamond is the mean.",
            words.measured(chosen, [len(rates) for rates in drawn.values()]),
            f"Head {chosen.head}.",
            words.mean_over(chosen, chosen.rates),
            *_moved(one, next(iter(drawn))[1]),
            words.full_names(chosen),
        ]
    )


def _moved(rates: pd.DataFrame, attack: str) -> list[str]:
    """Return of how many identities the rate falls, rises and stays: counts, since an id can lead to an identity."""
    if NO_CLOAK not in rates or len(rates.columns) < 2:
        return []
    others = rates.drop(columns=NO_CLOAK)
    best = str(others.mean().idxmin())
    change = (others[best] - rates[NO_CLOAK]).round(9)
    identities = words.counted(len(change), "identity", "identities")
    return [
        f"From no defence to {best}, against {attack}, the rates of {int((change < 0).sum())} of {identities} fall, of "
        f"{int((change > 0).sum())} rise and of {int((change == 0).sum())} stay."
    ]


def _alt(drawn: dict[tuple[Panel, str], pd.DataFrame]) -> str:
    parts = []
    for (_, attack), rates in drawn.items():
        quartiles = rates.quantile([0.25, 0.75])
        told = ", ".join(
            f"{name} {quartiles[name].iloc[0]:.0f} to {quartiles[name].iloc[1]:.0f}" for name in rates.columns
        )
        parts.append(f"{attack}: {told}")
    return (
        f"Spread of identities' attack success rates; the middle half lies, in per cent, {'; '.join(parts)}."
    )
