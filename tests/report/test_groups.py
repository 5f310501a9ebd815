"""Who is protected less, in a report: the rates of `bench table groups` as a map, with its sentences."""

import pytest

from bench.errors import DataError
from bench.leaderboard import groups as by_group
from bench.leaderboard.view import RunView
from bench.report.content import ReportOptions, collect
from bench.report.document import Bullets, Matrix, Paragraph
from bench.report.html import to_html
from bench.report.markdown import to_markdown


@pytest.fixture(scope="module")
def view(evaluate):
    run = evaluate(
        dataset="tiny:identities=24",
        attacks=("tiny-noise", "tiny-sometimes"),
        defenses=("jpeg:quality=20",),
        backbones=("tiny-a", "tiny-b"),
    )
    return RunView.of(run.folder.path)


@pytest.fixture(scope="module")
def groups(view):
    point = next(iter(view.results.cells))
    names = sorted(view.results.rates_of(point, "", "asr").index)
    return {name: "ab"[number % 2] for number, name in enumerate(names[:-1])}


@pytest.fixture
def file(groups, tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("identity,group\n" + "".join(f"{name},{group}\n" for name, group in groups.items()))
    return path


def section(view, file):
    report = collect(view, ReportOptions(photos=False, groups=file))
    (found,) = [one for one in report.sections if one.id == "groups"]
    return found


def test_the_map_has_the_rates_of_the_table(view, groups, file):
    table = by_group.table(view.results, groups)
    table = table[table["measure"] == "asr"]
    maps = [block for block in section(view, file).blocks if isinstance(block, Matrix)]
    assert len(maps) == 2
    for one, backbone in zip(maps, ("tiny-a", "tiny-b"), strict=True):
        assert f"`{backbone}`" in one.caption
        assert one.columns == ("a (12)", "b (11)")
        assert [row.name for row in one.rows] == [
            "no cloak × no defence",
            *("tiny-noise × no defence", "tiny-noise × jpeg:quality=20"),
            *("tiny-sometimes × no defence", "tiny-sometimes × jpeg:quality=20"),
        ]
        rows = table[table["backbone"] == backbone].set_index(["attack", "defense", "group"])["rate"]
        pairs = [("none", "none")] + [
            (attack, defense)
            for attack in ("tiny-noise", "tiny-sometimes")
            for defense in ("none", "jpeg:quality=20")
        ]
        for row, (attack, defense) in zip(one.rows, pairs, strict=True):
            for field, group in zip(row.fields, "ab", strict=True):
                assert field.rate == pytest.approx(rows[attack, defense, group])
                assert field.text == f"{100 * rows[attack, defense, group]:.1f}"


def test_it_says_what_the_table_says_and_who_is_left_out(view, groups, file):
    blocks = section(view, file).blocks
    (told,) = [block.text for block in blocks if isinstance(block, Paragraph)]
    assert "nobody is put into one by a face" in told
    assert "1 evaluated identity has no group and is left out." in told
    (said,) = [block.items for block in blocks if isinstance(block, Bullets)]
    assert list(said) == by_group.sentences(by_group.table(view.results, groups))


def test_both_forms_show_it_and_a_report_without_groups_does_not(view, file):
    report = collect(view, ReportOptions(photos=False, groups=file))
    html, (markdown, _) = to_html(report), to_markdown(report, "beside")
    for text in (html, markdown):
        assert "Who is protected less" in text
        assert "Attack × defence" in text
        assert str(file) not in text
    assert "Who is protected less" not in to_html(collect(view, ReportOptions(photos=False)))


def test_a_stranger_in_the_file_is_named(view, file):
    file.write_text(file.read_text() + "nobody,a\n")
    with pytest.raises(DataError, match="first 'nobody'"):
        collect(view, ReportOptions(photos=False, groups=file))


def test_the_command_takes_groups(cli, view, file, tmp_path):
    code, _, err = cli(
        "report",
        view.folder.path,
        "--no-photos",
        "--groups",
        file,
        "--format",
        "md",
        "--out",
        tmp_path / "r.md",
    )
    assert code == 0, err
    assert "Who is protected less" in (tmp_path / "r.md").read_text()
