"""Boards: which cells a mean and a worst case are made of, who stands where, and what is said of a failed cell."""

from pathlib import Path

import pandas as pd
import pytest

from bench.analysis.comparison_groups import EVERY
from bench.leaderboard import means
from bench.leaderboard.as_csv import from_csv, to_csv
from bench.leaderboard.as_html import boards
from bench.leaderboard.boards import tasks
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.merge import Merged, Source, merge, read_sources

PLAIN = {
    "dataset": "tiny", "protocol": "tracker", "backbone": "net-a", "head": "nn", "condition": "", "seed": 0,
    "requested": True, "status": "ok", "n_identities": 20, "n_probes": 40, "normal_accuracy": 0.9,
    "normal_accuracy_low": 0.8, "normal_accuracy_high": 0.95, "cloak_psnr": 30.0, "access": "black-box",
    "extractor_is_tracker": False, "related": False, "extractors_are_surrogates": False,
    "attack_adapts_to_defense": False, "attack_adapts_in_part": False, "external": False,
    "benchmark_version": "1", "run": "0123456789ab",
}  # fmt: skip

RATES = {
    ("fog", "none"): (0.9, 0.8), ("fog", "blur"): (0.5, 0.7), ("fog", "mend"): (0.1, 0.2),
    ("mist", "none"): (0.6, 0.4), ("mist", "blur"): (0.6, 0.2), ("mist", "mend"): (0.0, 0.9),
}  # fmt: skip
"""Attack and defence → ASR on two trackers."""


def rows(**changes):
    found = [
        PLAIN
        | {"attack": attack, "defense": defense, "backbone": backbone, "asr": rate}
        | {"asr_low": rate - 0.05, "asr_high": rate + 0.05}
        | changes.get(f"{attack}_{defense}_{backbone}", {})
        for (attack, defense), both in RATES.items()
        for backbone, rate in zip(("a", "b"), both, strict=True)
    ]
    return [row for row in found if row["asr"] != "gone"]


def of(found, **record):
    table = from_csv(to_csv(pd.DataFrame(found, columns=list(COLUMNS))), "the test's")
    return Merged(table, (Source("results/some.csv", table, record=record),))


def board(merged, axis):
    (task,) = tasks(merged)
    return next(one for one in task.boards if one.axis == axis)


FAILED = {"status": "failed", "reason": "no memory", "asr": None, "asr_low": None, "asr_high": None}


def test_defences_stand_by_their_mean_and_name_their_worst_cell():
    found = board(of(rows()), "defense")
    assert found.places == 4
    assert [one.method for one in found.standings] == ["mend", "blur", "none"]
    assert [one.mean.value for one in found.standings] == pytest.approx([0.3, 0.5, 0.675])
    worst = found.standings[0].worst
    assert (worst.asr, worst.opponent, worst.backbone, worst.bound) == (0.9, "mist", "b", False)
    assert found.standings[0].accuracy.value == pytest.approx(0.9)


def worst_cases(**changes):
    """Return the rows with the worst case of each defence on each tracker: ten points above its highest ASR."""
    found = rows()
    for row in found:
        own = [one for one in found if all(one[key] == row[key] for key in ("defense", "backbone"))]
        highest = max(own, key=lambda one: one["asr"])
        row.update({
            "asr_worst": min(1.0, highest["asr"] + 0.1), "asr_worst_low": 0.05, "asr_worst_high": 1.0,
            "worst_over": 2, "worst_of": 2, "worst_attack": highest["attack"],
            "worst_knows": "" if row["defense"] == "none" else "exact", "ranked_over": "",
        } | changes.get(row["defense"], {}))  # fmt: skip
    return found


def test_the_first_number_of_a_defence_is_its_worst_case_per_identity_on_its_worst_tracker():
    merged = of(worst_cases(blur={"worst_knows": "none"}))
    found = {one.method: one.worst for one in board(merged, "defense").standings}
    mend, blur = found["mend"], found["blur"]
    assert (mend.asr, mend.opponent, mend.backbone, mend.bound, mend.of_cell) == (
        1.0,
        "mist",
        "b",
        False,
        False,
    )
    assert (blur.asr, blur.bound, blur.knows) == (pytest.approx(0.8), True, "none")
    text = boards(tasks(merged))
    assert text.index("Worst case %") < text.index("Mean ASR %")
    assert "so that theirs is no worst case: blur." in text
    assert "as a table here has none per identity" not in text
    assert "as a table here has none per identity" in boards(tasks(of(rows())))


def test_a_worst_case_over_fewer_attacks_or_of_runs_that_are_not_ranked_together_is_a_bound():
    def bound(found):
        return next(one.worst.bound for one in board(of(found), "defense").standings if one.method == "mend")

    assert not bound(worst_cases())
    assert bound(worst_cases(mend={"worst_over": 1}))


def test_attacks_stand_by_their_mean_over_defences_and_beside_it_without_one():
    found = board(of(rows()), "attack")
    assert found.opponents == ("blur", "mend")
    assert [one.method for one in found.standings] == ["mist", "fog"]
    assert [one.mean.value for one in found.standings] == pytest.approx([0.425, 0.375])
    first = found.standings[0]
    assert (first.worst.asr, first.worst.opponent, first.worst.backbone) == (0.0, "mend", "a")
    assert (first.undefended, first.psnr) == (0.5, 30.0)


