"""Options by environment and by file: the nearest place wins, and what no option is called is refused."""

import json

import click
import pytest
from click.core import ParameterSource

from bench.cli import bench, settings
from bench.cli.commands import variables
from bench.cli.matrix import command_line
from bench.cli.options import PluginName

REQUESTED = ("run", "--dataset", "tiny", "--backbone", "tiny-a", "--dry-run", "--json")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder without a settings file named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLOAKBENCH_CONFIG", raising=False)
    return tmp_path


def settled(monkeypatch, *arguments):
    """Return how click settles the options of a command line: parameter → (value, source)."""
    found = {}

    def note(self, ctx):
        del self
        found.update({name: (value, ctx.get_parameter_source(name)) for name, value in ctx.params.items()})

    with monkeypatch.context() as patch:
        patch.setattr(click.Command, "invoke", note)
        bench.main(list(arguments), prog_name="bench", standalone_mode=False)
    return found


def test_the_nearest_of_command_line_environment_and_file_wins(here, monkeypatch):
    places = ParameterSource
    assert settled(monkeypatch, "run")["batch_size"] == (64, places.DEFAULT)
    (here / "cloakbench.toml").write_text('[run]\nbatch-size = 8\nhead = ["nn", "linear"]\ndevice = "cpu"\n')
    found = settled(monkeypatch, "run")
    assert found["batch_size"] == (8, places.DEFAULT_MAP)
    assert found["heads"] == (("nn", "linear"), places.DEFAULT_MAP)
    assert found["threads"] == (None, places.DEFAULT)
    monkeypatch.setenv("CLOAKBENCH_RUN_BATCH_SIZE", "16")
    monkeypatch.setenv("CLOAKBENCH_RUN_HEAD", "centroid")
    found = settled(monkeypatch, "run")
    assert found["batch_size"] == (16, places.ENVIRONMENT)
    assert found["heads"] == (("centroid",), places.ENVIRONMENT)
    found = settled(monkeypatch, "run", "--batch-size", "32")
    assert found["batch_size"] == (32, places.COMMANDLINE)
    assert found["device"] == ("cpu", places.DEFAULT_MAP)


def test_plan_takes_what_is_set_for_run_where_nothing_is_set_for_it(cli, here, monkeypatch):
    (here / "cloakbench.toml").write_text(
        '[run]\nidentities = 3\nhead = "linear"\njson = true\ncsv = "a.csv"\n'
    )
    monkeypatch.setenv("CLOAKBENCH_RUN_ATTACK", "tiny-noise")
    monkeypatch.setenv("CLOAKBENCH_RUN_QUIET", "1")
    base = ("--dataset", "tiny", "--backbone", "tiny-a")
    found = settled(monkeypatch, "plan", *base)
    assert (found["identities"][0], found["heads"][0], found["attacks"][0]) == (
        3,
        ("linear",),
        ("tiny-noise",),
    )
    assert found["as_json"][0] is False
    run = json.loads(cli("run", *base, "--dry-run", "--json")[1])["run"]
    code, out, err = cli("plan", *base, "--json")
    assert (code, json.loads(out)["run"]) == (0, run)
    assert err == "Note: CLOAKBENCH_RUN_ATTACK sets attack; cloakbench.toml sets head, identities.\n"
    (here / "cloakbench.toml").write_text("[run]\nidentities = 3\n[plan]\nidentities = 4\n")
    monkeypatch.setenv("CLOAKBENCH_PLAN_ATTACK", "pgd")
    found = settled(monkeypatch, "plan", *base)
    assert (found["identities"][0], found["attacks"][0]) == (4, ("pgd",))


def test_a_remark_names_what_decides_the_run_and_is_not_on_thecommand_line(cli, here, monkeypatch):
    (here / "cloakbench.toml").write_text('[run]\nidentities = 3\nthreads = 1\ndevice = "cpu"\n')
    assert cli(*REQUESTED)[2] == "Note: cloakbench.toml sets identities, device.\n"
    assert cli(*REQUESTED, "--identities", "4", "--device", "cpu")[2] == ""
    assert cli(*REQUESTED, "-q")[2] == ""
    monkeypatch.setenv("CLOAKBENCH_CONFIG", "")
    assert cli(*REQUESTED)[2] == ""


