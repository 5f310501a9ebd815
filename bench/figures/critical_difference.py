"""Critical-difference diagram: mean ranks, with bars that join what are not significantly different (Demšar, 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.analysis.comparison_groups import EVERY, ComparisonGroup, comparison_groups
from bench.figures import WIDTHS, Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.selection import NO_CLOAK, Panel, Selection, select
from bench.leaderboard.view import RunView
from bench.stats.rankings import Ranked, Ranking, critical_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _BAR = 0.15, 0.07  # inches of a label's line and of a bar's
_TOP, _TITLE = 0.42, 0.2  # inches above the axis, and of a panel's title
_LEAST_AXIS = 1.3  # inches: below it labels stand on one side
_APART = 0.16  # inches between numbers of ranks


@dataclass(frozen=True)
class _Diagram:
    """One ranked comparison group.

    Attributes:
        panel: head and access.
        found: the comparison group.
        ranking: of its methods.
        methods: by mean rank, the best first.
    """

    panel: Panel
    found: ComparisonGroup
    ranking: Ranking
    methods: tuple[Ranked, ...]


def tie_groups(methods: Sequence[Ranked]) -> list[tuple[str, ...]]:
    """Return the sets of methods that share a letter, of two or more, in the order of the letters."""
    letters = sorted({letter for one in methods for letter in one.tie_group})
    groups = [tuple(one.method for one in methods if letter in one.tie_group) for letter in letters]
    return [group for group in groups if len(group) > 1]


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return a diagram of the defences, one panel a head and access; of the attacks where there is one defence.

    Bars are the tie groups of `stats.rankings`, which tests every pair; Nemenyi's critical difference is drawn above
    the axis for comparison.

    Raises:
        NotDrawableError: the run has no two methods to rank, or none of its comparison groups can be ranked.
    """
    chosen = select(view, options)
    diagrams = _diagrams(chosen)
    width = WIDTHS[options.width]
    margins = _margins(chosen, diagrams, width, sides=2)
    sides = 2 if width * (0.96 - sum(margins)) >= _LEAST_AXIS else 1
    if sides == 1:
        margins = _margins(chosen, diagrams, width, sides=1)
    heights = [_height(one, sides) + (_TITLE if len(diagrams) > 1 else 0) for one in diagrams]
    figure = style.new_figure(options, sum(heights))
    figure.set_layout_engine("none")
    reached = 0.0
    for one, height in zip(diagrams, heights, strict=True):
        reached += height
        box = (0, 1 - reached / sum(heights), 1, height / sum(heights))
        axes = figure.add_axes(box)
        _paint(axes, chosen, one, margins, height, sides)
        if len(diagrams) > 1:
            axes.text(
                0.01,
                1 - 0.04 / height,
                one.panel.title([d.panel for d in diagrams]),
                va="top",
                size=style.TITLE_SIZE,
            )
    return Drawing(
        figure,
        "Mean ranks and what is not significantly different",
        _caption(chosen, diagrams),
        _alt(diagrams),
    )


