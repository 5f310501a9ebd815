"""The means a headline is made of, against loops over the stored decisions."""

import itertools

import numpy as np
import pandas as pd
import pytest

from bench import decisions, leaderboard, means
from bench.answers import Answers, Point
from bench.errors import UsageError
from bench.significance_tables import accuracy_kept
from bench.slices import EVERY

ATTACKS = ("tiny-noise", "pgd:eps=32,steps=2")
TRACKERS = ("tiny-a", "tiny-b")


@pytest.fixture(scope="module")
def answers(evaluate):
    prepared = evaluate(
        attacks=ATTACKS,
        defenses=("jpeg:quality=20", "tiny-centring"),
        backbones=TRACKERS,
        heads=("nn", "centroid"),
        dataset="tiny:identities=8",
    )
    return Answers.of(prepared.folder)


def own_rates(answers, attack, defense, backbone, head):
    """Return {person: (share of probes missed while protected, share recognised while normal)}."""
    cell = answers.cells[Point(attack, defense, backbone, head, 0)]
    rows = decisions.read(answers.folder.path / cell.decisions).rows
    found = {}
    for person in sorted(set(rows["identity"])):
        mine = rows[rows["identity"] == person]
        normal = [group["correct"].mean() for _, group in mine[~mine["protected"]].groupby("fold", sort=True)]
        found[person] = (1 - mine[mine["protected"]]["correct"].mean(), np.mean(normal))
    return found


def expected(answers, attacks, defense, backbones, head, place):
    cells = [own_rates(answers, a, defense, b, head) for a, b in itertools.product(attacks, backbones)]
    return {person: np.mean([cell[person][place] for cell in cells]) for person in cells[0]}


@pytest.mark.parametrize("head", ["nn", "centroid"])
@pytest.mark.parametrize("defense", ["none", "jpeg:quality=20", "tiny-centring"])
@pytest.mark.parametrize("against", [*ATTACKS, EVERY])
def test_a_mean_is_over_cells_within_each_person_first(answers, against, defense, head):
    found = {(one.against, one.defense, one.head): one for one in means.means(answers)}
    one = found[against, defense, head]
    attacks = ATTACKS if against == EVERY else (against,)
    asr = expected(answers, attacks, defense, TRACKERS, head, 0)
    assert one.rates.to_dict() == pytest.approx(asr)
    row = one.columns
    assert row["asr"] == pytest.approx(np.mean(list(asr.values())))
    assert row["normal_accuracy"] == pytest.approx(
        np.mean(list(expected(answers, attacks, defense, TRACKERS, head, 1).values()))
    )
    assert row["undefended_asr"] == pytest.approx(found[against, "none", head].columns["asr"])
    assert row["undefended_accuracy"] == pytest.approx(
        found[against, "none", head].columns["normal_accuracy"]
    )
    for name, behind in (("baseline_error", "none"), ("defended_baseline_error", defense)):
        assert row[name] == pytest.approx(
            np.mean(list(expected(answers, ("none",), behind, TRACKERS, head, 0).values()))
        )
    assert (row["asr_low"] is None) == bool(row["asr_reason"])
    if row["asr_low"] is not None:
        assert row["asr_low"] <= row["asr"] <= row["asr_high"]
    assert row["n_identities"] == 8


def test_a_mean_of_one_cell_is_the_leaderboards_row(answers):
    board = leaderboard.build(answers.folder).set_index(["attack", "defense", "backbone", "head"])
    names = ["asr", "asr_low", "asr_high", "normal_accuracy", "normal_accuracy_low", "baseline_error"]
    names += ["defended_baseline_error", "purified_psnr", "cloak_psnr", "cloak_linf"]
    for tracker in TRACKERS:
        for one in means.means(answers, (ATTACKS[0],), (tracker,)):
            row = board.loc[(ATTACKS[0], one.defense, tracker, one.head)]
            for name in names:
                assert pd.isna(row[name]) == (one.columns[name] is None), name
                if one.columns[name] is not None:
                    assert one.columns[name] == pytest.approx(row[name]), name
            natural = board.loc[("none", one.defense, tracker, one.head)]["purified_psnr"]
            if not pd.isna(natural):
                assert one.columns["natural_psnr"] == pytest.approx(natural)


def test_normal_accuracy_is_tested_as_significance_does(answers):
    kept = accuracy_kept(answers).set_index(["against", "head", "defense"])
    tested = 0
    for one in means.means(answers):
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


def test_images_are_measured_per_attack_and_averaged_over_cells(answers):
    found = {(one.against, one.defense): one.columns for one in means.means(answers) if one.head == "nn"}
    pgd, noise, every = (found[a, "jpeg:quality=20"] for a in (ATTACKS[1], ATTACKS[0], EVERY))
    assert pgd["cloak_linf_max"] <= 32.5
    assert noise["cloak_linf_max"] > 100
    assert every["cloak_linf_max"] == max(pgd["cloak_linf_max"], noise["cloak_linf_max"])
    assert every["cloak_psnr"] == pytest.approx((pgd["cloak_psnr"] + noise["cloak_psnr"]) / 2)
    assert pgd["natural_psnr"] == noise["natural_psnr"] > pgd["purified_psnr"]
    hardened = found[EVERY, "tiny-centring"]
    assert hardened["natural_psnr"] is None
    assert hardened["purified_reason"]


def test_methods_can_be_chosen_by_any_text_and_must_be_there(answers):
    (first, *_) = means.means(answers, ("pgd:steps=2,eps=32",), ("tiny-b",))
    assert (first.columns["attacks"], first.columns["backbones"]) == (ATTACKS[1], "tiny-b")
    with pytest.raises(UsageError, match=r"attack of this run 'pgd'.*tiny-noise"):
        means.means(answers, ("pgd",))
    with pytest.raises(UsageError, match="attacks that cloak"):
        means.means(answers, ("none",))


def test_a_failed_cell_leaves_a_reason_in_place_of_its_means(evaluate):
    prepared = evaluate(attacks=("tiny-noise", "tiny-failing"), defenses=("jpeg:quality=20",), heads=("nn",))
    found = {(one.against, one.defense): one.columns for one in means.means(Answers.of(prepared.folder))}
    assert found["tiny-noise", "none"]["asr"] is not None
    for against in ("tiny-failing", EVERY):
        row = found[against, "jpeg:quality=20"]
        assert row["asr"] is None
        assert row["normal_accuracy"] is None
        assert "failed" in row["asr_reason"]


def test_the_table_has_every_column_and_the_same_run_gives_the_same_table(answers):
    table = means.table(means.means(answers))
    assert list(table.columns) == list(means.COLUMNS)
    again = means.table(means.means(Answers.of(answers.folder)))
    pd.testing.assert_frame_equal(table, again)


def test_the_command_prints_means_and_writes_them(answers, cli, tmp_path):
    code, out, err = cli("means", answers.folder.path, "--attack", "tiny-noise", "--csv", tmp_path / "m.csv")
    assert (code, err) == (0, "")
    assert "head nn, black-box" in out
    assert "8 people" in out
    written = pd.read_csv(tmp_path / "m.csv")
    assert set(written["against"]) == {"tiny-noise"}
    assert list(written.columns) == list(means.COLUMNS)
    code, out, _ = cli("means", answers.folder.path, "--columns")
    assert code == 0
    assert "defended_baseline_error" in out
    code, _, err = cli("means", tmp_path)
    assert code == 2
    assert "is not a finished run" in err
