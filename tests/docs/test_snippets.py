"""What the pages tell the reader to type works as written."""

import ast
import fnmatch
import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from snippets import Snippet, environment, indented_python, replace_function, run_page, snippets, unlike

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "results").glob("*.md"))]
RUN = (
    "quickstart.md",
    "tutorial.md",
    *(f"howto/{path.name}" for path in sorted((DOCS / "howto").glob("*.md"))),
)
PARSED_ONLY = {
    "README.md": "its commands are parsed and its attack is checked by tests/test_docs.py",
    "docs/methods/*": "runs and trainings of minutes to hours; results/ keeps their tables",
    "docs/protocols/*": "likewise",
    "docs/*": "needs photos or a finished run; the tests of each command run the like",
    "results/*": "runs of hours",
}
"""Pages whose blocks are parsed and not run, and why; the first pattern that fits counts."""

BLOCKS = [(page, block) for page in PAGES for block in snippets(page)]


@pytest.fixture(scope="session")
def env(tmp_path_factory):
    """Share one store: pages that repeat a run find it there."""
    return environment(tmp_path_factory.mktemp("home"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_the_page_runs_as_written(name: str, tmp_path: Path, env: dict[str, str]) -> None:
    assert run_page(DOCS / name, tmp_path, env) >= 1


def fault(block: Snippet) -> str:
    """Return why a block cannot be read as its language; empty where it can."""
    try:
        match block.language:
            case "python":
                ast.parse(block.code)
            case "json":
                json.loads(block.code)
            case "toml":
                tomllib.loads(block.code)
            case "bash" | "sh" | "text" | "slurm" | "":
                pass
            case _:
                return f"nothing checks blocks of '{block.language}'"
    except (SyntaxError, ValueError) as error:
        return str(error)
    return ""


def test_every_block_parses() -> None:
    wrong = [f"{block.page}:{block.line}: {fault(block)}" for _, block in BLOCKS if fault(block)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", ["python", "json", "toml", "cobol"])
def test_a_block_that_does_not_parse_is_named(language: str) -> None:
    assert fault(Snippet("page.md", 1, language, "a = ["))


def bash_faults(blocks: Iterable[Snippet]) -> str:
    """Return what bash has against blocks, each line beginning with its page and line; all in one process."""
    checks = "".join(f"bash -n -c {shlex.quote(block.code)} {block.page}:{block.line};" for block in blocks)
    return subprocess.run(["bash"], input=checks, capture_output=True, text=True, check=False).stderr


def test_every_block_of_bash_parses() -> None:
    faults = bash_faults(block for _, block in BLOCKS if block.language in ("bash", "sh"))
    assert not faults, faults


def test_a_block_of_bash_that_does_not_parse_is_named() -> None:
    assert bash_faults(
        [Snippet("good.md", 1, "bash", "ls"), Snippet("bad.md", 7, "bash", "ls |")]
    ).startswith("bad.md:7: ")


def test_indented_python_parses() -> None:
    for page in PAGES:
        for block in indented_python(page.read_text(encoding="utf-8")):
            compile(block, str(page), "exec", ast.PyCF_ONLY_AST)


def test_indented_python_is_found() -> None:
    text = "Then\n\n    from a import b\n    b()\n\n        deeper\n\nand\n\n    bench run\n"
    assert list(indented_python(text)) == ["from a import b\nb()\n\n    deeper\n"]


def test_every_page_with_code_is_run_or_listed() -> None:
    run = {f"docs/{name}" for name in RUN}
    with_code = {
        page.relative_to(ROOT).as_posix() for page, block in BLOCKS if block.language in ("bash", "python")
    }
    neither = [
        name
        for name in sorted(with_code - run)
        if not any(fnmatch.fnmatch(name, pattern) for pattern in PARSED_ONLY)
    ]
    assert not neither


def test_a_block_that_is_not_run_says_why() -> None:
    short = [f"{block.page}:{block.line}" for _, block in BLOCKS if block.reason and len(block.reason) <= 8]
    assert not short


def test_shown_output_is_held_against_the_real_one() -> None:
    printed = "│ pgd │ none │ 16.7 [2.8, 58.5] │ ok │\n6 identities, 12 probes\n"
    assert not unlike("│ pgd │ none │ 25.0 [2.8, 58.5] │ ok │\n…\n6 identities, 12 probes", printed)
    assert unlike("│ pgd │ none │ 66.7 [2.8, 58.5] │ ok │", printed)
    assert unlike("│ fawkes │ none │ 16.7 [2.8, 58.5] │ ok │", printed)
    assert unlike("6 identities", printed)
    assert unlike("7 identities, 12 probes", printed)
    assert not unlike("6 identities, …", printed)
    assert unlike("7 identities, …", printed)


def test_blocks_in_lists_and_their_marks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "1. One\n\n   ```bash\n   echo a \\\n     b\n   ```\n\n"
        "<!-- not run: too long for this -->\n```bash\nsleep\n```\n"
        "<!-- file: a/b.py -->\n```python\nx = 1\n\ny = 2\n```\n"
    )
    first, second, third = snippets(page)
    assert first.code == "echo a \\\n  b\n"
    assert second.reason == "too long for this"
    assert (third.file, third.code, third.line) == ("a/b.py", "x = 1\n\ny = 2\n", 12)


def test_a_function_takes_the_place_of_the_one_of_its_name() -> None:
    source = "a = 1\n\ndef f():\n    return 1\n\n\ndef g():\n    return 2\n"
    assert replace_function(source, "def f():\n    return 3\n") == source.replace("return 1", "return 3")


@pytest.mark.system
def test_a_page_that_shows_what_is_not_printed_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\necho one\n```\n```text\ntwo\n```\n")
    with pytest.raises(AssertionError, match="shows what is not printed"):
        run_page(page, tmp_path, dict(os.environ))
