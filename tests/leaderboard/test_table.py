"""The leaderboard against the decisions it is made from."""

import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from bench import api
from bench.errors import DataError
from bench.leaderboard.about import ABOUT, about
from bench.leaderboard.as_csv import from_csv, guarded, read_csv, to_csv, unguarded
from bench.leaderboard.as_text import of_leaderboard
from bench.leaderboard.columns import COLUMNS, FLAGS
from bench.leaderboard.table import build
from bench.run.folder import RunFolder

DOCUMENT = Path(__file__).parents[2] / "docs/results.md"


@pytest.fixture(scope="module")
def prepared(evaluate):
    return evaluate(
        attacks=("tiny-imitating", "tiny-failing", "tiny-noise"),
        defenses=("tiny-negative", "jpeg:quality=5"),
        heads=("nn", "centroid"),
        dataset="tiny:identities=12",  # of fewer no gain is known well enough for a recovery
    )


@pytest.fixture(scope="module")
def leaderboard(prepared):
    return build(prepared.folder)


def rates(rows):
    """Return ASR and normal accuracy of a cell's decisions, by plain loops."""
    identities = {}
    for row in rows.itertuples():
        identity = identities.setdefault(row.identity, {True: [], False: []})
        identity[row.protected].append(row.predicted == row.identity)
    asr = [1 - sum(p[True]) / len(p[True]) for p in identities.values()]
    accuracy = [sum(p[False]) / len(p[False]) for p in identities.values()]
    return sum(asr) / len(asr), sum(accuracy) / len(accuracy)


@pytest.fixture(scope="module")
def expected(prepared):
    """Cell → (ASR, normal accuracy), read from the run's folder with pandas alone."""
    path = prepared.folder.path
    return {
        tuple(cell[key] for key in ("attack", "defense", "head")): rates(
            pd.read_parquet(path / cell["decisions"])
        )
        for cell in json.loads((path / "cells.json").read_text())
        if cell["decisions"]
    }


def test_rates_are_those_of_the_decisions(leaderboard, expected):
    assert len(expected) == 18
    for row in leaderboard.to_dict("records"):
        point = (row["attack"], row["defense"], row["head"])
        if row["attack"] == "tiny-failing":
            assert point not in expected
            continue
        asr, accuracy = expected[point]
        assert (row["asr"], row["normal_accuracy"]) == pytest.approx((asr, accuracy))
        assert row["asr_low"] <= row["asr"] <= row["asr_high"]
        assert (row["n_identities"], row["n_probes"]) == (12, 24)
        assert row["baseline_error"] == pytest.approx(expected["none", "none", row["head"]][0])
        assert row["defended_baseline_error"] == pytest.approx(
            expected["none", row["defense"], row["head"]][0]
        )


def test_recovery_and_effect_are_of_the_same_head(leaderboard, expected):
    given = 0
    for row in leaderboard[leaderboard["status"] == "ok"].to_dict("records"):
        attack, defense, head = row["attack"], row["defense"], row["head"]
        none, undefended = expected["none", "none", head][0], expected[attack, "none", head][0]
        if attack == defense == "none":
            assert math.isnan(row["effect_h"])
            assert row["effect_h_reason"] == "the row is the reference itself"
            continue
        against = none if defense == "none" else undefended
        h = 2 * math.asin(math.sqrt(row["asr"])) - 2 * math.asin(math.sqrt(against))
        assert row["effect_h"] == pytest.approx(h)
        if "none" in (attack, defense):
            assert math.isnan(row["recovery"])
            assert row["recovery_reason"] == "a recovery is of a defence against an attack"
        elif math.isnan(row["recovery"]):
            assert "not given" in row["recovery_reason"]
        else:
            given += 1
            assert row["recovery"] == pytest.approx((undefended - row["asr"]) / (undefended - none))
    assert given


