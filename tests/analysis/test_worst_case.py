"""Which cells a worst case is over, against the decisions on disk; and what is said where it is none."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.analysis import worst_case
from bench.analysis.results import Results
from bench.analysis.worst_case import (
    COLUMNS,
    KNOWN_IN_PART,
    NOBODY_KNOWS,
    STRONGEST,
    over_trackers,
    worst_columns,
    worst_groups,
)
from bench.leaderboard.table import of_results
from bench.leaderboard.worst_case import LACKING, is_bound, sentences
from bench.run.spec import Cell

ATTACKS = ("tiny-noise", "tiny-sometimes", "tiny-failing")
DEFENSES = ("jpeg:quality=5", "tiny-negative")


@pytest.fixture(scope="module")
def prepared(evaluate):
    return evaluate(attacks=ATTACKS, defenses=DEFENSES, heads=("nn", "centroid"), seeds=(0, 1))


@pytest.fixture(scope="module")
def results(prepared):
    return Results.of(prepared.folder)


@pytest.fixture(scope="module")
def leaderboard(results):
    return of_results(results)


def worst_by_loops(folder, defense, head):
    """Return each identity's highest ASR over attacks, seeds averaged first, by pandas alone."""
    shares = {}
    for cell in json.loads((folder.path / "cells.json").read_text()):
        if (
            cell["attack"] != "none"
            and (cell["defense"], cell["head"]) == (defense, head)
            and cell["decisions"]
        ):
            rows = pd.read_parquet(folder.path / cell["decisions"])
            rows = rows[rows["protected"]]
            own = (~rows["correct"]).groupby(rows["identity"].astype(str)).mean()
            shares.setdefault(cell["attack"], []).append(own)
    means = {attack: sum(own) / len(own) for attack, own in shares.items()}
    return pd.DataFrame(means).max(axis=1), {attack: own.mean() for attack, own in means.items()}


def test_it_is_over_the_attacks_of_the_defence_on_its_tracker_and_head_with_seeds_averaged(
    prepared, leaderboard
):
    for (defense, head), rows in leaderboard.groupby(["defense", "head"]):
        each, means = worst_by_loops(prepared.folder, defense, head)
        assert len(rows) == 8  # with attack none, twice each
        assert rows["asr_worst"].tolist() == pytest.approx([each.mean()] * 8)
        assert rows["worst_attack_asr"].tolist() == pytest.approx([max(means.values())] * 8)
        assert set(rows["worst_attack"]) <= {
            name for name, mean in means.items() if mean == max(means.values())
        }
        assert (rows["asr_worst_low"] <= rows["asr_worst"]).all()
        assert (rows["asr_worst"] <= rows["asr_worst_high"]).all()


def drawn(results):
    """Return what gives each cell rates of its own, in place of `Results.rates_of`."""
    names = results.measured(next(iter(results.cells)), "").own.names

    def rates_of(_self, point, _condition, _measure):
        rng = np.random.default_rng(list(str(point).encode()))
        return (
            None if point.attack == "tiny-failing" else pd.Series(rng.integers(0, 3, len(names)) / 2, names)
        )

    return rates_of


def test_each_identity_has_its_own_strongest_attack(results, leaderboard, monkeypatch):
    rates_of = drawn(results)
    monkeypatch.setattr(Results, "rates_of", rates_of)
    found = leaderboard.assign(**worst_columns(results, leaderboard))
    apart = 0
    for (defense, head), rows in found.groupby(["defense", "head"]):
        points = {
            attack: [Cell(attack, defense, "tiny-a", head, seed) for seed in (0, 1)] for attack in ATTACKS[:2]
        }
        means = {
            attack: sum(rates_of(None, point, "", "asr").to_numpy() for point in own) / 2
            for attack, own in points.items()
        }
        highest = np.maximum(*means.values()).mean()
        assert rows["asr_worst"].tolist() == pytest.approx([highest] * len(rows))
        best = max(means, key=lambda attack: means[attack].mean())
        assert rows["worst_attack_asr"].tolist() == pytest.approx([means[best].mean()] * len(rows))
        apart += highest > means[best].mean() + 1e-9
    assert apart > 3


