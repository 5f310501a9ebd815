import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.authoring.checks import run_checks
from bench.contracts import Attack, BackbonePool
from bench.errors import UsageError
from bench.leaderboard.table import build
from bench.plugins import factory, registry
from bench.run.folder import RunFolder

PACKAGES = Path(__file__).parents[1] / "plugins"

MINE = """
from bench.contracts import Attack, ThreatModel

class Mine(Attack):
    name = "mine"
    threat = ThreatModel(goal="none", constraint="no change")
    def cloak(self, faces, ctx):
        return {}

class Unfinished(Attack):
    name = "unfinished"

class Nameless(Mine):
    name = None

class Stranger:
    pass

NUMBER = 3
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


@pytest.fixture
def points(monkeypatch):
    """Return a function that lets the given (name, target, distribution) be all that is installed."""

    def install(*rows):
        monkeypatch.setattr(registry, "registered", lambda group: [registry.Entry(*row) for row in rows])
        registry.forget()

    yield install
    monkeypatch.undo()
    registry.forget()


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("attacks", "fawks", "fawkes"),
        ("defenses", "gausian", "gaussian"),
        ("backbones", "mobileface-v4", "mobileface-v"),
        ("datasets", "synthetik", "synthetic"),
    ],
)
def test_a_wrong_name_gets_the_nearest_and_all_valid_ones(kind, name, near):
    with pytest.raises(UsageError) as caught:
        registry.of(kind).load(name)
    message = str(caught.value)
    assert f"unknown {registry.EVERY[kind].singular} '{name}'. Did you mean '{near}" in message
    assert all(valid in message for valid in registry.EVERY[kind].entries())
    assert "./mine.py:MyClass" in message


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(UsageError, match=r"unknown attack 'zzzz'\. Valid: .*none"):
        registry.ATTACKS.load("zzzz")


def test_a_wrong_kind_is_refused():
    with pytest.raises(UsageError, match=r"unknown kind of plugin 'attack'\. Did you mean 'attacks'"):
        registry.of("attack")


def test_two_plugins_of_one_name_are_an_error_that_names_both(points):
    points(("blur", "one.blur:Blur", "first-package"), ("blur", "two.blur:Blur", "second-package"))
    with pytest.raises(UsageError) as caught:
        registry.ATTACKS.entries()
    for part in ("'blur'", "one.blur:Blur (from first-package)", "two.blur:Blur (from second-package)"):
        assert part in str(caught.value)


def test_an_installation_listed_twice_is_no_collision(points):
    points(("blur", "one.blur:Blur", "package"), ("blur", "one.blur:Blur", "package"))
    assert registry.ATTACKS.entries() == {"blur": registry.Entry("blur", "one.blur:Blur", "package")}


def test_names_are_sorted_and_nothing_is_imported(points):
    points(("b", "nowhere:B", "package"), ("a", "nowhere:A", "package"))
    assert list(registry.ATTACKS.entries()) == ["a", "b"]
    assert registry.ATTACKS.entries()["a"].summary() == "(module nowhere cannot be found)"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere.at.all:Blur", "ModuleNotFoundError: No module named 'nowhere'"),
        ("attacks.pgd:Blur", "has no attribute 'Blur'"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_its_package(points, target, reason):
    points(("blur", target, "some-package"))
    with pytest.raises(UsageError) as caught:
        registry.ATTACKS.load("blur")
    assert f"attack 'blur' of some-package cannot be imported from {target}" in str(caught.value)
    assert reason in str(caught.value)


def test_a_plugin_whose_module_crashes_is_named_too(points, tmp_path, monkeypatch):
    (tmp_path / "crashing_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    points(("blur", "crashing_module:Blur", "some-package"))
    with pytest.raises(UsageError, match=r"'blur' of some-package .* ZeroDivisionError: division by zero"):
        registry.ATTACKS.load("blur")


def test_a_class_of_another_kind_is_refused(points):
    points(("pgd", "attacks.pgd:PGD", "cloakbench"))
    with pytest.raises(UsageError, match=r"'pgd' is not one of the defenses.*bench\.contracts\.Defense"):
        registry.DEFENSES.load("pgd")


def test_a_plugin_is_loaded_from_a_file(mine):
    cls = registry.ATTACKS.load(f"{mine}:Mine")
    assert issubclass(cls, Attack)
    assert cls.name == "mine"
    assert registry.ATTACKS.load(f"{mine}:Mine") is cls
    assert isinstance(factory.attack(f"{mine}:Mine"), cls)


def test_a_relative_path_is_the_same_plugin(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    assert registry.ATTACKS.load("./mine.py:Mine") is registry.ATTACKS.load(f"{mine}:Mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mime", "unknown class in .*mine.py 'Mime'. Did you mean 'Mine'"),
        ("NUMBER", "unknown class in .*mine.py 'NUMBER'"),
        ("Stranger", "does not subclass bench.contracts.Attack"),
        ("Unfinished", "lacks cloak, threat; bench.contracts.Attack says"),
        ("Nameless", "has no name"),
    ],
)
def test_a_file_says_what_is_wrong_with_its_class(mine, name, message):
    with pytest.raises(UsageError, match=message):
        registry.ATTACKS.load(f"{mine}:{name}")


def test_a_missing_file_is_named():
    with pytest.raises(UsageError, match=r"'\./nowhere\.py' is not a file; .* \./mine\.py:MyClass"):
        registry.ATTACKS.load("./nowhere.py:Mine")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("import nowhere", "ModuleNotFoundError"), ("def", "SyntaxError"), ("1 / 0", "ZeroDivisionError")],
)
def test_a_file_that_cannot_be_imported_says_why_each_time(tmp_path, text, reason):
    (tmp_path / "bad.py").write_text(text)
    for _ in range(2):  # a failed import leaves nothing behind that would look like a module
        with pytest.raises(UsageError, match=f"bad.py cannot be imported: {reason}"):
            registry.ATTACKS.load(f"{tmp_path}/bad.py:Bad")


def test_a_pool_is_loaded_by_name():
    assert isinstance(registry.POOLS.load("real"), BackbonePool)
    with pytest.raises(UsageError, match=r"unknown pool 'reel'\. Did you mean 'real'"):
        registry.POOLS.load("reel")


def test_listing_imports_no_package_and_survives_a_broken_module(points, tmp_path, monkeypatch):
    package = tmp_path / "loud_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "good.py").write_text('"""What it is.\n\nMore."""\nraise RuntimeError("imported")')
    (package / "bad.py").write_text("def")
    monkeypatch.syspath_prepend(tmp_path)
    points(
        ("a", "loud_package.good:A", "p"),
        ("b", "loud_package.bad:B", "p"),
        ("c", "loud_package.no.no:C", "p"),
    )
    assert [entry.summary() for entry in registry.ATTACKS.entries().values()] == [
        "What it is.",
        "(module loud_package.bad is not valid Python)",
        "(module loud_package.no.no cannot be found)",
    ]


def test_every_built_in_says_in_one_line_what_it_is():
    for kind in registry.EVERY:
        for entry in registry.EVERY[kind].entries().values():
            summary = entry.summary()
            assert summary.endswith((".", ":", "``")), (entry, summary)
            assert "cannot be found" not in summary


def test_the_kind_of_a_file_is_what_its_class_subclasses(mine):
    assert registry.kinds_of(f"{mine}:Mine") == ["attacks"]
    with pytest.raises(UsageError, match=r"Stranger' subclasses none of the contracts"):
        registry.kinds_of(f"{mine}:Stranger")
    with pytest.raises(UsageError, match="Unfinished' lacks cloak, threat"):
        registry.kinds_of(f"{mine}:Unfinished")


def test_every_kind_has_one_registry_that_knows_its_contract():
    assert list(registry.EVERY) == [one.kind for one in registry.EVERY.values()]
    for kind, one in registry.CLASSES.items():
        assert registry.of(kind) is one
        assert issubclass(one.load(next(iter(one.entries()))), one.contract)


# -- installed packages, seen by other processes ---------------------------------------------------------------


def install(package, folder):
    """Install a package of `PACKAGES` into `folder` as pip does, from a copy: a build writes beside its source."""
    source = folder.parent / f"source-{package}"
    shutil.copytree(PACKAGES / package, source)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--quiet", "--target", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "site"
    install("cloakbench-sample", folder)
    return folder


@pytest.fixture(scope="module")
def clash(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clash") / "site"
    install("cloakbench-clash", folder)
    return folder


def bench(*arguments, path, cwd):
    own = {
        "PYTHONPATH": str(path),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "CLOAKBENCH_STORE": str(cwd / "store"),
        "CLOAKBENCH_DATA": str(cwd / "data"),
        "TORCH_HOME": str(cwd / "torch"),
    }
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=os.environ | own, timeout=300, check=False
    )


def test_an_installed_package_is_listed_with_its_origin(sample, tmp_path):
    done = bench("list", "attacks", path=sample, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["sample-frame"].endswith(
        "Paints a frame of random colour around each photo. [cloakbench-sample]"
    )
    assert set(lines) >= {"fawkes", "none", "pgd", "sample-frame"}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("attacks", "sample-frame:width=9"),
        ("defenses", "sample-crop"),
        ("defenses", "sample-centre"),
        ("backbones", "sample-pixels"),
    ],
)
def test_an_installed_package_keeps_the_contracts(sample, monkeypatch, kind, text):
    monkeypatch.syspath_prepend(sample)
    registry.forget()
    try:
        method = factory.create(kind, text)
    finally:
        registry.forget()
    assert [finding for finding in run_checks(method) if not finding.passed] == []


@pytest.mark.slow
def test_an_installed_package_runs(sample, tmp_path):
    done = bench(
        "run",
        *("--attack", "sample-frame", "--defense", "sample-crop", "--defense", "sample-centre"),
        *("--backbone", "sample-pixels", "--head", "nn"),
        *("--dataset", "synthetic:identities=4,photos=6,training_identities=4,training_photos=3"),
        *("--out", str(tmp_path / "run")),
        path=sample,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = build(RunFolder(tmp_path / "run"))
    asr = {(row.attack, row.defense): row.asr for row in rows.itertuples()}
    attacks, defenses = ("none", "sample-frame"), ("none", "sample-crop", "sample-centre")
    assert set(asr) == {(attack, defense) for attack in attacks for defense in defenses}
    assert all(0 <= value <= 1 for value in asr.values())
    # The crop takes away exactly what the frame painted: cloaked photos end up as natural ones.
    assert asr["sample-frame", "sample-crop"] == asr["none", "sample-crop"]


def test_a_package_whose_name_is_taken_is_refused_with_both_named(clash, tmp_path):
    done = bench("list", "attacks", path=clash, cwd=tmp_path)
    assert done.returncode == 2
    for part in ("two attacks are called 'pgd'", "attacks.pgd:PGD (from cloakbench)"):
        assert part in done.stderr
    assert "cloakbench_clash:OtherPGD (from cloakbench-clash)" in done.stderr


@pytest.mark.parametrize("arguments", [["list"], ["list", "attacks"], ["--help"], ["--version"]])
def test_listing_imports_nothing_heavy(arguments):
    script = (
        "import sys\nfrom bench.cli import main\nsys.argv = ['bench', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'scipy', 'sklearn', 'cv2', 'attacks', 'defenses', 'fr_models'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert "HEAVY []" in done.stdout
