"""Several leaderboards as one: what is the same cell, what is refused, and what is ranked together."""

import csv
import io
import json
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import DataError, UsageError
from bench.leaderboard import plausible
from bench.leaderboard.as_csv import from_csv, to_csv
from bench.leaderboard.columns import KEY
from bench.leaderboard.merge import CHECKS, merge, read_source, read_sources
from bench.leaderboard.table import build

MATRIX = {"attacks": ("tiny-noise", "pgd:eps=32,steps=2"), "heads": ("nn",)}
DEFENSES = ("jpeg:quality=5", "tiny-negative")


@pytest.fixture(scope="module")
def parts(evaluate):
    """One run a defence, and one of both."""
    paths = [evaluate(**MATRIX, defenses=(defense,)).folder.path for defense in DEFENSES]
    return *paths, evaluate(**MATRIX, defenses=DEFENSES).folder.path


@pytest.fixture(scope="module")
def others(evaluate):
    """The first of them on fewer identities."""
    return evaluate(**MATRIX, defenses=DEFENSES[:1], identities=4).folder.path


def by_key(leaderboard):
    return leaderboard.set_index(list(KEY)).sort_index()


def test_one_run_is_itself(parts):
    assert to_csv(merge(read_sources(parts[:1])).leaderboard) == to_csv(
        build(read_source(parts[0])[0].folder)
    )


def test_two_runs_of_the_same_identities_are_as_if_made_in_one(parts):
    merged = merge(read_sources(parts[:2]))
    whole = build(read_source(parts[2])[0].folder)
    assert merged.repeated == 3
    compared = [name for name in whole.columns if name not in (*KEY, "run", "ranked_over", "requested")]
    one, other = by_key(merged.leaderboard)[compared], by_key(whole)[compared]
    assert len(one) == len(other) == 9
    assert to_csv(one.reset_index()) == to_csv(other.reset_index())
    assert other["rank_low"].notna().sum() == 6


def test_rows_keep_the_order_of_the_sources_and_their_run(parts):
    merged = merge(read_sources(parts[:2])).leaderboard
    runs = list(dict.fromkeys(merged["run"]))
    assert len(runs) == 2
    assert list(merged["run"]) == [runs[0]] * 6 + [runs[1]] * 3
    assert set(merged[merged["run"] == runs[1]]["defense"]) == {"tiny-negative"}


