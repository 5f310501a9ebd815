"""One page a command, by sphinx-click; here only which pages there are, and help texts as reStructuredText.

`bench` imports a command when it is called, so that sphinx-click finds it here by its name, with what `equip` adds.
"""

import re
from typing import TYPE_CHECKING

import click

from bench.cli.commands import load_command, plugin_commands
from bench.cli.names import COMMANDS
from cloakbench_site import markdown

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def __getattr__(name: str) -> click.Command:
    """Return the command called so."""
    if name in COMMANDS or name in plugin_commands():
        return load_command(name)
    raise AttributeError(name)


def pages() -> dict[str, str]:
    """Return staged name → text of every command's page and of their list."""
    lines = {name: line for name, (_, line) in COMMANDS.items()}
    lines |= {name: entry.summary() for name, entry in plugin_commands().items()}
    made = {f"reference/commands/{name}.rst": _page(name) for name in lines}
    rows = [(f"[bench {name}]({name}.rst)", markdown.prose(line)) for name, line in lines.items()]
    made["reference/commands/index.md"] = (
        "# Command line\n\nEvery command with every option, made from `--help`. For anyone who types `bench`.\n\n"
        + markdown.table(("command", "what it does"), rows)
        + "\n```{toctree}\n:hidden:\n\n"
        + "\n".join(lines)
        + "\n```\n"
    )
    return made


def _page(name: str) -> str:
    return f".. click:: cloakbench_site.command_pages:{name}\n   :prog: bench {name}\n   :nested: full\n"


def connect(app: "Sphinx") -> None:
    """Make the texts of commands, written for a terminal, reStructuredText."""
    app.connect("sphinx-click-process-description", _as_rst)
    app.connect("sphinx-click-process-options", _as_rst)
    app.connect("sphinx-click-process-epilog", _examples)


def _as_rst(_app: "Sphinx", _ctx: click.Context, lines: list[str]) -> None:
    """Double single backticks, which are code on a terminal."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?!`)", r"``\1``", line) for line in lines]


def _examples(_app: "Sphinx", _ctx: click.Context, lines: list[str]) -> None:
    """Make the examples that end every help text a block of code."""
    texts = [re.sub(r"^Examples?:", "", line.removeprefix("| ")) for line in lines]
    commands = [f"   {text.strip()}" for text in texts if text.strip()]
    lines[:] = [".. code-block:: bash", "", *commands, ""] if commands else []
