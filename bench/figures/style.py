"""How every figure looks: colours, markers, hatches, type sizes, widths.

What lives here: what all kinds share, so that one method has one look in all figures of a run. What must not: what
is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from bench.figures import WIDTHS, FigureOptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TYPE_SIZE = 7.0
"""Points of most text at the figure's final size."""

TITLE_SIZE = 8.0
"""Points of a panel's title."""

TALLEST = 9.4
"""Inches: what fits on a page with its caption."""

_COLOURS = ("#0072B2", "#E69F00", "#007A5A", "#CC79A7", "#B34700", "#56B4E9", "#4D4D4D")
"""Okabe and Ito (2008) without yellow, which is lost on white; green, vermilion and black moved in lightness, so that
neighbours in the list differ in grey too."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LEGEND_LINE = 0.145  # inches
_LOWEST = 1.05  # inches of a panel that can still be read
_MANY_ROWS = 4.5  # inches that panels above each other share before they become lower

_MARKER, _LARGER, _FEW = 3.2, 4.2, 6
"""Points of a marker, of one where there are more series than `_FEW`: then the shape must be read."""

_LINES: Final = ("-", "--", "-.", ":")
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++")

BASELINE = "0.45"
"""Colour of the error rate without any cloak."""

PALE = "0.9"
"""Colour of grids and of cells without a number."""

HEAT = "magma_r"
"""Colour map of rates: perceptually uniform, lightness falls all the way, so it prints in grey."""

_RC: Mapping[str, Any] = {
    "font.family": "sans-serif",
    # Verdana has the same widths as DejaVu Sans, for those who open an SVG without it.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": TYPE_SIZE,
    "axes.titlesize": TITLE_SIZE,
    "axes.labelsize": TYPE_SIZE,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "xtick.labelsize": TYPE_SIZE,
    "ytick.labelsize": TYPE_SIZE,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": _MARKER,
    "hatch.linewidth": 0.5,
    "legend.fontsize": TYPE_SIZE,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.2,
    "mathtext.default": "regular",
    # Text stays text, in SVG and in PDF; ids come from what is drawn, not from chance.
    "svg.fonttype": "none",
    "svg.hashsalt": "cloakbench",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Look:
    """How one method is drawn.

    Attributes:
        colour: of lines and markers.
        marker: matplotlib's code.
        line: matplotlib's line style.
        hatch: of filled shapes.
        size: of markers, in points.
    """

    colour: str
    marker: str
    line: Literal["-", "--", "-.", ":"]
    hatch: str
    size: float = _MARKER

    def points(self, *, filled: bool = True) -> dict[str, Any]:
        """Return keywords of `Axes.plot` and `Axes.errorbar` for its points."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": self.size,
            "markerfacecolor": self.colour if filled else "white",
            "markeredgecolor": self.colour,
            "markeredgewidth": 0.8,
        }


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return a look for each name, in their order; of many, with larger markers.

    Markers and lines carry the difference: no two of the first nine have the same marker. Colours repeat from the
    eighth on, and in grey only neighbours are sure to differ by them.
    """
    unique = dict.fromkeys(names)
    size = _MARKER if len(unique) <= _FEW else _LARGER
    return {name: replace(look(number), size=size) for number, name in enumerate(unique)}


def look(number: int) -> Look:
    """Return the look of the series of this number, from 0."""
    return Look(
        _COLOURS[number % len(_COLOURS)],
        _MARKERS[number % len(_MARKERS)],
        _LINES[number % len(_LINES)],
        _HATCHES[number % len(_HATCHES)],
    )


@contextmanager
def context() -> Iterator[None]:
    """Set matplotlib up for drawing and for saving."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)  # type: ignore[arg-type]  # keys are its own
        yield