def test_a_mean_of_a_table_has_the_mean_of_its_cells_intervals_which_is_said():
    merged = of(rows())
    found = board(merged, "defense")
    assert not found.exact
    first = found.standings[0].mean
    assert (first.low, first.high) == pytest.approx((first.value - 0.05, first.value + 0.05))
    assert "mean of the cells&#39; own" in boards(tasks(merged))


def test_a_failed_cell_stays_in_the_count_and_its_method_has_no_mean():
    merged = of(rows(fog_mend_a=FAILED))
    found = board(merged, "defense")
    last = found.standings[-1]
    assert (last.method, last.mean.value, last.mean.reason) == ("mend", None, "no memory")
    assert (last.measured, last.failed, last.absent) == (3, 1, 0)
    assert last.worst.bound
    text = boards(tasks(merged))
    assert "3 of 4: 1 failed" in text
    assert "≥ 90.0" in text
    assert "1 of 12 cells failed" in text


def test_what_was_not_run_everywhere_stands_below_what_was():
    merged = of(rows(mist_mend_b={"asr": "gone"}))
    found = board(merged, "defense")
    assert [one.method for one in found.standings] == ["blur", "none", "mend"]
    assert found.standings[-1].absent == 1
    assert "3 of 4: 1 not run" in boards(tasks(merged))


def test_an_attack_made_against_a_defence_is_in_its_worst_case_and_in_no_mean():
    against = {f"mist_mend_{backbone}": {"attack_adapts_to_defense": True} for backbone in "ab"}
    merged = of(rows(**against))
    found = board(merged, "defense")
    assert (found.opponents, found.left_out) == (("fog",), ("mist",))
    first = found.standings[0]
    assert first.mean.value == pytest.approx(0.15)
    assert (first.worst.opponent, first.worst.adapted) == ("mist", "exact")
    text = boards(tasks(merged))
    assert "mist ‡" in text
    assert "‡: the attack is adapted to this very defence." in text
    assert "§" not in text


def test_an_attack_on_a_part_of_a_defence_has_a_mark_of_its_own():
    against = {f"mist_mend_{backbone}": {"attack_adapts_in_part": True} for backbone in "ab"}
    merged = of(rows(**against))
    found = board(merged, "defense")
    assert (found.opponents, found.left_out) == (("fog",), ("mist",))
    assert found.standings[0].worst.adapted == "partial"
    text = boards(tasks(merged))
    assert "mist §" in text
    assert "§: the attack is adapted to a part of this defence" in text
    assert "‡" not in text


def test_white_boxes_heads_and_conditions_are_tasks_of_their_own():
    found = rows(
        fog_none_a={"access": "white-box"},
        fog_blur_a={"access": "white-box"},
        fog_mend_a={"access": "white-box"},
    )
    found += [row | {"head": "linear"} for row in rows()]
    assert [(task.head, task.access) for task in tasks(of(found))] == [
        ("nn", "white-box"), ("nn", "black-box"), ("linear", "black-box"),
    ]  # fmt: skip


def test_runs_stand_on_one_board_where_their_photos_and_split_are_the_same():
    spec = {"dataset": "tiny", "protocol": "tracker", "split_seed": 0, "identities": None}
    one, other = (
        Source(f"{run}.csv", of([row | {"run": run}]).leaderboard, record={"spec": spec, "fingerprint": mark})
        for row, run, mark in ((rows()[0], "aaa", "photos"), (rows()[2], "bbb", "photos"))
    )
    assert [task.runs for task in tasks(merge([one, other]))] == [("aaa", "bbb")]
    unknown = Source("b.csv", other.leaderboard)
    assert [task.runs for task in tasks(merge([one, unknown]))] == [("aaa",), ("bbb",)]


def test_what_a_protocol_restores_and_rows_without_an_attack_have_no_board():
    assert tasks(of([row | {"restored_psnr": 40.0} for row in rows()])) == []
    assert tasks(of([row | {"attack": "none"} for row in rows()])) == []


def test_of_a_runs_folder_means_and_intervals_are_those_of_its_decisions(evaluate):
    run = evaluate(
        attacks=("tiny-noise", "tiny-identity-mean"),
        defenses=("none", "jpeg:quality=20"),
        backbones=("tiny-a", "tiny-b"),
    )
    merged = merge(read_sources([run.folder.path]))
    found = board(merged, "defense")
    assert found.exact
    table = means.table(means.means(merged.sources[0].results)).set_index(["against", "defense"])
    for one in found.standings:
        row = table.loc[(EVERY, one.method)]
        wanted = [row["asr"], row["asr_low"], row["asr_high"], row["normal_accuracy"]]
        got = [one.mean.value, one.mean.low, one.mean.high, one.accuracy.value]
        assert got == pytest.approx([None if pd.isna(value) else value for value in wanted])


def test_the_committed_headline_has_the_means_that_were_committed_with_it():
    """`bench table means` made them from decisions; the boards make them from the rows."""
    results = Path(__file__).parents[2] / "results"
    merged = merge(read_sources([results / "headline.csv"]))
    committed = pd.read_csv(results / "headline" / "published.csv")
    for task in tasks(merged):
        own = committed[committed["head"] == task.head].set_index(["against", "defense"])["asr"]
        for one in task.boards[0].standings:
            rates = merged.leaderboard
            rates = rates[(rates["head"] == task.head) & (rates["defense"] == one.method)]
            fawkes = rates[rates["attack"] == "fawkes"]["asr"].mean()
            assert fawkes == pytest.approx(own["fawkes", one.method], abs=1e-5)
