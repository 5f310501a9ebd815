"""Key results and headline: right numbers from the tables, no claim without a test, for runs of every shape."""

import re
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bench.analysis.comparison_groups import EVERY, ComparisonGroup
from bench.analysis.warnings import RowWarnings
from bench.integrity.audit import Audit, Leak
from bench.leaderboard import means, significance_tables
from bench.leaderboard.view import RunView
from bench.report import key_results as module
from bench.report import phrases
from bench.report.document import Table
from bench.report.key_results import COLUMNS, accuracy, focus_of, key_results
from bench.report.summary import cautions, summary
from bench.report.wording import difference, p_text, percent
from bench.run.spec import Cell
from bench.stats.rankings import rank_methods

SHAPES = {
    "nothing": {"defenses": ("jpeg:quality=20",)},
    "attacks": {"attacks": ("tiny-noise", "tiny-sometimes"), "backbones": ("tiny-a", "tiny-b")},
    "one of each": {"attacks": ("tiny-noise",), "defenses": ("jpeg:quality=20",)},
    "no rate": {"attacks": ("tiny-failing",), "backbones": ("tiny-a",)},
    "some failed": {"attacks": ("tiny-noise", "tiny-failing"), "defenses": ("jpeg:quality=20",)},
    "seeds": {"attacks": ("tiny-noise",), "seeds": (0, 1), "heads": ("nn", "centroid")},
    "ranks": {"attacks": ("tiny-noise",), "defenses": ("jpeg",), "dataset": "tiny:training_identities=30",
              "protocol": "identification:ranks=1|3,distractors=10,impostors=20,fpir=0.2,folds=3"},
    "thresholds": {"attacks": ("tiny-noise", "tiny-identity-mean"), "heads": ("pair",),
                   "dataset": "tiny:training_identities=50,training_photos=1",
                   "protocol": "verification:far=0.2|0.1,impostors=50"},
}  # fmt: skip


@pytest.fixture(scope="module")
def view_of(evaluate):
    return cache(lambda shape: RunView.of(evaluate(**SHAPES[shape]).folder.path))


def parts(section):
    """Return a summary's headline, its rows of key results and its facts."""
    lead, *between, facts = section.blocks
    titles = [column.title for column in COLUMNS]
    tables = [block for block in between if isinstance(block, Table)]
    rows = [dict(zip(titles, row, strict=True)) for table in tables for row in table.rows]
    return lead.text, rows, dict(facts.pairs)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_run_has_a_headline_key_results_and_facts(view_of, shape):
    view = view_of(shape)
    head, rows, facts = parts(summary(view))
    assert head.endswith(".")
    assert bool(rows) == bool(view.leaderboard["asr"].notna().any())
    for text in (head, *facts.values(), *(cell for row in rows for cell in row.values())):
        assert not re.search(r"\b(None|nan|NaN|True|False|inf)\b|[{}]", text)
    cells, split = view.folder.cells(), view.folder.split()
    failed, added = sum(c.status != "ok" for c in cells), sum(not c.requested for c in cells)
    assert facts["Cells"] == f"{len(cells)}; failed: {failed}; references that the plan added: {added}"
    probes = sum(map(len, split.probes.values()))
    assert facts["Sample"].startswith(f"{len(split.probes)} identities, {probes} probe photos")
    for label, axis in (("Attacks", "attack"), ("Defences", "defense")):
        names = {getattr(cell, axis) for cell in cells} - {"none"}
        assert set(facts[label].split(", ")) == ({f"`{name}`" for name in names} or {"none"})
    assert facts["Caution"] == "Tiny: no figure says anything about faces."


def test_an_attack_without_effect_stands_before_what_defences_do(view_of):
    head, _, _ = parts(summary(view_of("some failed")))
    assert head.startswith(
        "No effect: `tiny-noise`. ASR without a defence 50.0 %, without any cloak 50.0 %: "
    )


def test_without_a_rate_of_an_attack_the_headline_says_why(view_of):
    head, rows, _ = parts(summary(view_of("nothing")))
    rates = view_of("nothing").leaderboard["asr"]
    assert head.endswith(f"of the leaderboard: {percent(rates.min())} to {percent(rates.max())}.")
    assert [row["Value"].split(" [")[0] for row in rows] == [percent(rate) for rate in rates]
    view = RunView(view_of("no rate").folder)
    assert parts(summary(view))[0].startswith("No attack has a rate")
    for cell in view.results.cells.values():
        object.__setattr__(cell, "status", "failed")
        object.__setattr__(cell, "reason", "the disk is full.")
    assert parts(summary(view))[0] == "No result: every cell failed. First reason: The disk is full."


