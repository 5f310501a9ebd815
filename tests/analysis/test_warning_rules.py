"""The rules of warning on facts written by hand, at and beside their thresholds."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bench.analysis import warning_rules
from bench.analysis import warnings as warning_columns
from bench.analysis.warning_rules import RULES, RowWarning
from bench.analysis.warnings import RowWarnings
from bench.quality.diagnosis import AttackDiagnosis, PurifiedShard, PurifierDiagnosis, SurrogateProbe
from bench.run.spec import Cell

PAGE = Path(__file__).parents[2] / "docs/warnings.md"


def measures(linf=(8,), dssim=(0.01,), changed=None):
    count = max(len(linf), len(dssim))
    frame = pd.DataFrame({"linf": np.resize(linf, count), "dssim": np.resize(dssim, count)})
    return frame.assign(changed=[True] * count if changed is None else changed)


def probe(surrogate="one", **facts):
    return SurrogateProbe(
        **{
            "image": "x", "surrogate": surrogate, "moved": 0.5, "random": 0.02, "slope": 0.01, "finite": True,
            **facts,
        }
    )  # fmt: skip


def attack(*probes, reason=""):
    return warning_rules.of_attack(
        AttackDiagnosis(goal="untargeted", max_linf=None, max_dssim=None, probes=probes, reason=reason)
    )


def purifier(*shards, cloaked=True):
    made = [
        PurifiedShard(
            changes={f"{k}/{n}": c for n, c in enumerate(changes)}, spread_given=given, spread_returned=back
        )
        for k, (changes, given, back) in enumerate(shards)
    ]
    return warning_rules.of_purifier(PurifierDiagnosis(shards=tuple(made)), cloaked=cloaked)


def codes(found):
    return [warning.code for warning in found]


# --- images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("linf", "expected"), [((8.0,), []), ((8.0000005,), []), ((8, 9), ["over-budget"])])
def test_every_image_keeps_the_budget(linf, expected):
    assert codes(warning_rules.of_cloaks(measures(linf=linf), 8, None)) == expected


def test_the_budget_on_dssim_has_a_tolerance_for_rounding():
    assert warning_rules.of_cloaks(measures(dssim=(0.0044,)), None, 0.004) == []
    (found,) = warning_rules.of_cloaks(measures(dssim=(0.001, 0.0046)), None, 0.004)
    assert str(found) == (
        "over-budget: 1 of 2 cloaks exceed the declared budget (largest: DSSIM 0.0046 of 0.004)"
    )


def test_both_budgets_are_one_warning():
    (found,) = warning_rules.of_cloaks(measures(linf=(20,), dssim=(0.2,)), 16, 0.1)
    assert "20 of 16 grey levels" in found.sentence
    assert "DSSIM 0.2000 of 0.1" in found.sentence


def test_no_declared_budget_is_not_checked():
    assert warning_rules.of_cloaks(measures(linf=(255,), dssim=(0.9,)), None, None) == []


@pytest.mark.parametrize(
    ("unchanged", "expected"), [(0, []), (5, []), (6, ["unchanged"]), (100, ["unchanged"])]
)
def test_photos_left_as_they_were(unchanged, expected):
    rows = measures(linf=(1,) * 100, changed=[k >= unchanged for k in range(100)])
    found = warning_rules.of_cloaks(rows, None, None)
    assert codes(found) == expected
    assert not found or f"{unchanged} of 100 photos" in found[0].sentence


def test_no_images_no_doubts():
    assert warning_rules.of_cloaks(measures().head(0), 8, 0.1) == []


# --- surrogates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"slope": None}, []),
        ({"slope": None, "finite": False}, ["gradient-not-finite"]),
        ({"slope": 0.0}, ["gradient-zero"]),
        ({"slope": 9e-6}, ["gradient-vanishing"]),
        ({"slope": 1.1e-5}, []),
        ({"moved": 9e-4, "random": 1e-5}, ["unmoved"]),
        ({"moved": 1.1e-3, "random": 1e-5}, []),
        ({"moved": 0.5, "random": 0.34}, ["like-noise"]),
        ({"moved": 0.5, "random": 0.33}, []),
        ({"moved": 0.5, "random": 0.0}, []),
        ({"slope": 0.0, "moved": 0.0, "random": 0.0}, ["gradient-zero"]),
        ({"moved": 0.0, "random": 0.0}, ["unmoved"]),
    ],
)
def test_a_surrogate_gets_the_warning_of_the_cause(facts, expected):
    assert codes(attack(*[probe(**facts)] * 5)) == expected


def test_one_code_names_every_surrogate_concerned():
    found = attack(
        probe("one", moved=0.01), probe("two"), probe("three", moved=0.02), probe("four", slope=0.0)
    )
    assert codes(found) == ["like-noise", "gradient-zero"]
    assert re.findall(r"on (\w+) cloaks", found[0].sentence) == ["one", "three"]
    assert "0.50 times" in found[0].sentence


def test_medians_and_majorities_decide():
    assert attack(*[probe()] * 3, *[probe(moved=0.01, slope=0.0)] * 2) == []
    assert codes(attack(*[probe()] * 2, *[probe(slope=0.0)] * 3)) == ["gradient-zero"]
    assert codes(attack(*[probe()] * 9, probe(slope=None, finite=False))) == ["gradient-not-finite"]


def test_a_diagnosis_that_failed_says_why_and_does_not_end_a_warning():
    assert [str(warning) for warning in attack(reason="broke; badly\nhere")] == [
        "not-diagnosed: the surrogates could not be probed: broke, badly here"
    ]


def test_an_attack_without_surrogates_is_not_judged_by_any():
    assert attack() == []


# --- purifiers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ([([3, 4, 5], 40, 38)], []),
        ([([3, 4, 5], 40, 1.9)], ["purifier-constant"]),
        ([([3, 4, 5], 40, 2.1)], []),
        ([([3, 4, 5], 40, 0), ([3, 4, 5], 40, 40)], []),
        ([([0, 0, 5, 6], 40, 40)], ["purifier-identity"]),
        ([([0, 5, 6], 40, 40)], []),
        ([([0, 0], 40, 40), ([0, 0, 1], 40, 40)], ["purifier-identity"]),
        ([([0, 0], 0, 0)], ["purifier-identity"]),
        ([([7, 7], 0, 0)], []),
        ([], []),
    ],
)
def test_purifiers(shards, expected):
    assert codes(purifier(*shards)) == expected


def test_a_purifier_may_return_natural_photos():
    assert purifier(([0, 0], 40, 40), cloaked=False) == []
    assert codes(purifier(([9, 9], 40, 0), cloaked=False)) == ["purifier-constant"]


# --- white-box and black-box ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "p", "expected"),
    [(-0.2, 0.01, 1), (-0.2, 0.06, 0), (0.2, 0.001, 0), (None, None, 0), (0.0, 1.0, 0)],
)
def test_white_box_below_black_box(difference, p, expected):
    found = warning_rules.of_access(difference, p, "black-box on b")
    assert codes(found) == ["white-box-below-black-box"] * expected
    assert not found or "20.0 points lower white-box than black-box on b (p = 0.01)" in found[0].sentence


class FakeResults:
    """Cells of one seed and head with everyone's ASR; `white` lists the white-box ones."""

    def __init__(self, rates, white, restored=()):
        self.facts = SimpleNamespace(spec=SimpleNamespace(split_seed=0))
        self.folder = None
        self.rates = {self.point(*key): values for key, values in rates.items()}
        self.cells = {
            self.point(*key): SimpleNamespace(
                status="ok",
                threat=SimpleNamespace(
                    access="" if key[0] == "none" else "white-box" if key in white else "black-box"
                ),
                cloak_measures="",
                purified_measures="",
                photo_diagnosis="",
                restored_measures=dict.fromkeys(restored, "file"),
            )
            for key in rates
        }

    @staticmethod
    def point(attack, backbone, defense="none"):
        return Cell(attack, defense, backbone, "nn", 0)

    def measured(self, _point, _condition):
        return None

    def rates_of(self, point, _condition, _measure):
        values = self.rates.get(point)
        return None if values is None else pd.Series(values, index=[f"p{k}" for k in range(len(values))])

    def warnings(self, *key):
        leaderboard = pd.DataFrame([{**self.point(*key)._asdict(), "condition": "", "p_holm": None}])
        return warning_columns.warning_columns(self, leaderboard)["warnings"][0]


