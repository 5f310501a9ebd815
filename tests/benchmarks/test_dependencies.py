import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.dependencies import PAGE, declared, direct, installed, page, rows
from benchmarks.licences import licence

TEXT = PAGE.read_text(encoding="utf-8")
ASKED, BROUGHT = map(rows, TEXT.split("## Brought by these"))


def make(site: Path, name: str, *requirements: str) -> None:
    info = site / f"{name.replace('-', '_')}-1.dist-info"
    info.mkdir()
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {name}",
        "Version: 1",
        *(f"Requires-Dist: {each}" for each in requirements),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_what_is_brought_is_followed_by_extras_and_markers(tmp_path, monkeypatch):
    make(tmp_path, "cbx-one", "cbx.Two[more]>=1", "cbx-never; python_version < '3'", "cbx-absent")
    make(tmp_path, "cbx-two", "cbx-three; extra == 'more'", "cbx-four; extra == 'less'", "cbx-one")
    for name in ("cbx-three", "cbx-four", "cbx-never"):
        make(tmp_path, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed({"": [Requirement("cbx_one")]}).keys() == {"cbx-one", "cbx-two", "cbx-three"}


def test_every_dependency_has_a_lowest_version():
    without = [
        str(each) for group in declared().values() for each in group if not re.search(r">=|==", str(each))
    ]
    assert not without


def test_two_ranges_of_one_package_are_refused_by_name():
    same = {"a": [Requirement("one<3,>=2")], "b": [Requirement("One[more]>=2,<3")]}
    assert direct(same) == {"one": ("<3,>=2", "a, b")}
    with pytest.raises(SystemExit, match=r"one is asked for as <3,>=2 and as >=1"):
        direct({**same, "c": [Requirement("one>=1")]})


def test_the_page_has_the_ranges_and_extras_of_the_project_and_says_why():
    asked = direct(declared())
    assert {name: (cells[1], cells[4]) for name, cells in ASKED.items() if name != "package"} == asked
    assert not [name for name, cells in ASKED.items() if not cells[3]], "say on the page why they are there"


def test_the_page_has_the_licences_of_what_is_installed():
    listed = {name: cells[2] for name, cells in ASKED.items()}
    listed |= {name: text for text, cells in BROUGHT.items() for name in cells[1].split(", ")}
    there = {name: licence(name, package) for name, package in installed(declared()).items()}
    differing = {name: text for name, text in there.items() if listed.get(name) != text}
    assert not differing, "python -m benchmarks.dependencies makes the page anew"


def test_the_page_made_anew_keeps_its_reasons_and_needs_every_extra():
    absent = sorted(direct(declared()).keys() - installed(declared()).keys())
    if absent:
        with pytest.raises(
            SystemExit, match=f"not installed: {absent[0]}.*; install the project with all its extras"
        ):
            page(TEXT)
        return
    assert page(TEXT) == TEXT