def test_tables_of_commands_within_groups_and_single_values(here, monkeypatch):
    (here / "cloakbench.toml").write_text(
        '[models.verify]\nthreads = 2\n[run]\nattack = "pgd"\nstore = "~/kept"\n'
    )
    assert settled(monkeypatch, "models", "verify", "tiny-a")["threads"][0] == 2
    assert settled(monkeypatch, "models", "calibrate", "tiny-a")["threads"][0] is None
    found = settled(monkeypatch, "run")
    assert found["attacks"][0] == ("pgd",)
    assert found["store"][0].is_absolute()


def test_the_environment_names_another_file_or_none(here, monkeypatch):
    (here / "cloakbench.toml").write_text("[run]\nthreads = 1\n")
    (here / "other.toml").write_text("[run]\nthreads = 2\n")
    monkeypatch.setenv("CLOAKBENCH_CONFIG", str(here / "other.toml"))
    assert settled(monkeypatch, "run")["threads"][0] == 2
    monkeypatch.setenv("CLOAKBENCH_CONFIG", "")
    assert settled(monkeypatch, "run")["threads"][0] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[run]\nbatchsize = 8", "[run]: unknown option 'batchsize'. Did you mean 'batch-size'?"),
        ("[rnu]\nthreads = 8", "[rnu]: unknown command 'rnu'. Did you mean 'run'?"),
        ("threads = 8", "'threads' stands outside a table"),
        ("[run]\nthreads = 'many'", '[run]: threads is "many", but takes a whole number.'),
        ("[run]\nthreads = 1.5", "[run]: threads is 1.5, but takes a whole number."),
        ("[run]\nthreads = true", "[run]: threads is true, but takes a whole number."),
        ("[run]\nthreads = [1]", "[run]: threads is [1], but takes a whole number."),
        ("[run]\nidentities = 6.7", "[run]: identities is 6.7, but takes a whole number."),
        ("[run]\nidentities = 2020-01-01", '[run]: identities is "2020-01-01", but takes a whole number.'),
        ("[run]\nseed = [1, 1.5]", "[run]: seed is 1.5, but takes a whole number or a list of such."),
        ("[run]\nstore = 3", "[run]: store is 3, but takes text in quotes."),
        ("[run]\nstore = ['a']", '[run]: store is ["a"], but takes text in quotes.'),
        ("[run]\nstore = {}", "[run]: store is {}, but takes text in quotes."),
        ("[run]\nattack = ['pgd', 3]", "[run]: attack is 3, but takes text in quotes or a list of such."),
        ("[run]\njson = 3", "[run]: json is 3, but takes true or false."),
        ("[run]\nverbose = 'yes'", '[run]: verbose is "yes", but takes a whole number.'),
        ("[run]\nthreads = 0", "[run]: threads: 0 is not in the range x>=1."),
        ("[run]\nattack = true", "[run]: attack is true, but takes text in quotes or a list of such."),
        ("[run", "cannot be read as TOML"),
    ],
)
def test_what_no_option_is_called_or_takes_is_refused_with_the_file(cli, here, text, reason):
    (here / "cloakbench.toml").write_text(text)
    code, out, err = cli(*REQUESTED)
    assert (code, out) == (2, "")
    assert err.startswith("Error: cloakbench.toml")
    assert reason in err
    assert err.count("\n") == 1


def test_a_group_is_checked_to_its_commands(cli, here):
    (here / "cloakbench.toml").write_text("[models.verfy]\nthreads = 2\n")
    code, _, err = cli("models", "list")
    assert code == 2
    assert "[models]: unknown command 'verfy'. Did you mean 'verify'?" in err
    (here / "cloakbench.toml").write_text("[models]\nverify = 3\n")
    code, _, err = cli("models", "list")
    assert (code, err.count("\n")) == (2, 1)
    assert "[models]: verify is 3, but is a command. Its options stand in a table [models.verify]." in err


def test_whole_numbers_are_numbers(cli, here):
    (here / "cloakbench.toml").write_text("[power]\nprobes = 3\nidentities = 20\n")
    code, out, err = cli("power", "--json")
    assert (code, err) == (0, ""), err
    assert json.loads(out)


