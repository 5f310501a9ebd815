"""Picture grid: original, cloak, difference, purified (and erased), with the tracker's answers under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from bench.analysis.results import Results
from bench.figures import WIDTHS, Drawing, FigureOptions, NotDrawableError, photo_columns, style, words
from bench.figures.photo_columns import CLOAK, ERASED, ORIGINAL, PURIFIED, Photos
from bench.figures.selection import NO_CLOAK, Selection, select
from bench.leaderboard.view import RunView
from bench.run.spec import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT, _GAP = 0.17, 0.05  # inches: names of identities, between photos
_LINE = 0.11  # inches of a line of an answer
_SIZE = style.TYPE_SIZE  # points of an answer
_LARGEST, _LARGE = 1.75, 1.35  # inches of a photo: at most, and in many rows


@dataclass(frozen=True)
class Answer:
    """The tracker's decision when its gallery holds photos of this kind.

    Attributes:
        right: probes of the identity, or comparisons with the photo, that are recognised.
        total: all of them.
        predicted: of the first one, the id it answers; "" where it refuses.
        own: whether that is the identity.
        score: of that answer, None where there was nothing to compare with.
        own_score: the identity's own best score, None where it is not known.
    """

    right: int
    total: int
    predicted: str
    own: bool
    score: float | None
    own_score: float | None

    def lines(self, room: float) -> list[str]:
        """Return what is written under the photo.

        Args:
            room: inches a line may be wide.
        """
        score = "" if self.score is None else _score(self.score)
        who = "itself" if self.own else self.predicted or "refused"
        if style.text_width(who, _SIZE) > room:
            who = "another"
        lines = [f"{who} {score}".strip()]
        if style.text_width(lines[0], _SIZE) > room:
            lines = [who, score]
        if not self.own and self.own_score is not None and self.predicted:
            lines.append(f"(itself {_score(self.own_score)})")
            if style.text_width(lines[-1], _SIZE) > room:
                lines[-1:] = ["(itself", f"{_score(self.own_score)})"]
        return [*lines, f"{self.right} of {self.total}"]


def _score(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def answer(results: Results, point: Cell, condition: str, identity: str, photo: str) -> Answer | None:
    """Return the tracker's answers about an identity while protected, None where the run has none.

    Args:
        results: of the run.
        point: the cell.
        condition: of the protocol.
        identity: identity id.
        photo: image id; where photos are compared one by one, only comparisons with it count.
    """
    rows = results.rows(point, condition)
    if rows is None:
        return None
    rows = rows[(rows["identity"] == identity) & rows["protected"]]
    with_photo = rows[rows["reference"] == photo]
    rows = with_photo if len(with_photo) else rows
    if rows.empty:
        return None
    first = rows.iloc[0]
    predicted = "" if pd.isna(first["predicted"]) else str(first["predicted"])
    score = None if pd.isna(first["score"]) else float(first["score"])
    own = predicted == identity
    known = score is not None and pd.notna(first["margin"]) and bool(predicted)
    return Answer(
        right=int(rows["correct"].sum()),
        total=len(rows),
        predicted=predicted,
        own=own,
        score=score,
        own_score=(score or 0.0) + float(first["margin"]) if known and not own else None,
    )


def source_of(title: str, cell: Cell, condition: str, conditions: Sequence[str]) -> tuple[Cell, str] | None:
    """Return whose decisions stand under a column: the cell and condition in which the gallery held such photos."""
    base = Cell(cell.attack, NO_CLOAK, cell.backbone, cell.head, cell.seed)
    if title == ORIGINAL:
        return base._replace(attack=NO_CLOAK), condition
    if title == CLOAK:
        return base, condition
    if title.partition(",")[0] == PURIFIED:  # each view that the defence keeps has a column
        return base._replace(defense=cell.defense), condition
    key = next((key for key, text in ERASED.items() if text == title), "")
    under = {"right": "right key", "wrong": "wrong key", "none": "no key"}.get(key, "")
    return (base, under) if under and under in conditions else None


def draw(view: RunView, options: FigureOptions) -> Drawing:
    """Return the grid, a row an identity.

    What the store no longer holds is computed again.

    Raises:
        NotDrawableError: the run has no attack that changes photos.
        UsageError: an option names what the run has not.
        DataError: the run's photos are not here.
    """
    from bench.run.planning import Options, prepare_again

    chosen = select(view, options)
    prepared = prepare_again(view.folder, Options(store=options.store, threads=options.threads))
    cell = photo_columns.choose_cell(
        list(prepared.nodes),
        chosen.attacks[0] if options.attack else None,
        chosen.defenses[-1] if options.defense else None,
        chosen.backbone,
        options.head,
    )
    if not prepared.run.attacks[cell.attack].changes_images:
        raise NotDrawableError(f"attack '{cell.attack}' changes no photo: there is nothing to show.")
    if prepared.run.attacks[cell.attack].edits_others:
        raise NotDrawableError(
            f"attack '{cell.attack}' makes decoys of people who are not evaluated: the run has no answers about them."
        )
    rows = photo_columns.choose_photos(prepared.run.split.cloaked, options.n_identities, options.identities)
    return paint(chosen, cell, photo_columns.collect(prepared, cell, rows, options.progress), options)


def paint(chosen: Selection, cell: Cell, photos: Photos, options: FigureOptions) -> Drawing:
    """Return the drawing of photos that were collected, with the run's answers under each."""
    results = chosen.view.results
    sources = {
        column.title: source_of(column.title, cell, chosen.condition, results.conditions())
        for column in photos.columns
    }
    found = {
        (row, title): answer(results, *source, identity, row)
        for row, identity in zip(photos.rows, photos.identities, strict=True)
        for title, source in sources.items()
        if source is not None
    }
    across, down = len(photos.columns), len(photos.rows)
    side = _side(WIDTHS[options.width], across, down)
    # With few columns the figure is narrower than requested, not blank on the right.
    width = min(WIDTHS[options.width], _LEFT + across * (side + _GAP))
    lines = {key: one.lines(side + _GAP / 2) for key, one in found.items() if one is not None}
    below = _LINE * max(map(len, lines.values()), default=0) + 0.06
    titles = [_title(column.title, side) for column in photos.columns]
    above = 0.07 + 0.12 * max(title.count("\n") + 1 for title in titles)
    height = above + down * (side + below)
    figure = style.new_figure(options, height)
    figure.set_layout_engine("none")
    figure.set_figwidth(width)
    for y, row in enumerate(photos.rows):
        for x, column in enumerate(photos.columns):
            left, top = _LEFT + x * (side + _GAP), above + y * (side + below)
            axes = figure.add_axes(
                (left / width, 1 - (top + side) / height, side / width, side / height),
                label=f"{row}|{column.title}",
            )
            _photo(axes, column.images[row].permute(1, 2, 0).numpy())
            if y == 0:
                axes.set_title(titles[x], loc="center")
            if x == 0:
                axes.set_ylabel(_cut(photos.identities[y], side + below - 0.1), fontsize=_SIZE, labelpad=1.5)
            text = "\n".join(lines.get((row, column.title), []))
            axes.set_xlabel(text, fontsize=_SIZE, labelpad=1.5, linespacing=1.05)
    drawn = [
        (photos.identities[photos.rows.index(row)], title, one) for (row, title), one in found.items() if one
    ]
    return Drawing(
        figure, "Photos and the tracker's answers", _caption(chosen, cell, sources), _alt(cell, drawn)
    )


