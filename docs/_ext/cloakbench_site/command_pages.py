"""One page a command, by sphinx-click; here only which pages there are, and help texts as reStructuredText.

`bench` imports a command when it is called, so that sphinx-click finds it here by its name, with what `equip` adds.
"""

import re
from typing import TYPE_CHECKING

import click

from bench.cli.commands import load_command, plugin_commands
from bench.cli.names import COMMANDS
from cloakbench_site.markdown import prose, table

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def __getattr__(name: str) -> click.Command:
    """Return the command called so."""
    if name in COMMANDS or name in plugin_commands():
        return load_command(name)
    raise AttributeError(name)


def pages() -> dict[str, str]:
    """Return staged name → Markdown of every command's page and of their list."""
    lines = {name: line for name, (_, line) in COMMANDS.items()}
    lines |= {name: entry.summary() for name, entry in plugin_commands().items()}
    made = {f"reference/commands/{name}.md": _page(name) for name in lines}
    rows = [(f"[bench {name}]({name}.md)", prose(line)) for name, line in lines.items()]
    made["reference/commands/index.md"] = (
        "# Command line\n\nEvery command with every option, made from `--help`. For anyone who types `bench`.\n\n"
        + table(("command", "what it does"), rows)
        + "\n```{toctree}\n:hidden:\n\n"
        + "\n".join(lines)
        + "\n```\n"
    )
    return made


def _page(name: str) -> str:
    directive = (
        f".. click:: cloakbench_site.command_pages:{name}\n   :prog: bench {name}\n   :nested: full\n"
    )
    return f"# bench {name}\n\n```{{eval-rst}}\n{directive}```\n"


def connect(app: "Sphinx") -> None:
    """Make the texts of commands, written for a terminal, reStructuredText."""
    for event in ("description", "epilog"):
        app.connect(f"sphinx-click-process-{event}", _as_rst)
    app.connect("sphinx-click-process-options", _as_rst)


def _as_rst(_app: "Sphinx", _ctx: click.Context, lines: list[str]) -> None:
    lines[:] = [_literal(line) for line in lines]


def _literal(line: str) -> str:
    """Return a line with its single backticks doubled, and without markup by accident."""
    pieces = re.split(r"(``.+?``|`[^`]+`|:\w+:`[^`]*`)", line)
    return "".join(
        f"`{piece}`" if piece.startswith("`") and not piece.startswith("``") else piece for piece in pieces
    )
