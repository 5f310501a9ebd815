import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data.files import data_folder
from bench.plugins import factory
from bench.stats.intervals import difference_interval, rate_interval
from bench.stats.significance import sign_flip_test
from benchmarks.simulation import (
    LFW_PROBES,
    RATES,
    RUNS,
    SPREADS,
    Outcome,
    Scenario,
    WorstScenario,
    difference_intervals,
    draw,
    draw_attacks,
    figure,
    is_within,
    markdown,
    missed,
    probe_counts,
    rate_intervals,
    run,
    sign_flip_tests,
    simulate,
    summary,
    worst_case_bias,
)

COMMITTED = Path(__file__).parents[2] / "docs" / "statistics" / "simulation.csv"
GOOD = Outcome(60, 0.05, 1.0, None, 0.95, 0.95, 0.95, None, None)
NULL, OTHER = Scenario(158, 0.3, 0.3, "even"), Scenario(158, 0.3, 0.36, "even")


def test_probe_counts_are_lfws():
    counts = probe_counts(158)
    assert dict(zip(*np.unique(counts, return_counts=True), strict=True)) == LFW_PROBES
    assert counts.sum() == 1069
    assert probe_counts(20).mean() == pytest.approx(counts.mean(), abs=0.3)


@pytest.mark.real_data
@pytest.mark.skipif(not (data_folder() / "lfw").exists(), reason="CLOAKBENCH_DATA has no lfw")
def test_lfw_has_these_probe_counts():
    dataset = factory.create("datasets", "lfw")
    split = factory.create("protocols", "tracker").split(dataset.identities(), 0)
    counts = [len(photos) for photos in split.probes.values()]
    assert dict(zip(*np.unique(counts, return_counts=True), strict=True)) == LFW_PROBES


@pytest.mark.parametrize("spread", SPREADS)
def test_drawn_rates_have_the_scenarios_means_and_intraclass_correlations(spread):
    scenario = Scenario(158, 0.2, 0.35, spread)
    first, second, probes = draw(scenario, 1500, np.random.default_rng(0))
    for rates, mean, intraclass in zip((first, second), (0.2, 0.35), SPREADS[spread], strict=True):
        assert rates.mean() == pytest.approx(mean, abs=0.005)
        expected = mean * (1 - mean) * (intraclass + (1 - intraclass) * (1 / probes).mean())
        assert rates.var() == pytest.approx(expected, rel=0.03)
    hits = first * probes
    np.testing.assert_allclose(hits, np.round(hits), atol=1e-9)


def test_cells_of_one_person_correlate_and_people_of_one_rotation_do():
    scenario = Scenario(50, 0.5, 0.5, "clustered", fold_share=0.3)
    first, second, _ = draw(scenario, 4000, np.random.default_rng(1))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.5
    apart = draw(replace(scenario, correlation=0.0, shared=0.0), 4000, np.random.default_rng(1))
    assert abs(np.corrcoef(apart[0].ravel(), apart[1].ravel())[0, 1]) < 0.02
    correlation = np.corrcoef(first.T)
    rotation = np.arange(50) % 10
    same = (rotation[:, None] == rotation) & ~np.eye(50, dtype=bool)
    assert correlation[same].mean() > 0.1
    assert abs(correlation[rotation[:, None] != rotation].mean()) < 0.01