def test_a_failed_attack_is_in_no_mean_and_its_row_says_so(view_of):
    head, rows, facts = parts(summary(view_of("some failed")))
    assert " Worst case of `jpeg:quality=20`: ≥ " in head
    assert " Lowest ASR with a defence, against `tiny-noise`: `jpeg:quality=20`, " in head
    assert "not tested: 0 of 6 identities differ; a test needs at least 6" in head
    missing = {row["Where"] for row in rows if row["Value"].startswith("NA (")}
    assert missing == {"against `tiny-failing`", "mean of 2 attacks"}
    assert "failed: 2;" in facts["Cells"]


def test_of_attacks_alone_the_strongest_is_against_no_cloak_and_the_others_against_it(view_of):
    view = view_of("attacks")
    asr = view.means[view.means["against"] != EVERY].set_index("against")["asr"]
    best, (head, rows, _) = asr.idxmax(), parts(summary(view))
    assert f" Highest ASR without a defence: `{best}`, {percent(asr.max())}" in head
    board = view.leaderboard[view.leaderboard["attack"] == best]
    for row, tested in zip(rows, board.to_dict("records"), strict=False):
        assert row["Where"] == f"tracker `{tested['backbone']}`, seed 0"
        assert row["Difference"] == difference(tested["asr"] - tested["baseline_error"])
        assert row["p (Holm)"] == p_text(tested["p_holm"])
        assert (row["Verdict"] == f"not tested: {tested['p_holm_reason']}") == pd.isna(tested["p_holm"])
    assert [row["What"] for row in rows if f"`{best}`:" in row["Against"]] == [f"ASR, `{asr.idxmin()}`"]


def test_the_cost_is_the_row_of_the_table_of_accuracy(view_of):
    row = significance_tables.accuracy_kept(view_of("one of each").results).iloc[0]
    cost = parts(summary(view_of("one of each")))[1][-1]
    assert cost["What"] == "Normal accuracy, `jpeg:quality=20`"
    assert cost["Value"].startswith(percent(row["normal_accuracy"]))
    assert cost["Difference"].startswith(difference(row["difference"]))
    assert cost["Verdict"].endswith({True: ": shown", False: ": not shown"}[bool(row["not_worse"])])


def test_verification_is_about_dodging_and_the_mean_of_attacks(view_of):
    focus = focus_of(view_of("thresholds"))
    assert all(focus["condition"].str.startswith("dodging, FAR") & (focus["against"] == EVERY))


def test_leaks_warnings_and_threat_marks_are_counted(view_of):
    view = RunView(view_of("one of each").folder)
    view.leaderboard = board = view.leaderboard.copy()
    texts = ["unmoved: x; like-noise: y", *[""] * (len(board) - 1)]
    board["warnings"] = [RowWarnings.from_text(text) for text in texts]
    board["access"], board["identity_overlap"] = "white-box", ["unknown", *["no"] * (len(board) - 1)]
    leaks = [Leak("a", severity, marked=marked, column="related = True", cells=(), evidence="x")
             for severity, marked in (("notice", False), ("leak", False), ("leak", True))]  # fmt: skip
    facts = [dict(cautions(view, audit)) for audit in (None, Audit((leaks[0],), ()), Audit(tuple(leaks), ()))]
    assert [one["Leaks"] for one in facts] == [
        "not audited",
        "none found",
        "2, of these not marked in the rows: 1",
    ]
    assert facts[0]["Warnings"] == f"1 of {len(board)} rows: `unmoved`, `like-noise`"
    assert facts[0]["White-box rows"] == f"{len(board)} of {len(board)} rows"
    assert facts[0]["Overlap of identities with training data unknown"] == f"1 of {len(board)} rows"


KEY = ("nn", "", "black-box")
ENDS = ("", "_low", "_high", "_reason")
MARKS = {column: False for column, _, _ in phrases.TRAINED} | {"backbone": "t", "defense": "good"}


