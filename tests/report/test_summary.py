"""The three sentences: right numbers, right grammar, no claim without a test, for runs of every shape."""

import re
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.comparison_groups import EVERY, ComparisonGroup
from bench.integrity.audit import Audit, Finding
from bench.leaderboard import significance_tables
from bench.leaderboard.means import means, table
from bench.leaderboard.view import RunView
from bench.report import finding
from bench.report.finding import found, named_erasers
from bench.report.focus import Focus, choose_focus
from bench.report.knowledge import knowledge
from bench.report.summary import _accuracy, summary
from bench.report.wording import agreeing_digits, percent
from bench.stats.rankings import Ranking, rank_methods

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
    "channels": {"attacks": ("tiny-noise",), "protocol": "robustness:channels=none|gaussian"},
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


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_run_gives_three_sentences(runs, shape):
    view = view_of(runs, shape)
    sentences = summary(view)
    assert len(sentences) == 3
    for text in sentences:
        assert re.match(r"[A-Z`]", text)
        assert text.endswith(".")
        assert not text.endswith("..")
        assert not re.search(r"\b(None|nan|NaN|True|False|inf)\b", text)
        assert not re.search(r"  |;;|\(\)|: ;|``| ,| ;", text)
        assert not re.search(
            r"\b1 (attacks|defences|trackers|heads|cells|rows|identities|seeds|conditions|leaks)\b", text
        )
        assert not re.search(
            r"\b(?!1\b)\d+ (attack|defence|tracker|head|cell|row|identity|seed|condition|leak)\b", text
        )
        assert text.count("(") == text.count(")")
        assert text.count("`") % 2 == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_measured_is_counted_from_the_folder(runs, shape):
    view = view_of(runs, shape)
    text = summary(view)[0]
    cells, split = view.folder.cells(), view.folder.split()
    assert re.search(rf"\b{len(cells)} cells?\b", text)
    assert f"on {len(split.probes)} identities ({sum(map(len, split.probes.values()))} probe photos)" in text
    assert f"protocol `{view.facts.spec.protocol}`" in text
    for axis, noun in (("attack", "attack"), ("defense", "defence")):
        names = {getattr(cell, axis) for cell in cells} - {"none"}
        said = re.search(rf"\b(\d+|no) {noun}s?\b", text)
        assert said is not None
        assert said[1] == (str(len(names)) if names else "no")
        assert all(f"`{name}`" in text for name in names)
    references = sum(not cell.requested for cell in cells)
    assert (f"{references} of them references" in text) == (references > 0)


def test_without_an_attack_it_says_so(runs):
    view = view_of(runs, "nothing")
    assert summary(view)[0].startswith(
        "This run measures no attack and no defence, only photos as they are, by 1 "
    )
    assert summary(view)[1].startswith("No attack was measured: without any cloak, ")
    assert percent(view.leaderboard["asr"].max()) in summary(view)[1]


def test_where_all_failed_it_gives_the_reason(evaluate):
    view = RunView.of(evaluate(attacks=("tiny-failing",), defenses=("jpeg:quality=20",)).folder.path)
    for cell in view.results.cells.values():
        object.__setattr__(cell, "status", "failed")
        object.__setattr__(cell, "reason", "the disk is full.")
    text = summary(view)[1:]
    assert text[0] == "Nothing was found, as every cell failed: the disk is full."
    assert text[1].startswith(f"Of {len(view.results.cells)} cells {len(view.results.cells)} failed; ")


def test_failed_cells_are_counted_and_their_slices_not_ranked(runs):
    view = view_of(runs, "some failed")
    failed = sum(cell.status == "failed" for cell in view.folder.cells())
    assert failed
    assert f"f {len(view.folder.cells())} cells {failed} failed" in summary(view)[2]


def test_the_attack_of_a_run_without_defences_is_the_means_row(runs):
    view = view_of(runs, "attack")
    row = table(means(view.results)).iloc[0]
    text = summary(view)[1]
    assert (
        f"`tiny-noise` has an attack success rate (ASR) of {percent(row['asr'], row['asr_low'], row['asr_high'])}"
        in text
    )
    assert f"without any cloak there are {percent(row['baseline_error'])} errors" in text


def test_of_several_attacks_the_highest_rate_comes_first(runs):
    view = view_of(runs, "attacks")
    rates = table(means(view.results)).set_index("against")["asr"].drop(EVERY, errors="ignore")
    text = summary(view)[1]
    highest = [name for name, rate in rates.items() if rate == rates.max()]
    found_first = re.match(
        r"The (?:strongest attack without a defence is|highest .+ without a defence is .+, with) `(.+?)`",
        text,
    )
    assert found_first is not None
    assert found_first[1] in highest
    assert percent(rates.max()) in text
    assert "mean of 2 trackers" in text


