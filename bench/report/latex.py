"""A report as a LaTeX document, with its figures as PDF files beside it."""

import re
from collections.abc import Iterator, Sequence

from bench.figures.files import to_bytes
from bench.leaderboard import as_latex
from bench.leaderboard.as_latex import latex_text
from bench.report.document import (
    Block,
    Bullets,
    Code,
    Column,
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

PREAMBLE = r"""\documentclass[10pt,a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=20mm]{geometry}
\usepackage{booktabs,longtable,array,graphicx,pdflscape,ragged2e,textcomp,amssymb}
\usepackage[hidelinks]{hyperref}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\setlength{\emergencystretch}{3em}
"""

_SECTIONS = ("section", "subsection", "subsubsection")


def to_latex(report: Report, beside: str) -> tuple[str, dict[str, bytes]]:
    """Return a report as a LaTeX document that compiles with pdflatex, and its figures by name.

    Args:
        report: what to write.
        beside: name of the folder the figures will lie in, beside the document.
    """
    lines = [PREAMBLE, rf"\title{{{latex_text(report.title)}}}", rf"\author{{{latex_text(report.subtitle)}}}"]
    lines += [r"\date{}", r"\begin{document}", r"\maketitle", r"\section*{Summary}"]
    lines += [inline(text) + "\n" for text in report.sentences]
    lines.append(r"\tableofcontents")
    for section in report.sections:
        lines += _section(section, 0, beside)
    figures = {f"{one.kind}.pdf": to_bytes(one.drawing.figure, "pdf") for one in pictures(report)}
    return "\n".join([*lines, r"\end{document}", ""]), figures


def inline(text: str) -> str:
    """Return a text escaped for LaTeX, with what stands between backticks in a typewriter's letters."""
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(
        rf"\texttt{{{_breakable(piece)}}}" if i % 2 else _within(piece) for i, piece in enumerate(pieces)
    )


def _within(text: str) -> str:
    """Return a piece of a line, escaped, with the blanks at its ends."""
    if not text.strip():
        return " " * bool(text)
    return f"{' ' * text[0].isspace()}{latex_text(text)}{' ' * text[-1].isspace()}"


def _breakable(text: str) -> str:
    """Return a name that may be broken after the signs between its parts."""
    return re.sub(r"([:,=|/]|\\_|-)", r"\1\\allowbreak{}", latex_text(text))


def _section(section: Section, level: int, beside: str) -> Iterator[str]:
    if section.wide:
        yield r"\begin{landscape}"
    yield rf"\{_SECTIONS[level]}{{{latex_text(section.title)}}}\label{{{section.id}}}"
    for block in section.blocks:
        yield from _block(block, beside)
    if section.wide:
        yield r"\end{landscape}"
    for part in section.parts:
        yield from _section(part, level + 1, beside)


def _block(block: Block, beside: str) -> Iterator[str]:  # one branch a kind of block
    match block:
        case Paragraph():
            text = inline(block.text)
            yield (rf"\textbf{{{text}}}" if block.tone == "warning" else text) + "\n"
        case Bullets():
            yield "\n".join(
                [r"\begin{itemize}", *(rf"\item {inline(item)}" for item in block.items), r"\end{itemize}"]
            )
        case Facts():
            yield _table((Column(""), Column("")), block.pairs, (0.27, 0.66))
        case Code():
            yield r"\begin{flushleft}\ttfamily\small"
            yield "\n".join(rf"{_breakable(line)}\\" for line in block.lines)
            yield r"\end{flushleft}"
        case Table():
            yield rf"\medskip {inline(block.caption)}" + "\n"
            yield _table(block.columns, block.rows, _widths(block))
        case LeaderboardBlock():
            yield as_latex.latex(block.rows)
        case Picture():
            yield r"\begin{figure}[!htbp]\centering"
            yield r"\includegraphics[width=\linewidth,height=0.85\textheight,keepaspectratio]%"
            yield rf"{{\detokenize{{{beside}/{block.kind}.pdf}}}}"
            yield rf"\par\smallskip{{\small {inline(block.drawing.caption)}}}"
            yield r"\end{figure}"
        case Folded():
            yield rf"\paragraph{{{inline(block.title)}}}~\par"
            for one in block.blocks:
                yield from _block(one, beside)


def _widths(table: Table) -> tuple[float, ...]:
    """Return each column's share of the page, by its longest words and by how much it holds."""
    needs = []
    for index, column in enumerate(table.columns):
        texts = [column.title, *(row[index] for row in table.rows)]
        longest = max(len(text) for text in texts)
        needs.append(max(6, min(longest, 40)))
    # What stands between columns takes its share too.
    room = 1 - 0.022 * len(needs)
    return tuple(room * need / sum(needs) for need in needs)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[float]) -> str:
    form = "@{}" + "".join(
        rf">{{\{'RaggedLeft' if column.numeric else 'RaggedRight'}\arraybackslash}}p{{{width:.3f}\linewidth}}"
        for column, width in zip(columns, widths, strict=True)
    )
    heads = " & ".join(rf"\textbf{{{latex_text(column.title)}}}" for column in columns)
    head = [rf"{heads} \\", r"\midrule"] if any(column.title for column in columns) else []
    body = [" & ".join(_cell(text) for text in row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\begin{{longtable}}{{{form}@{{}}}}",
            r"\toprule",
            *head,
            r"\endhead",
            *body,
            r"\bottomrule",
            r"\end{longtable}",
            r"\endgroup",
        ]
    )


def _cell(text: str) -> str:
    return inline(text) if "`" in text else _breakable(text)
