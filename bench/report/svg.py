"""Figures inside an HTML page: SVG whose ids and styles are its own, and which is small enough."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from bench.figures import Drawing
from bench.figures.files import to_bytes, to_svg

if TYPE_CHECKING:
    from matplotlib.artist import Artist

LARGEST = 400_000
"""Bytes of a figure's SVG; of a larger one, parts become pixels."""

_MANY = 50
"""Points or patches of one artist above which it becomes pixels where a figure is too large."""

_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_STYLE = re.compile(r"(<style[^>]*>)\s*\*\s*\{")
_SIZE = re.compile(r'\b(width|height)="[\d.]+pt"\s*')
_VIEW = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')


def inline(drawing: Drawing, name: str, largest: int = LARGEST) -> str:
    """Return a drawing as an ``<svg>`` element for a page that may hold others.

    Args:
        drawing: what to show.
        name: an id, unique in the page; it goes before every id inside.
        largest: bytes above which parts, and if that is not enough all of it, become pixels.

    Returns:
        The element, or an ``<img>`` with its pixels inside where nothing else is small enough.
    """
    text = to_svg(drawing, name)
    if len(text) > largest and _rasterize(drawing):
        text = to_svg(drawing, name)
    if len(text) > largest:
        return _as_image(drawing)
    return _trimmed(text, name)


def _trimmed(text: str, name: str) -> str:
    """Return the element alone; its style applies to it alone, and its size follows the page."""
    text = _METADATA.sub("", text[text.index("<svg") :])
    text = _STYLE.sub(rf"\1#{name} *{{", text)
    end = text.index(">")
    view = _VIEW.search(text[:end])
    # A figure keeps the size it is drawn for where there is room; less would be hard to read.
    style = f' style="width:{float(view[1]) / 72:.3f}in"' if view else ""
    return f'<svg id="{name}"{style}{_SIZE.sub("", text[4:end])}{text[end:]}'.strip()


def _rasterize(drawing: Drawing) -> bool:
    """Draw the artists of many parts as pixels; return whether there were any."""
    found = [artist for artist in drawing.figure.findobj() if _parts(artist) > _MANY]
    for artist in found:
        artist.set_rasterized(True)
    return bool(found)


def _parts(artist: Artist) -> int:
    """Return how many points an artist is drawn from; 0 for all but lines and collections."""
    import numpy as np
    from matplotlib.collections import Collection, QuadMesh
    from matplotlib.lines import Line2D

    if isinstance(artist, Line2D):
        return len(np.asarray(artist.get_xdata()))
    if isinstance(artist, QuadMesh):
        return int(np.asarray(artist.get_coordinates()).size)
    if isinstance(artist, Collection):
        points = sum(len(np.asarray(path.vertices)) for path in artist.get_paths())
        return max(points, len(np.asarray(artist.get_offsets())))
    return 0


def _as_image(drawing: Drawing) -> str:
    from markupsafe import escape

    pixels = base64.b64encode(to_bytes(drawing.figure, "png")).decode()
    width = drawing.figure.get_size_inches()[0]
    return (
        f'<img src="data:image/png;base64,{pixels}" alt="{escape(drawing.alt)}" style="width:{width:.3f}in">'
    )