def test_conditions_are_named_and_their_range_said(runs):
    text = summary(view_of(runs, "channels"))[1]
    assert "(no channel, " in text
    assert "; under each of 2 conditions the ASR of `tiny-noise` is 50.0 %." in text


def test_the_dataset_s_caution_is_in_the_last_sentence(runs):
    assert "tiny: no figure says anything about faces." in summary(view_of(runs, "attack"))[2]


def test_leaks_are_said_where_an_audit_is_given(runs):
    view = view_of(runs, "one of each")
    marked = Finding("a", "leak", marked=True, column="access = white-box", cells=(), evidence="x")
    unmarked = Finding("b", "leak", marked=False, column="related = True", cells=(), evidence="y")
    notice = Finding("c", "notice", marked=False, column="dataset_note", cells=(), evidence="z")
    assert "leak" not in summary(view)[2]
    assert "the audit finds no leak;" in summary(view, Audit((notice,), ()))[2]
    assert "the audit finds 1 leak, marked in the rows;" in summary(view, Audit((marked,), ()))[2]
    assert (
        "the audit finds 2 leaks, 1 of them not marked in the rows;"
        in summary(view, Audit((marked, unmarked), ()))[2]
    )


def test_the_cost_is_the_row_of_the_table_of_accuracy(runs):
    view = view_of(runs, "one of each")
    row = significance_tables.accuracy_kept(view.results).iloc[0]
    text = summary(view)[2]
    assert row["undefended"] == row["normal_accuracy"]
    assert (
        f"`jpeg:quality=20` leaves normal accuracy at {percent(row['normal_accuracy'])} but is not shown"
        in text
    )
    assert "shown to lose less than 1.0 point" in text


def cost(before, after, *, not_worse=True, **more):
    row = {
        "undefended_accuracy": before, "normal_accuracy": after, "accuracy_difference": after - before,
        "margin": 0.01, "not_worse": not_worse, "not_worse_reason": "", "normal_accuracy_reason": "", **more,
    }  # fmt: skip
    return _accuracy(Focus(("nn", "", ""), "x", {"d": row}, {}, []), "d")


@pytest.mark.parametrize(
    ("before", "after", "not_worse", "said"),
    [
        (0.98654, 0.98312, True, "costs 0.34 points of normal accuracy (98.65 % to 98.31 %) and is shown"),
        (0.953, 0.94, False, "costs 1.3 points of normal accuracy (95.3 % to 94.0 %) and is not shown"),
        (0.95, 0.94, False, "costs 1.0 point of normal accuracy (95.0 % to 94.0 %) and is not shown"),
        (0.9, 0.9, False, "leaves normal accuracy at 90.0 % but is not shown"),
        (0.9, 0.9002, True, "adds 0.02 points of normal accuracy (90.00 % to 90.02 %) and is shown"),
    ],
)
def test_rates_and_their_difference_add_up_as_shown(before, after, not_worse, said):
    assert cost(before, after, not_worse=not_worse) == f"`d` {said} to lose less than 1.0 point"


def test_what_was_not_tested_is_not_called_not_shown():
    text = cost(0.9, 0.8, not_worse=None, not_worse_reason="too few identities")
    assert text.endswith("; whether it loses less than 1.0 point was not tested (too few identities)")


@given(st.floats(0, 1), st.floats(0, 1))
def test_digits_agree_and_show_a_difference_there_is(before, after):
    digits = agreeing_digits(before, after)
    assert 1 <= digits <= 4
    if digits < 4:
        one, other = (Decimal(f"{100 * rate:.{digits}f}") for rate in (before, after))
        assert abs(other - one) == Decimal(f"{100 * abs(after - before):.{digits}f}")
        assert before == after or other != one


# -- what a defence knew ------------------------------------------------------------------------------------


def knowing(attack, seen="unseen", *, surrogates=False, tracker=False, defense="d"):
    threat = SimpleNamespace(
        attack_seen_by_defense=seen, extractors_are_surrogates=surrogates, extractor_is_tracker=tracker
    )
    return SimpleNamespace(attack=attack, defense=defense, threat=threat)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([knowing("a")], ""),
        ([knowing("none", "seen", surrogates=True)], ""),
        ([knowing("a", "seen", defense="other")], ""),
        ([knowing("a", "seen"), knowing("b")], "it was trained on `a`"),
        ([knowing("a", surrogates=True)], "it was trained with surrogates of `a` as extractors"),
        (
            [knowing("a", surrogates=True), knowing("b", surrogates=True)],
            "it was trained with surrogates of every attack as extractors",
        ),
        (
            [knowing("a", "seen", surrogates=True), knowing("b", "seen-with-other-parameters", tracker=True)],
            "it was trained on `a`, on other parameters of `b`, with surrogates of `a` as extractors and with a "
            "tracker's own features",
        ),
    ],
)
def test_what_a_defence_knew_is_said_once(cells, said):
    assert knowledge(cells, "d") == said


