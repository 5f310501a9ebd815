"""Writes a report to files."""

from collections.abc import Mapping
from pathlib import Path

from bench.files import write_atomically
from bench.report.document import Report
from bench.report.html import to_html
from bench.report.markdown import to_markdown

ENDINGS: Mapping[str, str] = {"html": ".html", "md": ".md"}
"""Form → ending of its file."""


def write(report: Report, form: str, file: Path) -> list[Path]:
    """Write a report, and beside it the figures that its form does not hold itself, in ``FILE_files``.

    Args:
        report: what to write.
        form: a key of `ENDINGS`.
        file: the document; what is there is replaced.

    Returns:
        the files written, the document first.

    Raises:
        StoreError: a file cannot be written.
    """
    beside = f"{file.name}_files"
    text, figures = (to_html(report), {}) if form == "html" else to_markdown(report, beside)
    for name, payload in figures.items():
        write_atomically(file.parent / beside / name, payload)
    write_atomically(file, text.encode())
    return [file, *(file.parent / beside / name for name in figures)]
