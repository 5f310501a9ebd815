"""Markdown: every section, every table whole, everything escaped, figures beside the document."""

import re

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
from bench.report.markdown import inline, to_markdown

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
        Code(("bench verify RUN --rerun",)), table, Folded("Folded", (table,)),
        Picture("heatmap", Drawing(figure, "Title", "Caption of a_b.", "Alt.")),
    )  # fmt: skip
    parts = (Section("inner", "Inner", (Paragraph("Deep."),)),)
    return Report(HOSTILE, "Run 1", (Section("outer", "Outer", blocks, parts, wide=True),))


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_markdown_has_all_and_its_figures_beside_it(small):
    text, figures = to_markdown(small, "report.md_files")
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == [
        "## Outer",
        "### Inner",
    ]
    assert text.index("**Folded**") < text.rindex("| Name | Value |") < text.index("![Alt.]")
    assert "![Alt.](report.md_files/heatmap.png)" in text
    assert list(figures) == ["heatmap.png"]
    assert figures["heatmap.png"].startswith(b"\x89PNG")
    assert "> **Mind this.**" in text
    assert "- one\n- two" in text
    assert "```sh\nbench verify RUN --rerun\n```" in text


def test_markdown_tables_keep_their_columns(small):
    lines = rows_of(to_markdown(small, "x")[0])
    assert len(lines) == 3 + 4 + 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_markdown_escapes_all_but_code():
    assert inline("a*b* `c_d` <e>") == r"a\*b\* `c_d` \<e\>"
    assert inline("`x`, and `y`") == "`x`, and `y`"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30))
def test_no_text_breaks_a_markdown_table(text):
    report = Report("t", "s", (Section("a", "A", (Table("c", (Column("h"),), ((text,),)),)),))
    assert len(rows_of(to_markdown(report, "x")[0])) == 3


def test_a_whole_report_in_markdown(report):
    text, figures = to_markdown(report, "r.md_files")
    for section in report.sections:
        assert f"## {section.title}" in text
    assert set(figures) == {f"{one.kind}.png" for one in pictures(report)}
    assert {f"r.md_files/{name}" for name in figures} == set(re.findall(r"\]\((r\.md_files/[^)]+)\)", text))
    assert all(payload.startswith(b"\x89PNG") for payload in figures.values())