# -- erasure ------------------------------------------------------------------------------------------------


def erasure_rows(**defenses):
    """Return an erasure table of two trackers: eraser → mean share undone and whether it has seen the attack."""
    found = {"right key": (0.9, ""), "wrong key": (0.0, ""), "no key": (0.1, ""), **defenses}
    return pd.DataFrame(
        {
            "attack": "mask", "backbone": backbone, "head": "pair", "eraser": name.replace("_", "-"),
            "kind": "defence" if name in defenses else "key", "attack_seen_by_defense": seen,
            **{f"{what}{end}": value for what, value in (("protected", 0.8), ("undone", mean + shift))
               for end in ("", "_low", "_high")}, "protected_reason": "", "undone_reason": "",
        }
        for name, (mean, seen) in found.items()
        for backbone, shift in (("p", 0.0), ("q", 0.05))
    )  # fmt: skip


def erased(monkeypatch, cells=(), **defenses):
    monkeypatch.setattr(finding.erasure, "table", lambda _results: erasure_rows(**defenses))
    view = SimpleNamespace(results=SimpleNamespace(cells=dict(enumerate(cells))))
    return finding._erased(view), named_erasers(view)


def test_the_defence_that_erases_most_says_what_it_has_seen_and_the_best_unseen_follows(monkeypatch):
    cells = [knowing("mask", "seen", surrogates=True, defense="restorer")]
    text, named = erased(
        monkeypatch, cells, restorer=(0.85, "seen"), twin=(0.8, "seen-with-other-parameters"),
        blur=(0.3, "not-trained"), other=(0.4, "unseen"),
    )  # fmt: skip
    assert named == ["restorer", "other"]
    assert (
        "a tracker without a key undoes 85.0 % [85.0, 85.0] to 90.0 % [90.0, 90.0] by `restorer` (it was trained on "
        "`mask` and with surrogates of `mask` as extractors), the highest mean of 4 defences, which was not tested; "
        "of those that have not seen the attack the highest is 40.0 % [40.0, 40.0] to 45.0 % [45.0, 45.0], by `other`; "
    ) in text
    assert "the most of" not in text


def test_an_unseen_defence_that_erases_most_is_named_once(monkeypatch):
    text, named = erased(monkeypatch, restorer=(0.2, "seen"), blur=(0.3, "not-trained"))
    assert named == ["blur"]
    assert "have not seen" not in text
    assert "(it was trained" not in text
    assert erased(monkeypatch)[1] == []


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
        "asr": mean, "asr_low": mean - 0.01, "asr_high": mean + 0.01, "baseline_error": 0.02,
        "n_identities": IDENTITIES,
        "backbones": "a|b", "attacks": attacks,
    }  # fmt: skip


def said(frame, *others, against="x", attacks="x"):
    comparison_groups = [compared("defense", against, frame), *others]
    focus = Focus(KEY, against, {name: row_of(frame, name, attacks) for name in frame}, {}, comparison_groups)
    results = SimpleNamespace(
        cells={1: SimpleNamespace(status="ok")}, values=lambda axis: {"head": ("nn",)}.get(axis, ("none",))
    )
    view = SimpleNamespace(results=results, facts=SimpleNamespace(spec=SimpleNamespace(protocol="tracker")))
    return found(view, focus)


def test_a_defence_that_is_told_apart_is_the_best():
    frame = rates(none=0.6, good=0.1, weak=0.4)
    text = said(frame)
    assert text.startswith(
        "The best defence against `x` is `good`, which lowers the attack success rate (ASR) from "
    )
    assert (
        f"from {percent(frame['none'].mean(), frame['none'].mean() - 0.01, frame['none'].mean() + 0.01)} to "
        in text
    )
    where = "mean of 2 trackers, black-box; 95 % intervals over 60 identities"
    assert re.search(rf"\(significantly different, p [<=] 0\.00\d after Holm; {where}\)", text)
    assert "without any cloak there are 2.0 % errors" in text
    assert "not shown to help" not in text
    assert "are not significantly different" not in text


def test_what_is_tied_with_the_best_and_what_does_not_help_is_named():
    frame = rates(none=0.6, good=0.1, twin=0.1, useless=0.6)
    text = said(frame)
    best, other = sorted(("good", "twin"), key=lambda name: frame[name].mean())
    assert text.startswith("The lowest attack success rate (ASR) against `x` is ")
    assert f" with `{best}`, where it is " in text
    assert f"; `{other}` are not significantly different from it; " in text
    assert "best defence" not in text
    assert "`useless` is not shown to help" in text


