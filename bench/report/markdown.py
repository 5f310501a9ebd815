"""A report as Markdown, with its figures as PNG files beside it."""

import re
from collections.abc import Iterator

from bench.figures.files import to_bytes
from bench.leaderboard import as_markdown
from bench.leaderboard.as_markdown import markdown_text
from bench.report.document import (
    Block,
    Bullets,
    Code,
    Facts,
    Folded,
    LeaderboardBlock,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
    pictures,
)


def to_markdown(report: Report, beside: str) -> tuple[str, dict[str, bytes]]:
    """Return a report as GitHub's Markdown, and its figures by name.

    Args:
        report: what to write.
        beside: name of the folder the figures will lie in, beside the document.
    """
    lines = [f"# {markdown_text(report.title)}", markdown_text(report.subtitle), "## Summary"]
    lines += [inline(text) for text in report.sentences]
    for section in report.sections:
        lines += _section(section, 2, beside)
    figures = {f"{one.kind}.png": to_bytes(one.drawing.figure, "png") for one in pictures(report)}
    return "\n\n".join(lines) + "\n", figures


def inline(text: str) -> str:
    """Return a text in which nothing is markup but what stands between backticks, which is code."""
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(f"`{piece}`" if i % 2 else _within(piece) for i, piece in enumerate(pieces))


def _within(text: str) -> str:
    """Return a piece of a line, escaped, with the blanks at its ends."""
    if not text.strip():
        return " " * bool(text)
    return f"{' ' * text[0].isspace()}{markdown_text(text)}{' ' * text[-1].isspace()}"


def _section(section: Section, level: int, beside: str) -> Iterator[str]:
    yield f"{'#' * level} {markdown_text(section.title)}"
    for block in section.blocks:
        yield from _block(block, beside)
    for part in section.parts:
        yield from _section(part, level + 1, beside)


def _block(block: Block, beside: str) -> Iterator[str]:  # one branch a kind of block
    match block:
        case Paragraph():
            yield f"> **{inline(block.text)}**" if block.tone == "warning" else inline(block.text)
        case Bullets():
            yield "\n".join(f"- {inline(item)}" for item in block.items)
        case Facts():
            yield _table(("", ""), (False, False), [(name, value) for name, value in block.pairs])
        case Code():
            yield "\n".join(["```sh", *block.lines, "```"])
        case Table():
            yield inline(block.caption)
            titles = tuple(column.title for column in block.columns)
            yield _table(titles, tuple(column.numeric for column in block.columns), block.rows)
        case LeaderboardBlock():
            yield as_markdown.markdown(block.rows).rstrip()
        case Picture():
            yield f"![{markdown_text(block.drawing.alt)}]({beside.replace(' ', '%20')}/{block.kind}.png)"
            yield inline(block.drawing.caption)
        case Folded():
            yield f"**{inline(block.title)}**"
            for one in block.blocks:
                yield from _block(one, beside)


def _table(titles: tuple[str, ...], numeric: tuple[bool, ...], rows: object) -> str:
    lines = [
        "| " + " | ".join(map(markdown_text, titles)) + " |",
        "|" + "|".join(" ---: " if number else " --- " for number in numeric) + "|",
    ]
    assert isinstance(rows, (list, tuple))
    lines += ["| " + " | ".join(inline(text).replace("\n", " ") for text in row) + " |" for row in rows]
    return "\n".join(lines)
