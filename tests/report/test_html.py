"""The page: whole, self-contained, well-formed, with everything a report has to hold, and no path."""

import base64
import re
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.figures import KINDS, Drawing
from bench.leaderboard.view import RunView
from bench.report import content, drawings, svg, tables
from bench.report.content import ReportOptions, collect, run_command
from bench.report.document import (
    Column,
    Facts,
    Folded,
    Matrix,
    Paragraph,
    Report,
    Section,
    Table,
    pictures,
    with_texts,
)  # fmt: skip
from bench.report.html import LARGEST, cell, inline, to_html
from bench.run.spec import RunSpec

SECTIONS = (
    "summary", "figures", "photos", "leaderboard", "significance", "warnings-and-leaks", "failed", "warnings",
    "leaks", "reading", "methods", "threat", "environment", "again",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(html, page_of):
    return page_of(html)


def test_it_is_well_formed_and_ids_are_unique(page):
    assert page.errors == []
    ids = page.attributes("id")
    assert len(ids) == len(set(ids)) > 100


def test_every_anchor_and_every_reference_inside_a_figure_leads_somewhere(page, html):
    ids = set(page.attributes("id"))
    links = [
        link for link in [*page.attributes("href"), *page.attributes("xlink:href")] if link.startswith("#")
    ]
    assert len(links) > 20
    assert {link[1:] for link in links} <= ids
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= ids
    assert {one for name in page.attributes("aria-labelledby") for one in name.split()} <= ids


def test_it_has_every_section_and_each_is_in_the_contents(page):
    ids = page.attributes("id")
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    assert {f"#{name}" for name in SECTIONS} <= set(page.attributes("href"))


def test_headings_are_in_order_and_landmarks_are_there(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    tags = [tag for tag, _ in page.tags]
    assert [tags.count(tag) for tag in ("html", "main", "nav", "header", "footer")] == [1] * 5
    assert dict(page.tags[0:1] and [(page.tags[0][0], page.tags[0][1]["lang"])]) == {"html": "en-GB"}


def test_it_loads_nothing_and_forbids_it(page, html):
    policy = next(
        attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")]
    assert not [value for value in page.attributes("src") if not value.startswith("data:")]
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert len(html.encode()) < LARGEST


def test_every_kind_of_figure_is_there_or_its_absence_is_explained(page, report):
    drawn = {attrs["id"] for tag, attrs in page.tags if tag == "svg"}
    figures = next(section for section in report.sections if section.id == "figures")
    explained = " ".join(str(part) for part in figures.parts if part.id == "not-drawn")
    kinds = [name for name, kind in KINDS.items() if not kind.shows_photos]
    assert kinds
    for name in kinds:
        assert (f"picture-{name}" in drawn) != (f"`{name}`: " in explained)
    for tag, attrs in page.tags:
        if tag == "svg":
            assert attrs["role"] == "img"
            assert len(attrs["aria-label"]) > 40
    assert "heatmap" in str(drawn)


def test_every_row_of_the_leaderboard_and_every_pair_is_there(page, view):
    keys = [attrs for tag, attrs in page.tags if tag == "tr" and "data-attack" in attrs]
    assert len(keys) == len(view.leaderboard)
    assert len(re.findall(r"Every pair, the one with the better mean first\.", page.text)) == sum(
        bool(ranking.pairs) for one, ranking in view.ranked if len(one.rates.columns) > 1
    )
    for row in view.pairs[view.pairs["difference"].notna()].head(8).itertuples():
        assert f"{100 * row.difference:+.1f} [{100 * row.difference_low:+.1f}, " in page.text


def test_the_key_results_and_the_command_are_there(page, report, view):
    lead, *_, results, facts = report.sections[0].blocks
    for text in (lead.text, *results.rows[0], *(text for pair in facts.pairs for text in pair)):
        assert text.replace("`", "") in page.text
    assert run_command(view) in page.text
    assert view.facts.run in page.text
    manifest = sha256((view.folder.path / "manifest.json").read_bytes()).hexdigest()
    assert manifest in page.text


def test_it_opens_with_the_matrix_of_the_means(report, view):
    _, *found, reading, _, _ = report.sections[0].blocks
    assert [type(one) for one in found] == [Matrix]
    assert reading.text.startswith("ASR, the attack success rate")
    means = view.means.set_index(["against", "defense"])
    (matrix,) = found
    assert matrix.columns == ("no defence", "jpeg:quality=20")
    assert [row.name for row in matrix.rows] == ["no cloak", "tiny-noise", "tiny-identity-mean"]
    for row in matrix.rows[1:]:
        for defense, field in zip(("none", "jpeg:quality=20"), row.fields, strict=True):
            assert field.rate == means.loc[(row.name, defense), "asr"]
            assert field.text == f"{100 * field.rate:.1f}"
    errors = [
        means.loc[("tiny-noise", name), "defended_baseline_error"] for name in ("none", "jpeg:quality=20")
    ]
    assert [field.rate for field in matrix.rows[0].fields] == errors


def test_labels_are_shown_in_matrix_figures_and_leaderboard(view):
    names = ("jpeg:quality=20=JPEG, strong",)
    found = collect(RunView.of(view.folder.path), ReportOptions(photos=False, names=names))
    matrix = next(block for block in found.sections[0].blocks if isinstance(block, Matrix))
    assert matrix.columns == ("no defence", "JPEG, strong")
    (heatmap,) = (one.drawing for one in pictures(found) if one.kind == "heatmap")
    assert "JPEG, strong" in [text.get_text() for text in heatmap.figure.axes[0].get_xticklabels()]
    assert 'data-defense="JPEG, strong"' in to_html(found)


def test_the_same_folder_gives_the_same_bytes(view, html):
    assert to_html(collect(RunView.of(view.folder.path), ReportOptions(photos=False))) == html


def test_no_machine_path_is_left(html, view):
    for path in (view.folder.path, Path.home(), Path.cwd(), Path("/tmp")):
        assert f"{path}/" not in html


def test_paths_that_a_run_was_given_are_shortened(view, tmp_path):
    requested = RunSpec(
        attacks=("none", f"/home/alice/{'x' * 9}/mine.py:MyCloak"),
        dataset="folder:path=/home/alice/my photos",
    )
    facts = view.facts.model_copy(
        update={"requested": requested, "lpips_reason": "no file in /home/alice/.cache/torch."}
    )
    other = RunView(view.folder)
    other.results = replace(view.results, facts=facts)
    other.leaderboard, other.ranked, other.pairs = view.leaderboard, view.ranked, view.pairs
    text = to_html(collect(other, ReportOptions(photos=False)))
    assert "alice" not in text
    assert "…/my photos" in text
    assert "no file in …/torch." in text
    assert "…/mine.py:MyCloak" in text


def test_a_run_of_many_cells_shows_one_attack_and_no_pairs(view, monkeypatch):
    monkeypatch.setattr(drawings, "MOST_PAIRS", 1)
    monkeypatch.setattr(tables, "MOST_PAIRS", 1)
    report = collect(RunView.of(view.folder.path), ReportOptions(photos=False))
    parts = {section.id: section for section in report.sections}
    (note,) = parts["figures"].blocks
    undefended = view.leaderboard[view.leaderboard["defense"] == "none"]
    cloaked = undefended[undefended["attack"] != "none"].groupby("attack")["asr"].mean()
    assert f"the figures below are of `{cloaked.idxmax()}`" in note.text
    others = [name for name in cloaked.index if name != cloaked.idxmax()]
    assert others
    for picture in pictures(replace(report, sections=(parts["figures"],))):
        assert not [name for name in others if name in picture.drawing.alt]
    notes = [block.text for block in parts["significance"].blocks]
    assert "`bench table significance RUN`" in notes[-1]
    folds = [fold for part in parts["significance"].parts for fold in part.blocks if isinstance(fold, Folded)]
    captions = [block.caption for fold in folds for block in fold.blocks]
    assert any(caption.startswith("Ranking.") for caption in captions)
    assert not any(caption.startswith("Every pair") for caption in captions)


def test_photos_are_left_out_as_asked(page):
    assert "Left out, as requested: this report shows no photo" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("img", "image")]


def test_photos_are_shown_from_the_store_and_not_made_again_without_it(evaluate, tmp_path, page_of):
    kinds = [name for name, kind in KINDS.items() if kind.shows_photos]
    if not kinds:
        pytest.skip("no kind of figure shows photos yet")
    prepared = evaluate(attacks=("tiny-noise",), defenses=("jpeg:quality=20",), store=tmp_path / "store")
    view = RunView.of(prepared.folder.path)
    shown = page_of(to_html(collect(view, ReportOptions(store=tmp_path / "store", threads=1))))
    assert shown.errors == []
    assert [tag for tag, _ in shown.tags if tag in ("img", "image")]
    assert {f"picture-{name}" for name in kinds} <= set(shown.attributes("id"))
    requested = to_html(collect(view, ReportOptions(photos=False, store=tmp_path / "store", threads=1)))
    without = page_of(requested)
    assert "data:image" not in requested
    assert not [tag for tag, _ in without.tags if tag in ("img", "image")]
    assert not {f"picture-{name}" for name in kinds} & set(without.attributes("id"))
    assert "Left out, as requested: this report shows no photo" in without.text
    for identities in (view.folder.split().probes, view.folder.split().gallery):
        assert not [photo for photos in identities.values() for photo in photos if photo in requested]
    gone = page_of(to_html(collect(view, ReportOptions(store=tmp_path / "empty", threads=1))))
    assert "The store no longer holds the images of this run" in gone.text
    assert not [tag for tag, _ in gone.tags if tag in ("img", "image")]
    assert not (tmp_path / "empty" / "cloak").exists()


# -- pieces -------------------------------------------------------------------------------------------------


def tiny_report(*blocks):
    return Report("Title", "Run 1", (Section("part", "Part", blocks),))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40))