def _side(width: float, across: int, down: int) -> float:
    """Return the inches of a photo: as wide as the columns allow, enlarged only where the rows still fit a page."""
    tall = (style.TALLEST - 0.35) / down - 5 * _LINE
    return min((width - _LEFT) / across - _GAP, _LARGEST, max(tall, _LARGE))


def _title(text: str, room: float) -> str:
    return text if style.text_width(max(text.split("\n"), key=len)) <= room else text.replace(" ×", "\n×")


def _cut(identity: str, room: float) -> str:
    """Return an id without its beginning where it is wider than `room` inches: its end tells identities apart."""
    text = identity
    while len(text) > 2 and style.text_width(text, _SIZE) > room:
        text = f"…{text.lstrip('…')[1:]}"
    return text


def _photo(axes: Axes, pixels: object) -> None:
    axes.imshow(pixels, interpolation="none")  # type: ignore[arg-type]  # an array of H×W×3 bytes
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _caption(chosen: Selection, cell: Cell, sources: dict[str, tuple[Cell, str] | None]) -> str:
    compared = any(
        rows is not None and rows["reference"].notna().any()
        for source in sources.values()
        if source is not None
        for rows in [chosen.view.results.rows(*source)]
    )
    what = (
        "Under each, the tracker's answer where it compares the photo above with the identity's "
        "first probe, its score, "
        "and how many of all comparisons with that photo it accepts."
        if compared
        else "Under each, the tracker's answer to the identity's first probe while its gallery holds its photos "
        "of that kind, its score, and how many of the identity's probes it recognises."
    )
    defended = "" if cell.defense == NO_CLOAK else f", purified by {cell.defense}"
    return words.joined(
        [
            f"Photos of {words.dataset(chosen)} cloaked by {cell.attack}{defended}; the difference is "
            f"enlarged {photo_columns.AMPLIFIED} times around grey.",
            what,
            "'Itself' is the identity of the row; another id is whom the tracker takes the identity "
            "for, with the identity's "
            "own best score in brackets; 'refused' is no answer.",
            f"Tracker {cell.backbone}, head {cell.head}, seed {cell.seed}, {words.place(chosen)}.",
        ]
    )


def _alt(cell: Cell, drawn: Sequence[tuple[str, str, Answer]]) -> str:
    totals: dict[str, list[int]] = {}
    for _, title, one in drawn:
        total = totals.setdefault(title.replace("\n", " "), [0, 0])
        total[0] += one.right
        total[1] += one.total
    told = ", ".join(f"{title} {right} of {total}" for title, (right, total) in totals.items())
    identities = len({identity for identity, _, _ in drawn})
    return (
        f"Photos of {words.counted(identities, 'identity', 'identities')}, cloaked by {cell.attack}. Recognised by "
        f"{cell.backbone}: {told or 'the run has no answers about them'}."
    )
