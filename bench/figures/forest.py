"""Forest plot: by how much each defence changes the attack success rate, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.figures import Drawing, FigureOptions, NotDrawableError, style, words
from bench.figures.selection import NO_CLOAK, Panel, Selection, select
from bench.leaderboard.view import RunView
from bench.stats.significance import ALPHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 100.0  # points
_ROW, _TIGHT = 0.155, 0.125  # inches of a line, and where there are many


def differences(chosen: Selection) -> pd.DataFrame:
    """Return what is drawn, one row a difference, from the tested pairs of a run.

    Of defences: with the defence minus without, against each attack. Of a run without other defences: every pair of
    attacks, the more successful first.

    Returns:
        columns group (an attack, or the defence the attacks meet), label (canonical), head, access, difference, low
        and high (in percentage points), significant, n_identities, reason.
    """
    rows = _of_defenses(chosen)
    return rows if len(rows) else _of_attacks(chosen)


def _of_defenses(chosen: Selection) -> pd.DataFrame:
    pairs = chosen.pairs
    with_none = pairs[(pairs["first"] == NO_CLOAK) | (pairs["second"] == NO_CLOAK)]
    turned = with_none["first"] == NO_CLOAK
    other = with_none["first"].where(~turned, with_none["second"])
    found = _signed(with_none, turned).assign(group=with_none["against"], label=other)
    found = found[found["label"].isin(chosen.defenses)]
    order = {name: place for place, name in enumerate((*chosen.attacks, *chosen.defenses))}
    return found.sort_values(["group", "label"], key=lambda names: names.map(order), kind="stable")


def _of_attacks(chosen: Selection) -> pd.DataFrame:
    rows = chosen.pairs_of("attack", chosen.defenses)
    if chosen.options.attack is not None:
        rows = rows[(rows["first"] == chosen.attacks[0]) | (rows["second"] == chosen.attacks[0])]
    short = chosen.short_attacks
    labels = [f"{short[a]} − {short[b]}" for a, b in zip(rows["first"], rows["second"], strict=True)]
    return _signed(rows, pd.Series(data=False, index=rows.index)).assign(group=rows["against"], label=labels)


def _signed(rows: pd.DataFrame, turned: pd.Series[bool]) -> pd.DataFrame:
    """Return differences in percentage points, with the sign turned where requested."""
    sign = 1.0 - 2.0 * turned.astype(float)
    low, high = (rows[name].astype(float) for name in ("difference_low", "difference_high"))
    return pd.DataFrame(
        {
            **{name: rows[name] for name in ("head", "access", "n_identities", "reason")},
            "difference": 100 * sign * rows["difference"].astype(float),
            "low": 100 * (low.where(~turned, -high)),
            "high": 100 * (high.where(~turned, -low)),
            "significant": rows["significant"].astype(bool),
        }
    )


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return the differences with their 95 % intervals, one panel a head and access.

    Raises:
        NotDrawableError: the run has no attack, or no two methods that were tested against each other.
    """
    chosen = select(view, options)
    rows = differences(chosen)
    if chosen.backbone is not None:
        raise NotDrawableError(
            "pairs are tested in the mean over trackers; leave --backbone out, or draw kind backbones."
        )
    if rows.empty:
        raise NotDrawableError(
            "the run has no two defences, and no two attacks, that were tested against each other. "
            "Run it with --defense none and another."
        )
    groups = rows.groupby("group", sort=False)["label"].unique()
    lines: list[tuple[str, str | None]] = []
    for group, labels in groups.items():
        lines += [(str(group), None), *((str(group), str(label)) for label in labels)]
    panels = [Panel(*map(str, row)) for row in rows[["head", "access"]].drop_duplicates().to_numpy()]
    across = len(panels) if options.width == "page" else 1
    down = -(-len(panels) // across)
    each = _ROW if len(lines) * down * _ROW < style.TALLEST - 1 else _TIGHT
    figure = style.new_figure(options, 0.45 + down * (len(lines) * each + 0.35))
    grid = style.grid_of(figure, len(panels), across, sharey=True, sharex=True)
    looks = style.looks(chosen.attacks)
    for axes, panel in zip(grid, panels, strict=True):
        own = rows[(rows["head"] == panel.head) & (rows["access"] == panel.access)]
        _panel(axes, own, lines, looks)
        axes.set_title(panel.title(panels))
    for place, axes in enumerate(grid):
        if place % across == 0:
            _name_lines(axes, lines, chosen)
        if place >= len(grid) - across:
            axes.set_xlabel("difference in ASR, percentage points")
    return Drawing(figure, "Differences in attack success", _caption(chosen, rows), _alt(rows))


def _panel(
    axes: Axes, rows: pd.DataFrame, lines: list[tuple[str, str | None]], looks: dict[str, style.Look]
) -> None:
    plain = style.look(0)
    found: dict[tuple[str, str], Any] = {
        (str(row.group), str(row.label)): row for row in rows.itertuples(index=False)
    }
    for y, (group, label) in enumerate(lines):
        row = found.get((group, label or ""))
        if row is None:
            continue
        if pd.isna(row.difference):
            axes.text(0, y, "NA", ha="center", va="center", color="0.3")
            continue
        style.with_intervals(
            axes,
            [row.difference],
            [y],
            # No difference of two rates lies beyond 100 points, whatever its interval says.
            ([max(row.low, -_MOST)], [min(row.high, _MOST)]),
            looks.get(group, plain),
            label=f"{group}|{label}",
            along="x",
            filled=bool(row.significant),
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x")
    style.within(axes, -_MOST, _MOST)
    style.unclip(axes)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _name_lines(axes: Axes, lines: list[tuple[str, str | None]], chosen: Selection) -> None:
    names = {**chosen.short_defenses, **chosen.short_attacks}
    texts = [
        names[group] if label is None else f"{names.get(label, label)} {chosen.mark(group, label)} "
        for group, label in lines
    ]
    axes.set_yticks(range(len(lines)), texts)
    for text, (_, label) in zip(axes.get_yticklabels(), lines, strict=True):
        if label is None:
            text.set_fontweight("bold")


def _caption(chosen: Selection, rows: pd.DataFrame) -> str:
    of_defenses = set(rows["group"]) <= set(chosen.attacks)
    what = (
        "Attack success rate with each defence minus without, against each attack (bold): left of zero the defence "
        "helps."
        if of_defenses
        else "Attack success rate of one attack minus another's, under each defence (bold)."
    )
    return words.joined(
        [
            what,
            words.measured(chosen, rows["n_identities"]),
            words.mean_over(chosen, chosen.rates),
            "Bars are 95 % intervals over identities of that difference alone, not corrected for how many are shown.",
            f"Filled: significantly different from zero (p ≤ {ALPHA} after Holm over all pairs of the comparison, and "
            "Friedman's test over its methods); hollow: not, so a bar clear of zero can be hollow.",
            words.adapted(chosen) if of_defenses else "",
            "NA: a cell failed or identities are not independent." if rows["difference"].isna().any() else "",
            words.full_names(chosen),
        ]
    )


def _alt(rows: pd.DataFrame) -> str:
    known = rows.dropna(subset=["difference"])
    if known.empty:
        return "A forest plot without a single difference: no pair could be tested."
    ordered = known.sort_values("difference", kind="stable")
    first, last = ordered.iloc[0], ordered.iloc[-1]
    apart = int(known["significant"].sum())

    def said(row: pd.Series[Any]) -> str:
        return f"{row['difference']:+.1f} points ({row['label']}, {row['group']}, head {row['head']})"

    return (
        f"Forest plot of {len(known)} differences, {apart} of them significantly different from zero; they lie between "
        f"{said(first)} and {said(last)}."
    )
