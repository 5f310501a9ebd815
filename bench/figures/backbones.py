"""Attack success on every tracker's backbone, attack by attack and defence by defence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bench.figures import WIDTHS, Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.selection import NO_CLOAK, Selection, select
from bench.leaderboard.names import NOTHING
from bench.leaderboard.view import RunView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 1.5  # inches of a panel
_ROOM = 0.7  # share of a place that the points of one backbone take


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return one panel an attack: a place a backbone, a point a defence, with the baseline error.

    Raises:
        NotDrawableError: the run has no attack, or one backbone.
    """
    chosen = select(view, options)
    backbones = view.results.values("backbone")
    if len(backbones) < 2:
        raise NotDrawableError(
            f"the run has one backbone, {backbones[0]}: there is nothing to compare. Add one with --backbone."
        )
    if chosen.backbone is not None:
        raise NotDrawableError("this kind shows every backbone beside the others; leave --backbone out.")
    names = max(len(name) for name in chosen.short_backbones.values())
    handles, labels = style.marks(looks := style.looks(chosen.defenses), chosen.short_defenses)
    labels.append(NOTHING["attack"])
    fixed = 0.4 + min(0.05 * names, 1.1) + style.legend_height(labels, WIDTHS[options.width])
    across, rows, height = style.stacked(len(chosen.attacks), options.width, _HEIGHT, fixed)
    figure = style.new_figure(options, fixed + height * rows)
    grid = style.grid_of(figure, len(chosen.attacks), across, sharex=True, sharey=True)
    for place, (axes, attack) in enumerate(zip(grid, chosen.attacks, strict=True)):
        _panel(axes, chosen, attack, backbones, looks)
        axes.set_title(chosen.short_attacks[attack])
        style.percent_axis(axes, label="ASR, %" if place % across == 0 else "")
    style.label_columns(grid, across, [chosen.short_backbones[name] for name in backbones])
    from matplotlib.lines import Line2D

    handles.append(Line2D([], [], color=style.BASELINE))
    style.legend_on_top(figure, handles, labels)
    return Drawing(figure, "Attack success by backbone", _caption(chosen), _alt(chosen))


def _panel(
    axes: Axes, chosen: Selection, attack: str, backbones: tuple[str, ...], looks: dict[str, style.Look]
) -> None:
    leaderboard = chosen.leaderboard
    own = leaderboard[(leaderboard["attack"] == attack) & (leaderboard["head"] == chosen.head)]
    missing = []
    # Seeds of a defence stand beside each other.
    series = [(defense, seed) for defense in looks for seed in dict.fromkeys(leaderboard["seed"])]
    half = min(0.42 * _ROOM / len(series), 0.08)
    for number, (defense, seed) in enumerate(series):
        look = looks[defense]
        rows = own[(own["defense"] == defense) & (own["seed"] == seed)]
        for row in rows.dropna(subset=["defended_baseline_error"]).itertuples(index=False):
            x = backbones.index(str(row.backbone)) + style.dodge(number, len(series), _ROOM)
            axes.plot(
                [x - half, x + half],
                [100 * float(row.defended_baseline_error)] * 2,
                color=style.BASELINE,
                linewidth=1.4,
                zorder=1,
                label=f"baseline|{row.backbone}|{defense}",
            )
        for white in (False, True):
            shown = rows[(rows["access"] == "white-box") == white].dropna(subset=["asr"])
            if shown.empty:
                continue
            places = [
                backbones.index(str(row.backbone)) + style.dodge(number, len(series), _ROOM)
                for row in shown.itertuples(index=False)
            ]
            values, low, high = (100 * pd.to_numeric(shown[name]) for name in ("asr", "asr_low", "asr_high"))
            style.with_intervals(
                axes, places, values, (low, high), look, label=f"{attack}|{defense}", filled=not white
            )
            for x, value in zip(places, values, strict=True):
                style.flag(axes, x, value, chosen.mark(attack, defense))
        for row in rows[rows["asr"].isna()].itertuples(index=False):
            word = "failed" if row.status == "failed" else "NA"
            missing.append(
                f"{chosen.short_defenses[defense]}, {chosen.short_backbones[str(row.backbone)]}: {word}"
            )
    style.note(axes, "\n".join(missing))
    axes.set_xlim(-0.6, len(backbones) - 0.4)


def _caption(chosen: Selection) -> str:
    rows = chosen.leaderboard[chosen.leaderboard["head"] == chosen.head]
    white = (rows["access"] == "white-box").any()
    return words.joined(
        [
            "Attack success rate (ASR) on every tracker's backbone, one panel an attack, one mark a defence.",
            words.measured(chosen, rows["n_identities"]),
            f"Head {chosen.head}.",
            words.INTERVALS,
            "Grey ticks: the error rate without any cloak, under the defence above or below.",
            words.adapted(chosen),
            "Hollow: white-box, the attack knew the backbone." if white else "",
            "Marks of one defence side by side are seeds." if len(set(rows["seed"])) > 1 else "",
            words.full_names(chosen, backbones=True),
        ]
    )


def _alt(chosen: Selection) -> str:
    rows = chosen.leaderboard[
        (chosen.leaderboard["head"] == chosen.head) & (chosen.leaderboard["defense"] == NO_CLOAK)
    ]
    parts = []
    for attack in chosen.attacks:
        own = rows[rows["attack"] == attack]
        seeds = len(set(own["seed"])) > 1
        told = ", ".join(
            f"{words.percent(row.asr)} on {row.backbone}{f' (seed {row.seed})' if seeds else ''}"
            for row in own.itertuples(index=False)
        )
        if told:
            parts.append(f"{attack} without a defence: {told}")
    return f"Attack success rates in per cent by backbone, head {chosen.head}. {'; '.join(parts)}."
