"""Robustness curves: how much of each cloak is left after each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bench.figures import Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.selection import NO_CLOAK, Selection, select
from bench.leaderboard.names import NOTHING, explained, short_names
from bench.leaderboard.view import RunView
from bench.plugins import syntax

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROTOCOL = "robustness"

_HEIGHT = 1.35  # inches of a panel
_ROOM = 0.5  # share of a place that the points of one channel take


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return the rate after each channel, one panel a backbone, head and defence, in the protocol's order.

    Channels of one method (``jpeg`` of several qualities) are joined by a line. The grey band is the interval of
    attack ``none``, its line the error rate without any cloak there.

    Raises:
        NotDrawableError: the run is of another protocol, has no attack or one channel only.
    """
    protocol = view.facts.spec.protocol
    if syntax.parse(protocol).name != PROTOCOL:
        raise NotDrawableError(
            f"curves over channels need a run of protocol {PROTOCOL}, this run has protocol {protocol}."
        )
    chosen = select(view, options)
    channels = view.results.conditions()
    if len(channels) < 2:
        raise NotDrawableError(
            f"a figure over channels needs 2 channels or more, this run has {len(channels)} "
            f"({', '.join(map(repr, channels))}). Run protocol {PROTOCOL} with several."
        )
    panels = _panels(chosen)
    # A chain of channels is written without spaces; names are shortened as those of a chain of defences.
    spaced = {channel: channel.replace("+", " + ") for channel in channels}
    shorter = short_names(list(spaced.values()))
    short = {channel: shorter[text] for channel, text in spaced.items()}
    names = max(map(len, short.values()))
    figure = style.new_figure(options, 0.35 + _HEIGHT * len(panels) + min(0.06 * names, 1.3))
    grid = style.grid_of(figure, len(panels), 1, sharex=True, sharey=True)
    looks = style.looks(chosen.attacks)
    for axes, panel in zip(grid, panels, strict=True):
        _panel(axes, _rows_of(chosen, panel), channels, looks, chosen.short_attacks)
        axes.set_title(_title(chosen, panel))
        style.percent_axis(axes)
    grid[-1].set_xticks(range(len(channels)), [short[name] for name in channels], rotation=90)
    handles, labels = style.marks(looks, chosen.short_attacks, lines=True)
    from matplotlib.lines import Line2D

    handles.append(Line2D([], [], color=style.BASELINE, linewidth=0.9))
    style.legend_on_top(figure, handles, [*labels, NOTHING["attack"]])
    caption = _caption(chosen, [_rows_of(chosen, panel) for panel in panels], channels, short)
    return Drawing(figure, "Attack success after each channel", caption, _alt(chosen, channels))


def _panels(chosen: Selection) -> list[tuple[str, str, str]]:
    """Return each backbone, head and defence with decisions, in the run's order."""
    found = dict.fromkeys(
        (point.backbone, point.head, point.defense)
        for point in chosen.view.results.cells
        if point.head in chosen.heads
        and point.defense in chosen.defenses
        and chosen.backbone in (None, point.backbone)
    )
    if chosen.options.defense is not None:
        return [panel for panel in found if panel[2] == chosen.defenses[-1]]
    return list(found)


def _title(chosen: Selection, panel: tuple[str, str, str]) -> str:
    backbone, head, defense = panel
    defended = "" if defense == NO_CLOAK else f", {chosen.short_defenses[defense]}"
    return f"{chosen.short_backbones[backbone]}, head {head}{defended}"


