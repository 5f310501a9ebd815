"""The picture grid: the very bytes of the run's store, in the columns the methods call for."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import stages
from bench.errors import UsageError
from bench.graph import Executor
from bench.picture_grid import (
    AMPLIFIED,
    Column,
    Grid,
    choose_cell,
    choose_photos,
    collect,
    differences,
    draw,
    save_grid,
)
from bench.spec import Cell


@pytest.fixture(scope="module")
def run(evaluate):
    return evaluate(attacks=("tiny-noise",), defenses=("jpeg:quality=20",))


@pytest.fixture(scope="module")
def grid(run):
    return collect(run, choose_cell(run, None, None, None), 3, lambda: None)


def titles(grid):
    return [column.title for column in grid.columns]


def test_the_first_attack_and_defence_that_do_something_are_shown(run):
    cell = choose_cell(run, None, None, None)
    assert (cell.attack, cell.defense) == ("tiny-noise", "jpeg:quality=20")
    assert choose_cell(run, None, "none", None).defense == "none"


def test_a_method_the_run_does_not_have_is_named_with_those_it_has(run):
    with pytest.raises(UsageError, match=r"'fawkes'.*tiny-noise"):
        choose_cell(run, "fawkes", None, None)


def test_attack_none_has_nothing_to_show(run):
    with pytest.raises(UsageError, match="changes no photo"):
        collect(run, choose_cell(run, "none", None, None), 2, lambda: None)


def test_every_picture_is_the_stores(run, grid):
    assert titles(grid) == ["original", "cloak", f"difference ×{AMPLIFIED}", "purified"]
    cell = choose_cell(run, None, None, None)
    executor = Executor(run.store)
    nodes = {
        0: run.pipeline.natural("gallery"),
        1: run.pipeline.cloaks(cell.attack, cell.backbone, cell.seed, "gallery"),
    }
    nodes[3] = run.pipeline.defended(cell.defense, cell.backbone, cell.seed, nodes[1])
    for place, group in nodes.items():
        stored = {}
        for node in group:
            pixels = stages.decode_pixels(executor.fetch(node))
            stored |= dict(zip(pixels.ids, pixels.images, strict=True))
        for name in grid.rows:
            assert torch.equal(grid.columns[place].images[name], stored[name])


def test_rows_are_different_people_of_the_run(run, grid):
    assert len(set(grid.people)) == len(grid.rows) == 3
    for name, person in zip(grid.rows, grid.people, strict=True):
        assert name in run.run.split.cloaked[person]


def test_an_erasable_attack_shows_what_each_key_does(evaluate):
    attack = f"{Path(__file__).parent}/plugins/erasable.py:KeyedPattern"
    done = evaluate(attacks=(attack,), defenses=("none",))
    cell = choose_cell(done, None, None, None)
    shown = collect(done, cell, 2, lambda: None)
    assert titles(shown)[3:] == ["erased", "erased,\nwrong key", "erased,\nno key"]
    original, cloak, _, erased, wrong, none = (column.images for column in shown.columns)
    for name in shown.rows:
        assert torch.equal(none[name], cloak[name])
        away = [(one[name].int() - original[name].int()).abs().float().mean() for one in (erased, wrong)]
        assert away[0] < 0.5 * away[1]


def test_differences_are_amplified_around_grey():
    original = {"a": torch.tensor([[[100, 100, 100]]], dtype=torch.uint8)}
    changed = {"a": torch.tensor([[[100, 103, 60]]], dtype=torch.uint8)}
    assert differences(original, changed)["a"].tolist() == [[[128, 158, 0]]]


@pytest.mark.parametrize(
    ("people", "expected"), [(1, ["a"]), (2, ["a", "e"]), (3, ["a", "c", "e"]), (9, list("abcde"))]
)
def test_people_are_spread_evenly(people, expected):
    cloaked = {name: (f"{name}1", f"{name}2") for name in "abcde"} | {"f": ()}
    chosen = choose_photos(cloaked, people)
    assert list(chosen.values()) == expected
    assert list(chosen) == [f"{name}1" for name in expected]


def test_it_is_drawn_and_written_the_same_twice(grid, tmp_path):
    axes = draw(grid).axes
    assert len(axes) == len(grid.rows) * len(grid.columns)
    assert axes[0].images[0].get_array().shape == (112, 112, 3)
    for name in ("one.png", "two.png"):
        save_grid(grid, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_another_suffix_is_refused(tmp_path):
    empty = Grid("", (), (), (Column("", {}),))
    with pytest.raises(UsageError, match=r"\.png"):
        save_grid(empty, tmp_path / "grid.jpg")


def test_the_command_writes_the_grid_of_a_finished_run(run, cli, tmp_path):
    out = tmp_path / "grid.png"
    code, printed, _ = cli("grid", run.folder.path, "--store", run.store.folder, "--people", 2, "--out", out)
    assert code == 0
    assert "tiny-noise × jpeg:quality=20" in printed
    assert out.read_bytes().startswith(b"\x89PNG")


def test_cells_are_named_as_the_run_names_them():
    cells = [Cell("none", "none", "b", "nn", 0), Cell("x", "none", "b", "nn", 0)]
    prepared = SimpleNamespace(nodes=dict.fromkeys(cells))
    assert choose_cell(prepared, None, None, None) == cells[1]
