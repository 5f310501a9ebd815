"""The figure of a robustness run: how much of each cloak is left after each channel.

What lives here: drawing, from a leaderboard alone. What must not: any measure (`bench.leaderboard` has them).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
"""Kinds of files a figure can be written to."""

_BASELINE = "none"
_WIDTH_OF_CHANNEL, _HEIGHT_OF_PANEL, _LABELS = 0.34, 2.5, 1.8  # inches


def robustness_figure(board: pd.DataFrame, path: Path) -> None:
    """Draw ASR after each channel, one panel a defence (across) and backbone and head (down).

    Points with their 95 % intervals over people, one colour an attack; the grey band is the interval of
    attack ``none`` in the same panel, the line in it its ASR: what no cloak earned there. Channels stand in
    the protocol's order. A cell that failed has no points and is named in its panel.

    Args:
        board: leaderboard of a run of protocol ``robustness`` (`bench.leaderboard.build`).
        path: file to write: ``.png``, ``.svg`` or ``.pdf``. The same board gives the same bytes.

    Raises:
        UsageError: another suffix, or the run has one condition only.
    """
    save(draw, board, path)


def save(drawing: Callable[[pd.DataFrame], Figure], board: pd.DataFrame, path: Path) -> None:
    """Write what `drawing` makes of a leaderboard; the same board gives the same bytes.

    Raises:
        UsageError: another suffix than `SUFFIXES`.
    """
    import matplotlib as mpl

    check_suffix(path)
    # Names instead of random ids, no date: the same board, the same bytes.
    with mpl.rc_context({"svg.hashsalt": "cloakbench", "svg.fonttype": "none", "font.size": 8}):
        figure = drawing(board)
        metadata = (
            {"Date": None}
            if path.suffix == ".svg"
            else {"CreationDate": None}
            if path.suffix == ".pdf"
            else {}
        )
        figure.savefig(path, dpi=150, metadata=metadata)


def check_suffix(path: Path) -> None:
    """Check that a figure can be written to a file of this name.

    Raises:
        UsageError: another suffix than `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"a figure cannot be written as '{path.name}'. Valid: files ending in {', '.join(SUFFIXES)}."
        )


def draw(board: pd.DataFrame) -> Figure:
    """Return the figure that `robustness_figure` writes.

    Raises:
        UsageError: the run has one condition only.
    """
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    channels = list(dict.fromkeys(board["condition"].astype(str)))
    if len(channels) < 2:
        raise UsageError(
            f"a figure over channels needs 2 conditions or more, this run has {len(channels)} "
            f"({', '.join(map(repr, channels))}). Use a run of protocol robustness with several channels."
        )
    rows = list(board[["backbone", "head"]].drop_duplicates().itertuples(index=False, name=None))
    defenses = list(dict.fromkeys(board["defense"]))
    cloaked = board[board["attack"] != _BASELINE]
    series = list(cloaked[["attack", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    size = (
        1 + len(defenses) * (_WIDTH_OF_CHANNEL * len(channels) + 0.3),
        _LABELS + len(rows) * _HEIGHT_OF_PANEL,
    )
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(defenses), sharex=True, sharey=True, squeeze=False)
    colours = dict(zip(series, sns.color_palette("colorblind", max(len(series), 1)), strict=False))
    for row, (backbone, head) in enumerate(rows):
        for column, defense in enumerate(defenses):
            panel = board[
                (board["backbone"] == backbone) & (board["head"] == head) & (board["defense"] == defense)
            ]
            axes = grid[row][column]
            _panel(axes, panel, channels, colours)
            axes.set_title(f"{defense} · {backbone} · {head}", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("ASR, %")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _panel(axes: Axes, panel: pd.DataFrame, channels: list[str], colours: dict[tuple[str, int], Any]) -> None:
    places = np.arange(len(channels))
    seeds = panel["seed"].nunique()
    baseline = _by_channel(
        panel[(panel["attack"] == _BASELINE) & (panel["seed"] == panel["seed"].min())], channels
    )
    axes.fill_between(
        places, baseline["asr_low"], baseline["asr_high"], step="mid", color="0.88", linewidth=0
    )
    axes.step(
        places, baseline["asr"], where="mid", color="0.45", linewidth=1, label="no cloak (baseline error)"
    )
    for number, ((attack, seed), colour) in enumerate(colours.items()):
        points = _by_channel(panel[(panel["attack"] == attack) & (panel["seed"] == seed)], channels)
        shift = 0.5 * ((number + 0.5) / len(colours) - 0.5)
        reach = [points["asr"] - points["asr_low"], points["asr_high"] - points["asr"]]
        axes.errorbar(
            places + shift,
            points["asr"],
            yerr=np.clip(np.array(reach), 0, None),
            fmt="o",
            markersize=3,
            elinewidth=1,
            color=colour,
            label=attack if seeds < 2 else f"{attack}, seed {seed}",
        )
    failed = panel[panel["status"] != "ok"]["attack"].unique()
    if len(failed):
        axes.text(0.02, 0.96, f"failed: {', '.join(failed)}", transform=axes.transAxes, va="top", color="0.3")
    # A long chain would take half the figure: one line a step.
    axes.set_xticks(places, [channel.replace("+", " +\n") for channel in channels], rotation=90)
    axes.set_ylim(-3, 103)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)


def _by_channel(rows: pd.DataFrame, channels: list[str]) -> pd.DataFrame:
    """Return rates in per cent, one row a channel in the order given, NaN where there is none."""
    rates = rows.set_index(rows["condition"].astype(str))[["asr", "asr_low", "asr_high"]]
    return 100 * rates.astype(float).reindex(channels)
