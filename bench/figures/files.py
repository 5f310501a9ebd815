"""Drawings as files: PNG, SVG with its text as text, PDF with embedded fonts; the same drawing gives the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from bench.errors import UsageError
from bench.figures import Drawing, style
from bench.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
"""What a figure can be written as."""

DPI = 300
"""Pixels per inch of a PNG and of photos inside an SVG or PDF."""

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None},
}
"""No dates, so that bytes are the same."""


def save(drawing: Drawing, path: Path) -> None:
    """Write a drawing; the file's ending says as what.

    Raises:
        UsageError: an ending that is not in `FORMATS`.
        StoreError: the file cannot be written.
    """
    check_suffix(path)
    payload = to_svg(drawing).encode() if path.suffix == ".svg" else to_bytes(drawing.figure, path.suffix[1:])
    write_atomically(path, payload)


def to_svg(drawing: Drawing, prefix: str = "") -> str:
    """Return a drawing as SVG, with its title and alternative text inside.

    Args:
        drawing: what to write.
        prefix: put before every id, so that several figures can stand in one page.
    """
    text = to_bytes(drawing.figure, "svg").decode()
    if prefix:
        text = re.sub(r'\bid="', f'id="{prefix}-', text)
        text = re.sub(r'href="#', f'href="#{prefix}-', text)
        text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    start = text.index("<svg ") + len("<svg ")
    opened = text.index(">", start) + 1
    label = f'role="img" aria-label={quoteattr(drawing.alt)} '
    words = f"\n <title>{escape(drawing.title)}</title>\n <desc>{escape(drawing.alt)}</desc>"
    return text[:start] + label + text[start:opened] + words + text[opened:]


def to_bytes(figure: Figure, form: str) -> bytes:
    """Return a figure as the content of a file of one of `FORMATS`."""
    sink = io.BytesIO()
    with style.context():
        figure.savefig(sink, format=form, dpi=DPI, metadata=_METADATA[form])
    return sink.getvalue()


def check_suffix(path: Path) -> None:
    """Check that a figure can be written to a file of this name.

    Raises:
        UsageError: an ending that is not in `FORMATS`.
    """
    if path.suffix[1:] not in FORMATS:
        valid = ", ".join(f".{form}" for form in FORMATS)
        raise UsageError(f"a figure cannot be written as '{path.name}'. Valid: files ending in {valid}.")


def paths(out: Path, formats: Sequence[str]) -> tuple[Path, ...]:
    """Return the files to write: `out` itself where it has an ending of `FORMATS`, else one a format."""
    if out.suffix[1:] in FORMATS:
        return (out,)
    return tuple(out.with_name(f"{out.name}.{form}") for form in formats)
