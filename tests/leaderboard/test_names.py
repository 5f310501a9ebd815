"""Labels of methods: what is given by ``--name``, and what tables call ``none``."""

import pandas as pd
import pytest

from bench.errors import UsageError
from bench.leaderboard.names import in_words, labels

METHODS = ("none", "fog", "jpeg", "jpeg:quality=25", "net-a")


@pytest.mark.parametrize(
    ("text", "name", "label"),
    [
        ("fog=Fog", "fog", "Fog"),
        ("jpeg:quality=25=JPEG, q = 25", "jpeg:quality=25", "JPEG, q = 25"),
        ("jpeg:quality=75= JPEG ", "jpeg", "JPEG"),
        ("net-a=A", "net-a", "A"),
    ],
)
def test_the_longest_part_that_names_a_method_is_the_method(text, name, label):
    assert labels([text], METHODS) == {name: label}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["fog"], "is not METHOD=LABEL"),
        (["fogg=Fog"], r"unknown method 'fogg'. Did you mean 'fog'"),
        (["fog="], "one line of 1 to"),
        (["fog=" + "x" * 40], "one line of 1 to"),
        (["none=nothing"], "no cloak and no defence everywhere"),
        (["fog=Fog", "fog=Mist"], "is called 'Fog' already"),
        (["fog=one", "jpeg=one"], "something else is called 'one' too"),
        (["fog=jpeg"], "something else is called 'jpeg' too"),
        (["fog=no cloak"], "something else is called"),
    ],
)
def test_what_is_no_label_is_refused(texts, said):
    with pytest.raises(UsageError, match=said):
        labels(texts, METHODS)


def test_none_is_what_it_is_in_its_column():
    table = pd.DataFrame(
        {"attack": ["none", "fog"], "defense": ["jpeg", "none"], "backbone": ["net-a", "none"]}
    )
    shown = in_words(table, {"fog": "Fog"})
    assert shown.to_dict("list") == {
        "attack": ["no cloak", "Fog"], "defense": ["jpeg", "no defence"], "backbone": ["net-a", "none"],
    }  # fmt: skip
    assert table["attack"][0] == "none"
