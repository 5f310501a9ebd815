"""Key results and headline: right numbers from the tables, no claim without a test, for runs of every shape."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bench.analysis.comparison_groups import EVERY, ComparisonGroup
from bench.analysis.warnings import RowWarnings
from bench.integrity.audit import Audit, Leak
from bench.leaderboard import significance_tables
from bench.leaderboard.means import means, table
from bench.leaderboard.view import RunView
from bench.report import key_results as module
from bench.report import summary as summary_module
from bench.report.document import Facts, Paragraph, Table
from bench.report.focus import Focus, choose_focus
from bench.report.key_results import COLUMNS, accuracy, key_results, strongest_erasers
from bench.report.summary import headline, knowledge, read_with, summary
from bench.report.wording import difference, percent
from bench.stats.rankings import rank_methods

# -- runs of many shapes ------------------------------------------------------------------------------------

SHAPES = {
    "nothing": {},
    "attack": {"attacks": ("tiny-noise",)},
    "attacks": {"attacks": ("tiny-noise", "tiny-sometimes"), "backbones": ("tiny-a", "tiny-b")},
    "defence": {"defenses": ("jpeg:quality=20",)},
    "one of each": {"attacks": ("tiny-noise",), "defenses": ("jpeg:quality=20",)},
    "all failed": {"attacks": ("tiny-failing",), "backbones": ("tiny-a",)},
    "some failed": {"attacks": ("tiny-noise", "tiny-failing"), "defenses": ("jpeg:quality=20",)},
    "seeds": {"attacks": ("tiny-noise",), "seeds": (0, 1), "heads": ("nn", "centroid")},
    "ranks": {
        "dataset": "tiny:training_identities=30",
        "protocol": "identification:ranks=1|3,distractors=10,impostors=20,fpir=0.2,folds=3",
        "attacks": ("tiny-noise",),
        "defenses": ("jpeg",),
    },
    "thresholds": {
        "dataset": "tiny:training_identities=50,training_photos=1",
        "protocol": "verification:far=0.2|0.1,impostors=50",
        "attacks": ("tiny-noise", "tiny-identity-mean"),
        "heads": ("pair",),
    },
}


@pytest.fixture(scope="module")
def runs(evaluate):
    return {}, evaluate


def view_of(runs, shape):
    made, evaluate = runs
    if shape not in made:
        made[shape] = RunView.of(evaluate(**SHAPES[shape]).folder.path)
    return made[shape]


def parts(section):
    """Return a summary's headline, its rows of key results and its facts."""
    rows = [dict(zip((c.title for c in COLUMNS), row, strict=True)) for block in section.blocks
            if isinstance(block, Table) for row in block.rows]  # fmt: skip
    texts = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    facts = dict(pair for block in section.blocks if isinstance(block, Facts) for pair in block.pairs)
    return texts[0], rows, facts


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_run_has_a_headline_key_results_and_facts(runs, shape):
    view = view_of(runs, shape)
    head, rows, facts = parts(summary(view))
    assert head.endswith(".")
    assert bool(rows) == bool(view.leaderboard["asr"].notna().any())
    for text in (head, *facts.values(), *(cell for row in rows for cell in row.values())):
        assert not re.search(r"\b(None|nan|NaN|True|False|inf)\b|[{}]", text)
    cells, split = view.folder.cells(), view.folder.split()
    failed, added = (
        sum(cell.status != "ok" for cell in cells),
        sum(not cell.requested for cell in cells),
    )
    assert facts["Cells"] == f"{len(cells)}; failed: {failed}; references that the plan added: {added}"
    assert facts["Sample"].startswith(
        f"{len(split.probes)} identities, {sum(map(len, split.probes.values()))} probe photos"
    )
    for label, axis in (("Attacks", "attack"), ("Defences", "defense")):
        names = {getattr(cell, axis) for cell in cells} - {"none"}
        assert set(facts[label].split(", ")) == ({f"`{name}`" for name in names} or {"none"})
    assert facts["Caution"] == "Tiny: no figure says anything about faces."


def test_without_an_attack_the_error_rates_are_the_key_results(runs):
    view = view_of(runs, "nothing")
    head, rows, _ = parts(summary(view))
    rates = view.leaderboard["asr"]
    assert head.startswith("No attack was run.")
    assert head.endswith(f"{percent(rates.min())} to {percent(rates.max())}.")
    assert len(rows) == len(rates)
    assert all(row["Value"].startswith(percent(rate)) for row, rate in zip(rows, rates, strict=True))


