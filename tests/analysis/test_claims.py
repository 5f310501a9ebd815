"""Claims, comparison groups and tables of significance, on results made up identity by identity."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.analysis.claims import compare_methods, compare_runs
from bench.analysis.comparison_groups import EVERY, comparison_groups, rank_columns
from bench.analysis.reference_tests import reference_tests
from bench.analysis.results import Results
from bench.contracts import ConditionFacts, Decided
from bench.errors import UsageError
from bench.leaderboard import significance_tables as tables
from bench.run.folder import CellResult, RunFacts
from bench.run.spec import Cell, RunSpec
from bench.run.threat import CellThreat
from bench.stats import rates

IDENTITIES = [f"p{i:03d}" for i in range(40)]
PROBES = 10
ASR = {
    ("none", "none"): 0.02,
    ("strong", "none"): 0.8,
    ("weak", "none"): 0.3,
    ("none", "good"): 0.02,
    ("strong", "good"): 0.1,
    ("weak", "good"): 0.05,
    ("none", "poor"): 0.02,
    ("strong", "poor"): 0.78,
    ("weak", "poor"): 0.3,
}


def threat(access):
    known = {
        "surrogates": "s" if access else "",
        "extractors": "",
        "access": access,
        "related": False,
        "extractors_are_surrogates": False,
        "attack_seen_by_defense": "unseen",
        "attack_adapts_to_defense": False,
        "attack_adapts_in_part": False,
        "external": False,
        "identity_overlap": "no",
    }
    return CellThreat(**{k: v for k, v in known.items() if k in CellThreat.model_fields})


def rows(point, asr, accuracy, condition=""):
    """Return decisions in which every identity errs on the same share of probes, give or take one probe."""
    rng = np.random.default_rng(len(point.attack))  # the same identities are lucky under every defence
    columns = {"fold": [], "identity": [], "image": [], "protected": [], "correct": []}
    for name, jitter in zip(IDENTITIES, rng.integers(-1, 2, len(IDENTITIES)), strict=True):
        wrong = int(np.clip(round(asr * PROBES) + (jitter if 0 < asr < 1 else 0), 0, PROBES))
        right = round(accuracy * PROBES)
        for protected, n_right in ((True, PROBES - wrong), (False, right)):
            columns["fold"] += [0 if protected else 1] * PROBES
            columns["identity"] += [name] * PROBES
            columns["image"] += [f"{name}/{k}" for k in range(PROBES)]
            columns["protected"] += [protected] * PROBES
            columns["correct"] += [k < n_right for k in range(PROBES)]
    return pd.DataFrame({"condition": condition, **columns, "score": 0.5}).astype({"fold": np.int16})


def results(asr=ASR, accuracy=None, backbones=("b1", "b2"), failed=(), conditions=("",), accesses=None):
    """Return made-up answers of a matrix; nothing is on disk."""
    cells, read = {}, {}
    for (attack, defense), rate in asr.items():
        for backbone in backbones:
            point = Cell(attack, defense, backbone, "nn", 0)
            access = "" if attack == "none" else (accesses or {}).get(backbone, "black-box")
            ok = point not in failed
            cells[point] = CellResult(
                **point._asdict(),
                requested=True,
                status="ok" if ok else "failed",
                threat=threat(access),
                decisions="there" if ok else "",
            )
            if ok:
                shown = (accuracy or {}).get(defense, 0.9)
                made = pd.concat([rows(point, rate, shown, name) for name in conditions])
                read[point] = Decided(made, {name: ConditionFacts() for name in conditions})
    facts = RunFacts(run="0" * 12, requested=RunSpec(), spec=RunSpec())
    return Results(None, facts, cells, read)


def leaderboard(made):
    return pd.DataFrame(
        [
            {**point._asdict(), "condition": name, "access": made.cells[point].threat.access}
            for point in made.cells
            for name in made.conditions(point)
        ]
    )


def test_a_better_defence_is_named_with_its_evidence():
    (claim,) = compare_methods(results(), "good", "poor")
    assert (claim.kind, claim.verdict) == ("defense", "better")
    assert set(claim.attacks) == {"strong", "weak"}
    assert claim.backbones == ("b1", "b2")
    assert claim.asr.n_identities == 40
    assert claim.asr.difference.value == pytest.approx(claim.asr.first - claim.asr.second)
    text = claim.sentence()
    assert text.startswith("good is better than poor against strong, weak (mean of 2) on b1, b2 (mean of 2)")
    assert "sign-flip test over 40 identities" in text
    assert "black-box" in text
    (other,) = compare_methods(results(), "poor", "good")
    assert other.verdict == "worse"
    assert other.p == pytest.approx(claim.p)


def test_an_attack_is_better_with_a_higher_rate_and_is_compared_without_a_defence():
    (claim,) = compare_methods(results(), "strong", "weak")
    assert (claim.kind, claim.verdict, claim.defenses) == ("attack", "better", ("none",))
    (behind,) = compare_methods(results(), "strong", "weak", defense="poor")
    assert behind.defenses == ("poor",)
    assert behind.asr.first == pytest.approx(claim.asr.first, abs=0.05)


def test_equal_methods_are_not_called_different_nor_equal():
    same = {key: 0.3 if key[1] in ("good", "poor") else rate for key, rate in ASR.items()}
    (claim,) = compare_methods(results(same), "good", "poor")
    assert claim.verdict == "no test"
    assert "no test" in claim.sentence()
    assert claim.p is None


def test_normal_accuracy_is_shown_to_be_kept_or_not_shown():
    kept = compare_methods(results(accuracy={"good": 1.0, "poor": 0.9}), "good", "poor")[0]
    assert kept.not_worse.not_worse is True
    assert "shown to be at most 1 point lower" in kept.sentence()
    lost = compare_methods(results(accuracy={"good": 0.7, "poor": 0.9}), "good", "poor")[0]
    assert lost.not_worse.not_worse is False
    assert "not shown to be at most 1 point lower" in lost.sentence()


def test_white_box_cells_are_a_claim_of_their_own():
    made = results(accesses={"b1": "white-box"})
    claims = compare_methods(made, "good", "poor")
    assert {claim.access: claim.backbones for claim in claims} == {
        "white-box": ("b1",),
        "black-box": ("b2",),
    }
    assert {one.access for one in comparison_groups(made, "defense")} == {"white-box", "black-box"}


def test_p_values_of_one_call_are_corrected_together():
    made = results(conditions=("rank 1", "rank 5"))
    claims = compare_methods(made, "good", "poor")
    assert [claim.condition for claim in claims] == ["rank 1", "rank 5"]
    assert all(claim.p >= claim.asr.p for claim in claims)
    assert min(claim.p for claim in claims) == pytest.approx(2 * min(claim.asr.p for claim in claims))


@pytest.mark.parametrize(
    ("pair", "options", "message"),
    [
        (
            ("good", "strong"),
            {},
            "are not two attacks, defences or backbones of this run: attacks none, strong",
        ),
        (("good", "god"), {}, "defenses none, good, poor"),
        (("good", "good"), {}, "are both good"),
        (("good", "poor"), {"kind": "colour"}, "colour"),
        (("good", "poor"), {"attack": "stong"}, "strong"),
        (("good", "poor"), {"kind": "attack"}, "not two attacks"),
        (("strong", "none"), {"kind": "attack"}, "attack none is the reference"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_can(pair, options, message):
    with pytest.raises(UsageError, match=message):
        compare_methods(results(), *pair, **options)


def test_a_failed_cell_leaves_no_test_and_no_rank():
    made = results(failed=(Cell("strong", "good", "b2", "nn", 0),))
    claim = compare_methods(made, "good", "poor")[0]
    assert claim.verdict == "no test"
    assert claim.asr.reason == "a cell failed or is not there"
    of = {one.opponent: one.rank(0) for one in comparison_groups(made, "defense")}
    assert of["strong"].reason == "not ranked: 2 of 3 methods have results for everyone"
    assert not of["strong"].methods
    assert len(of["weak"].methods) == 3


def test_two_runs_are_compared_over_their_common_cells():
    weaker = {key: rate / 2 for key, rate in ASR.items() if key[0] != "weak"}
    (claim,) = compare_runs(results(), results(weaker), ("one", "two"))
    assert claim.attacks == ("strong",)
    assert claim.asr.first > claim.asr.second
    assert claim.verdict == "different"
    assert claim.sentence().startswith("ASR of one and two differs against strong")
    with pytest.raises(UsageError, match="no cell with an attack in common"):
        compare_runs(results(), results({("none", "none"): 0.1, ("other", "none"): 0.5}), ("one", "two"))


def test_ranks_are_of_the_defence_against_the_rows_attack():
    made = results()
    shown = leaderboard(made)
    columns = pd.DataFrame(rank_columns(made, shown))
    ranks = {
        (row.attack, row.defense): (place.rank_low, place.rank_high, place.tie_group)
        for row, place in zip(shown.itertuples(), columns.itertuples(), strict=True)
        if row.attack != "none"
    }
    assert ranks["strong", "good"] == (1, 1, "a")
    assert ranks["strong", "none"][0] == ranks["strong", "poor"][0] == 2
    of_none = columns[(shown["attack"] == "none").to_numpy()]
    assert of_none["ranking_reason"].str.startswith("a defence is ranked against an attack").all()
    assert of_none["rank_low"].isna().all()


def test_a_slice_averages_backbones_within_each_person():
    (one,) = [s for s in comparison_groups(results(), "attack") if s.opponent == "none"]
    assert list(one.rates.columns) == ["strong", "weak"]
    assert one.rates.shape == (40, 2)
    assert one.higher_is_better
    every = next(s for s in comparison_groups(results(), "defense") if s.opponent == EVERY)
    assert not every.higher_is_better
    strong = next(s for s in comparison_groups(results(), "defense") if s.opponent == "strong")
    weak = next(s for s in comparison_groups(results(), "defense") if s.opponent == "weak")
    pd.testing.assert_frame_equal(every.rates, (strong.rates + weak.rates) / 2)


def test_rows_are_tested_against_no_defence_and_holm_covers_the_family():
    made = results()
    shown = leaderboard(made)
    found = pd.DataFrame(reference_tests(made, shown)).set_index(
        pd.MultiIndex.from_frame(shown[["attack", "defense", "backbone"]])
    )
    own = found.loc["strong", "good", "b1"]
    identities = [
        made.identities(Cell("strong", name, "b1", "nn", 0), "")["asr"] for name in ("good", "none")
    ]
    assert own["p"] < 1e-4
    assert stats.wilcoxon(*identities).pvalue < 1e-4
    tested = found["p"].notna()
    assert (found["p_holm"][tested] >= found["p"][tested]).all()
    assert found.loc["none", "none", "b1"]["p_holm_reason"] == "the row is the reference itself"
    # Nothing differs between attack none under two defences: no test, and no p value of 1.
    assert found.loc["none", "good", "b1"]["p"] is None or np.isnan(found.loc["none", "good", "b1"]["p"])
    assert "0 of 40" in found.loc["none", "good", "b1"]["p_holm_reason"]
    assert own["minimum_detectable_difference"] > 0


def test_seeds_share_one_test_and_count_once_in_the_family():
    one = results(backbones=("b1",))
    cells, read = dict(one.cells), dict(one._read)
    for point, cell in one.cells.items():
        cells[point._replace(seed=1)] = cell.model_copy(update={"seed": 1})
        read[point._replace(seed=1)] = one._read[point]
    both = Results(None, one.facts, cells, read)
    single = pd.DataFrame(reference_tests(one, leaderboard(one)))
    double = pd.DataFrame(reference_tests(both, leaderboard(both)))
    assert double["p_holm"].tolist() == single["p_holm"].tolist() * 2 or (
        double["p_holm"].dropna().tolist() == single["p_holm"].dropna().tolist() * 2
    )


def test_methods_are_compared_on_the_trackers_both_meet_in_the_same_way():
    # y is white-box on the hard tracker b1, so its black-box cells are on the easy b2 alone.
    made = results({("none", "none"): 0.02, ("x", "none"): 0.5, ("y", "none"): 0.5})
    for point, cell in list(made.cells.items()):
        if (point.attack, point.backbone) == ("y", "b1"):
            made.cells[point] = cell.model_copy(update={"threat": threat("white-box")})
        if point.attack == "x":
            made._read[point] = Decided(
                rows(point, 0.9 if point.backbone == "b1" else 0.5, 0.9), {"": ConditionFacts()}
            )
    claims = {claim.access: claim for claim in compare_methods(made, "x", "y")}
    assert claims["black-box"].backbones == ("b2",)
    assert claims["black-box"].verdict in ("not significantly different", "no test")
    assert claims["white-box"].verdict == "no test"
    assert "no cell is white-box for both (x on nothing; y on b1)" in claims["white-box"].sentence()
    (black,) = [one for one in comparison_groups(made, "attack") if one.access == "black-box"]
    assert black.backbones == ("b2",)


def test_nothing_is_ranked_where_the_protocol_restores():
    made = results(conditions=("cloaked", "right key"))
    for point, cell in list(made.cells.items()):
        made.cells[point] = cell.model_copy(update={"restored_measures": {"right key": "file"}})
    assert {one.condition for one in comparison_groups(made, "attack")} == {"cloaked"}
    assert {claim.condition for claim in compare_methods(made, "good", "poor")} == {"cloaked"}
    assert set(tables.accuracy_kept(made)["condition"]) == {"cloaked"}
    shown = leaderboard(made)
    places = pd.DataFrame(rank_columns(made, shown))
    restored = (shown["condition"] == "right key").to_numpy()
    assert places[restored]["rank_low"].isna().all()


def test_people_compared_with_the_same_photo_get_no_test_and_a_wider_interval():
    alone = results(backbones=("b1",))
    shared = results(backbones=("b1",))
    for point, decided in list(shared._read.items()):
        groups = {name: f"target-{k // 8}" for k, name in enumerate(IDENTITIES)}
        marked = decided.rows.assign(reference=decided.rows["identity"].map(groups))
        shared._read[point] = Decided(marked, decided.conditions)
    found = pd.DataFrame(reference_tests(shared, leaderboard(shared)))
    assert found["p"].isna().all()
    assert "40 identities were compared with photos of 5 others" in found["p_holm_reason"].iloc[-1]
    assert all("not ranked" in one.rank(0).reason for one in comparison_groups(shared, "attack"))
    point = Cell("weak", "none", "b1", "nn", 0)
    one, other = (rates.summarize_decisions(made.rows(point, "")) for made in (alone, shared))
    assert one.asr.value == pytest.approx(other.asr.value)
    assert other.asr.low is not None


def test_seeds_vary_apart_from_people():
    one = results(backbones=("b1",))
    cells, read = dict(one.cells), dict(one._read)
    for point, cell in one.cells.items():
        other = point._replace(seed=1)
        rate = min(1.0, ASR[point.attack, point.defense] + 0.2)
        cells[other] = cell.model_copy(update={"seed": 1})
        read[other] = Decided(rows(point, rate, 0.9), {"": ConditionFacts()})
    table = tables.seeds(Results(None, one.facts, cells, read)).set_index(["attack", "defense"])
    row = table.loc["weak", "none"]
    assert (row["n_seeds"], row["n_identities"]) == (2, 40)
    assert row["sd_of_seed_means"] == pytest.approx(0.2 / np.sqrt(2))
    assert row["sd_seeds"] <= row["sd_of_seed_means"]
    assert tables.seeds(one).empty


def test_tables_hold_every_method_and_pair_and_come_in_three_forms():
    made = results(accuracy={"none": 0.9, "good": 0.9, "poor": 0.6})
    found = tables.ranked_groups(made)
    ranked, pairs, kept = tables.rankings(found), tables.pairs(found), tables.accuracy_kept(made, margin=0.09)
    assert set(ranked["ranked"]) == {"defense", "attack"}
    against_strong = ranked[(ranked["ranked"] == "defense") & (ranked["against"] == "strong")]
    assert against_strong["method"].iloc[0] == "good"
    assert against_strong["critical_difference"].iloc[0] == pytest.approx(2.343 * np.sqrt(12 / 240), rel=1e-3)
    assert len(pairs[(pairs["ranked"] == "defense") & (pairs["against"] == "strong")]) == 3
    assert (pairs["p"].dropna() <= pairs["p_bh"].dropna()).all()
    assert (pairs["p_bh"].dropna() <= pairs["p_holm"].dropna()).all()
    assert ((pairs["asr_first"] - pairs["asr_second"]) - pairs["difference"]).abs().max() < 1e-9
    assert dict(zip(kept["defense"], kept["not_worse"], strict=True)) == {"good": True, "poor": False}
    for form in tables.FORMS.values():
        assert "strong" in form(pairs)
    assert tables.to_csv(ranked).splitlines()[0] == ",".join(tables.RANKINGS)
    lines = tables.to_markdown(kept).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    tex = tables.to_latex(kept)
    assert tex.count(r"\\") == len(kept) + 1
    assert "b1|b2" in tex
    assert r"10.0 \%" not in tex
    assert r"60.0 \%" in tex


def with_targets(made, group_of):
    """Return answers in which every decision was a comparison with a photo of the identity's group."""
    for point, decided in made._read.items():
        references = decided.rows["identity"].map(lambda name, p=point: f"target-{group_of(p, name)}")
        made._read[point] = Decided(decided.rows.assign(reference=references), decided.conditions)
    return made


