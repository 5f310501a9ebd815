"""The figure of an ablation: what every level of every factor does to attack success and to normal accuracy.

What lives here: drawing, from the table alone. What must not: any measure (`bench.ablation.table` has them).
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.comparison_groups import EVERY
from bench.errors import UsageError
from bench.figures import files, style
from bench.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4  # panels side by side
_WIDTH, _HEIGHT, _LEGEND = 3.0, 3.4, 0.6  # inches of a panel and of the legend
_LINE = 36  # characters under one panel


def ablation_figure(table: pd.DataFrame, path: Path) -> None:
    """Draw one panel a factor: ASR of each level above, normal accuracy beneath.

    Points with 95 % intervals over identities, one colour an attack (and one marker a head where there are
    several), in the mean over the level's trackers; crosses are the same without a defence, the ring is the
    base. The scale of ASR is a square root, so that one per cent and ninety can be distinguished from their neighbours.
    A level that failed is named and has no points.

    Args:
        table: as `bench.ablation.table.table` gives it, or its CSV.
        path: file to write: ``.png``, ``.svg`` or ``.pdf``. The same table gives the same bytes.

    Raises:
        UsageError: another suffix, or a table without rows.
    """
    files.check_suffix(path)
    with style.context():
        figure = draw(table)
    write_atomically(path, files.to_bytes(figure, path.suffix[1:]))


def draw(table: pd.DataFrame) -> Figure:
    """Return the figure that `ablation_figure` writes.

    Raises:
        UsageError: the table has no rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if table.empty:
        raise UsageError("an ablation without rows has no figure.")
    shown = _averaged(table)
    factors = list(dict.fromkeys(shown["factor"]))
    keys = shown[["attack", "head", "condition", "access"]].fillna("").drop_duplicates()
    series = list(keys.itertuples(index=False, name=None))
    attacks = list(dict.fromkeys(key[0] for key in series))
    colours = {attack: look.colour for attack, look in style.looks(attacks).items()}
    markers = dict(zip(dict.fromkeys(key[1:] for key in series), "os^Dv<>ph" * 9, strict=False))
    across = min(_COLUMNS, len(factors))
    down = math.ceil(len(factors) / across)
    figure = Figure(figsize=(0.4 + across * _WIDTH, _LEGEND + down * _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(down, across)
    lowest = _lowest_accuracy(shown)
    for number, factor in enumerate(factors):
        place = grid[number // across, number % across]
        halves = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.05)
        rates = figure.add_subplot(halves[0])
        accuracy = figure.add_subplot(halves[1], sharex=rates)
        _panel(rates, accuracy, shown[shown["factor"] == factor], series, colours, markers)
        rates.set_title(factor, fontsize=9, fontweight="bold")
        accuracy.set_ylim(lowest, 100 + 0.06 * (100 - lowest))
        if number % across == 0:
            rates.set_ylabel("ASR, %")
            accuracy.set_ylabel("normal\naccuracy, %")
    handles, labels = _legend(series, colours, markers)
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=4,
        frameon=False,
        title=_title(shown),
        title_fontsize=10,
    )
    return figure


def _title(shown: pd.DataFrame) -> str:
    """Return the figure's title with what is the same in every panel."""
    text = "Attack success and normal accuracy, one factor at a time"
    trackers = set(shown["backbone"])
    where = ["mean over trackers" if EVERY in trackers else f"tracker {', '.join(sorted(trackers))}"]
    heads = shown["head"].unique()
    where += [f"head {head}" for head in heads if len(heads) == 1]
    identities = shown["n_identities"].dropna().unique()
    where += [f"{identities[0]} identities"] if len(identities) == 1 else []
    return f"{text} ({', '.join(where)}; 95 % intervals over identities)"


def _averaged(table: pd.DataFrame) -> pd.DataFrame:
    """Return each level's mean over its trackers, or its only tracker; of single attacks, not of their mean."""
    single = table[table["attack"] != EVERY]
    places = [name for name in ("factor", "level") if name in single]
    has_mean = single.groupby(places, sort=False)["backbone"].transform(lambda names: (names == EVERY).any())
    return single[(single["backbone"] == EVERY) | ~has_mean]


def _lowest_accuracy(shown: pd.DataFrame) -> float:
    """Return where the scale of normal accuracy begins: a round number below everything drawn."""
    drawn = shown[["normal_accuracy", "normal_accuracy_low", "undefended_accuracy"]].astype(float)
    least = 100 * float(np.nanmin(drawn.to_numpy())) if drawn.notna().any(axis=None) else 0.0
    return max(0.0, min(95.0, 5 * math.floor(least / 5)))


def _panel(
    rates: Axes,
    accuracy: Axes,
    panel: pd.DataFrame,
    series: list[tuple[str, ...]],
    colours: dict[str, Any],
    markers: dict[tuple[str, ...], str],
) -> None:
    levels = list(dict.fromkeys(panel["level"].astype(str)))
    places = np.arange(len(levels))
    for number, key in enumerate(series):
        chosen = (panel[["attack", "head", "condition", "access"]].fillna("") == list(key)).all(axis=1)
        rows = panel[chosen].drop_duplicates("level")
        rows = rows.set_index(rows["level"].astype(str)).reindex(levels)
        shift = 0.6 * ((number + 0.5) / len(series) - 0.5)
        look = {"color": colours[key[0]], "marker": markers[key[1:]]}
        for axes, name, reference in (
            (rates, "asr", "undefended_asr"),
            (accuracy, "normal_accuracy", "undefended_accuracy"),
        ):
            _points(axes, places + shift, rows, name, look)
            axes.plot(
                places + shift,
                100 * rows[reference].astype(float),
                "x",
                color=look["color"],
                alpha=0.5,
                markersize=4,
            )
        base = rows["is_base"].eq(True).to_numpy()
        rates.plot(
            (places + shift)[base],
            100 * rows["asr"].astype(float)[base],
            "o",
            markerfacecolor="none",
            markeredgecolor="0.2",
            markersize=8,
        )
    rates.set_yscale("function", functions=(np.sqrt, np.square))
    rates.set_ylim(0, 105)
    rates.set_yticks([0, 1, 5, 10, 25, 50, 75, 100])
    rates.tick_params(labelbottom=False)
    failed = [level for level in levels if panel[panel["level"].astype(str) == level]["asr"].isna().all()]
    if failed:
        rates.text(
            0.02, 0.98, f"failed: {', '.join(failed)}", transform=rates.transAxes, va="top", color="0.3"
        )
    width = max(4, _LINE // len(levels))
    accuracy.set_xticks(places, [textwrap.fill(level, width, break_long_words=False) for level in levels])
    accuracy.set_xlim(-0.6, len(levels) - 0.4)
    for axes in (rates, accuracy):
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)


def _points(axes: Axes, places: Any, rows: pd.DataFrame, name: str, look: dict[str, Any]) -> None:
    value, low, high = (100 * rows[column].astype(float) for column in (name, f"{name}_low", f"{name}_high"))
    # A rate without interval is drawn without one.
    reach = np.array([(value - low).fillna(0), (high - value).fillna(0)])
    axes.errorbar(
        places, value, yerr=np.clip(reach, 0, None), linestyle="none", markersize=4, elinewidth=1, **look
    )


def _legend(
    series: list[tuple[str, ...]], colours: dict[str, Any], markers: dict[tuple[str, ...], str]
) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    several = len(markers) > 1
    handles, labels = [], []
    for key in series:
        handles.append(
            Line2D([], [], color=colours[key[0]], marker=markers[key[1:]], linestyle="none", markersize=4)
        )
        labels.append(", ".join(filter(None, key)) if several else key[0])
    handles.append(Line2D([], [], color="0.4", marker="x", linestyle="none", markersize=4))
    handles.append(
        Line2D(
            [], [], markerfacecolor="none", markeredgecolor="0.2", marker="o", linestyle="none", markersize=8
        )
    )
    return handles, [*labels, "without a defence", "the base"]