HIGH, LOW = [0.9, 1.0, 0.8, 0.9, 1.0, 0.7, 0.9, 1.0], [0.3, 0.2, 0.1, 0.4, 0.2, 0.1, 0.3, 0.2]


def test_white_box_is_compared_with_other_surrogates_on_the_same_tracker():
    key, other = ("pgd:eps=4,surrogates=a", "a"), ("pgd:eps=4", "a")
    text = str(FakeResults({key: LOW, other: HIGH}, {key}).warnings(*key))
    assert text.startswith("white-box-below-black-box: ASR is 67.5 points lower white-box than black-box")
    assert "of pgd:eps=4 (p = 0.0078)" in text  # 2 / 2⁸
    assert FakeResults({key: HIGH, other: LOW}, {key}).warnings(*key) == ()
    assert FakeResults({key: LOW, other: HIGH}, {key}).warnings(*other) == ()
    unlike = ("pgd:eps=8", "a")
    assert FakeResults({key: LOW, unlike: HIGH}, {key}).warnings(*key) == ()


def test_white_box_is_else_compared_with_other_trackers_above_their_errors():
    key, other = ("pgd:surrogates=a", "a"), ("pgd:surrogates=a", "b")
    clean = {("none", "a"): [0.0] * 8, ("none", "b"): [0.0] * 8}
    (warning,) = FakeResults({key: LOW, other: HIGH, **clean}, {key}).warnings(*key)
    assert "black-box on b, errors without a cloak subtracted" in warning.sentence
    noisy = {("none", "a"): [0.0] * 8, ("none", "b"): [rate - 0.05 for rate in HIGH]}
    assert FakeResults({key: LOW, other: HIGH, **noisy}, {key}).warnings(*key) == ()
    assert FakeResults({key: LOW, other: HIGH}, {key}).warnings(*key) == ()