def test_a_missing_file_that_is_named_is_refused_and_help_works_beside_a_broken_one(cli, here, monkeypatch):
    monkeypatch.setenv("CLOAKBENCH_CONFIG", "nowhere.toml")
    code, _, err = cli("list")
    assert (code, err.count("\n")) == (2, 1)
    assert "CLOAKBENCH_CONFIG names 'nowhere.toml', which is no file" in err
    assert cli("--help")[0] == 0
    assert cli("--completion", "fish")[0] == 0


def test_a_suite_is_nearer_than_the_settings_file_and_further_than_the_environment(cli, here, monkeypatch):
    (here / "suite.toml").write_text('attacks = ["tiny-noise"]\nheads = ["linear"]\n')
    (here / "cloakbench.toml").write_text('[run]\nattack = "pgd"\ndefense = "tiny-negative"\nhead = "nn"\n')
    monkeypatch.setenv("CLOAKBENCH_RUN_HEAD", "centroid")
    code, out, err = cli(*REQUESTED, "--config", "suite.toml")
    assert code == 0, err
    plan = json.loads(out)
    labels = {group["label"] for group in plan["groups"]}
    assert "tiny-noise" in labels
    assert "tiny-negative" in labels
    assert "pgd" not in labels


def test_the_command_writes_out_a_suite_and_what_the_suite_does_not_say(here, monkeypatch):
    (here / "suite.toml").write_text('attacks = ["tiny-noise"]\nseeds = [1, 2]\ndataset = "tiny"\n')
    (here / "cloakbench.toml").write_text(
        '[run]\nconfig = "suite.toml"\nattack = "pgd"\ndefense = "jpeg"\ndevice = "cpu"\n'
    )
    written = []

    def note(_self, ctx):
        if ctx.info_name == "run":
            written.append(command_line(ctx.params))

    monkeypatch.setattr(click.Command, "invoke", note)
    for words in ([], ["--config", "suite.toml"], ["--config=suite.toml"], ["--seed", "1", "--seed", "2"]):
        monkeypatch.setattr("sys.argv", ["bench", "run", *words])
        bench.main(["run", *words], prog_name="bench", standalone_mode=False)
    methods, rest = "--attack tiny-noise --defense jpeg", "--dataset tiny --device cpu"
    assert written[:3] == [f"bench run {methods} --seed 1 --seed 2 {rest}"] * 3
    assert written[3] == f"bench run --seed 1 --seed 2 {methods} {rest}"


def test_the_run_records_a_command_that_asks_for_the_same_anywhere(cli, here, monkeypatch):
    (here / "cloakbench.toml").write_text('[run]\nhead = ["linear", "nn"]\nidentities = 4\nthreads = 1\n')
    monkeypatch.setenv("CLOAKBENCH_RUN_ATTACK", "tiny-noise 'pgd:eps=32,steps=1'")
    arguments = ("run", "--dataset", "tiny", "--backbone", "tiny-a", "--identities", "3")
    assert cli(*arguments, "--store", here / "store", "--out", here / "one", "-q") == (0, "", "")
    spec = json.loads((here / "one/spec.json").read_text())
    words = spec["command"].split(" ")
    assert words[-8:] == [
        "--attack", "tiny-noise", "--attack", "pgd:eps=32,steps=1", "--head", "linear", "--head", "nn",
    ]  # fmt: skip
    assert "--threads" not in words
    assert words.count("--identities") == 1
    (here / "cloakbench.toml").unlink()
    monkeypatch.delenv("CLOAKBENCH_RUN_ATTACK")
    again = [word for word in words[1:] if word != "-q"]
    again[again.index("--out") + 1] = str(here / "two")
    assert cli(*again, "--threads", "1", "-q") == (0, "", "")
    assert json.loads((here / "two/spec.json").read_text())["spec"] == spec["spec"]


def test_variables_of_all_options_differ_and_split_as_a_shell_does():
    assert {"CLOAKBENCH_RUN_BATCH_SIZE", "CLOAKBENCH_MODELS_VERIFY_DATASET"} <= variables()
    assert not {"CLOAKBENCH_DATA", "CLOAKBENCH_STORE", "CLOAKBENCH_CONFIG"} & variables()
    assert PluginName("defenses").split_envvar_value("none 'jpeg + median'") == ["none", "jpeg + median"]


def test_a_settings_file_is_read_by_its_commands_names(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[run]\nthreads = 1\n")
    assert settings.read(path) == {"run": {"threads": 1}}
