"""The short form of a leaderboard: as texts, Markdown, LaTeX and HTML, with whatever a method may be called."""

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bench.analysis.warning_rules import RowWarning
from bench.analysis.warnings import RowWarnings
from bench.leaderboard.as_csv import from_csv, to_csv
from bench.leaderboard.as_html import CSS, FILTERS, JS, html
from bench.leaderboard.as_latex import LONG, latex, latex_text
from bench.leaderboard.as_markdown import markdown
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.names import in_words
from bench.leaderboard.summary import MISSING, SUMMARY_COLUMNS, display, notes, threat_marks

PLAIN = {
    "dataset": "tiny", "protocol": "tracker", "attack": "fog", "defense": "none", "backbone": "net-a", "head": "nn",
    "condition": "", "seed": 0, "requested": True, "status": "ok", "n_identities": 20, "n_probes": 40,
    "asr_worst": 0.7, "asr_worst_low": 0.6, "asr_worst_high": 0.8, "worst_over": 2, "worst_of": 2,
    "asr": 0.5, "asr_low": 0.4, "asr_high": 0.6, "baseline_error": 0.01, "normal_accuracy": 0.99,
    "normal_accuracy_low": 0.95, "normal_accuracy_high": 1.0, "recovery_reason": "no defence",
    "rank_low": 2, "rank_high": 3, "tie_group": "b", "cloak_psnr": 31.26, "cloak_ssim": 0.91239,
    "lpips_reason": "no trunk", "access": "black-box", "extractor_is_tracker": False, "related": False,
    "extractors_are_surrogates": False, "attack_seen_by_defense": "not-trained",
    "attack_adapts_to_defense": False, "attack_adapts_in_part": False, "external": False,
    "identity_overlap": "no", "benchmark_version": "1", "run": "0123456789ab",
}  # fmt: skip


def leaderboard_of(*rows):
    """Return a leaderboard of rows that differ from a plain one in what is given."""
    header = list(COLUMNS)
    table = pd.DataFrame([PLAIN | row for row in rows], columns=header)
    return from_csv(to_csv(table), "the test's")


def test_a_row_is_rounded_for_reading():
    shown = display(
        leaderboard_of({}, {"defense": "jpeg", "rank_low": 1, "rank_high": 1, "recovery": -0.25, "seed": 0})
    )
    assert list(shown.columns) == [
        "Rank", "Attack", "Defence", "Backbone", "Head", "Worst case %", "ASR %", "Baseline error %",
        "Normal accuracy %", "Recovery %", "PSNR dB", "SSIM", "LPIPS", "Threat", "Warnings",
    ]  # fmt: skip
    assert list(shown.iloc[0]) == [
        "2–3 b", "fog", "none", "net-a", "nn", "70.0 [60.0, 80.0]", "50.0 [40.0, 60.0]", "1.0", "99.0 [95.0, 100.0]",
        MISSING, "31.3", "0.912", MISSING, "black-box", "0",
    ]  # fmt: skip
    assert shown["Rank"][1] == "1 b"
    assert shown["Recovery %"][1] == "-25.0"


def test_columns_that_only_merged_runs_need_are_shown_where_rows_differ():
    shown = display(
        leaderboard_of({}, {"dataset": "other", "protocol": "robustness", "condition": "blur", "seed": 1})
    )
    assert list(shown.loc[1, ["Dataset", "Protocol", "Condition", "Seed"]]) == [
        "other",
        "robustness",
        "blur",
        "1",
    ]


def test_every_missing_value_has_its_reason():
    leaderboard = leaderboard_of(
        {
            "recovery_reason": "",
            "cloak_psnr": None,
            "cloak_reason": "no cloak",
            "tie_group": "",
            "rank_low": None,
        },
        {"status": "failed", "reason": "it broke", "asr": None, "normal_accuracy": None, "recovery": 0.5},
    )
    assert notes(leaderboard) == [
        "the leaderboard gives no reason", "no cloak", "it broke",
    ]  # fmt: skip
    assert list(display(leaderboard).loc[1, ["ASR %", "Normal accuracy %", "LPIPS"]]) == [MISSING] * 3


