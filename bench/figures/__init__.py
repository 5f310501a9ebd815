"""Figures of a finished run, one file a kind.

What lives here: drawing, from a `RunView` alone. What must not: any measure or test; those are in the leaderboard
and in the tables of significance. A kind is a module with a function ``draw(view, options) -> Drawing`` and a line
in `KINDS`; the command, the report and the tests find it there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.leaderboard.view import RunView

WIDTHS: Mapping[str, float] = {"column": 3.5, "page": 7.2}
"""Inches of a figure that fills one column, and both, of a two-column paper."""


@dataclass(frozen=True)
class FigureOptions:
    """What to draw of a run; what is None is chosen from the run.

    Attributes:
        width: ``column`` or ``page``.
        attack: canonical name of the attack drawn.
        defense: canonical name of the defence drawn.
        backbone: canonical name of the tracker's backbone.
        head: the tracker's head.
        condition: which of the protocol's questions.
        n_identities: rows of a picture grid.
        identities: identity ids of the rows instead, () to spread them evenly over all.
        store: folder of artefacts, for kinds that show photos.
        threads: threads torch computes with, for kinds that show photos.
        names: canonical name of a method → its label, as `bench.leaderboard.names.labels` gives them.
        progress: called with the number of images that must be computed, before they are; gives a context whose
            value is called with the number of images that are ready. None shows nothing.
    """

    width: Literal["column", "page"] = "page"
    attack: str | None = None
    defense: str | None = None
    backbone: str | None = None
    head: str | None = None
    condition: str | None = None
    n_identities: int = 6
    identities: tuple[str, ...] = ()
    store: Path | None = None
    threads: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure with its words.

    Attributes:
        figure: what was drawn.
        title: a heading, in a few words.
        caption: what is shown, of how many identities, what bars and marks mean; whole sentences, as under a figure.
        alt: what the figure shows, for those who cannot see it.
    """

    figure: Figure
    title: str
    caption: str
    alt: str


class NotDrawableError(UsageError):
    """The run lacks what a kind of figure shows; the message names it."""


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes:
        module: where its ``draw`` is.
        summary: what it shows, one line for ``--help``.
        shows_photos: it shows photos of identities, and needs the run's store.
    """

    module: str
    summary: str
    shows_photos: bool = False

    def draw(self, view: RunView, options: FigureOptions) -> Drawing:
        """Return the figure of a run.

        Raises:
            NotDrawableError: the run has not what this kind shows.
            UsageError: an option names what the run has not.
        """
        from bench.figures import style

        found = cast("Callable[[RunView, FigureOptions], Drawing]", importlib.import_module(self.module).draw)
        with style.context():
            return found(view, options)


KINDS: Mapping[str, Kind] = {
    "heatmap": Kind("bench.figures.heatmap", "attack success of every attack against every defence"),
    "slopes": Kind(
        "bench.figures.slopes", "attack success without and with each defence, one line an attack"
    ),
    "forest": Kind("bench.figures.forest", "by how much each defence changes attack success, with intervals"),
    "critical-difference": Kind(
        "bench.figures.critical_difference",
        "mean ranks of the defences, and which are not significantly different",
    ),
    "quality": Kind("bench.figures.quality", "attack success against image quality, with the Pareto front"),
    "backbones": Kind("bench.figures.backbones", "attack success on every tracker's backbone"),
    "robustness": Kind("bench.figures.robustness", "attack success after each channel (protocol robustness)"),
    "identities": Kind("bench.figures.identities", "attack success of every identity, by defence"),
    "cost": Kind("bench.figures.cost", "seconds per image against attack success"),
    "grid": Kind(
        "bench.figures.grid",
        "photos: original, cloak, difference, purified, with the tracker's answers",
        shows_photos=True,
    ),
}
"""Every kind by its name, in the order of a report."""


def kind(name: str) -> Kind:
    """Return a kind by its name.

    Raises:
        UsageError: there is no such kind; names those there are.
    """
    if name not in KINDS:
        raise unknown("kind of figure", name, KINDS, "See `bench plot --help`.")
    return KINDS[name]
