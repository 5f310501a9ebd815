"""Markdown and LaTeX: every section, every table whole, everything escaped, figures beside the document."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Drawing
from bench.report.document import (
    Bullets,
    Code,
    Column,
    Facts,
    Folded,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
    pictures,
)
from bench.report.latex import inline as latex_inline
from bench.report.latex import to_latex
from bench.report.markdown import inline as markdown_inline
from bench.report.markdown import to_markdown

HOSTILE = "100 % of a_b & $x^2$ ~ #1 {c} \\d | <e> [f](g) *h*"


@pytest.fixture(scope="module")
def small():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5, 2))
    figure.subplots().plot([1, 2])
    table = Table(
        f"Of {HOSTILE}.",
        (Column("Name"), Column("Value", numeric=True)),
        ((HOSTILE, "1.0"), ("`a_b`", "[2]")),
    )
    blocks = (
        Paragraph(HOSTILE), Paragraph("Mind this.", "warning"), Bullets(("one", "two")), Facts((("a", "b_c"),)),
        Code(("bench rerun RUN",)), table, Folded("Folded", (table,)),
        Picture("heatmap", Drawing(figure, "Title", "Caption of a_b.", "Alt.")),
    )  # fmt: skip
    parts = (Section("inner", "Inner", (Paragraph("Deep."),)),)
    return Report(
        HOSTILE, "Run 1", ("One.", "Two.", "Three."), (Section("outer", "Outer", blocks, parts, wide=True),)
    )


# -- Markdown -----------------------------------------------------------------------------------------------


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_markdown_has_all_and_its_figures_beside_it(small):
    text, figures = to_markdown(small, "report.md_files")
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == [
        "## Summary",
        "## Outer",
        "### Inner",
    ]
    assert "One.\n\nTwo.\n\nThree." in text
    assert "![Alt.](report.md_files/heatmap.png)" in text
    assert list(figures) == ["heatmap.png"]
    assert figures["heatmap.png"].startswith(b"\x89PNG")
    assert "> **Mind this.**" in text
    assert "- one\n- two" in text
    assert "```sh\nbench rerun RUN\n```" in text


def test_markdown_tables_keep_their_columns(small):
    lines = rows_of(to_markdown(small, "x")[0])
    assert len(lines) == 3 + 4 + 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_markdown_escapes_all_but_code():
    assert markdown_inline("a*b* `c_d` <e>") == r"a\*b\* `c_d` \<e\>"
    assert markdown_inline("`x`, and `y`") == "`x`, and `y`"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30))
def test_no_text_breaks_a_markdown_table(text):
    report = Report(
        "t", "s", ("1", "2", "3"), (Section("a", "A", (Table("c", (Column("h"),), ((text,),)),)),)
    )
    assert len(rows_of(to_markdown(report, "x")[0])) == 3


def test_a_whole_report_in_markdown(report):
    text, figures = to_markdown(report, "r.md_files")
    for section in report.sections:
        assert f"## {section.title}" in text
    assert set(figures) == {f"{one.kind}.png" for one in pictures(report)}
    assert {f"r.md_files/{name}" for name in figures} == set(re.findall(r"\]\((r\.md_files/[^)]+)\)", text))
    assert all(payload.startswith(b"\x89PNG") for payload in figures.values())


# -- LaTeX --------------------------------------------------------------------------------------------------

SPECIAL = re.compile(r"(?<!\\)[&%$#_^~]")


def balanced(text):
    depth = 0
    for found in re.findall(r"(?<!\\)[{}]", re.sub(r"\\\\", "", text)):
        depth += 1 if found == "{" else -1
        assert depth >= 0
    return depth == 0


def environments(text):
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    return stack


def test_latex_is_whole_and_its_figures_lie_beside_it(small):
    text, figures = to_latex(small, "report.tex_files")
    assert text.startswith("\\documentclass")
    assert text.endswith("\\end{document}\n")
    assert environments(text) == []
    assert balanced(text)
    for name in ("booktabs", "longtable", "graphicx", "pdflscape"):
        assert name in text.split(r"\begin{document}")[0]
    assert r"\section{Outer}" in text
    assert r"\subsection{Inner}" in text
    assert r"{\detokenize{report.tex_files/heatmap.pdf}}" in text
    assert list(figures) == ["heatmap.pdf"]
    assert figures["heatmap.pdf"].startswith(b"%PDF")


def test_latex_rows_have_their_columns(small):
    body = to_latex(small, "x")[0].split(r"\begin{document}")[1]
    rows = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + 3 + 3
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30).filter(lambda text: "`" not in text)
)
def test_no_text_is_a_command_of_latex(text):
    found = latex_inline(text)
    left = re.sub(r"\$\\[a-zA-Z]+\$|\$-\$", "", found)
    assert not SPECIAL.search(left)
    assert balanced(found)


def test_latex_sets_code_in_typewriter_and_lets_it_break():
    assert latex_inline("a `pgd:eps=15` b") == r"a \texttt{pgd:\allowbreak{}eps=\allowbreak{}15} b"


def test_a_whole_report_in_latex(report):
    text, figures = to_latex(report, "r.tex_files")
    assert environments(text) == []
    assert balanced(text)
    for section in report.sections:
        assert rf"\section{{{section.title}}}" in text
    assert set(figures) == {f"{one.kind}.pdf" for one in pictures(report)}
    assert all(payload.startswith(b"%PDF") for payload in figures.values())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(report, tmp_path):
    text, figures = to_latex(report, "r.tex_files")
    (tmp_path / "r.tex").write_text(text, encoding="utf-8")
    (tmp_path / "r.tex_files").mkdir()
    for name, payload in figures.items():
        (tmp_path / "r.tex_files" / name).write_bytes(payload)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "r.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "r.pdf").stat().st_size > 10_000
