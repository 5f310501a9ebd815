"""The means a headline is made of, against loops over the stored decisions."""

import itertools

import numpy as np
import pandas as pd
import pytest

from bench.analysis.comparison_groups import EVERY
from bench.analysis.results import Results
from bench.errors import UsageError
from bench.leaderboard import means
from bench.leaderboard.significance_tables import accuracy_kept
from bench.leaderboard.table import build
from bench.run import decisions
from bench.run.spec import Cell

ATTACKS = ("tiny-noise", "pgd:eps=32,steps=2")
TRACKERS = ("tiny-a", "tiny-b")


@pytest.fixture(scope="module")
def results(evaluate):
    prepared = evaluate(
        attacks=ATTACKS,
        defenses=("jpeg:quality=20", "tiny-centring"),
        backbones=TRACKERS,
        heads=("nn", "centroid"),
        dataset="tiny:identities=8",
    )
    return Results.of(prepared.folder)


def own_rates(results, attack, defense, backbone, head):
    """Return {identity: (share of probes missed while protected, share recognised while normal)}."""
    cell = results.cells[Cell(attack, defense, backbone, head, 0)]
    rows = decisions.read(results.folder.path / cell.decisions).rows
    found = {}
    for identity in sorted(set(rows["identity"])):
        mine = rows[rows["identity"] == identity]
        normal = [group["correct"].mean() for _, group in mine[~mine["protected"]].groupby("fold", sort=True)]
        found[identity] = (1 - mine[mine["protected"]]["correct"].mean(), np.mean(normal))
    return found


def expected(results, attacks, defense, backbones, head, place):
    cells = [own_rates(results, a, defense, b, head) for a, b in itertools.product(attacks, backbones)]
    return {identity: np.mean([cell[identity][place] for cell in cells]) for identity in cells[0]}


@pytest.mark.parametrize("head", ["nn", "centroid"])
@pytest.mark.parametrize("defense", ["none", "jpeg:quality=20", "tiny-centring"])
@pytest.mark.parametrize("against", [*ATTACKS, EVERY])
def test_a_mean_is_over_cells_within_each_person_first(results, against, defense, head):
    found = {(one.against, one.defense, one.head): one for one in means.means(results)}
    one = found[against, defense, head]
    attacks = ATTACKS if against == EVERY else (against,)
    asr = expected(results, attacks, defense, TRACKERS, head, 0)
    assert one.rates.to_dict() == pytest.approx(asr)
    row = one.columns
    assert row["asr"] == pytest.approx(np.mean(list(asr.values())))
    assert row["normal_accuracy"] == pytest.approx(
        np.mean(list(expected(results, attacks, defense, TRACKERS, head, 1).values()))
    )
    assert row["undefended_asr"] == pytest.approx(found[against, "none", head].columns["asr"])
    assert row["undefended_accuracy"] == pytest.approx(
        found[against, "none", head].columns["normal_accuracy"]
    )
    for name, behind in (("baseline_error", "none"), ("defended_baseline_error", defense)):
        assert row[name] == pytest.approx(
            np.mean(list(expected(results, ("none",), behind, TRACKERS, head, 0).values()))
        )
    assert (row["asr_low"] is None) == bool(row["asr_reason"])
    if row["asr_low"] is not None:
        assert row["asr_low"] <= row["asr"] <= row["asr_high"]
    assert row["n_identities"] == 8


def test_a_mean_of_one_cell_is_the_leaderboards_row(results):
    leaderboard = build(results.folder).set_index(["attack", "defense", "backbone", "head"])
    names = ["asr", "asr_low", "asr_high", "normal_accuracy", "normal_accuracy_low", "baseline_error"]
    names += ["defended_baseline_error", "purified_psnr", "cloak_psnr", "cloak_linf"]
    for tracker in TRACKERS:
        for one in means.means(results, (ATTACKS[0],), (tracker,)):
            row = leaderboard.loc[(ATTACKS[0], one.defense, tracker, one.head)]
            for name in names:
                assert pd.isna(row[name]) == (one.columns[name] is None), name
                if one.columns[name] is not None:
                    assert one.columns[name] == pytest.approx(row[name]), name
            natural = leaderboard.loc[("none", one.defense, tracker, one.head)]["purified_psnr"]
            if not pd.isna(natural):
                assert one.columns["natural_psnr"] == pytest.approx(natural)


