"""The option ``--name METHOD=LABEL`` of commands that draw or print methods."""

import click

name_option = click.option(
    "--name",
    "names",
    multiple=True,
    metavar="METHOD=LABEL",
    help="What a method is called; may be repeated. [default: its name, or the parameters that tell it apart]",
)
