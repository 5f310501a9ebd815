"""The figure of a tracker run: every attack against every defence, as a map of rates.

What lives here: drawing, from a leaderboard alone. What must not: any measure (`bench.leaderboard` has them).
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.robustness_figure import save

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL, _ROW = 0.95, 0.5  # inches
_WRAP = 24
"""Characters of a method's name on one line."""


def matrix_figure(board: pd.DataFrame, path: Path) -> None:
    """Draw the mean ASR of every attack × defence over the run's trackers and seeds, one panel a head.

    Attack ``none`` is the baseline error. A pair with a failed or missing cell is NA, and so is one whose cells are
    partly white-box: the two are never averaged.

    Args:
        board: leaderboard of a run of protocol ``tracker`` (`bench.leaderboard.build`).
        path: file to write: ``.png``, ``.svg`` or ``.pdf``. The same board gives the same bytes.

    Raises:
        UsageError: another suffix, or several conditions.
    """
    save(draw, board, path)


def draw(board: pd.DataFrame) -> Figure:
    """Return the figure that `matrix_figure` writes.

    Raises:
        UsageError: the run has several conditions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(set(board["condition"])) > 1:
        raise UsageError("a map of attacks × defences needs a run of one condition; use protocol tracker.")
    heads = list(dict.fromkeys(board["head"]))
    attacks, defenses = (list(dict.fromkeys(board[axis])) for axis in ("attack", "defense"))
    size = (3 + _CELL * len(defenses), 1.6 + len(heads) * (0.5 + _ROW * len(attacks)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(heads), 1, sharex=True, squeeze=False)
    for axes, head in zip(grid[:, 0], heads, strict=True):
        _panel(axes, mean_rates(board[board["head"] == head], attacks, defenses))
        axes.set_title(f"head {head}", fontsize=9, loc="left")
    trackers = ", ".join(dict.fromkeys(board["backbone"].astype(str)))
    figure.suptitle(f"ASR in %, mean over {trackers}; attack none: baseline error", fontsize=9)
    return figure


def mean_rates(board: pd.DataFrame, attacks: list[str], defenses: list[str]) -> pd.DataFrame:
    """Return ASR in per cent, attacks × defences: mean over trackers and seeds; NaN where one is missing."""
    points = board[["backbone", "seed"]].drop_duplicates().shape[0]
    rates = board.assign(asr=100 * board["asr"].astype(float))
    means = rates.pivot_table("asr", "attack", "defense", aggfunc="mean")
    known = rates.pivot_table("asr", "attack", "defense", aggfunc="count")
    access = rates.pivot_table("access", "attack", "defense", aggfunc="nunique", dropna=False)
    alike = (known == points) & (access <= 1)
    whole: pd.DataFrame = means.where(alike).reindex(index=attacks, columns=defenses)
    return whole


def _panel(axes: Axes, rates: pd.DataFrame) -> None:
    import seaborn as sns

    texts = rates.map("{:.1f}".format).where(rates.notna(), "NA")
    # An empty cell is drawn as zero under its text NA, for seaborn leaves out the text of a masked one.
    sns.heatmap(
        rates.fillna(0.0),
        ax=axes,
        vmin=0,
        vmax=100,
        cmap="rocket_r",
        annot=texts,
        fmt="",
        annot_kws={"fontsize": 8},
        cbar=False,
        linewidths=0.5,
        linecolor="white",
        xticklabels=[_wrapped(name) for name in rates.columns],
        yticklabels=[_wrapped(name, 2 * _WRAP) for name in rates.index],
    )
    axes.set(xlabel="", ylabel="")
    axes.tick_params(labelsize=7, length=0)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", rotation=0)


def _wrapped(name: object, width: int = _WRAP) -> str:
    return "\n".join(textwrap.wrap(str(name).replace(",", ", "), width, break_on_hyphens=False))
