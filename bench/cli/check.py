"""`bench check`."""

from typing import TYPE_CHECKING

import click

from bench.cli.catalogue import kind_option
from bench.cli.options import PluginName, json_option
from bench.cli.output import console, print_json
from bench.errors import UsageError
from bench.plugins import factory, registry

if TYPE_CHECKING:
    from bench.authoring.checks import Finding


@click.command(epilog="Example: bench check ./mine.py:MyCloak")
@click.argument("plugin", type=PluginName(*registry.CLASSES))
@kind_option
@json_option
def check(plugin: str, kind: str | None, as_json: bool) -> None:
    """Run the contract checks on PLUGIN: ./mine.py:MyClass or a registered name, with parameters or without.

    Exit code 0: all passed; 1: some failed; 2: the plugin cannot be loaded.
    """
    chosen = _kind_of(plugin) if kind is None else f"{kind}s"
    method = factory.create(chosen, plugin)
    from bench.authoring.checks import run_checks

    findings = run_checks(method)
    failed = sum(not finding.passed for finding in findings)
    if as_json:
        document = {
            "plugin": plugin,
            "kind": registry.EVERY[chosen].singular,
            "passed": not failed,
            "findings": [finding.__dict__ for finding in findings],
        }
        print_json(document)
    else:
        _print(f"{plugin} ({registry.EVERY[chosen].singular})", findings)
        click.echo(
            f"{failed} of {len(findings)} checks failed." if failed else f"All {len(findings)} checks passed."
        )
    if failed:
        # Not an error of the command: the findings are its output.
        click.get_current_context().exit(1)


def _kind_of(text: str) -> str:
    """Return the one kind a plugin is of.

    Raises:
        UsageError: it is of none, or of several.
    """
    found = factory.kinds_of_text(text)
    if len(found) > 1:
        kinds = [registry.EVERY[kind].singular for kind in found]
        raise UsageError(
            f"'{text}' is the name of {' and of '.join(f'the {kind}' for kind in kinds)}; say which with "
            f"--kind {' or --kind '.join(kinds)}."
        )
    return found[0]


def _print(title: str, findings: "tuple[Finding, ...]") -> None:
    """Print a line a check; below one that failed what was found, and what to write instead."""
    click.echo(click.style(title, bold=True))
    for finding in findings:
        style = {"fg": "green"} if finding.passed else {"fg": "red", "bold": True}
        click.echo(f"{click.style('passed' if finding.passed else 'FAILED', **style)}  {finding.check}")
        for label, text in (("found", finding.detail), ("write", finding.fix)):
            if text:
                click.echo(click.wrap_text(text, console().width, f"        {label}: ", " " * 15))