def test_identities_that_share_targets_are_tested_as_groups_where_both_attacks_share_them_alike():
    made = with_targets(results(), lambda _point, name: IDENTITIES.index(name) // 2)
    (claim,) = compare_methods(made, "strong", "weak", kind="attack")
    assert claim.verdict == "better"
    assert claim.asr.n_identities == len(IDENTITIES) // 2
    assert (
        "sign-flip test over 20 groups of identities that were compared with the same photos"
        in claim.sentence()
    )
    alone = compare_methods(results(), "strong", "weak", kind="attack")[0]
    assert alone.unit == "identities"
    # Groups of two weigh the same, so the means do not move.
    assert claim.asr.first == pytest.approx(alone.asr.first)
    assert claim.asr.difference.value == pytest.approx(alone.asr.difference.value)


def test_there_is_no_test_where_two_attacks_share_targets_differently():
    made = with_targets(
        results(), lambda point, name: IDENTITIES.index(name) // (2 if point.attack == "strong" else 4)
    )
    (claim,) = compare_methods(made, "strong", "weak", kind="attack")
    assert claim.verdict == "no test"
    assert "not independent" in claim.sentence()


def test_what_a_part_of_a_run_lacks_is_not_lacking_in_the_whole():
    whole = results()
    point = Cell("strong", "good", "b1", "nn", 0)
    cells, read = (
        {key: one for key, one in some.items() if key.attack != "none"} for some in (whole.cells, whole._read)
    )
    assert replace(whole, cells=cells, _read=read).gain(point, "") is None
    assert whole.gain(point, "").value > 0


def under_seeds(shifts, trained=None, **options):
    """Return made-up results under as many seeds as there are shifts of the ASR behind defence ``good``."""
    trained = {"good": {"defense": "run"}} if trained is None else trained
    cells, read = {}, {}
    for seed, shift in enumerate(shifts):
        asr = {key: rate + shift if key[1] == "good" else rate for key, rate in ASR.items()}
        one = results(asr, **options)
        for point, cell in one.cells.items():
            own = {"seed": seed, "trained": trained.get(point.defense, trained.get(point.attack, {}))}
            cells[point._replace(seed=seed)] = cell.model_copy(update=own)
            read[point._replace(seed=seed)] = one._read[point]
    return Results(None, one.facts, cells, read)


def test_a_claim_about_a_trained_part_from_three_seeds_takes_the_seed_for_a_random_effect():
    (claim,) = compare_methods(under_seeds((0.0, 0.1, 0.2)), "good", "poor", attack="strong")
    assert (claim.over_seeds, claim.trained.counts) == (True, {"good": 3})
    d = np.array([0.1 - 0.78, 0.2 - 0.78, 0.3 - 0.78])
    low, high = stats.t.interval(0.95, 2, loc=d.mean(), scale=stats.sem(d))
    # The seeds differ by more than the identities, so the interval is nearly that of three numbers.
    assert claim.asr.difference.low == pytest.approx(low, abs=0.03)
    assert claim.asr.difference.high == pytest.approx(high, abs=0.03)
    text = claim.sentence()
    assert "t test over 40 identities, of which 40 differ, and 3 training seeds, both random effects" in text
    assert "trained" not in text.replace("training seeds", "")
    same = compare_methods(under_seeds((0.0, 0.0, 0.0)), "good", "poor", attack="strong")[0]
    assert same.asr.difference.high - same.asr.difference.low < 0.1 < high - low


def test_what_trainings_disagree_about_is_no_claim_of_the_method():
    made = under_seeds((0.7, 0.3, 0.65))
    (claim,) = compare_methods(made, "good", "poor", attack="strong")
    assert claim.verdict == "not significantly different"
    # Defences that are not trained are compared over identities alone, as ever.
    (plain,) = compare_methods(under_seeds((0.7, 0.3, 0.65), trained={}), "good", "poor", attack="strong")
    assert (plain.over_seeds, plain.verdict) == (False, "better")
    assert "sign-flip test" in plain.sentence()


@pytest.mark.parametrize(
    ("shifts", "trained", "said"),
    [
        ((0.0,), None, "trained good once: a claim about a trained part needs 3 training seeds or more"),
        ((0.0, 0.1), None, "trained good under two seeds: a claim"),
        # Three seeds of the run train no file of weights anew.
        ((0.0, 0.1, 0.2), {"good": {"defense": "weights"}}, "trained good once: a claim"),
        (
            (0.0, 0.1, 0.2),
            {"good": {"defense": "run"}, "poor": {"defense": "weights"}},
            "trained poor once: a",
        ),
    ],
)
def test_a_claim_from_too_few_trainings_says_so(shifts, trained, said):
    (claim,) = compare_methods(under_seeds(shifts, trained), "good", "poor", attack="strong")
    assert not claim.over_seeds
    assert said in claim.sentence()
    assert claim.sentence().endswith("so this one is about these weights.")


def test_only_what_is_compared_counts_as_trained():
    made = under_seeds((0.0,))
    assert compare_methods(made, "strong", "weak", kind="attack", defense="good")[0].trained.counts == {}
    runs = compare_runs(made, under_seeds((0.1,)), ("one", "two"))
    assert [claim.trained.counts for claim in runs] == [{"good": 1}]
    attacks = under_seeds((0.0,), {"strong": {"attack": "weights"}})
    assert compare_methods(attacks, "strong", "weak")[0].trained.counts == {"strong": 1}


def test_a_run_of_an_earlier_version_knows_that_a_defence_was_trained():
    made = results()
    assert threat("").attack_seen_by_defense == "unseen"
    (claim,) = compare_methods(made, "good", "poor")
    assert claim.trained.counts == {"good": 1, "poor": 1}
    assert "trained good once, poor once" in claim.sentence()


def test_a_significant_difference_near_zero_with_unlike_spread_has_its_caution():
    made = results({("none", "none"): 0.0, ("x", "none"): 0.3, ("x", "good"): 0.0, ("x", "poor"): 0.0})
    for point, decided in list(made._read.items()):
        if point.defense == "poor":
            some = decided.rows["identity"].isin(IDENTITIES[:8]) & decided.rows["protected"]
            wrong = some & decided.rows["image"].str.endswith("/0")
            made._read[point] = Decided(
                decided.rows.assign(correct=decided.rows["correct"] & ~wrong), decided.conditions
            )
    (claim,) = compare_methods(made, "good", "poor")
    assert claim.verdict == "better"
    assert "only 0 of 40 identities tell how it is spread" in claim.sentence()
    found = tables.ranked_groups(made)
    pairs = tables.pairs(found)
    defences = pairs[(pairs["ranked"] == "defense") & (pairs["against"] == "x")].set_index(
        ["first", "second"]
    )
    assert "0 of 40" in defences.loc[("good", "poor"), "caution"]
    assert defences.loc[("good", "none"), "caution"] == ""
