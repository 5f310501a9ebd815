"""Holding a leaderboard against a published one: states, reasons, means, and which suites can be made again."""

from dataclasses import asdict
from pathlib import Path

import pytest

from bench.errors import DataError, UsageError
from bench.integrity.reproduction import compare, find, published
from bench.leaderboard import as_csv

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def table():
    return as_csv.read_csv(RESULTS / "headline.csv")


def where(table, **named):
    chosen = table["attack"].notna()
    for name, value in named.items():
        chosen &= table[name] == value
    return table.index[chosen][0]


def odd(outcome):
    return [value for value in outcome.rates if value.state not in ("same", "within")]


def test_a_table_reproduces_itself(table):
    outcome = compare(table, table)
    assert outcome.reproduced
    assert (
        outcome.count("same") == len(outcome.rates) == table[["asr", "normal_accuracy"]].notna().sum().sum()
    )
    assert all(mean.published == mean.here for mean in outcome.means)
    assert outcome.verdict.startswith("Reproduced: ")
    assert "difference" not in outcome.verdict


def test_a_shift_of_all_to_one_side_is_told_though_every_rate_is_within(table):
    here = table.copy()
    here["asr"] = here["asr_high"]
    outcome = compare(table, here)
    assert outcome.reproduced
    assert "The largest difference is +" in outcome.verdict
    assert outcome.verdict.endswith(" higher here and 0 lower.")


def test_the_means_are_those_of_the_page(table):
    published = table[table["attack"].isin(["none", "fawkes", "lowkey:perceptual=dssim"])]
    means = {(mean.head, mean.defense): mean for mean in compare(published, published).means}
    assert means["nn", "none"].cells == 8
    assert round(100 * means["nn", "none"].here, 1) == 69.9
    assert round(100 * means["nn", "puface"].here, 1) == 6.3


@pytest.mark.parametrize(("share", "state"), [(0.0, "same"), (0.9, "within"), (1.1, "outside")])
def test_a_rate_is_held_against_its_published_interval(table, share, state):
    row = where(table, attack="fawkes", defense="puface", backbone="mobileface-v2", head="nn")
    here = table.copy()
    rate, high = table.loc[row, ["asr", "asr_high"]]
    here.loc[row, "asr"] = rate + share * (high - rate)
    outcome = compare(table, here)
    cell = "fawkes puface mobileface-v2 nn 0"
    moved = next(v for v in outcome.rates if (v.measure, v.cell) == ("asr", cell))
    assert moved.state == state
    assert outcome.reproduced == (state != "outside")
    assert (moved.low, moved.high) == (table.loc[row, "asr_low"], high)


@pytest.mark.parametrize(
    ("interval", "state"), [((0.0, 0.195), "within"), ((0.0, 0.005), "outside"), ((0.001, 0.195), "outside")]
)
def test_a_rate_of_none_is_held_the_other_way_round(table, interval, state):
    """No interval of a rate above zero holds zero, be it of one probe."""
    row = where(table, attack="fawkes", defense="puface", backbone="mobileface-v2", head="nn")
    there, here = table.copy(), table.copy()
    there.loc[row, ["asr", "asr_low", "asr_high"]] = 0.008, 0.0002, 0.195
    here.loc[row, ["asr", "asr_low", "asr_high"]] = 0.0, *interval
    moved = next(
        v
        for v in compare(there, here).rates
        if (v.measure, v.cell) == ("asr", "fawkes puface mobileface-v2 nn 0")
    )
    assert moved.state == state


def test_what_else_of_a_row_differs_is_its_reason(table):
    row = where(table, attack="fawkes", defense="none", backbone="mobileface-v2", head="nn")
    here = table.copy()
    here.loc[row, "asr"] = 0.0
    here.loc[row, "cloak_psnr"] += 3
    here.loc[row, "surrogates"] = "mobileface-v3"
    (moved,) = odd(compare(table, here))
    then = table.loc[row, "surrogates"]
    assert f"surrogates {then}, here mobileface-v3" in moved.why
    assert "the cloaks' PSNR, dB: " in moved.why
    assert "n probes" not in moved.why


def test_cells_that_failed_or_are_missing_are_not_reproduced(table):
    row = where(table, attack="fawkes", defense="puface", backbone="mobileface-v2", head="nn")
    failed = table.copy()
    failed.loc[row, "status"] = "failed"
    failed.loc[row, "reason"] = "out of memory"
    outcome = compare(table, failed)
    assert {(value.state, value.why) for value in odd(outcome)} == {("failed", "out of memory")}
    assert not outcome.reproduced
    outcome = compare(table, table.drop(index=row))
    assert {value.state for value in odd(outcome)} == {"missing"}
    assert outcome.verdict.startswith("Not reproduced: ")


def test_a_table_without_rates_is_not_reproduced(table):
    assert not compare(table[:0], table).reproduced


def test_every_published_suite_of_the_project_has_its_table():
    known = published(RESULTS)
    assert known["headline"].quick is not None
    assert "headline-quick" not in known
    assert "ablations" not in known  # of `bench ablate`
    assert find(RESULTS, "headline", quick=True).name == "headline-quick"
    assert asdict(known["headline"])["quick"]["suite"] == RESULTS / "headline-quick.toml"


def test_unknown_tables_and_folders_without_are_told_apart(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'headline'"):
        find(RESULTS, "hedline")
    with pytest.raises(UsageError, match=r"'apf' has no quick form; those with one: headline"):
        find(RESULTS, "apf", quick=True)
    with pytest.raises(DataError, match=r"has no suites with published tables.*--results"):
        find(tmp_path, "headline")
    (tmp_path / "odd.toml").write_text("= broken")
    (tmp_path / "odd.csv").write_text("")
    with pytest.raises(DataError, match="is no readable TOML"):
        published(tmp_path)
