"""A report as Markdown, with its figures as PNG files beside it."""

from collections.abc import Sequence

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
    Matrix,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
    code_spans,
    pictures,
    walk,
)


def to_markdown(report: Report, beside: str) -> tuple[str, dict[str, bytes]]:
    """Return a report as GitHub's Markdown, and its figures by name.

    Args:
        report: what to write.
        beside: name of the folder the figures will lie in, beside the document.
    """
    parts = [f"# {markdown_text(report.title)}", markdown_text(report.subtitle)]
    parts += [_part(level, one, beside.replace(" ", "%20")) for level, one in walk(report)]
    figures = {f"{one.kind}.png": to_bytes(one.drawing.figure, "png") for one in pictures(report)}
    return "\n\n".join(parts) + "\n", figures


def inline(text: str) -> str:
    """Return a text in which nothing is markup but what stands between backticks, which is code."""
    return "".join(f"`{piece}`" if is_code else _escaped(piece) for piece, is_code in code_spans(text))


def _escaped(text: str) -> str:
    """Return a piece of a line, escaped, with the blanks at its ends."""
    if not text.strip():
        return " " * bool(text)
    return f"{' ' * text[0].isspace()}{markdown_text(text)}{' ' * text[-1].isspace()}"


def _part(level: int, one: Section | Block, beside: str) -> str:  # noqa: C901, PLR0911  # one branch a kind
    match one:
        case Section():
            return f"{'#' * (level + 2)} {markdown_text(one.title)}"
        case Paragraph():
            return f"> **{inline(one.text)}**" if one.tone == "warning" else inline(one.text)
        case Bullets():
            return "\n".join(f"- {inline(item)}" for item in one.items)
        case Facts():
            return _table(("", ""), (False, False), one.pairs)
        case Code():
            return "\n".join(["```sh", *one.lines, "```"])
        case Table():
            titles = [column.title for column in one.columns]
            rows = _table(titles, [column.numeric for column in one.columns], one.rows)
            return f"{inline(one.caption)}\n\n{rows}"
        case Matrix():
            rows = _table(
                (one.corner, *one.columns),
                (False, *(True for _ in one.columns)),
                [(row.name, *(field.text for field in row.fields)) for row in one.rows],
            )
            return f"{inline(one.caption)}\n\n{rows}"
        case LeaderboardBlock():
            return as_markdown.markdown(one.rows, one.names).rstrip()
        case Picture():
            image = f"![{markdown_text(one.drawing.alt)}]({beside}/{one.kind}.png)"
            return f"{image}\n\n{inline(one.drawing.caption)}"
        case Folded():
            return f"**{inline(one.title)}**"


def _table(titles: Sequence[str], numeric: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        "| " + " | ".join(map(markdown_text, titles)) + " |",
        "|" + "|".join(" ---: " if number else " --- " for number in numeric) + "|",
    ]
    lines += ["| " + " | ".join(inline(text).replace("\n", " ") for text in row) + " |" for row in rows]
    return "\n".join(lines)