def _margins(
    chosen: Selection, diagrams: Sequence[_Diagram], width: float, *, sides: int
) -> tuple[float, float]:
    """Return what the labels on the left and on the right take of the width."""
    found: tuple[list[float], list[float]] = ([], [])
    for one in diagrams:
        half = -(-len(one.methods) // sides)
        for place, method in enumerate(one.methods):
            found[place >= half].append(style.text_width(_label(chosen, one, method)))
    left, right = ((max(side, default=0.0) + 0.1) / width for side in found)
    return left, right


def _diagrams(chosen: Selection) -> list[_Diagram]:
    if chosen.backbone is not None:
        raise NotDrawableError(
            "methods are ranked in the mean over trackers; leave --backbone out, or draw kind backbones."
        )
    axis = "defense" if len(chosen.view.results.values("defense")) > 1 else "attack"
    opponent = _opponent(chosen, axis)
    reasons = []
    found = []
    for one, ranking in _ranked(chosen, axis):
        if (one.axis, one.opponent, one.condition) != (
            axis,
            opponent,
            chosen.condition,
        ) or one.head not in chosen.heads:
            continue
        if len(ranking.methods) < 2:
            reasons.append(ranking.reason or "one method is no ranking")
            continue
        methods = tuple(sorted(ranking.methods, key=lambda method: (method.mean_rank, method.method)))
        found.append(_Diagram(Panel(one.head, one.access), one, ranking, methods))
    if not found:
        why = "; ".join(dict.fromkeys(reasons)) or f"nothing is ranked under condition '{chosen.condition}'"
        raise NotDrawableError(f"the run has no ranking of two methods or more: {why}.")
    return found


def _ranked(chosen: Selection, axis: str) -> Sequence[tuple[ComparisonGroup, Ranking]]:
    """Return the run's ranked comparison groups; defences are ranked without the attacks that adapt to some of them."""
    attacks = _averaged(chosen)
    if axis == "attack" or attacks == chosen.attacks or len(attacks) == 1:
        return chosen.view.ranked
    results = chosen.view.results
    cells = {point: cell for point, cell in results.cells.items() if point.attack in (*attacks, NO_CLOAK)}
    found = [
        one for one in comparison_groups(replace(results, cells=cells), "defense") if one.opponent == EVERY
    ]
    return [(one, one.rank(chosen.view.facts.spec.split_seed)) for one in found]


def _averaged(chosen: Selection) -> tuple[str, ...]:
    return chosen.averaged(chosen.view.results.values("defense"))


def _opponent(chosen: Selection, axis: str) -> str:
    if axis == "attack":
        return chosen.defenses[0]
    attacks = _averaged(chosen)
    if not attacks:
        raise NotDrawableError(
            "every attack of the run is adapted to one of its defences, so there is no common measure to rank them "
            "by. Name one attack with --attack, or add one that adapts to none."
        )
    return attacks[0] if len(attacks) == 1 else EVERY


def _height(one: _Diagram, sides: int) -> float:
    half = -(-len(one.methods) // sides)
    return _TOP + 0.12 + _BAR * len(tie_groups(one.methods)) + _LINE * half + 0.05


def _label(chosen: Selection, one: _Diagram, method: Ranked) -> str:
    names = chosen.short_defenses if one.found.axis == "defense" else chosen.short_attacks
    return f"{names[method.method]} {method.mean_rank:.2f}"


def _paint(
    axes: Axes,
    chosen: Selection,
    one: _Diagram,
    margins: tuple[float, float],
    height: float,
    sides: int,
) -> None:
    """Draw one diagram in axes of 0 … 1, `height` inches tall."""
    count = len(one.methods)
    inch = 1 / height
    y_axis = 1 - (height - _height(one, sides) + _TOP) * inch

    def at(rank: float) -> float:
        return margins[0] + 0.02 + (rank - 1) / (count - 1) * (0.96 - sum(margins))

    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    line: dict[str, Any] = {"color": "black", "linewidth": 0.7, "clip_on": False}
    axes.plot([at(1), at(count)], [y_axis] * 2, **line)
    apart = (at(2) - at(1)) * WIDTHS[chosen.options.width]
    every = max(1, math.ceil(_APART / apart))
    for rank in range(1, count + 1):
        axes.plot([at(rank)] * 2, [y_axis, y_axis + 0.04 * inch], **line)
        if (rank - 1) % every == 0:
            axes.text(at(rank), y_axis + 0.06 * inch, str(rank), ha="center", va="bottom")
    reach = critical_difference(count, len(one.found.rates))
    y_top = y_axis + 0.26 * inch
    end = min(1 + reach, count)
    axes.plot(
        [at(1), at(end)],
        [y_top] * 2,
        color=style.BASELINE,
        linewidth=0.9,
        marker="|",
        markersize=4,
        label="CD",
    )
    axes.text(at(end) + 0.015, y_top, f"CD {reach:.2f}", va="center", color=style.BASELINE)
    ranks = {method.method: method.mean_rank for method in one.methods}
    y = y_axis - 0.08 * inch
    for group in tie_groups(one.methods):
        own = [ranks[name] for name in group]
        axes.plot(
            [at(min(own)), at(max(own))],
            [y] * 2,
            color="black",
            linewidth=2.2,
            solid_capstyle="round",
            label="tied",
        )
        axes.plot([at(rank) for rank in own], [y] * len(own), "o", color="black", markersize=2.6)
        y -= _BAR * inch
    half = -(-count // sides)
    for place, method in enumerate(one.methods):
        left = place < half
        down = place if left else count - 1 - place
        y_label = y - (0.06 + _LINE * (down + 0.3)) * inch
        edge = margins[0] if left else 1 - margins[1]
        x = at(method.mean_rank)
        axes.plot([x, x, edge], [y_axis, y_label, y_label], color="0.35", linewidth=0.7, label=method.method)
        axes.text(
            edge + (-0.01 if left else 0.01),
            y_label,
            _label(chosen, one, method),
            ha="right" if left else "left",
            va="center_baseline",
        )


def _caption(chosen: Selection, diagrams: Sequence[_Diagram]) -> str:
    first = diagrams[0].found
    word = "defences" if first.axis == "defense" else "attacks"
    good = "a lower" if first.axis == "defense" else "a higher"
    against = f"under defence {first.opponent}"
    if first.axis == "defense":
        against = words.opponents(chosen, first.opponents)
    on = words.listed(first.backbones)
    friedman = [
        f"head {one.panel.head}: p {'< 0.0001' if p < 0.0001 else f'= {p:.4f}'}"
        for one in diagrams
        if one.ranking.omnibus is not None and (p := one.ranking.omnibus.p) is not None
    ]
    return words.joined(
        [
            f"Mean rank over identities of the {word}, {against}; 1 is the best, {good} attack "
            f"success rate ranks before.",
            words.left_out(chosen, chosen.view.results.values("defense")) if first.axis == "defense" else "",
            _made_against(chosen, first),
            words.measured(chosen, [len(one.found.rates) for one in diagrams]),
            f"Tracker: {on}."
            if len(first.backbones) == 1
            else f"Each identity's rate is the mean over the trackers {on}.",
            "Bars join methods that are not significantly different by sign-flip tests over "
            "identities, corrected by Holm; dots on a "
            "bar are its members."
            if any(tie_groups(one.methods) for one in diagrams)
            else "All methods are significantly different by sign-flip tests over identities, corrected by Holm.",
            f"Friedman's test: {'; '.join(friedman)}." if friedman else "",
            "CD: Nemenyi's critical difference of mean ranks at 5 %, for comparison with other papers.",
            words.full_names(chosen, defenses=first.axis == "defense"),
        ]
    )


def _made_against(chosen: Selection, first: ComparisonGroup) -> str:
    """Return the sentence that says where the one attack shown adapts to some of the methods ranked."""
    if first.axis == "attack":
        attacks = {
            a: kind
            for (a, d), kind in chosen.adapted.items()
            if d == first.opponent and a in first.rates.columns
        }
        return f"Adapted to this defence: {words.adapted_names(attacks)}." if attacks else ""
    defenses = {
        d: kind for (a, d), kind in chosen.adapted.items() if a == first.opponent and d in first.rates.columns
    }
    if not defenses:
        return ""
    return f"The attack is adapted to {words.adapted_names(defenses)}: no even match for the others."


def _alt(diagrams: Sequence[_Diagram]) -> str:
    parts = []
    for one in diagrams:
        ranks = ", ".join(f"{method.method} {method.mean_rank:.2f}" for method in one.methods)
        groups = tie_groups(one.methods)
        tied = (
            f"not significantly different: {'; '.join(words.listed(group) for group in groups)}"
            if groups
            else "all significantly different"
        )
        parts.append(f"Head {one.panel.head}, mean ranks: {ranks}; {tied}.")
    return f"Critical-difference diagram. {' '.join(parts)}"
