"""From options to an engine."""

from typing import TYPE_CHECKING, Any

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.run.engine import Engine

_SLURM = "slurm"


def take(values: dict[str, Any]) -> "Engine | None":
    """Take the options of `bench.cli.options.engine_options` out of a command's and return the engine they name.

    Raises:
        UsageError: an unknown engine, or options of another than the one that is named.
    """
    text = values.pop("engine") or ""
    asked = {name: values.pop(f"{_SLURM}_{name}") for name in ("partition", "time", "gpus", "memory")}
    given = [f"{name}={value}" for name, value in asked.items() if value is not None]
    name, _, argument = text.partition(":")
    if given and name != _SLURM:
        raise UsageError(f"--{_SLURM}-… options are for --engine {_SLURM}, not for '{text or 'inline'}'.")
    if not text:
        return None
    from bench.engines.names import named

    return named(f"{name}:{','.join(filter(None, [argument, *given]))}" if given else text)
