"""`bench table significance` and `bench compare`, as processes on a run of tiny methods."""

import json

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def tables(finished, command, tmp_path_factory):
    out = tmp_path_factory.mktemp("tables")
    return command("table", "significance", finished.run, "--out", out), out


def test_significance_writes_every_table_in_three_forms_and_prints_ranks(tables):
    process, out = tables
    assert (process.returncode, process.stderr) == (0, "")
    names = {
        f"{name}.{form}"
        for name in ("rankings", "pairs", "accuracy-kept", "seeds")
        for form in ("csv", "md", "tex")
    }
    assert {path.name for path in out.iterdir()} == names
    assert "Defences against tiny-noise (head nn" in process.stdout
    assert "Attacks under none (head linear" in process.stdout
    ranked = pd.read_csv(out / "rankings.csv")
    assert set(ranked["method"]) == {"none", "jpeg:quality=20", "tiny-noise", "pgd:eps=32,steps=2"}
    # Six tiny identities cannot carry Friedman's test; nothing is significantly different, and the reason is there.
    assert ranked["reason"].notna().any() or ranked["rank_low"].notna().any()
    assert (out / "pairs.tex").read_text().startswith(r"\begin{tabular}")


def test_the_same_folder_gives_the_same_tables(finished, command, tables, tmp_path):
    _, out = tables
    again = command("table", "significance", finished.run, "--out", tmp_path)
    assert again.returncode == 0
    for path in out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_significance_as_json_writes_nothing(finished, here):
    before = sorted(finished.run.rglob("*"))
    process = here("table", "significance", finished.run, "--json")
    assert set(json.loads(process.stdout)) == {"rankings", "pairs", "accuracy-kept", "seeds"}
    assert sorted(finished.run.rglob("*")) == before


def test_compare_answers_in_a_sentence_or_says_why_not(finished, here):
    process = here("compare", finished.run, "none", "jpeg:quality=20", "--kind", "defense")
    assert (process.returncode, process.stderr) == (0, "")
    first = process.stdout.splitlines()[0]
    assert "none" in first
    assert "jpeg:quality=20" in first
    assert "no test, as" in first or "sign-flip test over" in first
    found = json.loads(here("compare", finished.run, "tiny-noise", "pgd:eps=32,steps=2", "--json").stdout)
    assert {claim["kind"] for claim in found["claims"]} == {"attack"}
    assert {claim["head"] for claim in found["claims"]} == {"nn", "linear"}


def test_a_run_does_not_differ_from_itself(finished, here):
    process = here("compare", finished.run, finished.run)
    assert process.returncode == 0
    assert "0 of" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none", "jpeg:quality=21"), "are not two attacks, defences or backbones of this run"),
        (("none", "none"), "may be attack or defense; name it with --kind"),
        (("a", "b", "c"), "two methods or one other run, got 3"),
        (("/nowhere",), "is no folder of a run"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(finished, here, arguments, message):
    process = here("compare", finished.run, *arguments)
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert message in line


def test_significance_of_something_else_is_refused(here, tmp_path):
    process = here("table", "significance", tmp_path)
    assert process.returncode == 2
    assert "is not a finished run" in process.stderr


def test_means_are_written_in_every_form(finished, here, tmp_path):
    files = {f"--{form}": tmp_path / f"means.{form}" for form in ("csv", "md", "latex")}
    process = here("table", "means", finished.run, *(word for item in files.items() for word in item))
    assert (process.returncode, process.stderr) == (0, "")
    assert all(f"{path} written" in process.stdout for path in files.values())
    columns = list(pd.read_csv(files["--csv"]).columns)
    assert files["--md"].read_text().startswith(f"| {columns[0]} | {columns[1]} |")
    assert files["--latex"].read_text().startswith(r"\begin{tabular}")