def test_normal_accuracy_is_tested_as_significance_does(results):
    kept = accuracy_kept(results).set_index(["against", "head", "defense"])
    tested = 0
    for one in means.means(results):
        if one.defense == "none":
            assert one.columns["not_worse"] is None
            assert "reference" in one.columns["not_worse_reason"]
            continue
        row = kept.loc[(one.against, one.head, one.defense)]
        assert one.columns["accuracy_difference"] == pytest.approx(row["difference"])
        assert one.columns["accuracy_p"] == pytest.approx(row["p"])
        assert one.columns["not_worse"] == row["not_worse"]
        tested += 1
    assert tested == 2 * 3 * 2  # defences, opponents, heads


def test_images_are_measured_per_attack_and_averaged_over_cells(results):
    found = {(one.against, one.defense): one.columns for one in means.means(results) if one.head == "nn"}
    pgd, noise, every = (found[a, "jpeg:quality=20"] for a in (ATTACKS[1], ATTACKS[0], EVERY))
    assert pgd["cloak_linf_max"] <= 32.5
    assert noise["cloak_linf_max"] > 100
    assert every["cloak_linf_max"] == max(pgd["cloak_linf_max"], noise["cloak_linf_max"])
    assert every["cloak_psnr"] == pytest.approx((pgd["cloak_psnr"] + noise["cloak_psnr"]) / 2)
    assert pgd["natural_psnr"] == noise["natural_psnr"] > pgd["purified_psnr"]
    hardened = found[EVERY, "tiny-centring"]
    assert hardened["natural_psnr"] is None
    assert hardened["purified_reason"]


def test_methods_can_be_chosen_by_any_text_and_must_be_there(results):
    (first, *_) = means.means(results, ("pgd:steps=2,eps=32",), ("tiny-b",))
    assert (first.columns["attacks"], first.columns["backbones"]) == (ATTACKS[1], "tiny-b")
    with pytest.raises(UsageError, match=r"attack of this run 'pgd'.*tiny-noise"):
        means.means(results, ("pgd",))
    with pytest.raises(UsageError, match="attacks that cloak"):
        means.means(results, ("none",))


def test_a_failed_cell_leaves_a_reason_in_place_of_its_means(evaluate):
    prepared = evaluate(attacks=("tiny-noise", "tiny-failing"), defenses=("jpeg:quality=20",), heads=("nn",))
    found = {(one.against, one.defense): one.columns for one in means.means(Results.of(prepared.folder))}
    assert found["tiny-noise", "none"]["asr"] is not None
    for against in ("tiny-failing", EVERY):
        row = found[against, "jpeg:quality=20"]
        assert row["asr"] is None
        assert row["normal_accuracy"] is None
        assert "failed" in row["asr_reason"]


def test_the_table_has_every_column_and_the_same_run_gives_the_same_table(results):
    table = means.table(means.means(results))
    assert list(table.columns) == list(means.COLUMNS)
    again = means.table(means.means(Results.of(results.folder)))
    pd.testing.assert_frame_equal(table, again)


def test_the_command_prints_means_and_writes_them(results, cli, tmp_path):
    code, out, err = cli(
        "table", "means", results.folder.path, "--attack", "tiny-noise", "--csv", tmp_path / "m.csv"
    )
    assert (code, err) == (0, "")
    assert "head nn, black-box" in out
    assert "8 identities" in out
    written = pd.read_csv(tmp_path / "m.csv")
    assert set(written["against"]) == {"tiny-noise"}
    assert list(written.columns) == list(means.COLUMNS)
    code, out, _ = cli("table", "means", results.folder.path, "--columns")
    assert code == 0
    assert "defended_baseline_error" in out
    code, _, err = cli("table", "means", tmp_path)
    assert code == 2
    assert "is not a finished run" in err