def test_a_run_and_its_table_are_one(parts, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(to_csv(build(read_source(parts[0])[0].folder)), encoding="utf-8")
    merged = merge(read_sources([parts[0], table]))
    assert len(merged.leaderboard) == merged.repeated == 6
    assert not merged.leaderboard["ranking_reason"].str.contains("within its run").any()
    assert len(merge(read_sources([table, table])).leaderboard) == 6


def test_what_one_run_was_asked_for_is_asked(parts):
    first = read_source(parts[0])[0]
    reference = first.leaderboard.assign(requested=False)
    for order in ([first.leaderboard, reference], [reference, first.leaderboard]):
        sources = [type(first)(f"s{i}", leaderboard) for i, leaderboard in enumerate(order)]
        assert list(merge(sources).leaderboard["requested"]) == list(first.leaderboard["requested"])


def test_a_table_is_not_ranked_anew_and_says_why(parts, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(to_csv(build(read_source(parts[1])[0].folder)), encoding="utf-8")
    merged = merge(read_sources([parts[0], table])).leaderboard
    ranked = merged[merged["rank_low"].notna()]
    assert len(ranked) == 6
    assert ranked["ranking_reason"].str.startswith("ranked within its run: ").all()
    assert ranked["ranking_reason"].str.contains(f"{table} is a table, without per-identity decisions").all()
    assert set(ranked["rank_high"]) <= {1, 2}


def test_the_same_cell_with_other_answers_is_refused_by_name(parts, others):
    with pytest.raises(UsageError) as refused:
        merge(read_sources([parts[0], others]))
    said = str(refused.value)
    assert f"{parts[0]} and {others} have the same cell with different results" in said
    assert "n_identities is 6 and 4" in said
    assert "--keep-both" in said


def test_both_rows_of_it_are_kept_when_asked(parts, others):
    merged = merge(read_sources([parts[0], others]), keep_both=True).leaderboard
    assert len(merged) == 12
    assert set(merged["n_identities"]) == {6, 4}
    ranked = merged[merged["rank_low"].notna()]
    assert ranked["ranking_reason"].str.contains("ranked within its run: runs disagree about a cell").all()
    three = merge(read_sources([parts[0], others, others, parts[0]]), keep_both=True)
    assert (len(three.leaderboard), three.repeated) == (12, 0)  # the same path twice is one source


def test_two_results_of_one_run_are_refused_even_then(parts):
    first = read_source(parts[0])[0]
    other = type(first)("again", first.leaderboard.assign(asr_pooled=0.123))
    for keep_both in (False, True):
        with pytest.raises(UsageError, match=r"and again are both run [0-9a-f]{12}, and have a cell"):
            merge([first, other], keep_both=keep_both)


def test_a_ranking_over_runs_is_one_and_names_them(parts, others):
    """Two runs are ranked together and a table of the same group apart: the best is bold within each ranking."""
    sources = read_sources([*parts[:2], others])
    sources[2] = type(sources[2])("table", sources[2].leaderboard.assign(seed=9))
    leaderboard = merge(sources).leaderboard
    ranked = leaderboard[leaderboard["rank_low"].notna()]
    both = sorted(source.leaderboard["run"].iloc[0] for source in sources[:2])
    own, other = ranked[ranked["seed"] == 0], ranked[ranked["seed"] == 9]
    assert set(own["ranked_over"]) == {"|".join(both)}
    assert own["ranking_reason"].str.startswith(f"ranked over runs {', '.join(both)}: ").all()
    assert set(other["ranked_over"]) == {""}
    assert other["ranking_reason"].str.startswith("ranked within its run: ").all()
    assert (
        from_csv(to_csv(leaderboard), "merged")["ranked_over"].tolist() == leaderboard["ranked_over"].tolist()
    )


def test_runs_of_other_identities_without_a_common_cell_are_ranked_apart(evaluate, parts):
    other = evaluate(
        attacks=("tiny-noise",), defenses=DEFENSES[1:], heads=("centroid",), identities=4
    ).folder.path
    merged = merge(read_sources([parts[0], other])).leaderboard
    assert len(merged) == 10
    assert not merged["ranking_reason"].str.contains("within its run").any()  # other heads, other groups


def test_other_versions_are_refused_by_name(parts):
    first = read_source(parts[0])[0]
    old = type(first)("old", first.leaderboard.assign(benchmark_version="0"))
    with pytest.raises(UsageError, match=r"different versions.*has version 1; old has version 0"):
        merge([first, old])


def test_a_folder_that_is_nothing(tmp_path):
    with pytest.raises(DataError, match="is not a finished run"):
        read_source(tmp_path)
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="is not a finished run"):
        read_source(tmp_path)
    with pytest.raises(DataError, match="not a leaderboard"):
        read_source(tmp_path / "a.csv")


def write_record(path, table, checks=CHECKS, **more):
    found = dict.fromkeys(checks, "fine")
    record = {"leaderboard_sha256": sha256(table.encode()).hexdigest(), "checks": found, **more}
    path.write_text(json.dumps(record))


def table_named(folder, name):
    """Return a run's table under another digest."""
    return to_csv(build(folder)).replace(folder.facts().run, name)


@pytest.mark.parametrize("checks", [(), CHECKS[1:], CHECKS[:-1]])
def test_a_record_without_every_check_is_refused(parts, tmp_path, checks):
    text = to_csv(build(read_source(parts[0])[0].folder))
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    write_record(tmp_path / "x.json", text, checks)
    lacking = next(name for name in CHECKS if name not in checks)
    with pytest.raises(DataError, match=rf"x\.json' does not say that the run passed '{lacking}'"):
        read_source(tmp_path)


def test_half_a_submission_is_refused_by_name(parts, tmp_path):
    for name in ("x", "y"):
        text = table_named(read_source(parts[0])[0].folder, name)
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        write_record(tmp_path / f"{name}.json", text)
    assert len(read_source(tmp_path)) == 2
    (tmp_path / "x.csv").unlink()
    with pytest.raises(DataError, match=r"and x\.json has no x\.csv"):
        read_source(tmp_path)
    (tmp_path / "x.json").unlink()
    (tmp_path / "z.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"and z\.csv has no z\.json"):
        read_source(tmp_path)


def test_a_folder_of_submissions_is_checked_by_digest(parts, tmp_path):
    text = table_named(read_source(parts[0])[0].folder, "x")
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    (tmp_path / "notes.json").write_text("{}")  # no record
    write_record(tmp_path / "x.json", text, by="somebody")
    (source,) = read_source(tmp_path)
    assert (source.name, source.record["by"]) == (str(tmp_path / "x.csv"), "somebody")
    assert to_csv(source.leaderboard) == text
    (tmp_path / "x.csv").write_text(text.replace("tiny-noise", "tiny-other"), encoding="utf-8")
    with pytest.raises(DataError, match=r"is not what was submitted.*x\.json"):
        read_source(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="no record of `bench submit`"):
        read_source(tmp_path)


def altered(text, column, value):
    """Return a table whose first row with an ASR has another value in a column."""
    header, *lines = list(csv.reader(io.StringIO(text)))
    row = next(line for line in lines if line[header.index("asr")] not in ("", "NA"))
    row[header.index(column)] = value
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([header, *lines])
    return sink.getvalue()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("asr", "1.7", "is no share"),
        ("asr", "0.999900", "outside its own interval"),
        ("normal_accuracy", "-0.1", "is no share"),
        ("status", "failed", "failed and has an ASR"),
        ("run", "0123456789ab", "its record or table is of 0123456789ab"),
    ],
)
def test_a_table_that_cannot_be_a_runs_is_refused_whatever_its_digest(
    parts, tmp_path, column, value, message
):
    text = altered(table_named(read_source(parts[0])[0].folder, "x"), column, value)
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    write_record(tmp_path / "x.json", text)
    with pytest.raises(DataError, match=message):
        read_source(tmp_path)


