"""Blocks of code in Markdown pages: found, parsed, run in order, and their shown output held against the real one.

A comment before a block says what it is: ``<!-- not run: why -->``, ``<!-- file: NAME -->`` for what the reader writes
to a file, or ``<!-- in: NAME -->`` for a function that takes the place of the one of its name there. A ``text`` block
after a ``bash`` block shows some of its output.
"""

import ast
import os
import re
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>not run|file|in): (?P<said>[^\n]+?) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>[\w{}-]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"(?<![\w.:=-])\d+(?:\.\d+)?")
_FRAME = re.compile(r"[│┃|━─]+")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Snippet:
    """One fenced block.

    Attributes:
        page: the page's file name.
        line: of the page, from 1.
        language: what stands behind the fence.
        code: its text, without the indent of the list it stands in.
        reason: why it is not run; empty where it is.
        file: the file it is written to; empty where it is run.
        changed: the file in which it takes a function's place; empty where it is run.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str = ""
    file: str = ""
    changed: str = ""


def snippets(page: Path) -> list[Snippet]:
    """Return the blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        said = {match["mark"]: match["said"]}
        indent = len(match["indent"])
        code = "".join(
            line[indent:] if line.strip() else "\n" for line in match["code"].splitlines(keepends=True)
        )
        line = text.count("\n", 0, match.start()) + 1
        found.append(
            Snippet(
                page.name,
                line,
                match["language"],
                code,
                reason=said.get("not run", ""),
                file=said.get("file", ""),
                changed=said.get("in", ""),
            )
        )
    return found


def indented_python(text: str) -> Iterator[str]:
    """Yield the indented blocks of a page that begin with an import, without their indent and commands after them."""
    for match in re.finditer(r"(?:^ {4}[^\n]*\n|^\n(?= {4}))+", text, re.MULTILINE):
        block = textwrap.dedent(match[0]).lstrip("\n")
        if block.startswith(("from ", "import ")):
            yield block.partition("\nbench ")[0]


def environment(home: Path) -> dict[str, str]:
    """Make a place for a reader: a virtual environment of their own that has this one's packages, an empty store.

    What a page installs goes into that environment; nothing of the user's is seen.

    Args:
        home: an empty folder for all of it.

    Returns:
        The environment variables; `bench`, `pip` and `python` are the reader's.
    """
    venv.create(home / "venv", with_pip=False, symlinks=True)
    scripts = home / "venv" / "bin"
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (site / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in outer))
    for name, line in (
        (
            "bench",
            "from bench.cli import main\nif __name__ == '__main__': main()",
        ),  # as pip's own guards itself
        ("pip", "import sys; from pip._internal.cli.main import main; sys.exit(main())"),
    ):
        (scripts / name).write_text(f"#!{scripts / 'python'}\n{line}\n")
        (scripts / name).chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CLOAKBENCH_", "PYTHON"))}
    return kept | {
        "PATH": os.pathsep.join((str(scripts), kept.get("PATH", ""))),
        "VIRTUAL_ENV": str(home / "venv"),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
        "CLOAKBENCH_STORE": str(home / "store"),
        "CLOAKBENCH_DATA": str(home / "data"),
        "TORCH_HOME": str(home / "torch"),
        "HOME": str(home),
        "COLUMNS": "80",
        "NO_COLOR": "1",
    }


def replace_function(source: str, code: str) -> str:
    """Return a module's source with the function that `code` defines in the place of the one of its name."""
    name = next(node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
    old = next(
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name
    )
    lines = source.splitlines(keepends=True)
    return "".join([*lines[: old.lineno - 1], code, *lines[old.end_lineno :]])


def run_page(page: Path, folder: Path, env: dict[str, str]) -> int:
    """Do what a page says, in `folder`; return the number of blocks that were run.

    Raises:
        AssertionError: a block fails, or what it shows is not what it prints.
    """
    printed, done = "", 0
    for snippet in snippets(page):
        where = f"{snippet.page}:{snippet.line}"
        if snippet.reason:
            printed = ""
        elif snippet.file:
            path = folder / snippet.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.code, encoding="utf-8")
        elif snippet.changed:
            path = folder / snippet.changed
            path.write_text(
                replace_function(path.read_text(encoding="utf-8"), snippet.code), encoding="utf-8"
            )
        elif snippet.language == "text" and printed:
            missing = unlike(snippet.code, printed)
            assert not missing, f"{where} shows what is not printed:\n{missing}\nprinted:\n{printed}"
        elif snippet.language in ("bash", "python"):
            command = ["bash", "-euo", "pipefail", "-c"] if snippet.language == "bash" else ["python", "-c"]
            finished = subprocess.run(
                [*command, snippet.code],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
            printed = finished.stdout + finished.stderr
            assert finished.returncode == 0, (
                f"{where} fails ({finished.returncode}):\n{snippet.code}\n{printed}"
            )
            done += 1
    return done


def unlike(shown: str, printed: str, tolerance: float = 20.0) -> str:
    """Return the shown lines that nothing printed resembles; empty where all is as shown.

    Words must be the same, in order; numbers may differ, by `tolerance` or a tenth, unless the line has whole numbers
    only: it counts something. A line of dots stands for any, dots at the end of a line for the rest of it.
    """
    real = [_parts(line) for line in printed.splitlines()]
    missing = []
    for line in shown.splitlines():
        if not line.strip() or set(line.strip()) <= {".", "…"}:
            continue
        words, numbers = _parts(line)
        if not words:  # a rule between heading and rows
            continue
        cut = words[-1] == "…"
        begun = (words[:-1] if cut else words, numbers)
        counts = not any("." in number for number in _NUMBER.findall(line))
        rows = ((a[: len(begun[0])], b[: len(numbers)]) if cut else (a, b) for a, b in real)
        if not any(
            begun[0] == a and (numbers == b if counts else _near(numbers, b, tolerance)) for a, b in rows
        ):
            missing.append(line)
    return "\n".join(missing)


def _parts(line: str) -> tuple[list[str], list[float]]:
    plain = _FRAME.sub(" ", line)
    words = _NUMBER.sub("#", plain).split()
    return words, [float(number) for number in _NUMBER.findall(plain)]


def _near(shown: list[float], real: list[float], tolerance: float) -> bool:
    return len(shown) == len(real) and all(
        abs(a - b) <= max(tolerance, abs(a) / 10) for a, b in zip(shown, real, strict=True)
    )
