"""The README and the docs say what is true: every command parses, every snippet runs, every link is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bench.cli import COMMANDS, bench
from bench.plugins import syntax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "results").glob("*.md"))]
_COMMAND = re.compile(
    r"(?:^ {4}|^|`|&& )(?:\.venv/bin/)?(bench (?:[a-z]+)(?: [^`\n#]*)?)(?:`|$)", re.MULTILINE
)
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        found += [(page.name, match.strip()) for match in _COMMAND.findall(text)]
    return found


def test_the_pages_name_commands() -> None:
    named = {shlex.split(command)[1] for _, command in commands()}
    assert {"run", "plan", "leaderboard", "check", "list", "table", "models", "data"} <= named


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_command_parses(page: str, command: str) -> None:
    words = shlex.split(command)[1:]
    group: click.Command = bench
    context = click.Context(bench)
    while isinstance(group, click.Group):
        name = words.pop(0)
        found = group.get_command(context, name)
        assert found is not None, f"{page}: no command '{name}' in {command}"
        group = found
        if not words:
            return
    try:
        parsed = group.make_context(group.name or "", list(words))
    except (click.MissingParameter, click.exceptions.Exit):
        return  # a command quoted in a sentence, without its arguments or with --help
    for key in ("attacks", "defenses", "backbones"):
        for text in parsed.params.get(key) or ():
            syntax.parse(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"bench {name}" in text


def test_the_attack_of_the_readme_passes_the_checks(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index("    from bench.contracts import Attack")
    lines = text[start : text.index("    bench check ./mine.py")].splitlines()
    (tmp_path / "mine.py").write_text("\n".join(line[4:] for line in lines) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "check", "./mine.py:MyCloak"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
