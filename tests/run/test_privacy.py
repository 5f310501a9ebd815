"""No absolute path is left in a report."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.run.privacy import Paths


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("folder:path=/home/alice/photos,aligned=true", "folder:path=…/photos,aligned=true"),
        ("folder:/home/alice/photos", "folder:…/photos"),
        ("the file '/tmp/x/model.onnx' is missing.", "the file '…/model.onnx' is missing."),
        ("it lies in /srv/data.", "it lies in …/data."),
        ("~/faces and ~bob/faces", "…/faces and …/faces"),
        (r"C:\Users\alice\faces", "…/faces"),
        (r"\\server\share\faces", "…/faces"),
        ("…/photos stays", "…/photos stays"),
        ("https://example.org/a/b stays", "https://example.org/a/b stays"),
        ("yes/no, 1/2 and identity/photo.jpg stay", "yes/no, 1/2 and identity/photo.jpg stay"),
        ("./mine.py:MyCloak stays", "./mine.py:MyCloak stays"),
        ("a / b and 5 / 10 stay", "a / b and 5 / 10 stay"),
        ("puface:features=a|b", "puface:features=a|b"),
    ],
)
def test_paths_are_shortened_and_nothing_else(text, left):
    assert Paths().shortened(text) == left


def test_a_known_path_may_hold_spaces():
    paths = Paths(["/home/al ice/my photos", "lfw", ""])
    assert paths.shortened("folder:/home/al ice/my photos") == "folder:…/my photos"


def test_of_two_known_paths_the_longer_goes_first():
    paths = Paths(["/home/al ice", "/home/al ice/my photos"])
    assert paths.shortened("'/home/al ice/my photos' in '/home/al ice'") == "'…/my photos' in '…/al ice'"


_PART = st.from_regex(r"[a-z0-9_.-]{1,8}", fullmatch=True).filter(lambda part: not part.endswith("."))


@given(st.lists(_PART, min_size=2, max_size=5), st.sampled_from(["'", " ", "=", ":", "(", ", "]))
def test_only_the_last_name_of_a_path_is_left(parts, before):
    path = "/" + "/".join(parts)
    assert Paths().shortened(f"x{before}{path}{before}y") == f"x{before}…/{parts[-1]}{before}y"
    assert Paths().shortened(Paths().shortened(path)) == Paths().shortened(path)
    assert not re.search(r"(^|[^…])/", Paths().shortened(path))