def test_the_warning_about_access_is_in_the_rows_of_every_defence_but_not_where_cloaks_are_erased():
    key, other = ("pgd:surrogates=a", "a"), ("pgd", "a")
    rates = {key: LOW, other: HIGH, (*key, "jpeg"): LOW}
    assert FakeResults(rates, {key}).warnings(*key, "jpeg") != ()
    assert FakeResults(rates, {key}, restored=("",)).warnings(*key) == ()


def test_too_few_identities_give_no_warning():
    key, other = ("pgd:surrogates=a", "a"), ("pgd", "a")
    assert FakeResults({key: LOW[:5], other: HIGH[:5]}, {key}).warnings(*key) == ()


# --- the text ---------------------------------------------------------------------------------------------


def test_the_warnings_of_a_row_stand_once_each_in_the_order_of_the_rules():
    some = [RowWarning("unmoved", "b"), RowWarning("over-budget", "a"), RowWarning("unmoved", "b")]
    assert str(RowWarnings.of(some)) == "over-budget: a; unmoved: b"
    assert str(RowWarnings.of([])) == ""


def test_the_text_of_warnings_is_read_back_where_a_code_begins():
    warnings = RowWarnings.of(
        [
            RowWarning("unchanged", "the attack left 3 of 24 photos; that is a lot: too many"),
            RowWarning("like-noise", "tiny-b moves 1.1 times as far"),
        ]
    )
    assert RowWarnings.from_text(str(warnings)) == warnings
    assert RowWarnings.from_text("") == ()
    with pytest.raises(ValueError, match="'u: 1', which begins with no code of over-budget"):
        RowWarnings.from_text("u: 1; unchanged: 3")


def test_warnings_are_listed_with_their_rows():
    one, two = RowWarning("unmoved", "1"), RowWarning("unchanged", "2; 3")
    rows = pd.DataFrame(
        {
            "attack": ["x", "x", "x"],
            "defense": ["d", "d", "e"],
            "backbone": "b",
            "warnings": [RowWarnings((one, two)), RowWarnings((one,)), RowWarnings()],
        }
    )
    assert warning_columns.by_warning(rows) == {one: ["x x d x b"], two: ["x x d x b"]}