def _rows_of(chosen: Selection, panel: tuple[str, str, str]) -> pd.DataFrame:
    leaderboard = chosen.view.leaderboard
    return leaderboard[
        (leaderboard["backbone"] == panel[0])
        & (leaderboard["head"] == panel[1])
        & (leaderboard["defense"] == panel[2])
        & leaderboard["attack"].isin((*chosen.attacks, NO_CLOAK))
    ]


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    channels: Sequence[str],
    looks: dict[str, style.Look],
    short: dict[str, str],
) -> None:
    places = np.arange(len(channels))
    seeds = list(dict.fromkeys(rows["seed"]))
    baseline = _by_channel(rows[(rows["attack"] == NO_CLOAK) & (rows["seed"] == seeds[0])], channels)
    axes.fill_between(
        places,
        baseline["asr_low"],
        baseline["asr_high"],
        step="mid",
        color="0.85",
        linewidth=0,
        label="baseline interval",
    )
    axes.step(places, baseline["asr"], where="mid", color=style.BASELINE, linewidth=0.9, label=NO_CLOAK)
    series = [(attack, seed) for attack in looks for seed in seeds]
    missing = []
    for number, (attack, seed) in enumerate(series):
        own = rows[(rows["attack"] == attack) & (rows["seed"] == seed)]
        points = _by_channel(own, channels)
        shift = style.dodge(number, len(series), _ROOM)
        ends = (points["asr_low"], points["asr_high"])
        white = bool((own["access"] == "white-box").any())
        style.with_intervals(
            axes,
            places + shift,
            points["asr"],
            ends,
            looks[attack],
            label=f"{attack}|{seed}",
            filled=not white,
        )
        for first, last in families(channels):
            axes.plot(
                places[first:last] + shift,
                points["asr"][first:last],
                color=looks[attack].colour,
                linestyle=looks[attack].line,
                linewidth=0.8,
                label="family",
            )
        if (own["status"] != "ok").any():
            missing.append(f"{short[attack]}: failed")
    style.note(axes, "\n".join(missing))
    axes.set_xlim(-0.6, len(channels) - 0.4)


def families(channels: Sequence[str]) -> list[tuple[int, int]]:
    """Return where neighbours are of one method with several parameters, as half-open ranges."""
    names = [channel.partition(":")[0] if "+" not in channel else channel for channel in channels]
    found = []
    start = 0
    for place in range(1, len(names) + 1):
        if place == len(names) or names[place] != names[start]:
            if place - start > 1:
                found.append((start, place))
            start = place
    return found


def _by_channel(rows: pd.DataFrame, channels: Sequence[str]) -> pd.DataFrame:
    """Return rates in per cent, one row a channel in the order given, NaN where there is none."""
    rates = rows.set_index(rows["condition"].astype(str))[["asr", "asr_low", "asr_high"]]
    return 100 * rates.astype(float).reindex(list(channels))


def _caption(
    chosen: Selection, panels: Sequence[pd.DataFrame], channels: Sequence[str], short: dict[str, str]
) -> str:
    rows = pd.concat(panels)
    spec = chosen.view.facts.spec
    counts = sorted({int(n) for n in rows["n_identities"].dropna()})
    return words.joined(
        [
            "Attack success rate (ASR) after each channel, one panel a tracker; channels of one method are joined.",
            f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} identities of "
            f"{words.dataset(chosen)}, protocol {spec.protocol}."
            if counts
            else "",
            words.INTERVALS,
            "Grey: the error rate without any cloak, with its interval.",
            "Hollow: white-box, the attack knew the tracker's backbone."
            if (rows["access"] == "white-box").any()
            else "",
            "Marks of one attack side by side are seeds." if len(set(rows["seed"])) > 1 else "",
            words.full_names(chosen, backbones=True),
            explained(channels, short),
        ]
    )


def _alt(chosen: Selection, channels: Sequence[str]) -> str:
    panel = _panels(chosen)[0]
    rows = _rows_of(chosen, panel)
    parts = []
    for attack in chosen.attacks:
        points = _by_channel(
            rows[(rows["attack"] == attack) & (rows["seed"] == rows["seed"].min())], channels
        )
        known = points["asr"].dropna()
        if len(known):
            parts.append(
                f"{attack} between {known.min():.1f} % ({known.idxmin()}) and {known.max():.1f} % ({known.idxmax()})"
            )
    return f"Attack success after {len(channels)} channels, tracker {panel[0]}: {'; '.join(parts) or 'all failed'}."