def new_figure(options: FigureOptions, height: float) -> Figure:
    """Return an empty figure of the width requested; axes and legends are kept apart as they are added.

    Args:
        options: with `FigureOptions.width`.
        height: inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTHS[options.width], height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.03)  # type: ignore[union-attr, call-arg]
    return figure


def legend_on_top(
    figure: Any, handles: Sequence[Any], labels: Sequence[str], width: float | None = None
) -> None:
    """Put one legend above all panels, in as many columns as fit.

    Args:
        figure: a figure or a part of one.
        handles: as `marks` gives them.
        labels: likewise.
        width: inches; of a whole figure it is known.
    """
    if not handles:
        return
    room = width or float(figure.get_figwidth())
    figure.legend(handles, labels, loc="outside upper left", ncols=_columns(labels, room))


def legend_height(labels: Sequence[str], width: float) -> float:
    """Return how many inches the lines of `legend_on_top` take beyond its first, in a room `width` inches wide."""
    return (-(-len(labels) // _columns(labels, width)) - 1) * _LEGEND_LINE if labels else 0.0


def _columns(labels: Sequence[str], room: float) -> int:
    each = [text_width(label) for label in labels]
    return next(n for n in range(len(labels), 0, -1) if n == 1 or _width(each, n) <= room)


def text_width(text: str, size: float = TYPE_SIZE) -> float:
    """Return how wide a text is drawn, in inches.

    Args:
        text: one line.
        size: points.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    found = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(found[0]) / 72


def _width(labels: Sequence[float], columns: int) -> float:
    """Return how many inches a legend is wide; it is filled column by column."""
    import numpy as np

    around = 0.45  # of a handle and the gaps on either side of it
    # matplotlib splits as numpy does: 4 labels in 3 columns are 2, 1 and 1.
    return sum(around + float(max(own)) for own in np.array_split(np.asarray(labels), columns))


def marks(
    rows: Mapping[str, Look], names: Mapping[str, str], *, lines: bool = False
) -> tuple[list[Any], list[str]]:
    """Return legend handles and labels of methods.

    Args:
        rows: name → look.
        names: name → what it is called in the figure.
        lines: draw the line through the marker.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle=one.line if lines else "none", **one.points()) for one in rows.values()
    ]
    return list(handles), [names[name] for name in rows]


def percent_axis(axes: Axes, label: str = "ASR, %") -> None:
    """Give the upright axis the range of a rate in per cent, and a grid; to be called when all is drawn.

    No rate lies beyond it; marks at its ends are drawn whole.
    """
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel(label)
    axes.grid(axis="y")
    unclip(axes)


def unclip(axes: Axes) -> None:
    """Draw marks at the ends of an axis whole, and above its line."""
    import numpy as np

    # What has no point would be laid out as if it were at the corner of the page.
    for artist in (*(line for line in axes.lines if np.size(line.get_xdata())), *axes.collections):
        artist.set_clip_on(False)
        artist.set_zorder(artist.get_zorder() + 1)


def within(axes: Axes, low: float, high: float) -> None:
    """Keep the level axis within what its values can be, whichever way it runs."""
    ends = [min(max(end, low), high) for end in axes.get_xlim()]
    axes.set_xlim(*ends)


def slant(axes: Axes, labels: Sequence[str], *, above_gap: bool = False) -> None:
    """Write the labels of the places 0, 1, … under an axis, slanted.

    Args:
        axes: where.
        labels: one a place.
        above_gap: there is no panel below: write into its room, so that the row below does not move down.
    """
    if above_gap:
        for place, text in enumerate(labels):
            axes.annotate(
                text,
                (place, 0),
                (0, -5),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="top",
                annotation_clip=False,
            ).set_in_layout(False)
        axes.set_zorder(1)
        return
    axes.set_xticks(range(len(labels)), list(labels), rotation=40, ha="right", rotation_mode="anchor")


def label_columns(grid: Sequence[Axes], across: int, labels: Sequence[str]) -> None:
    """Write the labels of the places 0, 1, … under the lowest panel of each column of `grid_of` with a shared axis.

    Args:
        grid: panels, row by row.
        across: panels of a row.
        labels: one a place.
    """
    for axes in grid:
        axes.set_xticks(range(len(labels)))
        axes.tick_params(labelbottom=False)
    last = (len(grid) - 1) // across * across
    for place in range(max(len(grid) - across, 0), len(grid)):
        above_gap = place < last
        grid[place].tick_params(labelbottom=not above_gap)
        slant(grid[place], labels, above_gap=above_gap)


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour in [0, 1] (WCAG 2.2): what is left of it in grey."""
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink_on(colour: str) -> str:
    """Return black or white, whichever has the higher contrast on a colour."""
    return "black" if luminance(colour) > 0.179 else "white"


