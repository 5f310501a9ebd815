"""`bench new`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import json_option
from bench.cli.output import print_json

if TYPE_CHECKING:
    from bench.authoring.scaffold import Names

_EXAMPLES = """\b
Examples:
  bench new attack my_cloak
  bench new defense my_filter --out ~/plugins/my_filter
  bench new backbone my_net
"""

_KINDS = ("attack", "defense", "backbone", "protocol")


@click.command(epilog=_EXAMPLES)
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to make. [default: NAME here, with '_' for '-']"
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Do not say what to do next.")
def new(kind: str, name: str, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Write a package with a plugin of KIND called NAME: module, entry point, test, README.

    It works as it is: it can be installed, passes its tests and `bench check`, and runs in a matrix. What it
    computes is plain and there to be replaced. A folder that exists is left alone.
    """
    from bench.authoring import scaffold

    named = scaffold.names(kind, name)
    folder = out or Path(named.module)
    contents = scaffold.files(named)
    scaffold.write(folder, contents)
    steps = _next(named, folder)
    if as_json:
        made = {"kind": kind, "name": named.plugin, "folder": str(folder)}
        document = {**made, "files": list(contents), "next": steps}
        print_json(document)
    elif not quiet:
        click.echo(
            f"{folder}: {kind} '{named.plugin}', class {named.cls} in src/{named.module}/__init__.py. Next:\n"
        )
        click.echo("\n".join(f"    {step}" for step in steps))


def _next(named: "Names", folder: Path) -> list[str]:
    """Return the commands that install, check and run the plugin."""
    from bench.plugins import registry

    other = registry.DEFENSES if named.kind == "attack" else registry.ATTACKS
    against = f"--{other.singular} {other.baseline()}"
    own = f"--{named.kind} {named.plugin}"
    first, second = (own, against) if named.kind == "attack" else (against, own)
    return [
        f"cd {shlex.quote(str(folder))}",
        "pip install -e .",
        f"bench check {named.plugin}",
        "python -m pytest",
        f"bench run {first} {second} --identities 6",
    ]
