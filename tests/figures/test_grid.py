"""The picture grid: the very bytes of the run's store, and the run's own answers under them."""

from pathlib import Path

import pytest
import torch

from bench.errors import UsageError
from bench.faces import pixels as faces_pixels
from bench.figures import KINDS, WIDTHS, FigureOptions, NotDrawableError, files, grid
from bench.figures.photo_columns import (
    AMPLIFIED,
    choose_cell,
    choose_photos,
    collect,
    differences,
)
from bench.leaderboard.view import RunView
from bench.run.graph import Executor
from bench.run.spec import Cell

PLUGIN = f"{Path(__file__).parents[1]}/plugins/erasable.py:KeyedPattern"


@pytest.fixture(scope="module")
def run(evaluate):
    return evaluate(attacks=("tiny-noise",), defenses=("jpeg:quality=20",))


@pytest.fixture(scope="module")
def cell(run):
    return choose_cell(list(run.nodes), None, None, None, None)


@pytest.fixture(scope="module")
def photos(run, cell):
    return collect(run, cell, choose_photos(run.run.split.cloaked, 3))


@pytest.fixture(scope="module")
def drawn(run):
    return KINDS["grid"].draw(
        RunView.of(run.folder.path), FigureOptions(store=run.store.folder, n_identities=3, threads=1)
    )


def test_the_first_attack_and_defence_that_do_something_are_shown(run, cell):
    assert (cell.attack, cell.defense) == ("tiny-noise", "jpeg:quality=20")
    assert choose_cell(list(run.nodes), None, "none", None, None).defense == "none"
    with pytest.raises(UsageError, match=r"'fawkes'.*tiny-noise"):
        choose_cell(list(run.nodes), "fawkes", None, None, None)


def test_cells_are_named_as_the_run_names_them():
    cells = [
        Cell("none", "none", "b", "nn", 0),
        Cell("x", "none", "b", "nn", 0),
        Cell("x", "none", "b", "linear", 0),
    ]
    assert choose_cell(cells, None, None, None, None) == cells[1]
    assert choose_cell(cells, None, None, None, "linear") == cells[2]


def test_every_picture_is_the_stores(run, cell, photos):
    assert [c.title for c in photos.columns] == ["original", "cloak", f"difference ×{AMPLIFIED}", "purified"]
    executor = Executor(run.store, run.machine)
    nodes = {
        0: run.pipeline.natural("gallery"),
        1: run.pipeline.cloaks(cell.attack, cell.backbone, cell.seed, "gallery"),
    }
    (nodes[3],) = run.pipeline.defended(cell.defense, cell.backbone, cell.seed, nodes[1])
    for place, group in nodes.items():
        stored = {}
        for node in group:
            pixels = faces_pixels.decode_pixels(executor.fetch(node))
            stored |= dict(zip(pixels.ids, pixels.images, strict=True))
        for name in photos.rows:
            assert torch.equal(photos.columns[place].images[name], stored[name])


def test_the_drawing_shows_those_pictures(photos, drawn):
    axes = {one.get_label(): one for one in drawn.figure.axes}
    assert len(axes) == 12
    for column in photos.columns:
        for row in photos.rows:
            shown = torch.as_tensor(axes[f"{row}|{column.title}"].images[0].get_array().copy())
            assert torch.equal(shown.permute(2, 0, 1), column.images[row])
    assert [axes[f"{row}|original"].get_ylabel() for row in photos.rows] == list(photos.identities)


def test_the_answers_are_the_runs_decisions(run, cell, photos, drawn):
    view = RunView.of(run.folder.path)
    axes = {one.get_label(): one for one in drawn.figure.axes}
    sources = {"original": ("none", "none"), "cloak": ("tiny-noise", "none"), "purified": tuple(cell[:2])}
    for row, identity in zip(photos.rows, photos.identities, strict=True):
        for title, (attack, defense) in sources.items():
            decided = view.results.rows(Cell(attack, defense, cell.backbone, cell.head, cell.seed), "")
            own = decided[(decided["identity"] == identity) & decided["protected"]]
            first = own.iloc[0]
            lines = axes[f"{row}|{title}"].get_xlabel().split("\n")
            assert lines[-1] == f"{own['correct'].sum()} of {len(own)}"
            text = " ".join(lines[:-1])
            assert f"{first['score']:.2f}".replace("-", "−") in text or first["predicted"] != identity
            assert text.startswith("itself") == (first["predicted"] == identity)
        assert axes[f"{row}|difference ×{AMPLIFIED}"].get_xlabel() == ""
    assert "tiny-noise" in drawn.caption
    assert "Photos of 3 identities" in drawn.alt