def test_defences_are_ranked_by_it_only_where_an_attack_was_made_against_each(results, monkeypatch):
    assert [one.reason for one in worst_groups(results)] == [
        f"no attack was made against these very defences: {', '.join(DEFENSES)}"
    ] * 2
    rates_of = drawn(results)
    monkeypatch.setattr(Results, "rates_of", rates_of)
    known = {
        point: cell.model_copy(
            update={"threat": cell.threat.model_copy(update={"attack_adapts_to_defense": True})}
        )
        for point, cell in results.cells.items()
        if point.attack != "tiny-failing"
    }
    one, _ = worst_groups(replace(results, cells=known))
    assert (one.reason, one.opponent, one.opponents, one.head) == ("", STRONGEST, ATTACKS[:2], "nn")
    means = [
        (rates_of(None, Cell(attack, "none", "tiny-a", "nn", 0), "", "asr")
         + rates_of(None, Cell(attack, "none", "tiny-a", "nn", 1), "", "asr")) / 2
        for attack in ATTACKS[:2]
    ]  # fmt: skip
    assert one.rates["none"].tolist() == np.maximum(*means).tolist()
    assert set(one.rates.columns) == {"none", *DEFENSES}


def test_an_attack_that_failed_stays_in_the_count_with_its_reason(leaderboard):
    assert set(zip(leaderboard["worst_over"], leaderboard["worst_of"], strict=True)) == {(2, 3)}
    reasons = leaderboard["asr_worst_reason"]
    assert reasons.str.startswith("2 of 3 attacks have a rate, so at least this: tiny-failing: ").all()
    assert reasons.str.contains("RuntimeError: no cloak for").all()


def test_without_an_attack_that_knows_the_defence_it_says_that_it_is_none(results, leaderboard):
    undefended = leaderboard["defense"] == "none"
    assert set(leaderboard.loc[undefended, "worst_knows"]) == {""}
    assert set(leaderboard.loc[~undefended, "worst_knows"]) == {"none"}
    assert leaderboard.loc[~undefended, "asr_worst_reason"].str.endswith(NOBODY_KNOWS).all()
    own = (leaderboard["attack"] == "tiny-noise") & (leaderboard["defense"] == DEFENSES[0])
    for mark, knows, reason in (
        ("attack_adapts_to_defense", "exact", ""),
        ("attack_adapts_in_part", "partial", KNOWN_IN_PART),
    ):
        found = pd.DataFrame(worst_columns(results, leaderboard.assign(**{mark: own})))
        marked = leaderboard["defense"] == DEFENSES[0]
        assert set(found.loc[marked, "worst_knows"]) == {knows}
        assert found.loc[marked, "asr_worst_reason"].str.endswith(reason).all()
        assert not found.loc[marked, "asr_worst_reason"].str.contains(NOBODY_KNOWS).any()
        assert set(found.loc[leaderboard["defense"] == DEFENSES[1], "worst_knows"]) == {"none"}


def test_an_attacker_who_failed_knows_nothing(results, leaderboard):
    own = (leaderboard["attack"] == "tiny-failing") & (leaderboard["defense"] == DEFENSES[0])
    found = pd.DataFrame(worst_columns(results, leaderboard.assign(attack_adapts_to_defense=own)))
    assert set(found.loc[leaderboard["defense"] == DEFENSES[0], "worst_knows"]) == {"none"}


def test_white_box_cells_are_never_in_a_black_box_worst_case(results, leaderboard):
    white = leaderboard["attack"] == ATTACKS[1]
    marked = leaderboard.assign(access=["white-box" if one else "" for one in white])
    found = pd.DataFrame(worst_columns(results, marked))
    for rows, names in ((white, {ATTACKS[1]}), (leaderboard["attack"] == "tiny-noise", {"tiny-noise"})):
        assert set(found.loc[rows, "worst_attack"]) == names
        assert found.loc[rows, "asr_worst"].tolist() == pytest.approx(
            leaderboard[rows].groupby(["defense", "head"])["asr"].transform("mean").tolist()
        )
    # attack none stands with the black-box ones
    assert set(found.loc[leaderboard["attack"] == "none", "worst_attack"]) == {"tiny-noise"}