def test_equal_cells_with_the_same_luck_do_not_differ():
    scenario = Scenario(20, 0.4, 0.4, "even", correlation=1.0, shared=1.0)
    first, second, _ = draw(scenario, 50, np.random.default_rng(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("rate", [0.004, 0.3, 0.97])
def test_many_at_once_are_what_a_run_computes_one_by_one(rate):
    first, second, probes = draw(Scenario(20, rate, 0.3, "clustered"), 60, np.random.default_rng(3))
    first[0], second[0] = 0.0, 0.0
    first[1], second[1] = 1.0, 1 / 3
    totals = probes.sum(axis=1)
    found = np.column_stack(rate_intervals(first, totals))
    one_by_one = [rate_interval(row, int(total)) for row, total in zip(first, totals, strict=True)]
    np.testing.assert_allclose(found, [(one.low, one.high) for one in one_by_one], atol=1e-12)
    for confidence in (0.9, 0.95):
        found = np.column_stack(difference_intervals(first, second, confidence))
        pairs = [difference_interval(a, b, confidence) for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(found, [(one.low, one.high) for one in pairs], atol=1e-12)


def test_sign_flips_at_once_are_those_one_by_one():
    first, second, _ = draw(Scenario(20, 0.2, 0.35, "clustered"), 80, np.random.default_rng(4))
    differences = first - second
    differences[0, 4:] = 0  # too few
    differences[1, 8:], differences[1, :8] = 0, 0.5  # all signs enumerated
    found = sign_flip_tests(differences, np.random.default_rng(5), 3999)
    assert np.isnan(found[0])
    assert found[1] == 2 / 2**8
    tested = np.flatnonzero(np.isfinite(found))
    assert len(tested) > 60
    exact = [sign_flip_test(differences[row], np.random.default_rng(6), 2**20) for row in tested]
    np.testing.assert_allclose(found[tested], exact, atol=0.04)


def test_the_same_seed_gives_the_same_outcome():
    one, two, other = (run(NULL, runs=30, resamples=99, seed=seed)[0] for seed in (0, 0, 1))
    assert one == two != other


def test_an_experiment_holds_its_bars():
    outcome, sd = run(Scenario(158, 0.5, 0.5, "even"), runs=600, resamples=199)
    assert 0.02 <= outcome.rejected <= 0.09
    assert min(outcome.coverage_rate, outcome.coverage_difference) > 0.91
    assert (outcome.tested, outcome.predicted, outcome.false_not_worse) == (1.0, None, None)
    assert 0.1 < sd < 0.4


@pytest.mark.parametrize(
    ("scenario", "change", "found"),
    [
        (NULL, {}, []),
        (NULL, {"rejected": 0.02}, ["false positives"]),
        (NULL, {"rejected": 0.08}, ["false positives"]),
        (NULL, {"coverage_rate": 0.98}, ["coverage_rate"]),
        (NULL, {"coverage_difference": 0.92}, ["coverage_difference"]),
        (NULL, {"differing": 19.0, "rejected": 0.0, "coverage_rate": 1.0}, []),
        (
            NULL,
            {"differing": 19.0, "rejected": 0.08, "coverage_other": 0.9},
            ["coverage_other", "false positives"],
        ),
        (OTHER, {"rejected": 0.74, "predicted": 0.8}, ["power"]),
        (OTHER, {"rejected": 0.76, "predicted": 0.8}, []),
        (replace(OTHER, rate=0.04), {"rejected": 0.5, "predicted": 0.8}, []),
    ],
)
def test_the_bar(scenario, change, found):
    assert missed(scenario, replace(GOOD, **change)) == found


def test_where_the_two_sided_bar_holds():
    assert is_within(Scenario(50, 0.05, 0.95, "even"), 20)
    assert not is_within(Scenario(50, 0.05, 0.96, "even"), 30)
    assert not is_within(Scenario(50, 0.3, 0.3, "even"), 19.9)


def test_a_small_simulation_has_a_table_a_summary_and_a_figure():
    steps = []
    table = simulate(
        runs=40,
        resamples=49,
        identities=(20, 50),
        rates=(0.1, 0.5),
        spreads=("clustered",),
        advance=steps.append,
    )
    assert sum(steps) == len(table) == 8
    assert list(table["kind"]) == ["null", "difference"] * 4
    assert (table.loc[table["kind"] == "null", "rate"] == table.loc[table["kind"] == "null", "other"]).all()
    found = summary(table)
    assert found["figure, per cent"].is_unique
    assert markdown(found).count("\n") == len(found) + 2
    drawn = figure(table)
    assert drawn == figure(table)
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 100_000


def test_the_committed_simulation_holds_every_bar():
    table = pd.read_csv(COMMITTED, keep_default_na=False)
    assert len(table) == 2 * 3 * len(SPREADS) * len(RATES)
    assert RUNS >= 4000
    assert set(table["missed"]) == {""}
    page = (COMMITTED.parent.parent / "statistics.md").read_text(encoding="utf-8")
    assert (COMMITTED.parent / "simulation.md").read_text(encoding="utf-8").strip() in page
    assert re.search(r"python -m benchmarks.simulation docs/statistics", page)


def test_drawn_attacks_have_their_means_and_luck_of_their_own():
    scenario = WorstScenario(3, 0.5, 0.2, n_identities=50)
    true, observed, probes = draw_attacks(scenario, 800, np.random.default_rng(0))
    assert true.shape == observed.shape == (3, 800, 50)
    assert observed.mean(axis=(1, 2)) == pytest.approx([0.5, 0.2, 0.2], abs=0.01)
    assert (observed * probes == np.round(observed * probes)).all()
    assert np.corrcoef(true[1].ravel(), true[2].ravel())[0, 1] > 0.5
    luck = observed - true
    assert abs(np.corrcoef(luck[1].ravel(), luck[2].ravel())[0, 1]) < 0.02


def test_the_worst_case_per_identity_and_that_of_one_attack_enclose_the_truth():
    scenarios = [WorstScenario(1, 0.5, 0.5), WorstScenario(6, 0.5, 0.5), WorstScenario(6, 0.9, 0.3)]
    found = worst_case_bias(300, scenarios=scenarios).set_index(["attacks", "strongest"]).astype(float)
    alone, alike, dominated = (found.iloc[number] for number in range(3))
    assert alone["bias"] == pytest.approx(0, abs=0.3)
    assert alone["bias of one"] == pytest.approx(0, abs=0.3)
    assert alike["one attack"] < alike["truth"] < alike["per identity"]
    assert alike["bias"] > 5
    # One attack that dominates leaves little to choose from.
    assert abs(dominated["bias"]) < alike["bias"]


def test_the_documented_bias_is_the_committed_table():
    text = (COMMITTED.parents[1] / "statistics.md").read_text(encoding="utf-8")
    assert (COMMITTED.parent / "worst_case.md").read_text(encoding="utf-8").strip() in text