def test_where_all_failed_the_reason_is_the_headline(evaluate):
    view = RunView.of(evaluate(attacks=("tiny-failing",), defenses=("jpeg:quality=20",)).folder.path)
    for cell in view.results.cells.values():
        object.__setattr__(cell, "status", "failed")
        object.__setattr__(cell, "reason", "the disk is full.")
    head, _, facts = parts(summary(view))
    assert head == "No result: every cell failed. First reason: The disk is full."
    assert f"failed: {len(view.results.cells)};" in facts["Cells"]


def test_a_failed_attack_is_in_no_mean_and_its_cells_are_counted(runs):
    head, rows, facts = parts(summary(view_of(runs, "some failed")))
    assert "against `tiny-noise`" in head
    assert "(not tested: 0 of 6 identities differ; a test needs at least 6)" in head
    assert {row["Where"] for row in rows} == {"`tiny-noise`", ""}
    assert "failed: 2;" in facts["Cells"]


def test_an_attack_without_defences_is_the_means_row_against_no_cloak(runs):
    view = view_of(runs, "attack")
    row, tested = table(means(view.results)).iloc[0], view.leaderboard[view.leaderboard["attack"] != "none"]
    head, rows, _ = parts(summary(view))
    rate = percent(row["asr"], row["asr_low"], row["asr_high"])
    assert head.startswith(f"`tiny-noise` without a defence: ASR {rate}, error rate without any cloak ")
    assert rows[0]["What"] == "ASR, `tiny-noise`"
    assert rows[0]["Against"] == f"no cloak: {percent(row['baseline_error'])}"
    p = tested["p_holm"].iloc[0]
    assert rows[0]["p (Holm)"] == ("NA" if pd.isna(p) else f"{p:.4f}")
    assert (rows[0]["Verdict"] == f"not tested: {tested['p_holm_reason'].iloc[0]}") == bool(pd.isna(p))


def test_of_several_attacks_the_highest_rate_comes_first(runs):
    view = view_of(runs, "attacks")
    rates = table(means(view.results)).set_index("against")["asr"].drop(EVERY, errors="ignore")
    head, rows, _ = parts(summary(view))
    named = re.search(r"`(.+?)`", head)
    assert named is not None
    assert rates[named[1]] == rates.max()
    assert percent(rates.max()) in head
    assert {row["Where"] for row in rows[:2]} == {"tracker `tiny-a`, seed 0", "tracker `tiny-b`, seed 0"}
    others = [row for row in rows if row["Against"].startswith(f"`{named[1]}`: ")]
    assert [row["What"] for row in others] == [f"ASR, `{name}`" for name in rates.index if name != named[1]]


def test_leaks_are_counted_where_an_audit_is_given(runs):
    view = view_of(runs, "one of each")
    marked = Leak("a", "leak", marked=True, column="access = white-box", cells=(), evidence="x")
    unmarked = Leak("b", "leak", marked=False, column="related = True", cells=(), evidence="y")
    notice = Leak("c", "notice", marked=False, column="dataset_note", cells=(), evidence="z")
    leaks = [
        parts(summary(view, audit))[2]["Leaks"]
        for audit in (None, Audit((notice,), ()), Audit((marked, unmarked), ()))
    ]
    assert leaks == ["not audited", "none found", "2, of these not marked in the rows: 1"]


def test_warnings_and_threat_marks_are_counted_in_rows(runs):
    view = RunView(view_of(runs, "attack").folder)
    board = view.leaderboard.copy()
    texts = ["unmoved: x; like-noise: y", *[""] * (len(board) - 1)]
    board["warnings"] = [RowWarnings.from_text(text) for text in texts]
    board["access"] = "white-box"
    board["identity_overlap"] = ["unknown", *["no"] * (len(board) - 1)]
    view.leaderboard = board
    facts = dict(summary_module.cautions(view, None))
    assert facts["Warnings"] == f"1 of {len(board)} rows: `unmoved`, `like-noise`"
    assert facts["White-box rows"] == f"{len(board)} of {len(board)} rows"
    assert facts["Overlap of identities with training data unknown"] == f"1 of {len(board)} rows"