def test_a_failed_cell_is_a_row_that_says_why(leaderboard):
    failed = leaderboard[leaderboard["status"] == "failed"]
    assert set(failed["attack"]) == {"tiny-failing"}
    assert len(failed) == 6
    assert failed["reason"].str.contains("RuntimeError: no cloak for").all()
    assert failed[["asr", "normal_accuracy", "recovery", "cloak_psnr", "effect_h"]].isna().all(axis=None)
    assert (leaderboard.loc[leaderboard["status"] == "ok", "reason"] == "").all()


def test_every_empty_value_of_a_row_has_its_reason(leaderboard):
    reasons = {
        "rank_low": "ranking_reason", "tie_group": "ranking_reason", "p_holm": "p_holm_reason",
        "effect_h": "effect_h_reason", "recovery": "recovery_reason", "cloak_psnr": "cloak_reason",
        "purified_psnr": "purified_reason", "cloak_lpips": "lpips_reason",
    }  # fmt: skip
    for row in leaderboard[leaderboard["status"] == "ok"].to_dict("records"):
        for column, reason in reasons.items():
            if row[column] is None or pd.isna(row[column]):
                assert isinstance(row[reason], str), (column, row)
                assert row[reason], (column, row)


def test_a_table_is_made_without_torch(prepared, leaderboard):
    code = (
        "import sys\nfrom pathlib import Path\nfrom bench.leaderboard.as_csv import to_csv\n"
        "from bench.leaderboard.table import build\nfrom bench.run.folder import RunFolder\n"
        "sys.stdout.write(to_csv(build(RunFolder(Path(sys.argv[1])))))\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, prepared.folder.path], check=True, capture_output=True, text=True
    )
    assert done.stdout == to_csv(leaderboard)


def test_the_same_folder_gives_the_same_bytes(prepared, leaderboard):
    assert to_csv(build(RunFolder(prepared.folder.path))) == to_csv(leaderboard)


def test_csv_is_numbers_with_six_decimals(leaderboard):
    read = pd.read_csv(io.StringIO(to_csv(leaderboard)), dtype=str)
    values = read["asr"].dropna()
    assert len(values) == 18
    assert values.str.fullmatch(r"[01]\.\d{6}").all()


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "@SUM(A1)", "-1", "\tx", "\nx", " =1", "\u00a0=1", "\u200b=1", "\ufeff@x", "\x0b=1", '"=1"', "''=1",
     "＝1+1", "＋1", "－1", "＠SUM(A1)", "﹢1", "﹣1", "﹦1", "﹫x", "\u3000＝1"],
)  # fmt: skip
def test_no_text_is_a_formula_to_a_spreadsheet(leaderboard, text):
    written = to_csv(leaderboard.assign(reason=text))
    assert set(pd.read_csv(io.StringIO(written))["reason"]) == {f"'{text}"}
    assert set(from_csv(written, "it")["reason"]) == {text}


def test_no_part_of_a_text_is_a_formula_where_the_semicolon_parts_fields(leaderboard):
    written = to_csv(leaderboard.assign(reason="x; =HYPERLINK(1);y;-2"))
    assert set(pd.read_csv(io.StringIO(written))["reason"]) == {"x;' =HYPERLINK(1);y;'-2"}
    assert set(from_csv(written, "it")["reason"]) == {"x; =HYPERLINK(1);y;-2"}


PASSED_OVER = " \t\n\u00a0\u3000\u200b\ufeff\x00'\""
ODD = st.text(
    st.one_of(st.sampled_from(f";,=+-@＝＋－＠\r{PASSED_OVER}"), st.characters(exclude_categories=["Cs"]))
)


@settings(deadline=None)
@given(ODD)
def test_what_guards_a_text_is_taken_off_again(text):
    assert unguarded(guarded(text)) == text.replace("\r", " ")