@pytest.mark.parametrize(
    ("row", "marks"),
    [
        ({}, ("black-box",)),
        ({"access": "white-box", "identity_overlap": "yes"}, ("white-box", "overlap")),
        ({"attack_seen_by_defense": "seen", "identity_overlap": "unknown"}, ("black-box", "seen", "overlap unknown")),
        ({"attack_seen_by_defense": "seen-with-other-parameters"}, ("black-box", "seen (other parameters)")),
        ({"attack_adapts_to_defense": True, "extractor_is_tracker": True},
         ("black-box", "adapted (exact)", "tracker trained defence")),
        ({"attack_adapts_in_part": True}, ("black-box", "adapted (partial)")),
    ],
)  # fmt: skip
def test_the_threat_model_in_a_few_words(row, marks):
    assert threat_marks(leaderboard_of(row).to_dict("records")[0]) == marks


def test_a_worst_case_that_may_be_higher_still_is_a_bound_and_says_so_in_words_under_every_form():
    leaderboard = leaderboard_of(
        {},
        {"defense": "jpeg", "worst_knows": "exact"},
        {"defense": "blur", "worst_knows": "none"},
        {"defense": "mend", "worst_knows": "partial"},
        {"defense": "wash", "worst_knows": "exact", "worst_over": 1},
        {"defense": "gone", "asr_worst": None, "asr_worst_reason": "no attack", "worst_over": 0},
    )
    bounds = [text.split(" [")[0] for text in display(leaderboard)["Worst case %"]]
    assert bounds == ["70.0", "70.0", "≥ 70.0", "≥ 70.0", "≥ 70.0", MISSING]
    assert "no attack" in notes(leaderboard)
    for text in (markdown(leaderboard), latex(leaderboard), html(leaderboard)):
        assert "so that theirs is no worst case: blur." in text
        assert "so that theirs is no worst case: mend." in text
        assert "as cells failed or were not run: wash." in text


def test_a_table_of_an_earlier_version_has_no_worst_case_and_says_why():
    worst = [name for name in COLUMNS if "worst" in name]
    old = to_csv(leaderboard_of({}).drop(columns=worst))
    read = from_csv(old, "an older table")
    assert read["asr_worst"].isna().all()
    assert "≥" not in display(read)["Worst case %"][0]
    assert "not in the file, which an older version wrote" in notes(read)


def test_warnings_are_counted():
    one, two = RowWarning("over-budget", "too visible; by far"), RowWarning("unmoved", "on a")
    leaderboard = leaderboard_of({"warnings": RowWarnings((one, two))}, {"warnings": RowWarnings((one,))}, {})
    assert list(display(leaderboard)["Warnings"]) == ["2", "1", "0"]


def test_the_caution_of_a_dataset_stands_under_every_form():
    leaderboard = leaderboard_of(
        {"dataset_note": "no real faces"}, {"dataset_note": "no real faces", "defense": "jpeg"}
    )
    for text in (markdown(leaderboard), latex(leaderboard), html(leaderboard)):
        assert text.count("tiny: no real faces.") == 1


def ranked(*lows, **more):
    return [{"defense": f"d{i}", "rank_low": low, "rank_high": 3, **more} for i, low in enumerate(lows)]


def bold(leaderboard):
    rows = re.findall(r"^\| .*$", markdown(leaderboard), re.MULTILINE)[2:]
    return ["**50.0**" in row for row in rows]


def test_bold_is_who_none_is_better_than_where_one_is_worse():
    assert bold(leaderboard_of(*ranked(1, 1, 3))) == [True, True, False]
    assert bold(leaderboard_of(*ranked(1, 1, 1))) == [False] * 3
    apart = [*ranked(1, 1, head="nn"), *ranked(1, 2, head="linear")]
    assert bold(leaderboard_of(*apart)) == [False, False, True, False]


def test_bold_keeps_to_a_run_where_ranks_do():
    rows = [*ranked(1, 2, run="aaaaaaaaaaaa"), *ranked(1, 1, run="bbbbbbbbbbbb")]
    assert bold(leaderboard_of(*rows)) == [True, False, False, False]
    over = {"ranked_over": "aaaaaaaaaaaa|bbbbbbbbbbbb"}
    several = [*ranked(1, run="aaaaaaaaaaaa", **over), *ranked(2, run="bbbbbbbbbbbb", **over)]
    assert bold(leaderboard_of(*several, *ranked(1, run="cccccccccccc"))) == [True, False, False]