def test_the_cost_is_the_row_of_the_table_of_accuracy(runs):
    view = view_of(runs, "one of each")
    row = significance_tables.accuracy_kept(view.results).iloc[0]
    cost = parts(summary(view))[1][-1]
    assert cost["What"] == "Normal accuracy, `jpeg:quality=20`"
    assert cost["Value"].startswith(percent(row["normal_accuracy"]))
    assert cost["Against"] == f"`none`: {percent(row['undefended'])}"
    assert cost["Difference"].startswith(difference(row["difference"]))
    shown = {True: "shown", False: "not shown"}[bool(row["not_worse"])]
    assert cost["Verdict"] == f"loss below 1 point: {shown} (one-sided)"


# -- what a defence knew ------------------------------------------------------------------------------------


def knowing(attack, seen="unseen", *, surrogates=False, tracker=False, adaptive=False, defense="d"):
    threat = SimpleNamespace(
        attack_seen_by_defense=seen,
        extractors_are_surrogates=surrogates,
        extractor_is_tracker=tracker,
        attack_adapts_to_defense=adaptive,
    )
    return SimpleNamespace(attack=attack, defense=defense, threat=threat, backbone="t")


@pytest.mark.parametrize(
    ("cells", "text"),
    [
        ([knowing("a")], "none of the attacks, their surrogates or the trackers' backbones"),
        ([knowing("none", "seen", surrogates=True), knowing("a", "seen", defense="other")],
         "none of the attacks, their surrogates or the trackers' backbones"),
        ([knowing("a", "seen"), knowing("b")], "trained on `a`"),
        (
            [knowing("a", "seen", surrogates=True), knowing("b", "seen-with-other-parameters", tracker=True),
             knowing("c", adaptive=True)],
            "trained on `a`; trained on other parameters of `b`; extractors are surrogates of `a`; "
            "extractors include a tracker's backbone (`t`); made against by `c`",
        ),
    ],
)  # fmt: skip
def test_what_a_defence_knew_is_read_from_the_marks_of_its_cells(cells, text):
    view = SimpleNamespace(results=SimpleNamespace(cells=dict(enumerate(cells))))
    assert knowledge(view, "d") == text


# -- erasure ------------------------------------------------------------------------------------------------


def erasure_rows(**defenses):
    """Return an erasure table of two trackers: eraser → mean share undone and whether it has seen the attack."""
    found = {"right key": (0.9, ""), "wrong key": (0.0, ""), "no key": (0.1, ""), **defenses}
    return pd.DataFrame(
        {
            "attack": "mask", "backbone": backbone, "head": "pair", "eraser": name,
            "kind": "defence" if name in defenses else "key", "attack_seen_by_defense": seen,
            **{f"{what}{end}": value for what, value in (("protected", 0.8), ("undone", mean + shift))
               for end in ("", "_low", "_high")}, "protected_reason": "", "undone_reason": "",
        }
        for name, (mean, seen) in found.items()
        for backbone, shift in (("p", 0.0), ("q", 0.05))
    )  # fmt: skip


def test_of_erasers_the_strongest_and_the_strongest_unseen_are_key_results(monkeypatch):
    rows = erasure_rows(
        restorer=(0.85, "seen"), twin=(0.8, "seen-with-other-parameters"), blur=(0.3, "unseen")
    )
    assert strongest_erasers(rows) == ["restorer", "blur"]
    assert strongest_erasers(erasure_rows(restorer=(0.2, "seen"), blur=(0.3, "not-trained"))) == ["blur"]
    assert strongest_erasers(erasure_rows()) == []
    monkeypatch.setattr(module.erasure, "table", lambda _results: rows)
    view = SimpleNamespace(results=None, facts=SimpleNamespace(spec=SimpleNamespace(protocol="erasure")))
    found = key_results(view, Focus(("pair", "cloaked", "black-box"), "mask", {}, [], pd.DataFrame()))
    values = {(one.what.removeprefix("Protected pairs undone, "), one.where): one.value for one in found}
    assert values["Protected pairs", "tracker `p`"] == "80.0 % [80.0, 80.0]"
    assert values["right key", "tracker `q`"] == "95.0 % [95.0, 95.0]"
    assert values["defence `restorer`", "tracker `p`, attack seen"] == "85.0 % [85.0, 85.0]"
    assert values["defence `blur`", "tracker `p`, attack unseen"] == "30.0 % [30.0, 30.0]"
    assert not [name for name, _ in values if "twin" in name]
    assert {one.verdict for one in found} == {""}


# -- verdicts, on rates made for them -----------------------------------------------------------------------

IDENTITIES = 60
KEY = ("nn", "", "black-box")


