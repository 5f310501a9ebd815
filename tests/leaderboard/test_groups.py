"""Rates of groups of people: against plain pandas, what a file of groups may say, and the command."""

import json

import numpy as np
import pandas as pd
import pytest

from bench.analysis.results import Results
from bench.errors import DataError
from bench.leaderboard import groups
from bench.run.folder import RunFolder
from bench.stats.intervals import rate_interval
from bench.stats.significance import holm
from benchmarks import drawn_groups


@pytest.fixture(scope="module")
def results(evaluate):
    run = evaluate(dataset="tiny:identities=24", attacks=("tiny-noise",), defenses=("jpeg:quality=20",))
    return Results.of(RunFolder(run.folder.path))


@pytest.fixture(scope="module")
def everyone(results):
    point = next(iter(results.cells))
    return list(results.rates_of(point, "", "asr").index)


@pytest.fixture
def file(tmp_path):
    def written(text):
        path = tmp_path / "groups.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def labels_of(everyone):
    """Return groups of 10, 9 and 3 identities; two have none."""
    return {name: "a" if k < 10 else "b" if k < 19 else "c" for k, name in enumerate(everyone[:22])}


# --- the file -----------------------------------------------------------------------------------------------------


def test_groups_are_what_the_file_says(file):
    assert groups.read_groups(file("identity,group\nx,one\n y , two \n\nx,one\n")) == {"x": "one", "y": "two"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "begin with nothing; the first line is identity,group"),
        ("id,label\nx,one\n", "begin with id, label"),
        ("identity,group\nx\n", r"line 2: \['x'\] is not an identity and its group"),
        ("identity,group\nx,one\ny, \n", "line 3"),
        ("identity,group\nx,one\ny,two\nx,two\n", "'x' is in 'one' and 'two'"),
        ("identity,group\nx,one\ny,one\n", "name 1 group; a comparison needs two"),
        ('identity,group\nx,"one\n', "cannot be read as CSV"),
    ],
)
def test_a_file_that_says_something_else_is_refused(file, text, said):
    with pytest.raises(DataError, match=said):
        groups.read_groups(file(text))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        groups.read_groups(tmp_path / "none.csv")


# --- the table ----------------------------------------------------------------------------------------------------


def test_rates_are_those_of_the_identities_of_each_group(results, everyone):
    labels = labels_of(everyone)
    found = groups.table(results, labels)
    assert tuple(found.columns) == tuple(groups.COLUMNS)
    assert len(found) == len(results.cells) * 2 * 3
    for row in found.to_dict("records"):
        axes = ("attack", "defense", "backbone")
        point = next(one for one in results.cells if all(getattr(one, axis) == row[axis] for axis in axes))
        rates = results.rates_of(point, "", row["measure"])
        own = [rates[name] for name in rates.index if labels.get(name) == row["group"]]
        others = [rates[name] for name in rates.index if name in labels and labels[name] != row["group"]]
        assert row["n_identities"] == len(own)
        assert (row["rate"], row["others"]) == pytest.approx((np.mean(own), np.mean(others)))
        assert row["difference"] == pytest.approx(np.mean(own) - np.mean(others))
        probes = results.identities(point, "")["n_probes"]
        count = int(sum(probes[name] for name in rates.index if labels.get(name) == row["group"]))
        interval = rate_interval(own, count)
        assert (row["rate_low"], row["rate_high"]) == pytest.approx((interval.low, interval.high))
    assert found["p_holm"].dropna().tolist() == pytest.approx(
        [
            p
            for p in holm(dict(enumerate(found["p"].astype(object).where(found["p"].notna(), None)))).values()
            if p is not None
        ]
    )


def test_small_groups_say_so_and_are_not_tested(results, everyone):
    found = groups.table(results, labels_of(everyone)).set_index("group")
    assert (found.loc["c", "n_identities"] == 3).all()
    assert found.loc["c", "p"].isna().all()
    assert found.loc["c", "reason"].str.contains("a test needs at least").all()
    of_a = found.loc["a"]
    assert (of_a["p"].notna() | (of_a["reason"] == "every identity has the same rate")).all()
    assert of_a["p"].notna().any()
    assert (found["caution"] == "few-identities").all()
    said = " ".join(groups.sentences(found.reset_index()))
    assert f"Fewer than {groups.FEW} identities: a, b, c" in said
    assert "Without a test: 3 and 19 identities" in said


def test_who_differs_is_found_and_said(results, everyone):
    point = next(one for one in results.cells if (one.attack, one.defense) == ("tiny-noise", "none"))
    rates = results.rates_of(point, "", "asr")
    order = sorted(rates.index, key=lambda name: (rates[name], name))
    labels = {name: "less" if place < 12 else "more" for place, name in enumerate(order)}
    found = groups.table(results, labels)
    of_cell = found[(found["attack"] == "tiny-noise") & (found["defense"] == "none")].set_index(
        ["measure", "group"]
    )
    row, other = of_cell.loc["asr", "less"], of_cell.loc["asr", "more"]
    assert rates.min() < rates.max()
    assert row["difference"] < 0
    assert row["p"] < 0.05
    assert row["difference"] == -other["difference"]
    assert np.isnan(other["p"])
    assert other["reason"] == "the same comparison as that of less"
    said = [one for one in groups.sentences(found) if one.startswith("less: ASR of tiny-noise x none")]
    assert len(said) == int(row["p_holm"] <= 0.05)
    again = groups.table(results, labels)
    pd.testing.assert_frame_equal(found, again)


def test_strange_identities_are_named(results, everyone):
    with pytest.raises(DataError, match=rf"1 of 3 identities .* first 'nobody'.* called as {everyone[0]}"):
        groups.table(results, {everyone[0]: "a", everyone[1]: "b", "nobody": "a"})


def test_those_without_a_group_are_counted(results, everyone):
    assert groups.left_out(results, labels_of(everyone)) == 2


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_writes_and_says_who_is_left_out(results, everyone, file, cli, tmp_path):
    path = file(
        "identity,group\n" + "".join(f"{name},{group}\n" for name, group in labels_of(everyone).items())
    )
    run = results.folder.path
    code, out, err = cli("table", "groups", run, "--groups", path, "--csv", tmp_path / "t.csv")
    assert code == 0
    assert "2 evaluated identities have no group" in err
    assert "Where none is shown there may be one" in out
    written = pd.read_csv(tmp_path / "t.csv")
    assert tuple(written.columns) == tuple(groups.COLUMNS)
    code, out, _ = cli("table", "groups", run, "--groups", path, "--json")
    assert (code, len(json.loads(out))) == (0, len(written))
    code, _, err = cli("table", "groups", run, "--groups", tmp_path / "none.csv")
    assert code != 0
    assert "cannot be read" in err


def test_drawn_faces_have_groups_that_are_known():
    dataset = "synthetic:identities=40,photos=3"
    for trait in drawn_groups.TRAITS:
        found = drawn_groups.groups(trait, dataset)
        assert len(found) == 40
        assert len(set(found.values())) >= 2
