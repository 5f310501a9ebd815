"""`bench --completion SHELL`: the script that makes a shell complete commands, options and names."""

import click

SHELLS = ("bash", "zsh", "fish")


def _print_script(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    if shell is None or ctx.resilient_parsing:
        return
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click's own three shells are those of SHELLS"
    # The script asks `bench` itself, so that plugins installed later are completed too.
    click.echo(found(ctx.command, {}, "bench", "_BENCH_COMPLETE").source())
    ctx.exit()


completion_option = click.option(
    "--completion",
    type=click.Choice(SHELLS),
    metavar="SHELL",
    is_eager=True,
    expose_value=False,
    callback=_print_script,
    help="Print the script that makes SHELL (bash, zsh, fish) complete commands, options, names of methods and "
    'folders of runs: eval "$(bench --completion bash)".',
)
"""``--completion`` of `bench` itself."""