def test_no_text_becomes_markup(page_of, text):
    table = Table(text, (Column(text, text),), ((text,),))
    report = tiny_report(Paragraph(text, "lead"), Facts(((text, text),)), Folded(text, (table,)))
    harmless = page_of(to_html(with_texts(report, lambda _: "x")))
    found = page_of(to_html(report))
    assert found.errors == []
    codes = ("code", "wbr")
    assert [tag for tag, _ in found.tags if tag not in codes] == [
        tag for tag, _ in harmless.tags if tag not in codes
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "`<img src=x onerror=alert(1)>`",
        "\"><b onload='x'>",
        "</style></script>",
        "{{ 7 * 7 }}",
    ],
)
def test_hostile_names_stay_text(page_of, text):
    found = page_of(to_html(tiny_report(Paragraph(text), Table(text, (Column(text, text),), ((text,),)))))
    assert found.errors == []
    assert text.replace("`", "") in found.text
    assert not [tag for tag, _ in found.tags if tag in ("b", "img")]


def test_code_is_what_stands_between_backticks():
    assert str(inline("a `b<c` d")) == "a <code>b&lt;c</code> d"
    assert str(inline("a stray ` stays")) == "a stray ` stays"


def test_a_method_s_name_is_broken_between_its_parameters():
    assert str(cell("`pgd:eps=15,goal=targeted`")) == "<code>pgd:eps=15,<wbr>goal=targeted</code>"
    assert str(cell("1,069 of a, b")) == "1,069 of a, b"


