"""The table of published numbers is whole, sourced and in range; its reader refuses what is not."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import DataError
from bench.leaderboard import columns as leaderboard_columns
from bench.report import literature

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "results" / "literature.csv"
PAGE = ROOT / "docs" / "literature.md"

Row = dict[str, str]
Numbers = dict[str, literature.PublishedNumber]


@pytest.fixture(scope="module")
def raw() -> list[Row]:
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return {one.id: one for one in literature.load()}


def write(path: Path, rows: list[Row], columns: list[str] | None = None) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(literature.COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_columns_are_those_documented(raw: list[Row]) -> None:
    assert list(raw[0]) == list(literature.COLUMNS)
    assert all(literature.COLUMNS.values())
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in literature.COLUMNS)


def test_every_row_says_where_it_is_from_and_how_it_differs(raw: list[Row]) -> None:
    for row in raw:
        assert "https://" in row["source"] or row["quoted_from"].endswith(row["source"])
        assert row["where"]
        assert row["arxiv_or_doi"]
        assert row["differs_from_ours"].endswith(".")
        assert re.search(r"\bours?\b", row["differs_from_ours"])
        assert row["checked"] == ("no" if row["quoted_from"].startswith("second-hand") else "yes")


def test_rates_at_the_edge_of_a_share_are_not_percent_by_mistake(numbers: Numbers) -> None:
    percent = [one for one in numbers.values() if one.unit == "percent" and one.bound != "below"]
    assert percent
    assert all(one.value is None or one.value > 1 for one in percent)


@pytest.mark.parametrize(
    ("name", "bound", "value", "unit"),
    [
        ("puface-undefended", "exactly", 69.84, "percent"),
        ("puface-defended", "exactly", 7.61, "percent"),
        ("facecure-fawkes-nn", "exactly", 0.97, "share"),
        ("facecure-lowkey-nn", "exactly", 0.94, "share"),
        ("facecure-fawkes-nn-adaptive", "exactly", 0.03, "share"),
        ("facecure-lowkey-nn-adaptive", "exactly", 0.03, "share"),
        ("facecure-fawkes-e2e", "exactly", 0.88, "share"),
        ("facecure-lowkey-e2e", "exactly", 0.97, "share"),
        ("facecure-fawkes-oblivious-magface", "exactly", 0.0, "share"),
        ("facecure-lowkey-oblivious-magface", "exactly", 1.0, "share"),
        ("erasablemask-services", "above", 72.0, "percent"),
        ("erasablemask-erasion", "above", 90.0, "percent"),
        ("fawkes-any-training", "at least", 95.0, "percent"),
        ("lowkey-rekognition", "below", 1.0, "percent"),
    ],
)
def test_the_numbers_the_report_leans_on(
    numbers: Numbers, name: str, bound: str, value: float, unit: str
) -> None:
    assert (numbers[name].bound, numbers[name].value, numbers[name].unit) == (bound, value, unit)


def test_apf_has_a_reason_and_no_number(numbers: Numbers) -> None:
    assert numbers["apf-none"].value is None
    assert "abstract states no number" in numbers["apf-none"].value_reason


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("puface-undefended", "69.84 %"),
        ("facecure-fawkes-nn", "0.97"),
        ("erasablemask-services", "> 72 %"),
        ("fawkes-any-training", "≥ 95 %"),
        ("lowkey-rekognition", "< 1 %"),
    ],
)
def test_a_value_is_printed_with_bound_and_unit(numbers: Numbers, name: str, text: str) -> None:
    assert numbers[name].text == text
    assert numbers["apf-none"].text == f"NA: {numbers['apf-none'].value_reason}"


def test_one_user_is_not_passed_off_as_five_hundred(numbers: Numbers) -> None:
    facecure = [one for name, one in numbers.items() if name.startswith("facecure-")]
    assert len(facecure) == 12
    assert {(one.n_identities, one.n_protected) for one in facecure} == {(530, 1)}
    assert all("one user only" in one.note for one in facecure)


def test_nothing_in_it_can_be_taken_for_a_rank() -> None:
    assert not {"rank_low", "rank_high", "tie_group", "asr"} & set(literature.COLUMNS)
    assert {"rank_low", "rank_high", "tie_group"} <= set(leaderboard_columns.COLUMNS)


def test_the_page_counts_rows_and_papers(numbers: Numbers) -> None:
    words = {"nine": 9, "ten": 10, "eleven": 11, "twelve": 12}
    counted = re.search(r"(\d+) rows from (\w+)\s+papers", PAGE.read_text(encoding="utf-8"))
    assert counted is not None
    papers = {one.paper for one in numbers.values()}
    assert (int(counted[1]), words[counted[2]]) == (len(numbers), len(papers))


def test_a_written_table_is_read_back(raw: list[Row], numbers: Numbers, tmp_path: Path) -> None:
    assert literature.load(write(tmp_path / "again.csv", raw)) == tuple(numbers.values())


@pytest.mark.parametrize("change", ["missing", "unknown", "out of place"])
def test_other_columns_are_refused(raw: list[Row], tmp_path: Path, change: str) -> None:
    columns = {
        "missing": [name for name in literature.COLUMNS if name != "differs_from_ours"],
        "unknown": [*literature.COLUMNS, "rank"],
        "out of place": list(reversed(literature.COLUMNS)),
    }[change]
    rows = [{name: row.get(name, "1") for name in columns} for row in raw]
    with pytest.raises(DataError, match=r"line 1: the columns are .*\. Valid, in this order: id, paper"):
        literature.load(write(tmp_path / "t.csv", rows, columns))


def test_a_repeated_id_is_named_with_both_lines(raw: list[Row], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"line 3, id: '{raw[0]['id']}' is already that of line 2"):
        literature.load(write(tmp_path / "t.csv", [raw[0], raw[0]]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "101"}, r"value: 101 is out of range\. Valid in percent: 0 to 100"),
        ({"value": "-0.1"}, "Valid in percent: 0 to 100"),
        ({"value": "nan"}, "value: 'nan': Input should be a finite number"),
        ({"value": "7.61 %"}, "value: '7.61 %': Input should be a valid number"),
        ({"value": ""}, "value_reason: needed where value is empty"),
        ({"value_reason": "lost"}, "value_reason: needed where value is empty, and only there"),
        ({"unit": "‰"}, "unit: '‰': Input should be 'share', 'percent'"),
        ({"bound": "about"}, "bound: 'about': Input should be 'exactly', 'above'"),
        ({"protocol": "poll"}, "protocol: 'poll'"),
        ({"checked": "maybe"}, "checked: 'maybe': valid: yes, no"),
        ({"quoted_from": "hearsay"}, "quoted_from: 'hearsay'.*paper|abstract|authors' repository"),
        ({"quoted_from": "second-hand: "}, "quoted_from: 'second-hand: '"),
        ({"quoted_from": "second-hand: a talk", "checked": "yes"}, "not read in its source"),
        ({"source": ""}, "source: ''"),
        ({"differs_from_ours": "  "}, "differs_from_ours: '  '"),
        ({"n_identities": "0"}, "n_identities: '0': Input should be greater than 0"),
        ({"n_protected": "many"}, "n_protected: 'many'"),
        ({"year": "'24"}, "year: ''24'"),
        ({"id": "PuFace 1"}, "id: 'PuFace 1'"),
    ],
)
def test_a_bad_row_is_refused_with_line_and_column(
    raw: list[Row], tmp_path: Path, change: Row, said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        literature.load(write(tmp_path / "t.csv", [{**raw[0], **change}]))
    assert "t.csv, line 2" in str(caught.value)
    assert change.get("id", raw[0]["id"]) in str(caught.value)


def _absent(path: Path) -> None:
    assert not path.exists()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _header_only(path: Path) -> None:
    write(path, [])


def _latin(path: Path) -> None:
    path.write_bytes(b"id,paper\n\xe9,\n")


def _short_row(path: Path) -> None:
    path.write_text(",".join(literature.COLUMNS) + "\na,b\n", encoding="utf-8")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_absent, "no table of published numbers at"),
        (_empty, "the columns are none"),
        (_header_only, "a header and no rows"),
        (_latin, "cannot be read as a UTF-8 CSV"),
        (_short_row, f"line 2: 2 cells where the header has {len(literature.COLUMNS)}"),
        (_folder, "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "t.csv"
    make(path)
    with pytest.raises(DataError, match=said):
        literature.load(path)