@settings(deadline=None)
@given(ODD)
def test_no_field_begins_with_a_formula(text):
    for field in guarded(text).split(";"):
        assert field.lstrip(PASSED_OVER.replace("'", ""))[:1] not in set("=+-@＝＋－＠﹢﹣﹦﹫")


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(ODD, ODD, st.floats(-1, 1) | st.none(), st.integers(0, 500) | st.none()),
        min_size=1,
        max_size=5,
    )
)
def test_a_table_comes_back_as_it_was_written(rows):
    leaderboard = pd.DataFrame({name: [""] * len(rows) for name in COLUMNS}, dtype=object)
    numbers = dict.fromkeys(FLAGS, True) | {"seed": 3}
    attack, reason, asr, count = zip(*rows, strict=True)
    leaderboard = leaderboard.assign(
        attack=attack, reason=reason, asr=pd.array(asr, "Float64"), n_probes=pd.array(count, "Int64")
    )
    leaderboard = leaderboard.assign(**numbers)
    written = to_csv(leaderboard)
    read = from_csv(written, "it")
    assert to_csv(read) == written
    assert list(read.columns) == list(COLUMNS)
    assert list(read["attack"]) == [text.replace("\r", " ") for text in attack]
    assert list(read["reason"]) == [text.replace("\r", " ") for text in reason]
    assert [None if math.isnan(x) else x for x in read["asr"]] == [
        x if x is None else pytest.approx(x, abs=6e-7) for x in asr
    ]
    assert [None if x is pd.NA else int(x) for x in read["n_probes"]] == list(count)


def test_a_run_comes_back_from_its_csv(leaderboard, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(to_csv(leaderboard), encoding="utf-8")
    read = read_csv(path)
    assert to_csv(read) == to_csv(leaderboard)
    for name in COLUMNS:
        if pd.api.types.is_numeric_dtype(leaderboard[name]) and not pd.api.types.is_bool_dtype(
            leaderboard[name]
        ):
            wanted = leaderboard[name].astype("Float64").to_numpy(float, na_value=math.nan)
            assert read[name].to_numpy(float, na_value=math.nan) == pytest.approx(
                wanted, abs=6e-7, nan_ok=True
            ), name
    plain = pd.read_csv(
        path, dtype=dict.fromkeys(("rank_low", "n_probes"), "Int64"), keep_default_na=False, na_values=[""]
    )
    given = ["attack", "seed", "asr", "rank_low", "n_probes", "requested", "cloak_psnr"]
    assert_frame_equal(plain[given], read[given], check_dtype=False, rtol=0, atol=0)


def test_ranks_and_counts_are_whole_numbers(leaderboard):
    rows = pd.read_csv(io.StringIO(to_csv(leaderboard)), dtype=str)
    for name in ("rank_low", "rank_high", "n_identities", "n_probes"):
        assert rows[name].dropna().str.fullmatch(r"\d+").all(), name
    assert rows["n_identities"].notna().sum() == 18


def test_a_table_of_an_older_version_says_what_it_lacks(leaderboard):
    lacking = [name for name in COLUMNS if name.startswith("restored_to_cloak")]
    read = from_csv(to_csv(leaderboard.drop(columns=lacking)), "old.csv")
    assert list(read.columns) == list(COLUMNS)
    assert read["restored_to_cloak_psnr"].isna().all()
    assert set(read["restored_to_cloak_reason"]) == {"not in the file, which an older version wrote"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "not a leaderboard: it lacks dataset"),
        ("", "not a leaderboard: it lacks dataset"),
        (",".join([*COLUMNS, "more"]) + "\n", "not a leaderboard: it has more"),
        (",".join([*COLUMNS, "asr"]) + "\n", "not a leaderboard: it has a column twice"),
        (",".join(COLUMNS) + "\n1,2\n", "damaged: row 2 has 2 fields"),
        (",".join(COLUMNS) + "\n" + ",".join(["x"] * len(COLUMNS)) + "\n", "damaged: a column of numbers"),
        ('"a', "cannot be read as CSV"),
    ],
)
def test_a_file_that_is_no_leaderboard(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_csv(path)


def test_a_csv_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_csv(tmp_path / "no.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_csv(tmp_path / "x.csv")


def test_a_text_with_line_breaks_stays_one_field(leaderboard):
    read = pd.read_csv(io.StringIO(to_csv(leaderboard.assign(reason='one\r\ntwo, "three"'))))
    assert set(read["reason"]) == {'one \ntwo, "three"'}


def test_negative_numbers_stay_numbers(leaderboard):
    read = pd.read_csv(io.StringIO(to_csv(leaderboard.assign(recovery=-0.25))))
    assert set(read["recovery"]) == {-0.25}


def test_the_facts_of_a_run_are_documented_and_plain_values(prepared, leaderboard):
    found = about(prepared.folder, leaderboard)
    assert found.keys() == ABOUT.keys()
    section = (
        DOCUMENT.read_text(encoding="utf-8").partition("## The run as a whole")[2].partition("## Cells")[0]
    )
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))
    assert documented == ABOUT
    assert json.loads(json.dumps(found)) == found
    assert found["cells"] == len(prepared.folder.cells())
    assert found["failed"] > 0
    assert {warning["code"] for warning in found["warnings"]} == {
        warning.code for warnings in leaderboard["warnings"] for warning in warnings
    }


