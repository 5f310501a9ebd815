"""`bench data`: list datasets and add folders of one's own."""

from pathlib import Path

import click

from bench.cli.options import json_option
from bench.cli.output import print_json

_EXAMPLES = """\b
Examples:
  bench data list
  bench data add family ~/photos/family
"""


@click.group(epilog=_EXAMPLES)
def data() -> None:
    """List and add datasets; `bench fetch NAME` gets them.

    The data folder is CLOAKBENCH_DATA, else the platform's user data folder.
    """


@data.command("list", epilog="Example: bench data list")
@json_option
def list_data(as_json: bool) -> None:
    """List known datasets, their licence, and whether their files are here and whole."""
    from bench.assets import catalogue
    from bench.data import folders
    from bench.data.files import data_folder

    found = catalogue.listing("dataset")
    if as_json:
        print_json([item.model_dump(mode="json") for item in found])
        return
    click.echo(f"Data folder: {data_folder()}")
    click.echo("synthetic: embedded, drawn by the project; needs no files")
    for item in found:
        click.echo(f"{item.entry.name}: {item.state}; {item.entry.what}")
        click.echo(f"    licence: {item.entry.licence}")
        for file in item.files:
            if file.state != "present":
                click.echo(f"    {file.file.path}: {file.state}")
        if item.state != "present":
            click.echo(f"    `bench fetch {item.entry.name}` gets it.")
    for entry in catalogue.BY_HAND:
        place = catalogue.place_of(entry)
        click.echo(f"{entry.name}: {'folder here' if place.is_dir() else 'absent'}; {entry.what}")
        click.echo(f"    licence: {entry.licence}")
        if not place.is_dir():
            click.echo(f"    {entry.how}.")
    for name, path in folders.registered().items():
        click.echo(f"folder:path={name}: {path}")


@data.command(epilog="Example: bench data add family ~/photos/family")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def add(name: str, path: Path, as_json: bool) -> None:
    """Check the folder of photos PATH (one subfolder an identity) and remember it as NAME.

    From then on it is a dataset: --dataset folder:path=NAME.
    """
    from bench.assets import catalogue

    catalogue.add(name, path)
    if as_json:
        print_json({"name": name, "dataset": f"folder:path={name}"})
        return
    click.echo(f"{name} added; use it as --dataset folder:path={name}")
