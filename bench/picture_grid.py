"""The picture grid of a run: what an attack made of some photos, and what was made of that.

What lives here: which artefacts of a run a grid shows, and drawing them. What must not: any measure. Photos come
out of the run's store, so a grid shows the very bytes that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench import stages
from bench.contracts import Purifier
from bench.errors import UsageError, unknown
from bench.graph import Executor, Node
from bench.robustness_figure import check_suffix
from bench.runner import Prepared
from bench.spec import Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AMPLIFIED = 10
"""Times a difference is enlarged to be seen."""

_SIDE = 1.15
"""Inches of a photo."""


@dataclass(frozen=True)
class Column:
    """One column of a grid.

    Attributes:
        title: what it shows.
        images: image id → 3×H×W uint8.
    """

    title: str
    images: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Grid:
    """Photos in rows.

    Attributes:
        title: what all of it is of.
        rows: image ids, top to bottom.
        people: the identity id of each row.
        columns: left to right; each has every row.
    """

    title: str
    rows: tuple[str, ...]
    people: tuple[str, ...]
    columns: tuple[Column, ...]


def choose_cell(prepared: Prepared, attack: str | None, defense: str | None, backbone: str | None) -> Cell:
    """Return the run's first cell with these methods; where none is named, with the first that is not ``none``.

    Raises:
        UsageError: the run, or what is left of it, has no such method; names those it has.
    """
    cells = list(prepared.nodes)
    for axis, name in (("attack", attack), ("defense", defense), ("backbone", backbone)):
        there = list(dict.fromkeys(getattr(cell, axis) for cell in cells))
        if name is not None and name not in there:
            raise unknown(f"{axis} of this run", name, there)
        wanted = name or next((one for one in there if one != "none"), there[0])
        cells = [cell for cell in cells if getattr(cell, axis) == wanted]
    return cells[0]


def choose_photos(cloaked: Mapping[str, Sequence[str]], people: int) -> dict[str, str]:
    """Return image id → identity id: the first cloaked photo of `people` people, evenly spread over all.

    Raises:
        UsageError: fewer than one is asked for.
    """
    if people < 1:
        raise UsageError(f"a grid needs 1 person or more, {people} were asked for.")
    owners = sorted(person for person, photos in cloaked.items() if photos)
    places = np.unique(np.linspace(0, len(owners) - 1, min(people, len(owners))).round().astype(int))
    return {cloaked[owners[place]][0]: owners[place] for place in places}


def collect(prepared: Prepared, cell: Cell, people: int, advance: Callable[[], None]) -> Grid:
    """Return the grid of a cell: original, cloak, difference, and what defence and key make of the cloak.

    What the store no longer holds is computed.

    Args:
        prepared: a run that was prepared again.
        cell: one of its cells, with an attack that changes photos.
        people: rows.
        advance: called once a column.

    Raises:
        UsageError: the cell's attack changes no photo.
        MethodError: something could not be made again.
    """
    run, pipeline = prepared.run, prepared.pipeline
    attack, defense = run.attacks[cell.attack], run.defenses[cell.defense]
    if not attack.changes_images:
        raise UsageError(f"attack '{cell.attack}' changes no photo: there is nothing to show.")
    chosen = choose_photos(run.split.cloaked, people)
    wanted = frozenset(chosen)
    executor = Executor(prepared.store)

    def photos(nodes: Sequence[Node]) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for node in nodes:
            pixels = stages.decode_pixels(executor.fetch(node)).only(wanted)
            found |= dict(zip(pixels.ids, pixels.images, strict=True))
        advance()
        return found

    point = (cell.attack, cell.backbone, cell.seed)
    originals = photos(pipeline.natural("gallery"))
    cloaks = pipeline.cloaks(*point, "gallery")
    # Photos the attack left alone were posted as they are.
    posted = originals | photos(cloaks)
    columns = [
        Column("original", originals),
        Column("cloak", posted),
        Column(f"difference ×{AMPLIFIED}", differences(originals, posted)),
    ]
    if isinstance(defense, Purifier) and defense.changes_images:
        own = (cell.defense, cell.backbone, cell.seed)
        # Photos the attack left alone go through the defence too.
        untouched = photos(pipeline.defended(*own, pipeline.natural("gallery")))
        columns.append(Column("purified", untouched | photos(pipeline.defended(*own, cloaks))))
    if attack.erasable:
        for key, title in (("right", "erased"), ("wrong", "erased,\nwrong key"), ("none", "erased,\nno key")):
            columns.append(Column(title, originals | photos(pipeline.erased(*point, "gallery", key))))
    title = f"{cell.attack} × {cell.defense} against {cell.backbone}, {run.spec.dataset}"
    return Grid(title, tuple(chosen), tuple(chosen.values()), tuple(columns))


def differences(
    originals: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return (changed − original) · `AMPLIFIED` around mid-grey, 3×H×W uint8 for each photo of `originals`."""
    return {
        name: (128 + AMPLIFIED * (changed[name].int() - image.int())).clamp(0, 255).to(torch.uint8)
        for name, image in originals.items()
    }


def save_grid(grid: Grid, path: Path) -> None:
    """Write a grid as ``.png``, ``.svg`` or ``.pdf``; the same grid gives the same bytes.

    Raises:
        UsageError: another suffix.
    """
    check_suffix(path)
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})
    draw(grid).savefig(path, dpi=150, metadata=metadata)


def draw(grid: Grid) -> Figure:
    """Return the figure of a grid: a row a person, a column a stage."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across, down = len(grid.columns), len(grid.rows)
    figure = Figure(figsize=(_SIDE * across + 0.9, _SIDE * down + 0.75), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(down, across, squeeze=False)
    for row, (name, person) in enumerate(zip(grid.rows, grid.people, strict=True)):
        for place, column in enumerate(grid.columns):
            axes[row][place].imshow(column.images[name].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row][place].set_xticks([])
            axes[row][place].set_yticks([])
            for spine in axes[row][place].spines.values():
                spine.set_visible(False)
        axes[row][0].set_ylabel(person, fontsize=6)
    for place, column in enumerate(grid.columns):
        axes[0][place].set_title(column.title, fontsize=7)
    figure.suptitle("\n".join(textwrap.wrap(grid.title, 20 * across)), fontsize=7)
    return figure
