"""`bench completion`."""

import click

SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\b
Examples:
  eval "$(bench completion bash)"    in ~/.bashrc
  eval "$(bench completion zsh)"     in ~/.zshrc
  bench completion fish > ~/.config/fish/completions/bench.fish
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, names of methods and folders of runs.

    The script asks `bench` itself, so that plugins installed later are completed too. It takes effect in a
    new shell.
    """
    from click.shell_completion import get_completion_class

    from bench.cli import bench

    found = get_completion_class(shell)
    if found is None:  # click's own three are those of SHELLS
        raise click.UsageError(f"click completes no {shell}.")
    click.echo(found(bench, {}, "bench", "_BENCH_COMPLETE").source())
