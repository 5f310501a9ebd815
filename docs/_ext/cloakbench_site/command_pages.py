"""One page a command, made from the command line itself."""

import inspect
import re
from collections.abc import Iterator

import click

from bench.cli import COMMANDS, bench, plugin_commands
from cloakbench_site.markdown import code, fenced, prose, table

_EXAMPLE = re.compile(r"^Examples?:\s*", re.MULTILINE)


def pages() -> dict[str, str]:
    """Return staged name → Markdown of every command's page and of their list."""
    context = click.Context(bench, info_name="bench")
    lines = {name: line for name, (_, line) in (*COMMANDS.items(), *plugin_commands().items())}
    made = {}
    for name in lines:
        command = bench.get_command(context, name)
        if command is None:
            raise ValueError(f"the command line lists '{name}' and has it not.")
        made[f"reference/commands/{name}.md"] = "\n".join(_command(command, name, context, depth=1))
    made["reference/commands/index.md"] = _list_page(lines, context)
    return made


def _list_page(lines: dict[str, str], context: click.Context) -> str:
    toctree = "```{toctree}\n:hidden:\n\n" + "\n".join(lines) + "\n```\n"
    rows = [(f"[bench {name}]({name}.md)", prose(line)) for name, line in lines.items()]
    return "\n".join(
        [
            "# Command line\n",
            "Every command with every option, made from `--help`. For anyone who types `bench`.\n",
            table(("command", "what it does"), rows),
            "## Options of bench itself\n",
            _options(bench, context),
            *_examples(bench),
            toctree,
        ]
    )


def _command(command: click.Command, name: str, parent: click.Context, depth: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield "#" * depth + f" {context.command_path}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield fenced(f"{context.command_path} {usage}")
    yield _text(command.help or "")
    yield _options(command, context)
    yield from _examples(command)
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            if found is not None:
                yield from _command(found, sub, context, depth + 1)


def _text(text: str) -> str:
    """Return a help text as Markdown; what click keeps as it is, is a block of text."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text.partition("\f")[0])):
        if paragraph.startswith("\b"):
            parts.append(fenced(paragraph.lstrip("\b").strip("\n")))
        else:
            parts.append(prose(paragraph) + "\n")
    return "\n".join(parts)


def _options(command: click.Command, context: click.Context) -> str:
    rows = []
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            record = None if parameter.hidden else parameter.get_help_record(context)
            if record:
                rows.append((code(record[0]), prose(record[1])))
        else:
            rows.append((code(parameter.make_metavar(context)), "argument"))
    return table(("option", "meaning"), rows)


def _examples(command: click.Command) -> Iterator[str]:
    epilog = inspect.cleandoc((command.epilog or "").replace("\b", "")).strip()
    if not epilog:
        return
    head, mark, rest = _EXAMPLE.split(epilog, maxsplit=1)[0], _EXAMPLE.search(epilog), ""
    if mark:
        rest = epilog[mark.end() :]
    if head.strip():
        yield _text(head)
    if rest:
        yield "Examples\n" + "\n" + fenced(inspect.cleandoc(rest), "bash")