def with_intervals(
    axes: Axes,
    x: Any,
    y: Any,
    ends: tuple[Any, Any],
    which: Look,
    *,
    label: str,
    along: Literal["x", "y"] = "y",
    filled: bool = True,
    joined: bool = False,
) -> None:
    """Draw points with their intervals; a point without an interval is drawn without a bar.

    Args:
        axes: where.
        x: places, or values where `along` is x.
        y: values, or places where `along` is x.
        ends: lower and upper ends of the intervals, NaN where there is none.
        which: look of the series.
        label: name of the series.
        along: axis of the values.
        filled: fill the markers.
        joined: join the points with the look's line.
    """
    import numpy as np

    values = np.asarray(y if along == "y" else x, dtype=float)
    low, high = (np.asarray(end, dtype=float) for end in ends)
    reach = np.nan_to_num(np.array([values - low, high - values]), nan=0.0).clip(min=0)
    axes.errorbar(
        x,
        y,
        **{f"{along}err": reach},
        **which.points(filled=filled),
        linestyle=which.line if joined else "none",
        elinewidth=0.9,
        capsize=1.5,
        capthick=0.9,
        label=label,
    )


def flag(axes: Axes, x: float, y: float, mark: str) -> None:
    """Write a mark to the upper right of a point; nothing where there is no mark, or no point."""
    if mark and y == y:  # noqa: PLR0124  # NaN
        axes.annotate(mark, (x, y), (1.5, 1.5), textcoords="offset points", fontsize=TYPE_SIZE)


def dodge(number: int, count: int, room: float = 0.6) -> float:
    """Return how far series `number` of `count` stands from its place, within ± `room` / 2."""
    return room * ((number + 0.5) / count - 0.5)


def note(axes: Axes, text: str) -> None:
    """Write what is missing into a corner of a panel."""
    if text:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}
        axes.text(
            0.03,
            0.97,
            text,
            transform=axes.transAxes,
            va="top",
            color="0.3",
            fontsize=TYPE_SIZE,
            bbox=box,
        )


def across(count: int, most: int, least: int | None = None) -> int:
    """Return how many of `count` panels stand side by side, so that few places of the grid stay empty.

    Args:
        count: panels.
        most: as many as there is room for.
        least: as few as may be; None: more than half of `most`.
    """
    most = min(most, count)
    least = most // 2 + 1 if least is None else least
    return min(range(least, most + 1), key=lambda one: (-count % one, -one))


def stacked(count: int, width: str, height: float, fixed: float) -> tuple[int, int, float]:
    """Return panels side by side, rows and a panel's height of a grid whose columns share their labels.

    No place is left empty where the rows then fit a page.

    Args:
        count: panels.
        width: ``column`` or ``page``.
        height: inches a panel has where there is room.
        fixed: inches of what else the figure holds.
    """
    room = TALLEST - fixed
    most = 2 if width == "page" else 1
    side = across(count, most, least=1)
    if room / -(-count // side) < _LOWEST:
        side = min(most, count)
    rows = -(-count // side)
    return side, rows, min(height, max(_MANY_ROWS / rows, _LOWEST), room / rows)


def grid_of(figure: Any, count: int, across: int, **shared: Any) -> list[Axes]:
    """Return `count` panels of a figure, `across` side by side, row by row; what is left over is not shown."""
    panels = figure.subplots(-(-count // across), across, squeeze=False, **shared).flatten()
    for spare in panels[count:]:
        spare.set_visible(False)
    return list(panels[:count])


def legend_in_spare_place(
    part: Any, grid: Sequence[Axes], across: int, handles: Sequence[Any], labels: Sequence[str], height: float
) -> bool:
    """Put a legend where `grid_of` left a place empty; return whether there was one with room for it.

    Args:
        part: a figure or a part of one, as wide as the whole.
        grid: its panels.
        across: panels of a row.
        handles: as `marks` gives them.
        labels: likewise.
        height: inches of a panel.
    """
    width = part.get_figure(root=True).get_figwidth() / across - 0.2
    fits = (len(labels) + 1) * _LEGEND_LINE <= height and max(map(text_width, labels)) + 0.5 <= width
    if not len(grid) % across or not fits:
        return False
    place = grid[-1].get_subplotspec()
    assert place is not None
    spare = part.add_subplot(place.get_gridspec()[place.rowspan.start, place.colspan.stop])
    spare.axis("off")
    spare.legend(handles, labels, loc="center left")
    return True


def parts_of(figure: Figure, rows: int, columns: int = 1, **shared: Any) -> list[Any]:
    """Return the parts of a figure, each with panels and a legend of its own, row by row."""
    import numpy as np

    found: Any = figure.subfigures(rows, columns, **shared)
    return list(np.atleast_1d(found).flatten())
