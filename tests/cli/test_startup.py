"""The command line must answer quickly: it imports what a subcommand needs, when it needs it."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "pyarrow",
    "lpips",
    "onnxruntime",
    "cv2",
)

PROBE = f"""
import sys
from bench.cli import main
try:
    main()
except SystemExit as leave:
    assert not leave.code, leave.code
import json
print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["list"], ["list", "attacks"], ["run", "--help"]]
)
def test_help_and_lists_import_nothing_heavy(arguments):
    process = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=False, env=os.environ
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout
    assert json.loads(process.stderr) == []


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, json, bench; print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_the_installed_command_and_the_module_are_the_same():
    script = Path(sys.executable).with_name("bench")
    if not script.is_file():
        pytest.skip("the project is not installed beside this Python")
    results = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([str(script)], [sys.executable, "-m", "bench"])
    ]
    assert results[0] == results[1] == f"bench, version {metadata.version('cloakbench')}\n"


def test_help_names_every_command(cli):
    from bench.cli.names import FORMER, SECTIONS

    code, out, _ = cli("--help")
    assert code == 0
    for heading, commands in SECTIONS.items():
        assert f"{heading}:" in out
        for name, (_, line) in commands.items():
            assert f"  {name} " in out
            assert line.split(".")[0][:30] in out
    for name in FORMER:
        assert f"\n  {name} " not in out


def test_every_command_has_help(cli):
    from bench.cli import COMMANDS

    for name in COMMANDS:
        code, out, err = cli(name, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: bench {name} ")
        assert "Options:" in out
