"""`bench doctor`."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option
from bench.cli.output import print_json

if TYPE_CHECKING:
    from bench.assets.doctor import Finding

_EPILOG = """\b
Examples:
  bench doctor
  bench doctor --json
"""

_COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}

_OTHER_VARIABLES = frozenset(
    {"CLOAKBENCH_CONFIG", "CLOAKBENCH_DATA", "CLOAKBENCH_STORE", "CLOAKBENCH_LPIPS_TRUNK"}
)
"""Environment variables that are not of one command's option."""


@click.command(epilog=_EPILOG)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print only what is missing or broken.")
def doctor(as_json: bool, quiet: bool) -> None:
    """Say what is here, what is missing, and how to get it; changes nothing.

    Looks at Python, torch, GPU, plugins, the embedded default, datasets, weights, extras, the store, and
    the settings in force. Exit code 0: the embedded default can run; 1: it cannot.
    """
    from bench.assets import doctor as examination
    from bench.plugins import registry

    findings = (*examination.examine(), _config(), *_environment())
    fit = examination.can_run(findings)
    if as_json:
        print_json({"can_run": fit, "findings": [finding.model_dump() for finding in findings]})
    else:
        _print([finding for finding in findings if not (quiet and finding.state == "ok")])
        if not quiet or not fit:
            verdict = "can run" if fit else "cannot run"
            click.echo(f"\nThe embedded default {verdict}: bench run --attack {registry.ATTACKS.baseline()}")
    if not fit:
        click.get_current_context().exit(1)  # the findings are the command's output


def _print(findings: "list[Finding]") -> None:
    width = max((len(finding.name) for finding in findings), default=0)
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            click.echo(click.style(area, bold=True))
        state = click.style(f"{finding.state:7}", fg=_COLOURS[finding.state])
        click.echo(f"  {state}  {finding.name:{width}}  {finding.detail}")
        if finding.fix:
            click.echo(f"  {'':7}  {'':{width}}  → {finding.fix}")


# -- the settings in force -----------------------------------------------------------------------------------


def _config() -> "Finding":
    from bench.assets.doctor import Finding
    from bench.cli import settings
    from bench.cli.commands import load_command
    from bench.errors import UsageError

    try:
        path = settings.find()
        if path is None:
            detail = f"no {settings.FILE} in this folder, and {settings.VARIABLE} is not set"
            return Finding(area="settings", name="file", state="ok", detail=detail, needed=True)
        tables = settings.read(path)
        for name, table in tables.items():
            settings.defaults(path, load_command(name), table, name)
    except UsageError as error:
        fix = "Correct or remove it; commands refuse it as it is."
        return Finding(area="settings", name="file", state="broken", detail=str(error), fix=fix, needed=True)
    detail = f"{path} sets options of {', '.join(tables) or 'no command'}"
    return Finding(area="settings", name="file", state="ok", detail=detail, needed=True)


def _environment() -> "Iterator[Finding]":
    import difflib

    from bench.assets.doctor import Finding
    from bench.cli.commands import variables
    from bench.cli.options import PREFIX

    given = sorted(name for name in os.environ if name.startswith(f"{PREFIX}_"))
    known = {*_OTHER_VARIABLES, *variables()} if given else _OTHER_VARIABLES
    for name in given:
        if name in known:
            yield Finding(area="settings", name=name, state="ok", detail=os.environ[name])
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1)
        fix = f"Did you mean {near[0]}?" if near else "Unset it."
        yield Finding(area="settings", name=name, state="broken", detail="is no option's", fix=fix)
