"""What was found once is found again by nobody, unless it is damaged; where nothing can be kept, all works as well."""

import json
from pathlib import Path

import pytest

from bench.run import code_syntax
from bench.run import remembered as kept
from bench.run.code_syntax import code_of, read_code
from bench.run.remembered import remembered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of what is remembered."""
    monkeypatch.setattr(kept, "_folder", lambda: tmp_path / "found")
    return tmp_path / "found"


def never():
    raise AssertionError("found again")


def test_it_is_found_once_for_the_same_texts(folder):
    assert remembered(("a", "b"), lambda: {"n": [1]}) == {"n": [1]}
    assert remembered(("a", "b"), never) == {"n": [1]}
    for others in (("a",), ("b", "a"), ("ab",)):
        assert remembered(others, lambda: {"n": 2}) == {"n": 2}
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"of": "another", "found": {"n": 9}}', b"\xff"])
def test_what_is_damaged_is_found_again(folder, damage):
    remembered(("a",), lambda: {"n": 1})
    (path,) = folder.rglob("*.json")
    path.write_bytes(damage)
    assert remembered(("a",), lambda: {"n": 1}) == {"n": 1}
    assert json.loads(path.read_bytes())["found"] == {"n": 1}


@pytest.mark.parametrize("found", ["", ', "found": [1]', ', "found": null'])
def test_what_is_named_right_and_holds_no_object_is_found_again(folder, found):
    remembered(("a",), lambda: {"n": 1})
    (path,) = folder.rglob("*.json")
    path.write_text(f'{{"of": "{path.stem}"{found}}}')
    assert remembered(("a",), lambda: {"n": 1}) == {"n": 1}


def test_where_nothing_can_be_kept_it_is_found_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for place in (None, tmp_path / "file" / "found"):
        monkeypatch.setattr(kept, "_folder", lambda place=place: place)
        assert [remembered(("a",), lambda n=n: {"n": n}) for n in (1, 2)] == [{"n": 1}, {"n": 2}]


def test_code_that_was_read_by_another_process_is_the_same(folder, monkeypatch):
    names = ("attacks.fawkes", "bench.protocols._answers", "bench.stats.intervals", "bench.run.stages.decide")
    paths = {name: Path(__file__).parents[2] / f"{name.replace('.', '/')}.py" for name in names}
    read_code.cache_clear()
    first = {name: code_of(name, path, (0, 0)) for name, path in paths.items()}
    assert len([*folder.rglob("*.json")]) == len(names)
    read_code.cache_clear()
    monkeypatch.setattr(code_syntax, "_read", lambda *_: never())
    assert {name: code_of(name, path, (0, 0)) for name, path in paths.items()} == first
    read_code.cache_clear()


def test_the_same_file_in_another_package_or_with_other_content_is_read_anew(folder, tmp_path):
    path = tmp_path / "m.py"
    path.write_text("from . import other\nX = other.Y\n")
    one, two = (code_of(f"{package}.m", path, (0, 0)) for package in ("p", "q"))
    assert (one.uses, two.uses) == (("p.other.Y",), ("q.other.Y",))
    path.write_text("X = 2\n")
    assert code_of("p.m", path, (1, 1)).text not in (one.text, two.text)
