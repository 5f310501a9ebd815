"""Means by the year of the trackers' weights, against the means of the trackers of that year alone."""

import pandas as pd
import pytest

from bench.analysis.results import Results
from bench.errors import UsageError
from bench.leaderboard import means, years

DATES = {"tiny-a": "2018-05", "tiny-b": "2021", "tiny-c": "2018"}


@pytest.fixture(scope="module")
def run(evaluate):
    return evaluate(
        attacks=("tiny-noise", "pgd:eps=32,steps=2"),
        defenses=("jpeg:quality=20",),
        backbones=tuple(DATES),
        dataset="tiny:identities=8",
    )


@pytest.fixture(scope="module")
def results(run):
    return Results.of(run.folder)


def test_each_year_has_the_means_of_its_own_trackers(results):
    found = years.table(results, dated=DATES.__getitem__)
    assert list(found["year"].drop_duplicates()) == ["2018", "2021"]
    for year, trackers in (("2018", ("tiny-a", "tiny-c")), ("2021", ("tiny-b",))):
        own = found[found["year"] == year].drop(columns=["year", "year_reason", "model_time"])
        pd.testing.assert_frame_equal(
            own.reset_index(drop=True), means.table(means.means(results, (), trackers)), check_dtype=False
        )
        assert set(own["backbones"]) == {"|".join(trackers)}


def test_trackers_without_a_date_come_last_and_say_so(results):
    found = years.table(results, dated=lambda name: "" if name == "tiny-a" else DATES[name])
    assert list(found["year"].drop_duplicates()) == ["2018", "2021", ""]
    assert set(found[found["year"] == ""]["year_reason"]) == {"no date of publication is known of tiny-a"}
    assert set(found[found["year"] != ""]["year_reason"]) == {""}


def test_only_what_is_asked_for(results):
    found = years.table(results, ("tiny-noise",), ("tiny-b",), dated=DATES.__getitem__)
    assert set(found["backbones"]) == {"tiny-b"}
    assert set(found["attacks"]) == {"tiny-noise"}
    with pytest.raises(UsageError, match="nowhere"):
        years.table(results, (), ("nowhere",))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (("later", "later"), "later"),
        (("later", "not-later"), "not-later"),
        (("later", ""), ""),
        (("", ""), ""),
    ],
)
def test_a_row_is_later_where_every_cell_is(results, monkeypatch, times, expected):
    (one, *_) = [
        each
        for each in means.means(results, ("tiny-noise",), ("tiny-a", "tiny-c"))
        if (each.against, each.defense) == ("tiny-noise", "none")
    ]
    given = dict(zip(("tiny-a", "tiny-c"), times, strict=True))
    for point, cell in results.cells.items():
        if point.backbone in given:
            threat = cell.threat.model_copy(update={"model_time": given[point.backbone]})
            monkeypatch.setitem(results.cells, point, cell.model_copy(update={"threat": threat}))
    assert years._model_time(results, one) == expected


def test_another_access_does_not_count(results, monkeypatch):
    (one, *_) = [
        each
        for each in means.means(results, ("tiny-noise",), ("tiny-a",))
        if (each.against, each.defense) == ("tiny-noise", "none")
    ]
    for point, cell in results.cells.items():
        threat = cell.threat.model_copy(update={"model_time": "later"})
        monkeypatch.setitem(results.cells, point, cell.model_copy(update={"threat": threat}))
    (point, cell) = next(
        (point, cell)
        for point, cell in results.cells.items()
        if (point.attack, point.defense, point.backbone) == ("tiny-noise", "none", "tiny-a")
    )
    threat = cell.threat.model_copy(update={"model_time": "not-later", "access": "white-box"})
    results.cells[point._replace(seed=1)] = cell.model_copy(update={"threat": threat})
    try:
        assert years._model_time(results, one) == "later"
    finally:
        del results.cells[point._replace(seed=1)]


def test_dates_are_those_of_cards_and_a_backbone_that_is_gone_has_none(tiny):
    del tiny
    assert years.released("dlib-resnet") == "2017-02-12"
    assert years.released("nowhere") == ""


def test_the_command_prints_years_and_writes_every_column(cli, run, tmp_path):
    code, out, err = cli("table", "years", run.folder.path, "--csv", tmp_path / "years.csv")
    assert code == 0, err
    assert "year" in out
    assert list(pd.read_csv(tmp_path / "years.csv").columns) == list(years.COLUMNS)
    code, out, _ = cli("table", "years", run.folder.path, "--columns")
    assert code == 0
    assert "model_time" in out
