"""The share of probes that a smoothed tracker is certain to recognise, by the size of a change, beside real cloaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bench.figures import Drawing, FigureOptions, NotDrawableError, style, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 2.2  # inches
_DECADES = 2.0  # of radii below the largest one that are shown


def draw(curve: pd.DataFrame, cloaks: pd.DataFrame, options: FigureOptions) -> Drawing:
    """Return the certified curve with the L2 norms of real cloaks.

    Args:
        curve: as `bench.analysis.certificates.curve` returns it.
        cloaks: as `bench.analysis.certificates.cloak_sizes` returns them; may be empty.
        options: width and names.

    Raises:
        NotDrawableError: no probe is certified at any radius.
    """
    largest = float(curve["radius"].max())
    if not largest > 0:
        raise NotDrawableError(
            "no probe is certified at any radius, so there is no curve. Take more samples or another σ."
        )
    shown = cloaks.dropna()
    looks = style.looks(shown["attack"].unique())
    names = {attack: options.names.get(attack, attack) for attack in looks}
    with style.context():
        figure = style.new_figure(options, _HEIGHT)
        (axes,) = style.grid_of(figure, 1, 1)
        _curve(axes, curve)
        for row in shown.to_dict("records"):
            look = looks[row["attack"]]
            axes.axvspan(row["l2_min"], row["l2_max"], color=look.colour, alpha=0.15, linewidth=0)
            median = axes.axvline(row["l2_median"], color=look.colour, linestyle=look.line, linewidth=0.9)
            median.set_label(row["attack"])
        axes.set_xscale("log")
        most = max([largest, *shown["l2_max"]])
        axes.set_xlim(largest / 10**_DECADES, 1.3 * most)
        axes.set_xlabel("L2 norm of a change of each photo, pixels in [0, 1]")
        axes.set_ylim(0, 100)
        axes.set_ylabel("certified, %")
        axes.grid(axis="y")
        handles, labels = style.marks(looks, names, lines=True)
        for handle in handles:
            handle.set_marker("none")
        style.legend_on_top(figure, handles, [f"cloaks of {label}" for label in labels])
    return Drawing(
        figure, "Certified recognition by smoothing", _caption(curve, shown), _alt(curve, shown, largest)
    )


def _curve(axes: Axes, curve: pd.DataFrame) -> None:
    # Between two radii of the table the share at the larger one holds.
    radii = curve["radius"].to_numpy(dtype=float)
    low, high = (100 * curve[name].astype(float).to_numpy() for name in ("certified_low", "certified_high"))
    axes.fill_between(radii, low, high, step="pre", color="0.85", linewidth=0, label="interval")
    share = 100 * curve["certified"].to_numpy(dtype=float)
    axes.step(radii, share, where="pre", color="black", linewidth=1.1, label="certified")


def _caption(curve: pd.DataFrame, cloaks: pd.DataFrame) -> str:
    first = curve.iloc[0]
    return words.joined(
        [
            "Share of probes that the smoothed tracker is certain to recognise under every change of that norm to each "
            "of the identity's own gallery photos: a lower bound.",
            f"{words.counted(int(first['n_identities']), 'identity', 'identities')}, "
            f"{words.counted(int(first['n_probes']), 'probe')}.",
            "Grey: its 95 % interval over identities.",
            "Upright: median norm of the run's cloaks, shaded from the smallest to the largest; nothing is certified "
            "where they lie beyond the curve."
            if len(cloaks)
            else "",
        ]
    )


def _alt(curve: pd.DataFrame, cloaks: pd.DataFrame, largest: float) -> str:
    start = words.percent(curve["certified"].iloc[0])
    text = f"Certified share of probes: {start} at radius 0, falling to 0 at {largest:.2g}"
    sizes = [f"{row.attack} {row.l2_median:.2g}" for row in cloaks.itertuples()]
    return f"{text}; median norms of real cloaks: {', '.join(sizes)}." if sizes else f"{text}."