def test_a_submission_under_anothers_name_is_refused(parts, tmp_path):
    text = table_named(read_source(parts[0])[0].folder, "x")
    (tmp_path / "y.csv").write_text(text, encoding="utf-8")
    write_record(tmp_path / "y.json", text, run="x")
    with pytest.raises(
        DataError, match="is a submission of run y by its name, and its record or table is of x"
    ):
        read_source(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"checks": {}, "leaderboard_sha256": "", "x": "' + b"y" * 5_000_000 + b'"}',
        b'{"checks": [], "leaderboard_sha256": ""}',
    ],
    ids=["deep list", "deep mapping", "large", "no mapping"],
)
def test_a_record_that_is_none_is_refused_in_a_sentence(parts, tmp_path, content):
    (tmp_path / "x.csv").write_text(table_named(read_source(parts[0])[0].folder, "x"), encoding="utf-8")
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match="is no record of `bench submit`"):
        read_source(tmp_path)


def test_fields_that_no_record_has_are_named(parts, tmp_path):
    text = table_named(read_source(parts[0])[0].folder, "x")
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    write_record(tmp_path / "x.json", text, **{"note\x1b": "1"})
    with pytest.raises(DataError, match=r"fields that `bench submit` does not write: note\\x1b"):
        read_source(tmp_path)


def test_values_are_of_the_types_of_a_run(parts):
    merged, one = merge(read_sources(parts[:2])).leaderboard, build(read_source(parts[0])[0].folder)
    assert list(merged.columns) == list(one.columns)
    for name in ("rank_low", "n_identities", "seed", "asr", "requested"):
        assert pd.api.types.infer_dtype(merged[name]) == pd.api.types.infer_dtype(one[name]), name


RESULTS = Path(__file__).parents[2] / "results"


def test_what_was_published_can_be():
    tables = [path for path in RESULTS.rglob("*.csv") if b"asr_low" in path.read_bytes().partition(b"\n")[0]]
    assert len(tables) > 5
    for path in tables:
        table = pd.read_csv(path, keep_default_na=False)
        if {"status", "attack", "defense", "backbone", "head", "asr"} <= set(table.columns):
            assert list(plausible._impossible(table)) == [], path.name
