"""What a command was once called still works, and says today's name in one line."""

import json

import pytest

from bench.cli import bench
from bench.cli.names import COMMANDS, FORMER
from bench.cli.options import variables_of

ARGUMENTS = {
    "significance": ("{run}", "--json"),
    "means": ("{run}", "--json"),
    "erasure": ("{run}", "--columns", "--json"),
    "rerun": ("{run}", "--out", "{tmp}/again", "--json"),
    "show": ("fawkes", "--json"),
    "completion": ("bash",),
    "data fetch": ("lfw", "--list", "--json"),
    "models fetch": ("mobileface-v2", "--list", "--json"),
}
"""Former name → arguments with which it answers."""


def test_no_former_name_is_a_command_and_each_leads_to_one():
    assert ARGUMENTS.keys() == FORMER.keys()
    assert not FORMER.keys() & COMMANDS.keys()


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_does_the_thing_and_says_the_new_one(name, finished, here, tmp_path):
    words = [word.format(run=finished.run, tmp=tmp_path) for word in ARGUMENTS[name]]
    former, today = (
        here(*name.split(), *words),
        here(*FORMER[name], *[w.replace("/again", "/more") for w in words]),
    )
    assert former.returncode == today.returncode == 0, former.stderr
    assert former.stderr == f"Note: `bench {name}` is now `bench {' '.join(FORMER[name])}`.\n" + today.stderr
    assert former.stdout.replace("/again", "/more") == today.stdout


def test_a_quiet_command_does_not_say_it(cli):
    assert cli("-q", "show", "none", "--kind", "defense", "--json")[2] == ""
    assert cli("show", "none", "--kind", "defense", "--json", "-q")[2] == ""


@pytest.mark.parametrize(
    ("section", "key", "words", "place"),
    [
        ("means", "columns", ("table", "means", "x"), ("means", "columns")),
        ("means", "columns", ("means", "x"), ("means", "columns")),
        ("show", "json", ("list", "none"), ("as_json",)),
        ("rerun", "json", ("verify", "x", "--rerun"), ("as_json",)),
        ("data.fetch", "json", ("fetch", "lfw"), ("as_json",)),
        ("models.fetch", "json", ("models", "fetch", "lfw"), ("as_json",)),
    ],
)
def test_a_former_section_of_the_settings_file_counts(section, key, words, place, tmp_path, monkeypatch):
    from bench.cli.names import renamed
    from bench.cli.settings import defaults_of

    monkeypatch.chdir(tmp_path)
    (tmp_path / "cloakbench.toml").write_text(f"[{section}]\n{key} = true\n")
    name, *rest = renamed(list(words))[0]
    found = defaults_of(name, rest, bench.get_command(None, name))[name]
    for step in place:
        found = found[step]
    assert found is True


def test_a_former_section_counts_less_than_todays_and_not_for_another_command(tmp_path, monkeypatch, cli):
    from bench.cli.settings import defaults_of

    monkeypatch.chdir(tmp_path)
    (tmp_path / "cloakbench.toml").write_text(
        '[means]\nattack = "pgd"\nbackbone = "a"\n[table.means]\nattack = "fawkes"\n[rerun]\nthreads = 3\n'
    )
    table, verify = bench.get_command(None, "table"), bench.get_command(None, "verify")
    assert defaults_of("table", ["means", "x"], table)["table"]["means"] == {
        "attacks": ["fawkes"],
        "backbones": ["a"],
    }
    assert defaults_of("verify", ["x"], verify)["verify"] == {}
    assert defaults_of("verify", ["x", "--rerun"], verify)["verify"] == {"threads": 3}
    (tmp_path / "cloakbench.toml").write_text("[means]\nattak = 'pgd'\n")
    code, _, err = cli("means", "x")
    assert code == 2
    assert "[means]: unknown option 'attak'. Did you mean 'attack'?" in err


def test_former_environment_variables_count():
    means = bench.get_command(None, "table").commands["means"]
    option = next(param for param in means.params if param.name == "csv")
    assert variables_of(option, ("table", "means")) == ["CLOAKBENCH_TABLE_MEANS_CSV", "CLOAKBENCH_MEANS_CSV"]
    assert option.envvar == variables_of(option, ("table", "means"))
    source = next(param for param in bench.get_command(None, "fetch").params if param.name == "source")
    assert source.envvar == [
        "CLOAKBENCH_FETCH_FROM",
        "CLOAKBENCH_DATA_FETCH_FROM",
        "CLOAKBENCH_MODELS_FETCH_FROM",
    ]


def test_a_former_table_of_a_group_is_no_error_for_the_group(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cloakbench.toml").write_text("[data.fetch]\njson = true\n")
    assert cli("data", "list", "--json")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x"), "--out needs --rerun."),
        (("--rerun", "--cells", "2"), "--cells is for a sample, not for --rerun."),
    ],
)
def test_options_of_the_other_way_to_verify_are_refused(cli, tmp_path, words, message):
    code, _, err = cli("verify", tmp_path, *words)
    assert code == 2
    assert message in err


def test_a_rerun_takes_no_store_that_is_set_for_all_commands(finished, here, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_STORE", str(tmp_path / "store"))
    done = here("verify", finished.run, "--rerun", "--out", tmp_path / "again", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["identical"]
    assert not (tmp_path / "store").exists()