# -- Markdown ------------------------------------------------------------------------------------------------


def test_markdown_is_one_table_with_its_notes():
    text = markdown(leaderboard_of({}, {"attack": "a|b`c`*d*<i>", "recovery_reason": "other"}))
    table, reading, heading, listed = text.strip().split("\n\n")
    lines = table.splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [16] * 4
    assert r"a\|b\`c\`\*d\*\<i\>" in lines[3]
    assert "NA (1)" in lines[2]
    assert "NA (3)" in lines[3]
    assert reading.endswith("The same in every row: Dataset: tiny; Protocol: tracker; Seed: 0.")
    assert heading == "NA, by number:"
    assert listed.splitlines() == ["1. no defence", "2. no trunk", "3. other"]


# -- LaTeX ---------------------------------------------------------------------------------------------------

HOSTILE = r"""a%_&#~^\$ {}`'"<>|--[*]é≥日\end{tabular}\input{/etc/passwd}%"""


def test_every_special_character_is_printed_not_obeyed():
    assert latex_text("50 % of a_b & c#d") == r"50 \% of a\_b \& c\#d"
    assert latex_text("\\x{y}$~^") == r"\textbackslash{}x\{y\}\$\textasciitilde{}\textasciicircum{}"
    assert latex_text("--x  y\n日") == r"-{}-x y (U+65E5)"
    assert latex_text("*x") == "{}*x"
    assert latex_text("[1ex]") == "{}[1ex]"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_leaves_latex_open(text):
    escaped = latex_text(text)
    bare = re.sub(r"\\[\\&%$#_{}]", "", escaped)
    assert bare.count("{") == bare.count("}")
    commands = set(re.findall(r"\\[a-zA-Z]+", bare))
    assert commands <= {
        "\\textbackslash", "\\textasciitilde", "\\textasciicircum", "\\textless", "\\textgreater", "\\textbar",
        "\\textasciigrave", "\\char", "\\textendash", "\\ldots", "\\times", "\\geq", "\\leq", "\\rightarrow", "\\alpha",
        "\\varepsilon", "\\sigma",
    }  # fmt: skip
    assert not set("%&#_~^") & set(bare)
    assert escaped.isprintable()
    assert not escaped.startswith(("[", "*"))


def test_latex_leaves_out_what_is_always_the_same_and_groups_by_attack():
    rows = [
        {"attack": attack, "defense": d, "asr": 0.1 + i / 10}
        for i, d in enumerate("xy")
        for attack in ("b", "a")
    ]
    text = latex(leaderboard_of(*rows))
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()
    assert [line.split(" & ")[0] for line in body] == [r"\midrule", "b", "b", r"\midrule", "a", "a"]
    heads = next(line for line in text.splitlines() if line.startswith(r"\textbf"))
    assert re.findall(r"textbf\{(.*?)\}", heads) == ["Attack", "Defence", r"ASR \%"]
    assert r"begin{tabular}{@{}llr@{}}" in text
    assert "Backbone: net-a; Head: nn" in text
    assert "LPIPS: NA (no trunk)" in text


def test_threats_are_letters_that_the_table_explains():
    text = latex(
        leaderboard_of({}, {"attack_seen_by_defense": "seen", "defense": "p", "identity_overlap": "unknown"})
    )
    assert re.search(r"& B S \? \\\\", text)
    assert "Threat: B: black-box; W: white-box; S: seen;" in text


def test_a_table_longer_than_a_page_is_a_longtable():
    rows = [{"defense": f"d{i}", "asr": i / 100} for i in range(LONG + 1)]
    assert r"\begin{longtable}" in latex(leaderboard_of(*rows))
    assert r"\begin{tabular}" in latex(leaderboard_of(*rows[:-1]))


def test_latex_of_one_row_keeps_its_columns():
    assert r"\textbf{ASR \%}" in latex(leaderboard_of({}))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("rows", [2, LONG + 1])
