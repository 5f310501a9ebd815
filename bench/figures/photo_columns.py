"""Photos of a run for a picture grid: what an attack made of some, and what was made of that.

What lives here: which artefacts of a run a grid shows. What must not: drawing, or any measure. Photos come out of
the run's store, so a grid shows the very bytes that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from bench.errors import UsageError, unknown
from bench.faces import pixels as faces_pixels
from bench.plugins import factory
from bench.run.graph import Executor, Node, missing
from bench.run.planning import Prepared
from bench.run.spec import Cell

AMPLIFIED = 10
"""Times a difference is enlarged to be seen."""

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Images to compute → a context whose value is called with how many are ready."""

ORIGINAL, CLOAK, PURIFIED = "original", "cloak", "purified"
_UNTOUCHED = " originals"
"""Behind the title of a column of purified cloaks: the purified photos that the attack left alone."""

ERASED: Mapping[str, str] = {
    "right": "erased,\nright key",
    "wrong": "erased,\nwrong key",
    "none": "erased,\nno key",
}
"""Key → title of the column."""


@dataclass(frozen=True)
class PhotoColumn:
    """One column of a grid.

    Attributes:
        title: what it shows.
        images: image id → 3×H×W uint8.
    """

    title: str
    images: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Photos:
    """Photos in rows.

    Attributes:
        rows: image ids, top to bottom.
        identities: the identity id of each row.
        columns: left to right; each has every row.
    """

    rows: tuple[str, ...]
    identities: tuple[str, ...]
    columns: tuple[PhotoColumn, ...]


def choose_cell(
    cells: Sequence[Cell], attack: str | None, defense: str | None, backbone: str | None, head: str | None
) -> Cell:
    """Return the first cell with these methods; where none is named, with the first that is not ``none``.

    Raises:
        UsageError: the cells, or what is left of them, have no such method; names those there are.
    """
    left = list(cells)
    for axis, name in (("attack", attack), ("defense", defense), ("backbone", backbone), ("head", head)):
        there = list(dict.fromkeys(getattr(cell, axis) for cell in left))
        if name is not None and name not in there:
            raise unknown(f"{axis} of this run", name, there)
        wanted = name or next((one for one in there if one != "none"), there[0])
        left = [cell for cell in left if getattr(cell, axis) == wanted]
    return left[0]


def choose_photos(
    cloaked: Mapping[str, Sequence[str]], identities: int, named: Sequence[str] = ()
) -> dict[str, str]:
    """Return image id → identity id: the first cloaked photo of each identity shown.

    Args:
        cloaked: identity id → ids of photos that are cloaked.
        identities: how many to show, evenly spread over all.
        named: show these instead, in this order.

    Raises:
        UsageError: fewer than one is requested, or an identity has no cloaked photo in the run.
    """
    owners = sorted(identity for identity, photos in cloaked.items() if photos)
    if named:
        for identity in named:
            if identity not in owners:
                raise unknown("identity of this run", identity, owners)
        return {cloaked[identity][0]: identity for identity in dict.fromkeys(named)}
    if identities < 1:
        raise UsageError(f"a grid needs 1 identity or more, {identities} were requested.")
    places = np.unique(np.linspace(0, len(owners) - 1, min(identities, len(owners))).round().astype(int))
    return {cloaked[owners[place]][0]: owners[place] for place in places}


def collect(
    prepared: Prepared, cell: Cell, chosen: Mapping[str, str], progress: Progress | None = None
) -> Photos:
    """Return the photos of a cell: original, cloak, difference, and what defence and key make of the cloak.

    What the store no longer holds is computed.

    Args:
        prepared: a run that was prepared again.
        cell: one of its cells, with an attack that changes photos.
        chosen: image id → identity id of each row.
        progress: see `bench.figures.FigureOptions.progress`.

    Raises:
        UsageError: the cell's attack changes no photo.
        MethodError: something could not be made again.
    """
    wanted = frozenset(chosen)
    nodes = _nodes(prepared, cell, wanted)
    todo = missing(prepared.store, (one for own in nodes.values() for one in own))
    with (progress or _unseen)(sum(node.images for node in todo)) as advance:
        executor = Executor(prepared.store, prepared.machine, lambda _node, count: advance(count))
        made = {name: _photos(executor, own, wanted) for name, own in nodes.items()}
    originals = made[ORIGINAL]
    # Photos the attack left alone were posted as they are.
    posted = originals | made[CLOAK]
    columns = [
        PhotoColumn(ORIGINAL, originals),
        PhotoColumn(CLOAK, posted),
        PhotoColumn(f"difference ×{AMPLIFIED}", differences(originals, posted)),
    ]
    # Photos the attack left alone go through the defence too.
    columns += [
        PhotoColumn(title, made[title + _UNTOUCHED] | made[title])
        for title in made
        if title + _UNTOUCHED in made
    ]
    columns += [PhotoColumn(title, originals | made[title]) for title in ERASED.values() if title in made]
    return Photos(tuple(chosen), tuple(chosen.values()), tuple(columns))


def _nodes(prepared: Prepared, cell: Cell, wanted: frozenset[str]) -> dict[str, list[Node]]:
    """Return title → the artefacts that hold the photos wanted."""
    run, pipeline = prepared.run, prepared.pipeline
    attack, defense = run.attacks[cell.attack], run.defenses[cell.defense]
    if not attack.changes_images:
        raise UsageError(f"attack '{cell.attack}' changes no photo: there is nothing to show.")
    point = (cell.attack, cell.backbone, cell.seed)
    natural, cloaks = pipeline.natural("gallery"), pipeline.cloaks(*point, "gallery")
    found: dict[str, tuple[Node, ...]] = {ORIGINAL: natural, CLOAK: cloaks}
    own = (cell.defense, cell.backbone, cell.seed)
    seen = (pipeline.defended(*own, of) for of in (natural, cloaks))
    for purifier, *views in zip(
        defense.purifiers, *seen, strict=False
    ):  # a defence without any leaves photos alone
        if purifier.changes_images:
            several = len(defense.purifiers) > 1
            title = f"{PURIFIED},\n{factory.canonical(purifier)}" if several else PURIFIED
            found |= dict(zip((title + _UNTOUCHED, title), views, strict=True))
    if attack.erasable:
        found |= {title: pipeline.erased(*point, "gallery", key) for key, title in ERASED.items()}
    # Every set of photos of a role has the same shards: those without a photo to show are not needed.
    shards = [place for place, node in enumerate(natural) if wanted & set(node.ids)]
    return {name: [nodes[place] for place in shards] for name, nodes in found.items()}


def _photos(executor: Executor, nodes: Sequence[Node], wanted: frozenset[str]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for node in nodes:
        pixels = faces_pixels.decode_pixels(executor.fetch(node)).only(wanted)
        found |= dict(zip(pixels.ids, pixels.images, strict=True))
    return found


@contextmanager
def _unseen(_total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _count: None


def differences(
    originals: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return (changed − original) · `AMPLIFIED` around mid-grey, 3×H×W uint8 for each photo of `originals`."""
    return {
        name: (128 + AMPLIFIED * (changed[name].int() - image.int())).clamp(0, 255).to(torch.uint8)
        for name, image in originals.items()
    }