def test_texts_are_changed_everywhere_and_the_rest_stays():
    report = tiny_report(
        Paragraph("old"), Folded("old", (Table("old", (Column("old", numeric=True),), (("old",),)),))
    )
    changed = with_texts(report, lambda text: text.replace("old", "new"))
    assert "'old'" not in str(changed)
    assert changed.sections[0].blocks[1].blocks[0].columns[0].numeric is True
    assert report.sections[0].blocks[0].text == "old"


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({}, "bench run --dataset synthetic --attack none --defense none"),
        (
            {
                "attacks": ("a b",),
                "heads": ("nn", "linear"),
                "seeds": (0, 1),
                "protocol": "erasure",
                "identities": 5,
            },
            "bench run --dataset synthetic --protocol erasure --attack 'a b' --defense none --head nn --head linear "
            "--seed 0 --seed 1 --identities 5",
        ),
    ],
)
def test_the_command_asks_for_the_same(fields, command):
    view = SimpleNamespace(facts=SimpleNamespace(requested=RunSpec(**fields), threads=None))
    assert run_command(view) == command


def test_an_audit_that_cannot_be_made_is_said(view, monkeypatch):
    def refused(*_args, **_options):
        raise UsageError("a method is gone.")

    monkeypatch.setattr(content, "audit", refused)
    report = collect(view, ReportOptions(photos=False))
    assert ("Leaks", "not audited") in report.sections[0].blocks[-1].pairs
    assert "The run could not be audited: a method is gone." in str(report)


# -- figures in a page --------------------------------------------------------------------------------------


@pytest.fixture
def drawing():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5, 2))
    figure.subplots().scatter(range(3000), [(7 * i) % 97 for i in range(3000)])
    return Drawing(figure, "Title", "Caption.", 'Alt with "quotes" & more.')


def test_ids_and_styles_of_a_figure_are_its_own(drawing, page_of):
    text = svg.inline(drawing, "picture-a", largest=10**9)
    found = page_of(text)
    assert found.errors == []
    assert text.startswith('<svg id="picture-a"')
    assert all(name.startswith("picture-a") for name in found.attributes("id"))
    assert "*{" not in text.replace(" ", "").replace("#picture-a*{", "")
    assert "<metadata" not in text
    assert "<!DOCTYPE" not in text


def test_a_figure_that_is_too_large_has_its_points_as_pixels(drawing):
    whole = svg.inline(drawing, "picture-a", largest=10**9)
    assert len(whole) > 100_000
    smaller = svg.inline(drawing, "picture-a", largest=100_000)
    assert smaller.startswith("<svg")
    assert len(smaller) < 100_000
    assert "data:image/png;base64," in smaller


def test_what_is_still_too_large_becomes_a_picture_with_its_words(drawing, page_of):
    text = svg.inline(drawing, "picture-a", largest=100)
    ((tag, attrs),) = page_of(text).tags
    assert tag == "img"
    assert attrs["alt"] == drawing.alt
    assert attrs["src"].startswith("data:image/png;base64,")
