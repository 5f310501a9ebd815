"""Privacy against quality: attack success against what was done to the image, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bench.analysis.comparison_groups import EVERY, mean_rates
from bench.figures import WIDTHS, Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.selection import NO_CLOAK, Panel, Selection, select
from bench.leaderboard.view import RunView
from bench.randomness import numpy_generator
from bench.stats.significance import ALPHA, holm, paired_difference, resamples_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Side = Literal["cloak", "purified"]
SIDES: tuple[Side, ...] = ("cloak", "purified")

MEASURES: Mapping[str, tuple[str, str, bool]] = {
    "psnr": ("PSNR", ", dB", True),
    "ssim": ("SSIM", "", True),
    "lpips": ("LPIPS", "", False),
}
"""Measure → its name, its unit, and whether more is better."""

_POSSIBLE = {"psnr": (0.0, np.inf), "ssim": (-1.0, 1.0), "lpips": (0.0, np.inf)}

_HEIGHT = 1.85  # inches of a panel
_ACROSS = {"column": 2, "page": 3}


@dataclass(frozen=True)
class QualityPoint:
    """A method on a plane of quality and attack success.

    Attributes:
        name: canonical name of the attack, or of the defence.
        quality: measure → mean over the same cells as the rate, None where one has none.
        identities: how many were measured.
        asr: attack success rate in per cent.
        low: lower end of its interval, NaN where there is none.
        high: upper end.
        effective: of a cloak, whether its rate is significantly above that without any cloak; else it is on no front.
    """

    name: str
    quality: Mapping[str, float | None]
    identities: int
    asr: float
    low: float
    high: float
    effective: bool = True


def pareto(quality: Sequence[float], rate: Sequence[float], *, more: bool, higher: bool) -> list[int]:
    """Return which points no other beats, from the worst to the best quality.

    A point is beaten where another is as good in both and better in one.

    Args:
        quality: of the image.
        rate: attack success.
        more: whether more quality is better.
        higher: whether a higher rate is better (for whoever cloaks).
    """
    gains = np.column_stack(
        [(1 if more else -1) * np.asarray(quality), (1 if higher else -1) * np.asarray(rate)]
    )
    front = [
        place
        for place, own in enumerate(gains)
        if not any((other >= own).all() and (other > own).any() for other in gains)
    ]
    return sorted(front, key=lambda place: (gains[place, 0], -gains[place, 1]))


def points(chosen: Selection, panel: Panel, side: Side) -> list[QualityPoint]:
    """Return what is drawn of one side.

    Of cloaks: every attack with its rate under the defence requested, ``none`` without one. Of purified images:
    every defence that changes images, in the mean over the attacks shown.
    """
    if side == "cloak":
        defense = chosen.defenses[-1] if chosen.options.defense else chosen.defenses[0]
        rows = {name: ([name], defense, chosen.rate(panel, name, defense)) for name in chosen.attacks}
    else:
        rows = {
            name: (list(chosen.averaged(chosen.defenses)), name, over_attacks(chosen, panel, name))
            for name in chosen.defenses
            if name != NO_CLOAK
        }
    effective = effective_cloaks(chosen, panel, rows) if side == "cloak" else frozenset(rows)
    found = []
    for name, (attacks, defense, row) in rows.items():
        if pd.isna(row.get("asr")):
            continue
        quality = _quality(chosen, panel, attacks, defense, side, str(row["backbones"]).split("|"))
        if any(value is not None for value in quality.values()):
            asr, low, high = (
                100 * float(row[key]) if pd.notna(row[key]) else np.nan
                for key in ("asr", "asr_low", "asr_high")
            )
            found.append(
                QualityPoint(name, quality, int(row["n_identities"]), asr, low, high, name in effective)
            )
    return found


def effective_cloaks(
    chosen: Selection, panel: Panel, rows: Mapping[str, tuple[list[str], str, dict[str, Any]]]
) -> frozenset[str]:
    """Return the attacks whose rate is significantly above the error rate without any cloak there.

    By sign-flip tests over identities, corrected by Holm over the attacks shown.
    """
    results = chosen.view.results
    found = {}
    for name, (_, defense, row) in rows.items():
        trackers = str(row.get("backbones", "")).split("|")
        own, nothing = (
            mean_rates(
                results,
                [
                    point
                    for point in results.cells
                    if (point.attack, point.defense, point.head) == (attack, defense, panel.head)
                    and point.backbone in trackers
                ],
                chosen.condition,
                "asr",
            )
            for attack in (name, NO_CLOAK)
        )
        if len(own) and set(own.index) == set(nothing.index):
            rng = numpy_generator(
                chosen.view.facts.spec.split_seed, "quality", name, defense, panel.head, panel.access
            )
            found[name] = paired_difference(own, nothing, rng=rng, resamples=resamples_for(len(rows)))
    corrected = holm({name: one.p for name, one in found.items()})
    return frozenset(
        name
        for name, one in found.items()
        if (p := corrected[name]) is not None and p <= ALPHA and (one.first or 0.0) > (one.second or 0.0)
    )


def over_attacks(chosen: Selection, panel: Panel, defense: str) -> dict[str, Any]:
    """Return the row of a defence in the mean over the attacks it is compared over, {} where there is none."""
    attacks = chosen.averaged(chosen.defenses)
    if not attacks:
        return {}
    if len(attacks) == 1:
        return chosen.rate(panel, attacks[0], defense)
    table = chosen.averaged_table
    rows = table[
        (table["against"] == EVERY)
        & (table["defense"] == defense)
        & (table["head"] == panel.head)
        & (table["access"] == panel.access)
        & (table["condition"] == chosen.condition)
    ]
    return {} if rows.empty else {str(key): value for key, value in rows.iloc[0].items()}


def _quality(
    chosen: Selection, panel: Panel, attacks: Sequence[str], defense: str, side: Side, trackers: Sequence[str]
) -> dict[str, float | None]:
    """Return each measure's mean over cells, None where one of them has none."""
    leaderboard = chosen.leaderboard
    rows = leaderboard[
        leaderboard["attack"].isin(attacks)
        & (leaderboard["defense"] == defense)
        & (leaderboard["head"] == panel.head)
        & leaderboard["backbone"].isin(trackers)
        & (leaderboard["access"].replace("", "black-box") == panel.access)
    ]
    found: dict[str, float | None] = {}
    for measure in MEASURES:
        values = pd.to_numeric(rows[f"{side}_{measure}"], errors="coerce")
        found[measure] = None if values.isna().any() or values.empty else float(values.mean())
    return found


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return one panel a measure and side that the run has.

    Raises:
        NotDrawableError: the run has no attack, or no image was measured.
    """
    chosen = select(view, options)
    panel = next((one for one in chosen.panels if one.access == "black-box"), chosen.panels[0])
    found = {side: points(chosen, panel, side) for side in SIDES}
    sides = [side for side, own in found.items() if own]
    if not sides:
        raise NotDrawableError(
            "no image of the run was measured: its attacks change no photo and its defences purify none, or their "
            "cells failed, or every attack is adapted to a defence that it is compared over."
        )
    measures = {side: _measures(found[side]) for side in sides}
    across = {side: style.across(len(measures[side]), _ACROSS[options.width]) for side in sides}
    rows = {side: -(-len(measures[side]) // across[side]) for side in sides}
    short = {"cloak": chosen.short_attacks, "purified": chosen.short_defenses}
    legends = {side: [short[side][one.name] for one in found[side]] for side in sides}
    heights = [
        0.5 + _HEIGHT * rows[side] + style.legend_height(legends[side], WIDTHS[options.width])
        for side in sides
    ]
    figure = style.new_figure(options, min(sum(heights), style.TALLEST))
    parts = style.parts_of(figure, len(sides), height_ratios=heights)
    for part, side in zip(parts, sides, strict=True):
        grid = style.grid_of(part, len(measures[side]), across[side], sharey=True)
        looks = style.looks(chosen.attacks if side == "cloak" else chosen.defenses)
        looks = {one.name: looks[one.name] for one in found[side]}
        for place, (axes, measure) in enumerate(zip(grid, measures[side], strict=True)):
            _panel(axes, found[side], measure, looks, cloaks=side == "cloak")
            style.percent_axis(axes, label="ASR, %" if place % across[side] == 0 else "")
            word = "cloak" if side == "cloak" else "purified image"
            axes.set_xlabel(f"{MEASURES[measure][0]} of the {word}{MEASURES[measure][1]}")
        marks = style.marks(looks, short[side])
        if not style.legend_in_spare_place(part, grid, across[side], *marks, height=_HEIGHT - 0.4):
            style.legend_on_top(part, *marks, width=figure.get_figwidth())
    return Drawing(
        figure,
        "Privacy against image quality",
        _caption(chosen, panel, found, measures),
        _alt(chosen, found, measures),
    )


def _measures(found: Sequence[QualityPoint]) -> list[str]:
    return [name for name in MEASURES if any(one.quality[name] is not None for one in found)]


def _panel(
    axes: Axes, found: Sequence[QualityPoint], measure: str, looks: Mapping[str, style.Look], *, cloaks: bool
) -> None:
    known = [(one, one.quality[measure]) for one in found]
    drawn = [(one, value) for one, value in known if value is not None]
    effective = [(one, value) for one, value in drawn if one.effective]
    front = pareto(
        [v for _, v in effective], [one.asr for one, _ in effective], more=MEASURES[measure][2], higher=cloaks
    )
    x, y = (
        [effective[place][0].asr if rate else effective[place][1] for place in front]
        for rate in (False, True)
    )
    # Between two points of the front only the worse of each is reached; the rings are seen where it has one point.
    axes.step(
        x, y, where="pre", color="0.6", linestyle=(0, (4, 2)), linewidth=0.9, zorder=1, label="front line"
    )
    axes.plot(
        x, y, "o", markersize=8.5, markerfacecolor="none", markeredgecolor="0.45", zorder=1, label="front"
    )
    for one, value in drawn:
        style.with_intervals(
            axes, [value], [one.asr], ([one.low], [one.high]), looks[one.name], label=one.name
        )
    if not MEASURES[measure][2]:
        axes.invert_xaxis()
    axes.margins(x=0.12)
    style.within(axes, *_POSSIBLE[measure])
    missing = [one.name for one, value in known if value is None]
    style.note(axes, f"NA: {', '.join(missing)}" if missing else "")


def _caption(
    chosen: Selection,
    panel: Panel,
    found: Mapping[Any, Sequence[QualityPoint]],
    measures: Mapping[Any, Sequence[str]],
) -> str:
    defense = chosen.defenses[-1] if chosen.options.defense else chosen.defenses[0]
    under = "without a defence" if defense == NO_CLOAK else f"under defence {defense}"
    over = words.opponents(chosen, chosen.averaged(chosen.defenses))
    every = [one for own in found.values() for one in own]
    idle = [one.name for one in every if not one.effective]
    lacking = [name for name in MEASURES if not any(name in own for own in measures.values())]
    reason = chosen.view.facts.lpips_reason.rstrip(".")
    shown = {one.name for one in every}
    absent = [name for name in (*chosen.attacks, *chosen.defenses) if name not in {*shown, NO_CLOAK}]
    return words.joined(
        [
            f"Attack success rate (ASR) {under} against the quality of the cloak: up and right is better for whoever "
            "cloaks."
            if found["cloak"]
            else "",
            f"ASR after each defence, {over}, against the quality of the purified image: down and right is better for "
            "the tracker."
            if found["purified"]
            else "",
            "Quality is measured against the original, in the mean over changed images, and falls to the left.",
            "Ringed and dashed: the Pareto front, what no other beats in both.",
            f"Not on the front, since not significantly different from no cloak (p > {ALPHA} after "
            f"Holm): {words.listed(idle)}."
            if idle
            else "",
            _adapted(chosen, defense),
            words.left_out(chosen, chosen.defenses) if found["purified"] or chosen.adapted else "",
            words.measured(chosen, [one.identities for one in every]),
            f"Head {panel.head}.",
            words.mean_over(chosen, chosen.of_panel(panel)),
            words.INTERVALS,
            f"Not measured: {words.listed([name.upper() for name in lacking])} ({reason})."
            if lacking and reason
            else "",
            f"Left out, without a rate or an image that changed: {words.listed(absent)}." if absent else "",
            words.full_names(chosen),
        ]
    )


def _adapted(chosen: Selection, defense: str) -> str:
    """Return the sentence on attacks that adapt to a defence: shown without it, or against it."""
    if defense != NO_CLOAK:
        names = {a: kind for (a, d), kind in chosen.adapted.items() if d == defense and a in chosen.attacks}
        return f"Adapted to this defence: {words.adapted_names(names)}." if names else ""
    adapting = {attack for attack, _ in chosen.adapted}
    return "Cloaks made against a defence are shown without it." if adapting & set(chosen.attacks) else ""


def _alt(
    chosen: Selection, found: Mapping[Any, Sequence[QualityPoint]], measures: Mapping[Any, Sequence[str]]
) -> str:
    del chosen
    parts = []
    for side, own in found.items():
        if own:
            measure = measures[side][0]
            told = "; ".join(
                f"{one.name}: {one.asr:.1f} % at {MEASURES[measure][0]} {_text(one.quality[measure])}"
                for one in own
            )
            parts.append(f"{'Cloaks' if side == 'cloak' else 'Purified images'}: {told}.")
    return f"Scatter of attack success against image quality. {' '.join(parts)}"


def _text(value: float | None) -> str:
    return "NA" if value is None else f"{value:.3g}"