def test_an_answer_says_whom_the_tracker_means():
    wrong = grid.Answer(1, 4, "p7", own=False, score=-0.25, own_score=-0.5)
    assert wrong.lines(2.0) == ["p7 −0.25", "(itself −0.50)", "1 of 4"]
    assert wrong.lines(0.3) == ["p7", "−0.25", "(itself", "−0.50)", "1 of 4"]
    assert grid.Answer(0, 4, "", own=False, score=0.1, own_score=None).lines(2.0) == [
        "refused 0.10",
        "0 of 4",
    ]
    assert grid.Answer(4, 4, "p1", own=True, score=0.9, own_score=None).lines(2.0) == [
        "itself 0.90",
        "4 of 4",
    ]
    long = grid.Answer(0, 2, "a-very-long-name-of-somebody", own=False, score=0.5, own_score=None)
    assert long.lines(0.7)[0] == "another 0.50"


def test_an_erasable_attack_shows_what_each_key_does(evaluate):
    done = evaluate(
        attacks=(PLUGIN,),
        defenses=("none",),
        dataset="tiny:training_identities=24",
        protocol="erasure:far=0.4",
        heads=("pair",),
    )
    cell = choose_cell(list(done.nodes), None, None, None, None)
    shown = collect(done, cell, choose_photos(done.run.split.cloaked, 2))
    assert [column.title for column in shown.columns[3:]] == [
        "erased,\nright key", "erased,\nwrong key", "erased,\nno key"
    ]  # fmt: skip
    original, cloak, _, erased, wrong, none = (column.images for column in shown.columns)
    for name in shown.rows:
        assert torch.equal(none[name], cloak[name])
        away = [(one[name].int() - original[name].int()).abs().float().mean() for one in (erased, wrong)]
        assert away[0] < 0.5 * away[1]
    view = RunView.of(done.folder.path)
    figure = (
        KINDS["grid"]
        .draw(view, FigureOptions(store=done.store.folder, n_identities=2, width="column"))
        .figure
    )
    axes = {one.get_label(): one for one in figure.axes}
    for name in shown.rows:
        for title, condition in (("cloak", "cloaked"), ("erased,\nright key", "right key")):
            rows = view.results.rows(Cell(*cell), condition)
            own = rows[(rows["reference"] == name) & rows["protected"]]
            last = axes[f"{name}|{title}"].get_xlabel().split("\n")[-1]
            assert last == f"{own['correct'].sum()} of {len(own)}"


def test_differences_are_amplified_around_grey():
    original = {"a": torch.tensor([[[100, 100, 100]]], dtype=torch.uint8)}
    changed = {"a": torch.tensor([[[100, 103, 60]]], dtype=torch.uint8)}
    assert differences(original, changed)["a"].tolist() == [[[128, 158, 0]]]


@pytest.mark.parametrize(
    ("identities", "expected"), [(1, ["a"]), (2, ["a", "e"]), (3, ["a", "c", "e"]), (9, list("abcde"))]
)
def test_people_are_spread_evenly(identities, expected):
    cloaked = {name: (f"{name}1", f"{name}2") for name in "abcde"} | {"f": ()}
    chosen = choose_photos(cloaked, identities)
    assert list(chosen.values()) == expected
    assert list(chosen) == [f"{name}1" for name in expected]


def test_people_can_be_chosen():
    cloaked = {name: (f"{name}1",) for name in "abc"} | {"f": ()}
    assert choose_photos(cloaked, 6, ("c", "a")) == {"c1": "c", "a1": "a"}
    with pytest.raises(UsageError, match=r"unknown identity of this run 'f'.*Valid: a, b, c"):
        choose_photos(cloaked, 6, ("f",))
    with pytest.raises(UsageError, match="1 identity or more"):
        choose_photos(cloaked, 0)


def test_it_is_the_same_bytes_twice(drawn):
    assert files.to_bytes(drawn.figure, "png") == files.to_bytes(drawn.figure, "png")


def test_a_run_without_cloaks_has_no_grid(plain):
    with pytest.raises(NotDrawableError, match="no attack but none"):
        KINDS["grid"].draw(plain.view, FigureOptions())


def test_what_must_be_computed_is_said_before_it_is(evaluate, tmp_path):
    from contextlib import contextmanager

    made = evaluate(attacks=("tiny-noise",), defenses=("jpeg:quality=20",))
    view = RunView.of(made.folder.path)
    said = []

    @contextmanager
    def progress(images):
        said.append(images)
        ready = []
        yield ready.append
        said.append(sum(ready))

    for _ in range(2):
        options = FigureOptions(store=tmp_path / "empty", n_identities=2, threads=1, progress=progress)
        KINDS["grid"].draw(view, options)
    first, ready, *again = said
    assert first == ready > 0
    assert again == [0, 0]


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize(("across", "down"), [(3, 2), (4, 6), (7, 3), (4, 50)])
def test_photos_fill_the_width_or_the_figure_is_narrower(width, across, down):
    side = grid._side(WIDTHS[width], across, down)
    used = 0.17 + across * (side + 0.05)
    assert used <= WIDTHS[width] + 1e-9
    assert side <= 1.75
    assert side == pytest.approx((WIDTHS[width] - 0.17) / across - 0.05) or side >= 1.35
