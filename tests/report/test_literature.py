"""The table of published numbers is whole, sourced and in range; its reader refuses what is not."""

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import DataError
from bench.leaderboard import columns as leaderboard_columns
from bench.report import literature

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "results" / "literature.csv"
PAGE = ROOT / "docs" / "literature.md"

Row = dict[str, str]


@pytest.fixture(scope="module")
def raw() -> list[Row]:
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return literature.load()


def write(path: Path, rows: list[Row], columns: list[str] | None = None) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(literature.COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_columns_are_those_documented(raw: list[Row], table: pd.DataFrame) -> None:
    assert list(raw[0]) == list(literature.COLUMNS) == list(table.columns)
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in literature.COLUMNS)


def test_ids_are_unique_and_plain(raw: list[Row]) -> None:
    ids = [row["id"] for row in raw]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)


def test_every_row_says_where_it_is_from_and_how_it_differs(raw: list[Row]) -> None:
    for row in raw:
        assert "https://" in row["source"] or row["quoted_from"].endswith(row["source"])
        assert row["where"]
        assert row["arxiv_or_doi"]
        assert row["differs_from_ours"].endswith(".")
        assert re.search(r"\bours?\b", row["differs_from_ours"])
        assert row["checked"] == ("no" if row["quoted_from"].startswith("second-hand") else "yes")


def test_values_are_numbers_in_the_range_of_their_unit(raw: list[Row]) -> None:
    for row in raw:
        if row["value"]:
            low, high = {
                "share": (0, 1),
                "percent": (0, 100),
                "percentage points": (-100, 100),
                "DSSIM": (0, 1),
            }[row["unit"]]
            assert low <= float(row["value"]) <= high, row["id"]
            assert not row["value_reason"]
        else:
            assert row["value_reason"]


def test_rates_at_the_edge_of_a_share_are_not_percent_by_mistake(table: pd.DataFrame) -> None:
    percent = table[(table["unit"] == "percent") & table["value"].notna() & (table["bound"] != "below")]
    assert (percent["value"] > 1).all()


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
    table: pd.DataFrame, name: str, bound: str, value: float, unit: str
) -> None:
    row = table.set_index("id").loc[name]
    assert (row["bound"], row["value"], row["unit"]) == (bound, value, unit)


def test_apf_has_a_reason_and_no_number(table: pd.DataFrame) -> None:
    row = table.set_index("id").loc["apf-none"]
    assert math.isnan(row["value"])
    assert "abstract states no number" in row["value_reason"]


def test_one_user_is_not_passed_off_as_five_hundred(table: pd.DataFrame) -> None:
    facecure = table[table["id"].str.startswith("facecure-")]
    assert len(facecure) == 12
    assert (facecure["n_identities"] == 530).all()
    assert (facecure["n_protected"] == 1).all()
    assert facecure["note"].str.contains("one user only").all()


def test_types(table: pd.DataFrame) -> None:
    assert table["value"].dtype == "float64"
    assert table["n_identities"].dtype == table["n_protected"].dtype == "Int64"
    assert table["checked"].dtype == "bool"
    assert table["year"].between(2020, 2026).all()


def test_nothing_in_it_can_be_taken_for_a_rank() -> None:
    assert not {"rank_low", "rank_high", "tie_group", "asr"} & set(literature.COLUMNS)
    assert {"rank_low", "rank_high", "tie_group"} <= set(leaderboard_columns.COLUMNS)


def test_the_page_counts_rows_and_papers(table: pd.DataFrame) -> None:
    numbers = {"nine": 9, "ten": 10, "eleven": 11, "twelve": 12}
    said = re.search(r"(\d+) rows from (\w+)\s+papers", PAGE.read_text(encoding="utf-8"))
    assert said is not None
    assert (int(said[1]), numbers[said[2]]) == (len(table), table["paper"].nunique())


def test_a_written_table_is_read_back(raw: list[Row], table: pd.DataFrame, tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(literature.load(write(tmp_path / "again.csv", raw)), table)


def test_a_missing_column_is_named(raw: list[Row], tmp_path: Path) -> None:
    columns = [name for name in literature.COLUMNS if name != "differs_from_ours"]
    rows = [{name: row[name] for name in columns} for row in raw]
    with pytest.raises(
        DataError, match=r"missing columns: differs_from_ours\. Valid, in this order: id, paper"
    ):
        literature.load(write(tmp_path / "t.csv", rows, columns))


def test_an_unknown_column_is_named(raw: list[Row], tmp_path: Path) -> None:
    rows = [{**row, "rank": "1"} for row in raw]
    with pytest.raises(DataError, match="unknown columns: 'rank'"):
        literature.load(write(tmp_path / "t.csv", rows, [*literature.COLUMNS, "rank"]))


def test_columns_out_of_place_are_refused(raw: list[Row], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="out of place"):
        literature.load(write(tmp_path / "t.csv", raw, list(reversed(literature.COLUMNS))))


def test_a_repeated_id_is_named_with_both_lines(raw: list[Row], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"line 3: the id '{raw[0]['id']}' is already that of line 2"):
        literature.load(write(tmp_path / "t.csv", [raw[0], raw[0]]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "101"}, r"value is 101\. Valid in percent: 0 to 100"),
        ({"value": "-0.1"}, "Valid in percent: 0 to 100"),
        ({"value": "nan"}, "Valid in percent"),
        ({"value": "7.61 %"}, "a number without its unit"),
        ({"value": ""}, "value is empty without a reason"),
        ({"value_reason": "lost"}, "Only one of them"),
        ({"unit": "‰"}, r"unit is '‰'\. Valid: share, percent"),
        ({"bound": "about"}, r"bound is 'about'\. Valid: exactly, above"),
        ({"protocol": "poll"}, "protocol is 'poll'"),
        ({"checked": "maybe"}, r"checked is 'maybe'\. Valid: yes, no"),
        ({"quoted_from": "hearsay"}, r"Valid: paper, abstract, authors' repository"),
        ({"quoted_from": "second-hand: "}, "quoted_from is 'second-hand: '"),
        ({"quoted_from": "second-hand: a talk", "checked": "yes"}, "not read in its source"),
        ({"source": ""}, "empty: source"),
        ({"differs_from_ours": "  "}, "empty: differs_from_ours"),
        ({"n_identities": "0"}, "a whole number above 0"),
        ({"n_protected": "many"}, "n_protected is 'many'"),
        ({"year": "'24"}, "four digits"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(raw: list[Row], tmp_path: Path, change: Row, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        literature.load(write(tmp_path / "t.csv", [{**raw[0], **change}]))
    assert "t.csv, line 2" in str(caught.value)
    assert raw[0]["id"] in str(caught.value)


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
        (_empty, "missing columns: id"),
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