def test_latex_compiles_whatever_a_method_is_called(tmp_path, rows):
    odd = [
        {"defense": HOSTILE + str(i), "attack": "*x" if i % 2 else "[1ex]", "asr": i / 99}
        for i in range(rows)
    ]
    page = (
        "\\documentclass{article}\\usepackage{booktabs,longtable}\\begin{document}\n"
        f"{latex(leaderboard_of(*odd))}\\end{{document}}\n"
    )
    (tmp_path / "t.tex").write_text(page, encoding="utf-8")
    process = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


# -- HTML ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Reads a fragment: tags with their attributes, and the text of each cell."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.data, self._in = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "script"):
            self._in = tag
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        self._in = "" if tag == self._in else self._in

    def handle_data(self, data):
        if self._in == "td":
            self.cells[-1] += data
        elif self._in == "script":
            self.data += data


def tags_of(text):
    return [tag for tag, _ in Page(text).tags]


def test_html_has_every_cell_a_filter_each_and_all_columns_behind():
    leaderboard = leaderboard_of(
        {},
        {"defense": "jpeg", "access": "", "attack_adapts_to_defense": True},
        {"attack_adapts_in_part": True},
    )
    page = Page(html(leaderboard))
    texts = [re.sub(r"NA\d+$", MISSING, " ".join(cell.split())) for cell in page.cells]
    shown = display(in_words(leaderboard))
    first = ["Attack", "Defence", "Worst case %", "ASR %"]
    shown = shown[first + [name for name in shown if name not in first]]
    assert texts == [text for row in shown.to_numpy() for text in row]
    selects = [attrs["name"] for tag, attrs in page.tags if tag == "select"]
    assert selects == list(FILTERS)[:8]
    rows = [attrs for tag, attrs in page.tags if tag == "tr" and attrs]
    assert rows[1]["data-access"] == "(none)"
    adapted = [row["data-attack-adapts-to-defense"] for row in rows]
    assert sorted(adapted) == ["exact", "no", "partial"]
    full = json.loads(page.data)
    rebuilt = [[full["texts"][at] for at in row] for row in full["rows"]]
    assert [[name for name, _, _ in full["columns"]], *rebuilt] == list(
        csv.reader(io.StringIO(to_csv(leaderboard)))
    )


def test_html_sorts_by_numbers_and_missing_ones_are_empty():
    page = Page(html(leaderboard_of({"asr": 0.123456})))
    values = {attrs["data-column"]: attrs["data-value"] for tag, attrs in page.tags if tag == "td"}
    assert float(values["asr"]) == pytest.approx(12.3456)
    assert values["lpips"] == ""
    assert {column.key for column in SUMMARY_COLUMNS} >= set(values)


@pytest.fixture(scope="module")
def harmless_tags():
    return tags_of(html(leaderboard_of({"attack": "fog", "lpips_reason": "no"}, {"attack": "mist"})))


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1, max_size=40),
    st.sampled_from(["{}", "<script>{}</script>", "\"'><img src=x onerror={}>", "</script>{}<!--", "]]>{}"]),
)
def test_a_hostile_name_is_never_markup(harmless_tags, text, frame):
    name = frame.format(text)
    hostile = html(leaderboard_of({"attack": name, "lpips_reason": name}, {"attack": "mist"}))
    if name.strip() and name not in ("fog", "mist"):
        strip = [tag for tag in tags_of(hostile) if tag != "wbr"]
        assert [tag for tag in strip if tag not in ("li", "option")] == [
            tag for tag in harmless_tags if tag not in ("li", "option")
        ]
    attributes = {key for _, attrs in Page(hostile).tags for key in attrs}
    assert not {key for key in attributes if key.startswith("on") or key in ("src", "href")}


@pytest.mark.parametrize("name", ["", "1x", "a b", 'a"b', "é"])
def test_an_id_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="an id begins with a letter"):
        html(leaderboard_of({}), name)


def test_style_and_script_reach_for_nothing_outside():
    for text in (CSS, JS):
        assert not re.search(
            r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML", text
        )
    for name in ("--bg", "--fg", "--muted", "--line", "--accent", "--mark"):
        assert len(re.findall(rf"{name}: ", CSS)) == 3