def test_the_page_lists_every_rule_in_order():
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == list(RULES)


def test_every_rule_can_be_given():
    sources = (
        Path(module.__file__).read_text(encoding="utf-8") for module in (warning_rules, warning_columns)
    )
    named = re.findall(r'"([a-z-]+)"', "".join(sources))
    assert [code for code in RULES if named.count(code) < 2] == []  # once in RULES, once where it is given


def test_the_page_states_the_thresholds():
    text = PAGE.read_text(encoding="utf-8")
    for number in (warning_rules.DSSIM_TOLERANCE, warning_rules.LEAST_MOVE, warning_rules.LEAST_SLOPE):
        assert np.format_float_positional(number) in text
    assert warning_rules.LINF_TOLERANCE == 0.5
    assert "0.5 grey levels" in text
    assert f"{warning_rules.UNCHANGED_SHARE:.0%}".replace("%", " %") in text
    assert f"{warning_rules.LEAST_SPREAD:.0%}".replace("%", " %") in text


def test_an_attack_through_a_defence_need_not_move_the_bare_surrogate():
    still = probe(moved=0.0, random=0.02)
    assert codes(attack(still)) == ["unmoved"]
    through = AttackDiagnosis(
        goal="untargeted", max_linf=None, max_dssim=None, adapts_to=("puface",), probes=(still,)
    )
    assert warning_rules.of_attack(through) == []
    broken = through.model_copy(update={"probes": (probe(slope=0.0),)})
    assert codes(warning_rules.of_attack(broken)) == ["gradient-zero"]


# --- answers ----------------------------------------------------------------------------------------------


def answers(scores, margins, predicted, identity=("a", "b", "c"), reference=None):
    count = len(scores)
    return pd.DataFrame(
        {
            "fold": 0,
            "identity": list(identity[:count]),
            "predicted": list(predicted[:count]),
            "reference": pd.Series([reference] * count, dtype=object),
            "score": np.array(scores, dtype=np.float32),
            "margin": np.array(margins[:count], dtype=np.float32),
        }
    )


TIED = (0, 0, 0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.5, 0.5, 0.5], ["same-score"]),
        ([0.5, 0.5, np.nan], ["same-score"]),
        ([0.5, 0.50001], []),
        ([0.5], []),
        ([np.nan, np.nan], []),
        ([], []),
    ],
)
def test_answers_of_one_score_are_chance(scores, expected):
    assert codes(warning_rules.of_scores(answers(scores, TIED, ["a", "b", "a"]))) == expected


@pytest.mark.parametrize(
    ("margins", "predicted", "expected"),
    [
        ([1, 0.99, 1], ["a", "b", "c"], []),  # sure and right
        ([-1, -0.99, -1], ["b", "c", "a"], []),  # sure and wrong: that is the attack's success
        ([0, 0, 1], ["a", "b", "c"], []),
        ([1e-8, -1e-8, np.nan], ["a", "c", "b"], ["same-score"]),
        ([np.nan, np.nan, np.nan], ["a", "c", "b"], []),
        (
            [0.2, -0.2, -0.2],
            ["a", "a", "a"],
            ["same-score"],
        ),  # the identity with most photos, whatever is asked
    ],
)
def test_answers_of_one_score_that_tell_photos_apart_are_no_chance(margins, predicted, expected):
    assert codes(warning_rules.of_scores(answers([1.0, 1.0, 1.0], margins, predicted))) == expected


@pytest.mark.parametrize(("margin", "expected"), [(-1e-4, ["same-score"]), (0.3, [])])
def test_pairs_of_one_score_are_chance_where_their_threshold_is_at_it(margin, expected):
    """The threshold was set on impostors, and lies one step above what they have."""
    rows = answers([1.0, 1.0, 1.0], [margin] * 3, ["a", "b", "c"], reference="photo")
    assert codes(warning_rules.of_scores(rows)) == expected