def test_an_attack_that_was_not_run_against_a_defence_is_counted(results, leaderboard):
    fewer = leaderboard[
        ~((leaderboard["attack"] == "tiny-noise") & (leaderboard["defense"] == DEFENSES[0]))
    ].reset_index(drop=True)
    found = pd.DataFrame(worst_columns(results, fewer))
    mine = fewer["defense"] == DEFENSES[0]
    assert set(found.loc[mine, "worst_over"]) == {1}
    assert set(found.loc[mine, "worst_of"]) == {3}
    assert found.loc[mine, "asr_worst_reason"].str.contains("tiny-noise: not run against it").all()


def test_without_an_attack_there_is_none_and_it_says_why(evaluate):
    found = of_results(Results.of(evaluate(defenses=("jpeg:quality=5",)).folder))
    assert found["asr_worst"].isna().all()
    assert set(found["asr_worst_reason"]) == {"no black-box attack was run on this tracker"}
    assert set(found["worst_over"]) == set(found["worst_of"]) == {0}
    assert sentences(found) == []


def test_one_attack_is_its_own_rate_with_its_own_interval(evaluate):
    found = of_results(Results.of(evaluate(attacks=("tiny-noise",), defenses=("jpeg:quality=20",)).folder))
    own = found[found["attack"] == "tiny-noise"]
    for end in ("", "_low", "_high"):
        assert own[f"asr_worst{end}"].tolist() == own[f"asr{end}"].tolist()


def test_over_trackers_rates_are_averaged_before_the_maximum(evaluate):
    prepared = evaluate(attacks=ATTACKS[:2], defenses=DEFENSES[:1], backbones=("tiny-a", "tiny-b"))
    results = Results.of(prepared.folder)
    access = {cell.threat.access or "black-box" for cell in results.cells.values() if cell.attack != "none"}
    for one in access:
        for defense, row in over_trackers(results, "nn", "", one).items():
            rates = {}
            for point, cell in results.cells.items():
                here = (point.defense, cell.threat.access or "black-box") == (defense, one)
                if here and point.attack != "none":
                    rates.setdefault(point.attack, {})[point.backbone] = results.rates_of(point, "", "asr")
            shared = set.intersection(*map(set, rates.values()))
            means = (
                {attack: sum(own[name] for name in shared) / len(shared) for attack, own in rates.items()}
                if shared
                else {}
            )
            if not shared:
                assert row["asr_worst_reason"] == f"no tracker meets all attacks {one}"
                continue
            assert row["asr_worst"] == pytest.approx(pd.DataFrame(means).max(axis=1).mean())
            assert set(row) == set(COLUMNS)


def test_where_no_defence_acts_there_is_no_worst_case(results, leaderboard, monkeypatch):
    monkeypatch.setattr(type(results), "is_undefended", lambda _self, _condition: True)
    found = pd.DataFrame(worst_columns(results, leaderboard))
    assert found["asr_worst"].isna().all()
    assert set(found["asr_worst_reason"]) == {"no defence acts under this condition"}


@pytest.mark.parametrize(
    ("over", "of", "knows", "bound"),
    [(3, 3, "exact", False), (3, 3, "", False), (2, 3, "exact", True), (3, 3, "partial", True),
     (3, 3, "none", True), (None, None, "", False)],
)  # fmt: skip
def test_it_is_a_bound_where_an_attack_lacks_or_nobody_knows_the_defence(over, of, knows, bound):
    assert is_bound(over, of, knows) is bound


def test_the_table_names_the_defences_whose_worst_case_is_none():
    rows = pd.DataFrame(
        {
            "defense": ["none", "a", "b", "c", "c", "d"],
            "asr_worst": [0.5, 0.5, 0.5, 0.5, 0.5, None],
            "worst_over": pd.array([2, 2, 1, 2, 2, None], dtype="Int64"),
            "worst_of": pd.array([2, 2, 2, 2, 2, None], dtype="Int64"),
            "worst_knows": ["", "none", "exact", "partial", "none", ""],
        }
    )
    assert sentences(rows, "`") == [
        f"{LACKING[worst_case.NONE]}`a`, `c` (in 1 of 2 rows).",
        f"{LACKING[worst_case.PARTIAL]}`c` (in 1 of 2 rows).",
        "Worst cases over fewer attacks than the table has, as cells failed or were not run: `b`.",
    ]
