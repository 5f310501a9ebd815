"""Cost: seconds per image of every attack and defence against the attack success rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bench.errors import DataError
from bench.figures import WIDTHS, Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.quality import over_attacks
from bench.figures.selection import NO_CLOAK, Panel, Selection, select
from bench.leaderboard.view import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 1.9  # inches of a panel
_ROOM = 1.6  # times the cheapest and the dearest that the axis goes on
_NAMED = ((10, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (100, (1.0, 2.0, 5.0)), (np.inf, (1.0,)))
"""How many times the cheapest the dearest is, at most → the parts of a decade that the axis names."""
_STAGES = {"attack": ("mask", "cloak"), "defense": ("purify",)}
"""Kind of method → the stages it works in; a mask is learnt, then laid on."""


@dataclass(frozen=True)
class CostPoint:
    """A method with what it costs.

    Attributes:
        name: canonical.
        seconds: per image, over all images that were computed for the run.
        asr: attack success rate in per cent.
        low: lower end of its interval, NaN where there is none.
        high: upper end.
    """

    name: str
    seconds: float
    asr: float
    low: float
    high: float


def read_timings(view: RunView) -> pd.DataFrame:
    """Return the run's ``timings.csv``: stage, method, artefacts, images, seconds, seconds_per_image.

    Raises:
        NotDrawableError: the run has none, or an empty one.
        DataError: it is damaged.
    """
    path = view.folder.path / "timings.csv"
    try:
        found = pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise NotDrawableError(
            "the run has no timings.csv; `bench run` with the same options writes it."
        ) from None
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path} is damaged: {error}.") from error
    if not {"stage", "method", "images", "seconds"} <= set(found.columns):
        raise DataError(f"{path} is damaged: it has the columns {', '.join(found.columns)}.")
    return found


def seconds_per_image(timings: pd.DataFrame, stages: Sequence[str], name: str) -> float | None:
    """Return a method's seconds an image, over all its helpers; None where it was never timed.

    Args:
        timings: as `read_timings` gives them.
        stages: in which it works, one after another on an image; the last one is there.
        name: canonical name; rows are named by it and, in brackets, the backbones that helped.
    """
    methods = timings["method"].astype(str)
    own = timings[(methods == name) | methods.str.startswith(f"{name} (")]
    total, images = 0.0, 0
    for stage in stages:
        rows = own[own["stage"] == stage]
        images = int(rows["images"].sum())
        total += float(rows["seconds"].sum()) / images if images else 0.0
    return total if images else None


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return two panels: attacks (rate without a defence) and defences (rate in the mean over attacks).

    Raises:
        NotDrawableError: the run has no attack, or no timings of its methods.
    """
    chosen = select(view, options)
    timings = read_timings(view)
    panel = next((one for one in chosen.panels if one.access == "black-box"), chosen.panels[0])
    found = {kind: _points(chosen, panel, timings, kind) for kind in _STAGES}
    kinds = [kind for kind, own in found.items() if own]
    if not kinds:
        raise NotDrawableError(
            "the run's timings.csv has no seconds of its attacks and purifiers: their artefacts were in no store when "
            "it was written."
        )
    across = len(kinds) if options.width == "page" else 1
    room = WIDTHS[options.width] / across
    short = {"attack": chosen.short_attacks, "defense": chosen.short_defenses}
    each = [
        0.45 + _HEIGHT + style.legend_height([short[kind][one.name] for one in found[kind]], room)
        for kind in kinds
    ]
    heights = [max(each)] if across > 1 else each
    figure = style.new_figure(options, min(sum(heights), style.TALLEST))
    parts = style.parts_of(figure, len(heights), across, height_ratios=heights)
    for part, kind in zip(parts, kinds, strict=True):
        axes = part.subplots()
        names = chosen.attacks if kind == "attack" else chosen.defenses
        every = style.looks(names)
        looks = {one.name: every[one.name] for one in found[kind]}
        _panel(axes, found[kind], looks)
        axes.set_xlabel(f"seconds per image, {'cloaking' if kind == 'attack' else 'purifying'}")
        style.legend_on_top(part, *style.marks(looks, short[kind]), width=room)
    return Drawing(figure, "Cost against attack success", _caption(chosen, panel, found), _alt(found))


def _points(chosen: Selection, panel: Panel, timings: pd.DataFrame, kind: str) -> list[CostPoint]:
    found = []
    for name in chosen.attacks if kind == "attack" else chosen.defenses:
        seconds = seconds_per_image(timings, _STAGES[kind], name)
        row = chosen.rate(panel, name, NO_CLOAK) if kind == "attack" else over_attacks(chosen, panel, name)
        if name == NO_CLOAK or not seconds or pd.isna(row.get("asr")):
            continue
        rates = (
            100 * float(row[key]) if pd.notna(row[key]) else np.nan for key in ("asr", "asr_low", "asr_high")
        )
        found.append(CostPoint(name, seconds, *rates))
    return found


def _panel(axes: Axes, found: Sequence[CostPoint], looks: dict[str, style.Look]) -> None:
    for one in found:
        style.with_intervals(
            axes, [one.seconds], [one.asr], ([one.low], [one.high]), looks[one.name], label=one.name
        )
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = min(one.seconds for one in found) / _ROOM, max(one.seconds for one in found) * _ROOM
    axes.set_xlim(low, high)
    # Over a decade or two its parts are named too.
    subs = next(own for times, own in _NAMED if high / low < times)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    style.percent_axis(axes)


def _caption(chosen: Selection, panel: Panel, found: dict[str, list[CostPoint]]) -> str:
    machine = chosen.view.folder.machine()
    where = machine.get("cuda_device") or machine.get("cpu_model") or machine.get("machine", "unknown")
    threads = words.counted(int(machine.get("threads") or 1), "thread")
    over = words.opponents(chosen, chosen.averaged(chosen.defenses))
    lacking = [
        name
        for kind, names in (("attack", chosen.attacks), ("defense", chosen.defenses))
        for name in names
        if name != NO_CLOAK and name not in {one.name for one in found[kind]}
    ]
    return words.joined(
        [
            "Attack success rate (ASR) against seconds per image, on a logarithmic scale.",
            "Attacks: rate without a defence." if found["attack"] else "",
            f"Defences: rate after each, {over}." if found["defense"] else "",
            words.left_out(chosen, chosen.defenses),
            f"Seconds are those of the artefacts in the run's timings.csv ({where}, {threads}), without training: wall "
            "time of this run on a machine that may have been shared, not a benchmark of speed.",
            words.measured(chosen, chosen.of_panel(panel)["n_identities"]),
            f"Head {panel.head}.",
            words.mean_over(chosen, chosen.of_panel(panel)),
            words.INTERVALS,
            f"Not timed, or without a rate: {words.listed(lacking)}." if lacking else "",
            words.full_names(chosen),
        ]
    )


def _alt(found: dict[str, list[CostPoint]]) -> str:
    parts = [f"{one.name}: {one.seconds:.2g} s, {one.asr:.1f} %" for own in found.values() for one in own]
    return f"Seconds per image and attack success rate. {'; '.join(parts)}."