def test_a_data_frame_opens_with_what_a_reader_looks_for(prepared, leaderboard):
    table = api.leaderboard(prepared.folder)
    assert tuple(table.columns[: len(api.FIRST)]) == api.FIRST
    assert set(table.columns) == set(COLUMNS)
    pd.testing.assert_frame_equal(table[list(COLUMNS)], leaderboard)
    assert table.attrs == about(prepared.folder, leaderboard)
    assert table[table["attack"] == "none"][["asr"]].attrs["folder"] == str(prepared.folder.path)


def test_the_terminal_shows_per_cents(leaderboard):
    columns = {column.name: [str(field) for field in column.fields] for column in of_leaderboard(leaderboard)}
    assert {len(fields) for fields in columns.values()} == {len(leaderboard)}
    rows = zip(columns["attack"], columns["defense"], columns["head"], strict=True)
    place = {row: index for index, row in enumerate(rows)}
    full = columns["ASR"][place["tiny-imitating", "none", "nn"]]
    row = leaderboard.set_index(["attack", "defense", "head"]).loc[("tiny-imitating", "none", "nn")]
    ends = [f"{100 * row[name]:.1f}" for name in ("asr", "asr_low", "asr_high")]
    assert full == "{} [{}, {}]".format(*ends)
    assert columns["ASR"][place["tiny-failing", "none", "nn"]] == "NA"
    assert columns["cloak PSNR"][place["none", "none", "nn"]] == "NA"


@pytest.mark.parametrize("name", ["spec.json", "cells.json"])
def test_a_folder_that_is_no_run_or_damaged(prepared, tmp_path, name):
    with pytest.raises(DataError, match="is not a finished run"):
        build(RunFolder(tmp_path))
    for file in ("spec.json", "cells.json"):
        (tmp_path / file).write_bytes((prepared.folder.path / file).read_bytes())
    (tmp_path / name).write_text("{")
    with pytest.raises(DataError, match=f"{name} is damaged"):
        build(RunFolder(tmp_path))


def test_a_missing_file_of_a_run_is_named(prepared, tmp_path):
    for file in ("spec.json", "cells.json"):
        (tmp_path / file).write_bytes((prepared.folder.path / file).read_bytes())
    with pytest.raises(DataError, match=r"\.parquet is missing; run the same command again"):
        build(RunFolder(tmp_path))


def test_the_documentation_lists_every_column():
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text[text.index("## Columns") :]
    listed = re.findall(r"^\| `(\w+)` \|", section[: section.index("\n## ", 5)], re.MULTILINE)
    assert listed == list(COLUMNS)


def test_the_documentation_lists_every_field_of_a_decision():
    from bench.run.decisions import SCHEMA

    text = DOCUMENT.read_text(encoding="utf-8")
    section = text[text.index("## Decisions") :]
    listed = re.findall(r"^\| `(\w+)` \| (\w+)", section[: section.index("\n## ", 5)], re.MULTILINE)
    kinds = {"bool": "bool", "int16": "int16", "float": "float32"}
    assert listed == [(field.name, kinds.get(str(field.type), "text")) for field in SCHEMA]