def rates(seed=0, **means_of):
    """Return identities × methods: rates in twentieths, the methods' means as given."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {name.replace("_", "-"): rng.binomial(20, mean, IDENTITIES) / 20 for name, mean in means_of.items()}
    )


def compared(axis, opponent, frame, key=KEY):
    head, condition, access = key
    one = ComparisonGroup(axis, opponent, head, condition, access, ("a", "b"), (opponent,), frame)
    ranking = rank_methods(
        frame, higher_is_better=axis == "attack", rng=np.random.default_rng(1), resamples=2999
    )
    return one, ranking


def row_of(frame, name, attacks="x"):
    mean = float(frame[name].mean())
    return {
        "asr": mean, "asr_low": mean - 0.01, "asr_high": mean + 0.01, "asr_reason": "", "baseline_error": 0.02,
        "n_identities": IDENTITIES, "backbones": "a|b", "attacks": attacks, "normal_accuracy": 0.9,
        "normal_accuracy_low": 0.8, "normal_accuracy_high": 0.95, "normal_accuracy_reason": "",
        "undefended_accuracy": 0.92, "accuracy_difference": -0.02, "accuracy_difference_low": -0.03,
        "accuracy_difference_high": 0.0, "accuracy_p": None, "not_worse": None, "not_worse_reason": "too few",
    }  # fmt: skip


VIEW = SimpleNamespace(
    results=SimpleNamespace(cells={1: SimpleNamespace(status="ok", defense="", attack="none")}),
    facts=SimpleNamespace(spec=SimpleNamespace(protocol="tracker"), methods=()),
)


def focus_on(frame, *others, against="x", attacks="x"):
    groups = [compared("defense", against, frame), *others]
    rows = {
        (one.opponent, name): row_of(one.rates, name, attacks)
        for one, _ in groups
        if (one.head, one.condition, one.access) == KEY
        for name in one.rates
    }
    return Focus(KEY, against, rows, groups, significance_tables.pairs(groups))


def said(frame, *others, **more):
    """Return headline, key results and facts of defences with given rates."""
    focus = focus_on(frame, *others, **more)
    return headline(VIEW, focus), key_results(VIEW, focus), dict(read_with(VIEW, focus))


def test_a_defence_that_is_significantly_different_from_all_others_is_the_best():
    frame = rates(none=0.6, good=0.1, weak=0.4)
    text, found, facts = said(frame)
    assert re.match(
        r"Best defence against `x`: `good`\. ASR .+ is significant \(p after Holm 0\.00\d+\)\.", text
    )
    assert facts["Not significantly different from `good`"] == "none"
    assert facts["Not significantly below no defence"] == "none"
    assert [one.what for one in found[:2]] == ["ASR, `good`", "ASR, `weak`"]
    pairs = significance_tables.pairs([compared("defense", "x", frame)]).set_index(["first", "second"])
    pair = pairs.loc["good", "none"]
    assert found[0].against == f"`none`: {percent(frame['none'].mean())}"
    assert found[0].difference.startswith(f"{100 * pair['difference']:+.1f} [")
    assert found[0].detectable == f"{100 * pair['minimum_detectable_difference']:.1f}"
    assert found[0].verdict == "significantly lower"
    assert found[-1].verdict == "loss below 1 point: not tested (one-sided): too few"


def test_what_is_tied_with_the_best_and_what_does_not_help_is_named():
    frame = rates(none=0.6, good=0.1, twin=0.1, useless=0.6)
    text, _, facts = said(frame)
    best, other = sorted(("good", "twin"), key=lambda name: frame[name].mean())
    assert text.startswith(f"Lowest ASR against `x`: `{best}`, ")
    assert text.endswith(f"Not significantly different from `{best}`: `{other}`.")
    assert facts[f"Not significantly different from `{best}`"] == f"`{other}`"
    assert facts["Not significantly below no defence"] == "`useless`"


def test_a_difference_that_may_be_chance_is_no_result():
    frame = rates(none=0.5, other=0.49)
    frame["other"] = frame["none"].to_numpy()[::-1]
    frame.loc[0, "other"] -= 0.05 if frame.loc[0, "other"] else -0.05
    text, found, _ = said(frame)
    assert text.startswith("No defence ")
    assert found[0].verdict == "not significantly different"


def test_a_defence_that_makes_it_worse_is_not_the_best():
    text, found, _ = said(rates(none=0.2, worse=0.7))
    assert text.startswith("No defence lowers the ASR against `x`: without a defence ")
    assert found[0].verdict == "significantly higher"
    assert found[0].difference.startswith("+")
    low, high = map(float, re.findall(r"[-+][\d.]+(?=[,\]])", found[0].difference))
    assert 0 < low < high


def test_too_few_differences_are_not_tested_with_the_reason():
    frame = pd.DataFrame({"none": [0.5] * IDENTITIES, "same": [0.5] * IDENTITIES})
    _, found, _ = said(frame)
    assert found[0].p == "NA"
    assert found[0].verdict.startswith("not tested: 0 of 60 identities differ")


def test_unranked_defences_have_the_reason_in_the_headline():
    frame = rates(none=0.6, good=0.1)
    frame.loc[3, "good"] = np.nan
    text, found, _ = said(frame)
    assert text == "Defences against `x` are not ranked: 1 of 2 methods have results for everyone."
    assert found[0].verdict == "not tested: not ranked: 1 of 2 methods have results for everyone"


def test_the_mean_of_several_attacks_is_followed_by_each_of_them():
    frame = rates(none=0.6, good=0.2)
    weak, strong = rates(1, none=0.6, good=0.05), rates(2, none=0.6, good=0.4)
    text, found, _ = said(
        frame, compared("defense", "p", weak), compared("defense", "q", strong), against=EVERY, attacks="p|q"
    )
    assert text.startswith("Best defence in the mean over 2 attacks: `good`.")
    assert [one.where for one in found[:3]] == ["mean of 2 attacks", "`p`", "`q`"]
    assert [one.value.split(" [")[0] for one in found[1:3]] == [
        percent(weak["good"].mean()),
        percent(strong["good"].mean()),
    ]


def test_other_heads_and_conditions_are_counted():
    others = [
        compared("defense", "x", rates(3, none=0.6, good=0.1), ("linear", "", "black-box")),
        compared("defense", "x", rates(4, none=0.1, good=0.6), ("nn", "FAR 10 %", "black-box")),
    ]
    facts = said(rates(none=0.6, good=0.1), *others)[2]
    assert facts["`good` under other heads, conditions and accesses"].endswith(": 1 of 2")


def test_more_defences_than_fit_are_left_to_the_tables():
    names = {f"d{index}": 0.1 + 0.02 * index for index in range(module.MOST + 3)}
    found = said(rates(none=0.9, **names))[1]
    assert sum(one.what.startswith("ASR") for one in found) == module.MOST


@pytest.mark.parametrize(
    ("condition", "attacks", "mixed"),
    [
        ("dodging, FAR 1 %", "pgd|pgd:goal=targeted", True),
        ("dodging, FAR 1 %", "pgd|lowkey", False),
        ("dodging, FAR 1 %", "pgd:goal=targeted", False),
        ("dodging, FAR 1 %", "pgd|not-installed", False),
        ("rank 1", "pgd|pgd:goal=targeted", False),
    ],
)
def test_a_mean_over_dodging_that_mixes_goals_is_marked(condition, attacks, mixed):
    row = {**row_of(rates(none=0.5), "none"), "attacks": attacks}
    focus = Focus(("pair", condition, "black-box"), EVERY, {(EVERY, "none"): row}, [], pd.DataFrame())
    facts = dict(read_with(VIEW, focus))
    assert ("`pgd:goal=targeted`" in facts.get("Mean over attacks", "")) == mixed


def test_an_accuracy_that_is_not_known_has_its_reason():
    row = {**row_of(rates(none=0.5), "none"), "normal_accuracy": None, "accuracy_difference": None}
    found = accuracy(Focus(KEY, "x", {("x", "d"): row}, [], pd.DataFrame()), "d")
    assert (found.value, found.difference, found.p) == ("NA", "NA", "NA")
    assert found.verdict.endswith(": too few")


# -- the comparison it is about -----------------------------------------------------------------------------


def test_verification_is_about_dodging_and_the_mean_of_attacks(runs):
    focus = choose_focus(view_of(runs, "thresholds"))
    assert focus is not None
    assert focus.key[1].startswith("dodging, FAR")
    assert focus.against == EVERY


def test_no_focus_without_an_attack(runs):
    assert choose_focus(view_of(runs, "defence")) is None


def test_the_rows_of_a_focus_are_those_of_the_means(runs):
    view = view_of(runs, "one of each")
    focus = choose_focus(view)
    assert focus is not None
    expected = table(means(view.results)).set_index(["against", "defense"])["asr"]
    assert {key: row["asr"] for key, row in focus.rows.items()} == pytest.approx(expected.to_dict())
