"""Where a run's time goes: every stage once, with a floor where passes through networks can be counted."""

from bench.run.folder import RunFolder
from bench.run.planning import Options, prepare_again
from bench.run.stages.joined import JoinedCloaks
from benchmarks.breakdown import Part, floor, markdown, parts


def test_stages_of_a_run_stand_with_the_passes_that_they_cannot_do_without(cli, tmp_path):
    out, store = tmp_path / "run", tmp_path / "store"
    words = (
        "run",
        "--dataset",
        "synthetic:identities=4,photos=4",
        "--attack",
        "pgd:steps=3",
        "--threads",
        "1",
    )
    code, _, err = cli(*words, "--quiet", "--out", out, "--store", store)
    assert code == 0, err
    found = {part.stage: part for part in parts(prepare_again(RunFolder(out), Options(store=store)))}
    assert {"faces", "cloak", "embed", "decide"} <= set(found)
    assert found["cloak"].images == 8
    assert found["cloak"].floor > 0
    assert found["embed"].floor > 0
    assert found["decide"].floor is None


def test_shares_are_of_the_whole_command_where_that_is_said():
    found = [Part("cloak", 10, 3.0, 2.0), Part("decide", 0, 1.0, None)]
    assert list(markdown(found, 8.0))[2:] == [
        "| cloak | 10 | 3.0 | 38 % | 300.0 ms | 2.0 s, 67 % |",
        "| decide | 0 | 1.0 | 12 % |  |  |",
        "| the rest | | 4.0 | 50 % | | |",
    ]
    assert "| cloak | 10 | 3.0 | 75 % | 300.0 ms | 2.0 s, 67 % |" in list(markdown(found, None))


def test_cloaks_that_are_put_together_of_parts_need_no_passes_of_their_own():
    assert floor(object.__new__(JoinedCloaks)) == 0