def rates(seed=0, **means_of):
    """Return identities × methods: rates in twentieths, the methods' means as given."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: rng.binomial(20, mean, 60) / 20 for name, mean in means_of.items()})


def row_of(one, name):
    mean, attacks = float(one.rates[name].mean()), "p|q" if one.opponent == EVERY else one.opponent
    return dict.fromkeys(means.COLUMNS) | {
        "against": one.opponent, "head": one.head, "condition": one.condition, "access": one.access, "defense": name,
        "asr": mean, "asr_low": mean - 0.01, "asr_high": mean + 0.01, "undefended_asr": one.rates["none"].mean(),
        "attacks": attacks, "normal_accuracy_reason": "no photo", "not_worse_reason": "too few",
    }  # fmt: skip


def view_with(frame, *others, against="x", board=(), trained=""):
    """Return a view of defences with given rates; others: (attack, frame, head, condition, access)."""
    groups = []
    for opponent, some, *key in ((against, frame, *KEY), *others):
        one = ComparisonGroup("defense", opponent, *key, ("a", "b"), (opponent,), some)
        rng = np.random.default_rng(1)
        groups.append((one, rank_methods(some, higher_is_better=False, rng=rng, resamples=2999)))
    own = {"defense": trained} if trained else {}
    cells = {Cell(against, "good", "t", "nn", 0): SimpleNamespace(status="ok", trained=own)}
    values = {"head": ["nn"], "attack": ["x"]}
    return SimpleNamespace(
        results=SimpleNamespace(cells=cells, values=values.get, ranked_conditions=lambda: [""]),
        facts=SimpleNamespace(spec=SimpleNamespace(protocol="tracker")),
        ranked=groups, pairs=significance_tables.pairs(groups),
        leaderboard=pd.DataFrame([{**MARKS, **row} for row in ({"attack": "none"}, *board)]),
        means=pd.DataFrame([row_of(one, name) for one, _ in groups for name in one.rates]),
    )  # fmt: skip


def found_in(*arguments, **options):
    view = view_with(*arguments, **options)
    return key_results(view, focus_of(view))


def test_a_defence_is_compared_with_none_and_what_is_tied_with_it_is_named():
    frame = rates(none=0.6, weak=0.4, good=0.1, twin=0.1)
    best, twin = sorted(("good", "twin"), key=lambda name: frame[name].mean())
    headline, rows, facts = found_in(frame)
    assert headline.startswith(f"Lowest ASR with a defence, against `x`: `{best}`, {rows[0].value}; without")
    assert headline.endswith(f"; significantly lower (p after Holm: {rows[0].p}).")
    assert [row.what for row in rows[:3]] == [f"ASR, `{name}`" for name in (best, twin, "weak")]
    pair = view_with(frame).pairs.set_index(["first", "second"]).loc[best, "none"]
    assert rows[0].against == f"no defence: {percent(frame['none'].mean())}"
    assert rows[0].difference.startswith(f"{100 * pair['difference']:+.1f} [")
    assert rows[0].detectable == f"{100 * pair['minimum_detectable_difference']:.1f}"
    assert dict(facts)[f"Not significantly different from `{best}`"] == f"`{twin}`"
    assert (rows[-1].value, rows[-1].difference, rows[-1].p) == ("NA (no photo)", "NA", "NA")
    assert rows[-1].verdict.endswith(": not tested: too few")


def test_the_worst_case_is_the_first_number_and_says_who_knows_the_defence():
    view = view_with(rates(none=0.6, weak=0.4, good=0.1))
    worst = {"none": (0.9, ""), "weak": (0.8, "exact"), "good": (0.7, "none")}
    for name, (value, knows) in worst.items():
        own = view.means["defense"] == name
        columns = {
            "asr_worst": value, "asr_worst_low": value - 0.1, "asr_worst_high": value + 0.05, "worst_over": 3,
            "worst_of": 4 if name == "weak" else 3, "worst_attack": "x", "worst_knows": knows,
        }  # fmt: skip
        for column, one in columns.items():
            view.means.loc[own, column] = one
    found = key_results(view, focus_of(view))
    good, weak = found.rows[:2]
    assert found.headline.startswith(
        "Worst case of `good`: ≥ 70.0 % [60.0, 75.0]; no defence: 90.0 %; no worst case: no attack was made against "
        "this defence. Lowest ASR with a defence"
    )
    assert (good.what, good.where, good.value) == (
        "Worst case, `good`", "3 attacks, the strongest `x`", "≥ 70.0 % [60.0, 75.0]",
    )  # fmt: skip
    assert (weak.where, weak.value) == ("3 of 4 attacks, the strongest `x`", "≥ 80.0 % [70.0, 85.0]")
    assert weak.verdict == "an attack was made against this defence"
    assert found.rows[2].what == "ASR, `good`"


@pytest.mark.parametrize(
    ("frame", "verdict", "tied"),
    [
        (rates(none=0.2, good=0.7), "significantly higher", "no other"),
        (pd.DataFrame({"none": [0.1, 0.3] * 30, "good": [0.3, 0.1] * 30}), "not significantly different", "no defence"),
        (pd.DataFrame({"none": [0.5] * 60, "good": [0.5] * 60}), "not tested: 0 of 60 identities differ", "no defence"),
        (rates(none=0.6, good=0.1).mask(lambda f: (f.index == 3)[:, None] & (f.columns == "good")),
         "not tested: not ranked: 1 of 2 methods have results for everyone", "not ranked: 1 of 2 methods have"),
    ],
)  # fmt: skip
def test_no_claim_is_made_that_the_test_does_not_show(frame, verdict, tied):
    headline, rows, facts = found_in(frame)
    assert rows[0].verdict.startswith(verdict)
    assert f"; {verdict}" in headline
    assert facts[0][1].startswith(tied)
    ends = [float(end) for end in re.findall(r"[-+][\d.]+", rows[0].difference)]
    assert ends == [] or ends[1] <= ends[0] <= ends[2]
    assert not verdict.endswith("higher") or ends[1] > 0


def test_the_mean_of_attacks_is_followed_by_each_of_them_and_by_other_heads_up_to_a_limit():
    frame, weak, strong = (rates(seed, none=0.6, good=mean) for seed, mean in enumerate((0.2, 0.05, 0.4)))
    elsewhere = (EVERY, rates(3, none=0.1, good=0.6), "linear", "", "")
    found = found_in(frame, elsewhere, ("p", weak, *KEY), ("q", strong, *KEY), against=EVERY)
    assert found.headline.startswith("Lowest ASR with a defence, mean of 2 attacks: `good`, ")
    wheres = ("mean of 2 attacks", "against `p`", "against `q`", "mean of 2 attacks, head `linear`")
    for row, where, some in zip(found.rows, wheres, (frame, weak, strong, elsewhere[1]), strict=False):
        assert (row.where, row.value.split(" [")[0]) == (where, percent(some["good"].mean()))
        assert row.verdict == f"significantly {'higher' if 'linear' in where else 'lower'}"
    many = found_in(rates(none=0.9, **{f"d{i}": 0.1 + 0.02 * i for i in range(module.MOST + 3)})).rows
    assert sum(row.what.startswith("ASR") for row in many) == module.MOST


def test_what_the_best_defence_was_trained_with_is_read_from_the_marks_of_its_rows():
    board = [
        {"attack": "a", "attack_seen_by_defense": "seen", "extractors_are_surrogates": True},
        {"attack": "b", "attack_seen_by_defense": "seen-with-other-parameters", "extractor_is_tracker": True},
        {"attack": "c", "attack_adapts_to_defense": True},
        {"attack": "d", "attack_seen_by_defense": "seen", "defense": "other"},
    ]
    frame = rates(none=0.6, good=0.1)
    assert found_in(frame).read_with[-1] == ("Training of `good`", phrases.UNTRAINED)
    assert found_in(frame, board=board).read_with[-1][1] == (
        "trained on `a`; trained on other parameters of `b`; extractors are surrogates of `a`; "
        "extractors include a tracker's backbone (`t`); adapted to this very defence: `c`"
    )


def test_a_headline_from_one_training_says_so():
    frame = rates(none=0.6, good=0.1)
    assert "trained" not in found_in(frame).headline
    for trained in ("run", "weights"):
        headline = found_in(frame, trained=trained).headline
        assert headline.startswith(found_in(frame).headline)
        assert headline.endswith(
            " Trained good once: a claim about a trained part needs 3 training seeds or more, so this one is about "
            "these weights."
        )


def test_of_erasers_the_keys_come_first_and_then_defences_by_what_they_undo(monkeypatch):
    undone = {"right key": 0.9, "wrong key": 0.0, "no key": 0.1, "blur": 0.3, "good": 0.85}
    seen_by = {"blur": "unseen", "good": "seen"}
    table = pd.DataFrame(
        {
            "attack": "mask", "backbone": backbone, "head": "pair", "eraser": name,
            "kind": "defence" if name in seen_by else "key", "attack_seen_by_defense": seen_by.get(name, ""),
            **{f"protected{end}": 0.8 for end in ENDS}, **{f"undone{end}": mean + shift for end in ENDS},
        }
        for name, mean in undone.items() for backbone, shift in (("p", 0.0), ("q", 0.05))
    )  # fmt: skip
    monkeypatch.setattr(module.erasure, "table", lambda _results: table)
    view = view_with(rates(none=0.6, good=0.1, blur=0.3))
    view.facts.spec.protocol = "erasure"
    headline, rows, facts = key_results(view, focus_of(view))
    assert headline.startswith("`mask`: which of the pairs that it protects are undone")
    assert rows[0][:3] == ("Protected pairs", "tracker `p`", "80.0 % [80.0, 80.0]")
    order = [row.what.removeprefix("Protected pairs undone, eraser ") for row in rows[2:-1:2]]
    assert order == ["`right key`", "`wrong key`", "`no key`", "`good`", "`blur`"]
    assert rows[9][1:3] == ("tracker `q`, attack seen", "90.0 % [90.0, 90.0]")
    assert rows[-1] == accuracy(view.means.iloc[1].to_dict())
    assert facts[0][0] == "Training of `good`"