def test_a_difference_that_may_be_chance_is_no_finding():
    frame = rates(none=0.5, other=0.49)
    frame["other"] = frame["none"].to_numpy()[::-1]
    frame.loc[0, "other"] -= 0.05 if frame.loc[0, "other"] else -0.05
    text = said(frame)
    assert text.startswith("No defence ")
    assert "not significantly different, p = " in text
    assert "best" not in text


def test_a_defence_that_makes_it_worse_is_not_the_best():
    text = said(rates(none=0.2, worse=0.7))
    assert text.startswith("No defence lowers the attack success rate (ASR) against `x`: it is ")
    assert "(significantly different, p " in text


def test_too_few_differences_are_not_tested_and_it_says_so():
    frame = pd.DataFrame({"none": [0.5] * IDENTITIES, "same": [0.5] * IDENTITIES})
    assert "not tested: 0 of 60 identities differ" in said(frame)


def test_a_failed_cell_leaves_the_slice_unranked():
    frame = rates(none=0.6, good=0.1)
    frame.loc[3, "good"] = np.nan
    text = said(frame)
    assert text.startswith(
        "Which defence is best against `x` cannot be said: not ranked: 1 of 2 methods have results"
    )


def test_the_mean_of_several_attacks_shows_its_ends():
    frame = rates(none=0.6, good=0.2)
    weak, strong = rates(1, none=0.6, good=0.05), rates(2, none=0.6, good=0.4)
    text = said(
        frame, compared("defense", "p", weak), compared("defense", "q", strong), against=EVERY, attacks="p|q"
    )
    assert "The best defence in the mean of 2 attacks is `good`" in text
    ends = f"{percent(weak['good'].mean())} (`p`) and {percent(strong['good'].mean())} (`q`)"
    assert f"of single attacks it leaves between {ends}" in text


@pytest.mark.parametrize(
    ("there", "clause"),
    [
        ({"none": 0.6, "good": 0.1}, "under the other head the best is the same"),
        ({"none": 0.2, "good": 0.7}, "under the other head the lowest ASR is that of `none`"),
    ],
)
def test_another_head_agrees_or_it_is_said(there, clause):
    other = compared("defense", "x", rates(3, **there), ("linear", "", "black-box"))
    assert clause in said(rates(none=0.6, good=0.1), other)


def test_several_others_are_counted():
    others = [
        compared("defense", "x", rates(3, none=0.6, good=0.1), ("nn", "FAR 1 %", "black-box")),
        compared("defense", "x", rates(4, none=0.1, good=0.6), ("nn", "FAR 10 %", "black-box")),
    ]
    assert "it is also best under 1 of the 2 other conditions" in said(rates(none=0.6, good=0.1), *others)


def test_conditions_without_such_a_mean_are_counted_too():
    key = ("nn", "impersonation", "black-box")
    one, _ = compared("defense", "x", rates(5, none=0.6, good=0.1), key)
    others = [
        compared("defense", "x", rates(3, none=0.6, good=0.1), ("nn", "FAR 1 %", "black-box")),
        (one, Ranking((), reason="not ranked")),
    ]
    text = said(rates(none=0.6, good=0.1), *others)
    assert "it is also best under 1 of the 2 other conditions (1 has no such ranking)" in text


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
def test_a_mean_over_dodging_says_that_it_mixes_goals(condition, attacks, mixed):
    focus = Focus(("pair", condition, "black-box"), EVERY, {"none": {"attacks": attacks}}, {}, [])
    view = SimpleNamespace(facts=SimpleNamespace(methods=()))
    clause = (
        "that mean mixes goals, as `pgd:goal=targeted` aims at another face and not only away from the own"
    )
    assert finding._mixed_goals(view, focus) == ([clause] if mixed else [])


# -- the comparison it is about -----------------------------------------------------------------------------


def test_verification_is_about_dodging(runs):
    view = view_of(runs, "thresholds")
    focus = choose_focus(view)
    assert focus is not None
    assert focus.key[1].startswith("dodging, FAR")
    assert focus.against == EVERY


def test_no_focus_without_an_attack(runs):
    assert choose_focus(view_of(runs, "defence")) is None


def test_the_rows_of_a_focus_are_those_of_the_means(runs):
    view = view_of(runs, "one of each")
    focus = choose_focus(view)
    assert focus is not None
    expected = table(means(view.results)).set_index("defense")["asr"]
    assert {name: row["asr"] for name, row in focus.rows.items()} == pytest.approx(expected.to_dict())
