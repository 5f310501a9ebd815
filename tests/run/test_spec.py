import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.run.spec import Cell, RunSpec, cells, load_suite, make_spec

NAMES = st.lists(st.sampled_from(["none", "a", "b", "c"]), min_size=1, unique=True).map(tuple)


@given(NAMES, NAMES, st.sampled_from([("t",), ("t", "u")]), st.sampled_from([("nn",), ("nn", "linear")]))
def test_reference_cells_are_always_there(attacks, defenses, backbones, heads):
    spec = RunSpec(attacks=attacks, defenses=defenses, backbones=backbones, heads=heads, seeds=(0, 5))
    every, requested = cells(spec)
    assert len(every) == len(set(every))
    assert requested <= set(every)
    assert requested == {
        Cell(a, d, b, h, s)
        for a in attacks
        for d in defenses
        for b in backbones
        for h in heads
        for s in (0, 5)
    }
    references = {("none", "none"), *((a, "none") for a in attacks), *(("none", d) for d in defenses)}
    for b in backbones:
        for h in heads:
            for s in (0, 5):
                found = {(cell.attack, cell.defense) for cell in every if cell[2:] == (b, h, s)}
                assert found == references | {(a, d) for a in attacks for d in defenses}


def test_cells_of_one_attack_and_one_defence():
    spec = RunSpec(attacks=("a",), defenses=("d",), backbones=("t",), heads=("nn",))
    every, requested = cells(spec)
    assert [(cell.attack, cell.defense) for cell in every] == [
        ("none", "none"),
        ("none", "d"),
        ("a", "none"),
        ("a", "d"),
    ]
    assert requested == {Cell("a", "d", "t", "nn", 0)}


def test_a_suite_file_is_read(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text('attacks = ["fawkes:mode=low", "pgd"]\nseeds = [0, 1]\nidentities = 8\n')
    spec = make_spec(load_suite(path))
    assert spec == RunSpec(attacks=("fawkes:mode=low", "pgd"), seeds=(0, 1), identities=8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"attacks = [", r"the suite file '.*suite\.toml' is not valid TOML: "),
        (b"\xff\xfe", "is not valid TOML"),
        (
            b'atacks = ["pgd"]',
            r"unknown key in suite\.toml 'atacks'\. Did you mean 'attacks'\? Valid: attacks, ",
        ),
    ],
)
def test_a_bad_suite_file_is_refused(tmp_path, content, message):
    path = tmp_path / "suite.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_suite(path)


def test_a_missing_suite_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"the suite file '.*nowhere\.toml' does not exist"):
        load_suite(tmp_path / "nowhere.toml")


def test_a_folder_is_no_suite_file(tmp_path):
    with pytest.raises(UsageError, match=r"the suite file '.*' cannot be read: "):
        load_suite(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attacks": []}, r"attacks cannot be \[\]: .*at least one is needed"),
        ({"seeds": ["x"]}, r"seeds\.0 cannot be 'x': .*integer"),
        ({"split_seed": -1}, "split_seed cannot be -1: .*greater than or equal to 0"),
        ({"identities": 1}, "identities cannot be 1: .*greater than or equal to 2"),
        ({"attacks": "pgd"}, "attacks cannot be 'pgd': .*tuple"),
        ({"nonsense": 1}, "nonsense cannot be 1: .*not permitted"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(values, message):
    with pytest.raises(UsageError, match=message):
        make_spec(values)
