"""The README and the docs say what is true: every command parses, every snippet runs, every link is there."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from bench.cli import COMMANDS, bench
from bench.errors import BenchError
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
        found += [(page.relative_to(ROOT).as_posix(), match.strip()) for match in _COMMAND.findall(text)]
    return sorted(set(found))


def parse_command(command: str) -> None:
    """Parse a command line of a page, with the methods it names.

    Raises:
        click.UsageError: there is no such command or option, or a value is none.
        UsageError: a method's text is not well-formed.
    """
    words = shlex.split(command)[1:]
    group: click.Command = bench
    context = click.Context(bench)
    while isinstance(group, click.Group):
        name = words.pop(0)
        found = group.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command '{name}'")
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


def faults(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return what is wrong with each (page, command)."""
    found = []
    for page, command in pairs:
        try:
            parse_command(command)
        except (click.ClickException, BenchError) as error:
            message = error.format_message() if isinstance(error, click.ClickException) else str(error)
            found.append(f"{page}: {command}\n    {message}")
    return found


def test_the_pages_name_commands() -> None:
    named = {shlex.split(command)[1] for _, command in commands()}
    assert {"run", "plan", "leaderboard", "check", "list", "table", "models", "data"} <= named


def test_every_command_parses() -> None:
    wrong = faults(commands())
    assert not wrong, "\n".join(wrong)


def test_the_commands_of_the_container_parse() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    runs = re.findall(r"^#     docker run .* cloakbench (\w.*)$", text, re.MULTILINE)
    (default,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    given = [*runs, shlex.join(json.loads(default))]
    assert len(given) == 3
    assert not faults(("Dockerfile", f"bench {words}") for words in given)


def test_every_command_that_does_not_parse_is_named() -> None:
    wrong = faults([("a.md", "bench rum"), ("b.md", "bench run --atack x"), ("c.md", "bench list attacks")])
    assert [line.partition("\n")[0] for line in wrong] == ["a.md: bench rum", "b.md: bench run --atack x"]


def test_every_link_leads_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)} links to {target}"
        for page in PAGES
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not dead, "\n".join(dead)


def test_a_page_lists_every_command() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if f"bench {name}" not in text]
    assert not missing


def test_the_readme_fits_on_two_screens() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    assert "## How to cite" in text


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
