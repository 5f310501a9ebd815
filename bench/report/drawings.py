"""The figures of a report: every kind that the run can draw, and of the others why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.errors import BenchError
from bench.figures import KINDS, FigureOptions
from bench.leaderboard.names import NONE
from bench.leaderboard.view import RunView
from bench.report import phrases
from bench.report.document import Block, Bullets, Paragraph, Picture, Section
from bench.report.key_results import real
from bench.report.wording import count
from bench.run.planning import Options, prepare_again

_MADE_OF = frozenset({"fit", "mask", "cloak", "purify", "erase"})
"""Stages whose images a picture grid shows and that can take hours to compute again."""


MOST_PAIRS = 150
"""Attack × defence pairs that figures show together; of more, labels cover each other and lines are a tangle."""


def figures(view: RunView, names: Mapping[str, str]) -> Section:
    """Return the section of figures: one a kind, and the reasons why the other kinds cannot be drawn.

    Of a run of more than `MOST_PAIRS` pairs, figures show the attack that is strongest without a defence.

    Args:
        view: of the run.
        names: as for `FigureOptions`.
    """
    attacks, defenses = (real(view.results, axis) for axis in ("attack", "defense"))
    if len(attacks) * len(defenses) <= MOST_PAIRS:
        return Section("figures", "Figures", (), _drawn(view, FigureOptions(names=names)))
    strongest = _strongest(view)
    text = phrases.CROWDED.format(
        attacks=count(len(attacks), "attack"), defences=count(len(defenses), "defence"), attack=strongest
    )
    options = FigureOptions(names=names, attack=strongest)
    return Section("figures", "Figures", (Paragraph(text, "note"),), _drawn(view, options))


def _strongest(view: RunView) -> str:
    """Return the attack with the highest ASR without a defence, the first of the run where none has a rate."""
    rows = view.leaderboard
    own = rows[(rows["attack"] != NONE) & (rows["defense"] == NONE)]
    rates = own.groupby("attack", sort=False)["asr"].mean().dropna()
    return str(rates.idxmax()) if len(rates) else real(view.results, "attack")[0]


def _drawn(view: RunView, options: FigureOptions) -> tuple[Section, ...]:
    """Return a section a figure, and one with the reasons why the other kinds cannot be drawn."""
    found, missing = [], []
    for name, kind in KINDS.items():
        if kind.shows_photos:
            continue
        try:
            drawing = kind.draw(view, options)
        except BenchError as error:
            missing.append(f"`{name}`: {error}")
        else:
            found.append(Section(f"figure-{name}", drawing.title, (Picture(name, drawing),)))
    if missing:
        found.append(Section("not-drawn", "Kinds not drawn", (Bullets(tuple(missing)),)))
    return tuple(found)


def photos(view: RunView, wanted: bool, options: FigureOptions) -> Section:
    """Return the section of photos, or why there is none.

    Args:
        view: of the run.
        wanted: False: no photo is to be shown.
        options: with the store and the threads.
    """
    kinds = {name: kind for name, kind in KINDS.items() if kind.shows_photos}
    blocks: list[Block] = []
    if not wanted:
        blocks.append(
            Paragraph("Left out, as requested: this report shows no photo and names identities by their ids.")
        )
    elif reason := _cannot_be_shown(view, options.store, options.threads):
        blocks.append(Paragraph(reason))
    else:
        for name, kind in kinds.items():
            try:
                blocks.append(Picture(name, kind.draw(view, options), photos=True))
            except BenchError as error:
                blocks.append(Paragraph(f"The {name} cannot be drawn: {error}"))
    return Section(
        "photos", "Photos", tuple(blocks) or (Paragraph("There is no kind of figure that shows photos."),)
    )


def _cannot_be_shown(view: RunView, store: Path | None, threads: int | None) -> str:
    """Return why photos cannot be shown without computing for hours, or ""."""
    try:
        prepared = prepare_again(view.folder, Options(store=store, threads=threads))
    except BenchError as error:
        return f"The photos cannot be made again here: {error}"
    gone = sorted({node.stage for node in prepared.missing} & _MADE_OF)
    if not gone:
        return ""
    images = sum(node.images for node in prepared.missing if node.stage in _MADE_OF)
    return (
        f"The store no longer holds the images of this run ({images} would have to be computed again). Name the store "
        "the run was made with by `--store`, or draw them by `bench plot RUN grid`, which computes what is missing."
    )
