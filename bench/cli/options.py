"""What every command has without saying so: ``-q``, ``-v``, settings by environment, completion of names.

`equip` adds it when a command is imported, a plugin's command like one of ours. Also the types that
complete themselves.
"""

import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bench.cli.names import FORMER, LEANS_ON
from bench.cli.output import QUIET, VERBOSE, log_to_stderr

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PREFIX = "CLOAKBENCH"
"""What the environment variables of options begin with."""


@dataclass
class Ending:
    """What the contexts of a command leave behind for its end, when they are gone.

    Attributes:
        tracebacks: whether ``-vv`` requested them.
    """

    tracebacks: bool = False


# -- quiet and verbose ---------------------------------------------------------------------------------------


def _note_quiet(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    # The root's and the command's contexts share `meta`; either place turns it on.
    ctx.meta[QUIET] = bool(value) or bool(ctx.meta.get(QUIET))
    return bool(ctx.meta[QUIET])


def _note_verbose(ctx: click.Context, _param: click.Parameter, value: int) -> int:
    count = value + int(ctx.meta.get(VERBOSE, 0))
    ctx.meta[VERBOSE] = count
    if isinstance(ctx.obj, Ending):
        ctx.obj.tracebacks = count > 1
    if count and not ctx.resilient_parsing:
        log_to_stderr(count)
    return count


def quiet_option() -> click.Option:
    """Return ``-q`` for a command that has none of its own."""
    return click.Option(
        ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_note_quiet, help="No progress, no notes."
    )  # fmt: skip


def verbose_option() -> click.Option:
    """Return ``-v``, which counts."""
    return click.Option(
        ["-v", "--verbose"],
        count=True,
        expose_value=False,
        callback=_note_verbose,
        help="Report each step; -vv: tracebacks too.",
    )


# -- options of several commands -----------------------------------------------------------------------------

device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Threads torch computes with. [default: all cores]"
)
store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    envvar="CLOAKBENCH_STORE",
    callback=lambda _ctx, _param, value: value and value.expanduser(),
    help="Folder of artefacts. [env: CLOAKBENCH_STORE]",
)
lpips_trunk_option = click.option(
    "--lpips-trunk",
    type=click.Path(path_type=Path),
    envvar="CLOAKBENCH_LPIPS_TRUNK",
    help="AlexNet weights for LPIPS (.pth or .safetensors). [env: CLOAKBENCH_LPIPS_TRUNK] [default: what "
    "`bench fetch lpips` got into the data folder, else torchvision's cache]",
)
_Command = TypeVar("_Command", bound=Callable[..., Any])

_ENGINE_OPTIONS = (
    click.option(
        "--engine",
        metavar="ENGINE",
        help="Where to compute: inline, in this process; processes:N, in N on this machine; slurm, on a cluster; or "
        "./mine.py:MyEngine. [default: inline]",
    ),
    click.option("--slurm-partition", metavar="NAME", help="Partition for --engine slurm."),
    click.option(
        "--slurm-time", type=click.IntRange(1), metavar="MINUTES", help="Time limit of a Slurm job."
    ),
    click.option("--slurm-gpus", type=click.IntRange(0), metavar="N", help="GPUs of a Slurm job."),
    click.option("--slurm-memory", type=click.FloatRange(0, min_open=True), metavar="GB", help="Its memory."),
)


def engine_options(command: _Command) -> _Command:
    """Add the options that say where to compute; `bench.cli.engines.take` makes an engine of them."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_ENGINE_OPTIONS), command)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON document, and nothing else."
)

intervals_option = click.option(
    "--intervals", is_flag=True, help="Show every interval and column, however wide the table gets."
)


# -- options by what people call them ------------------------------------------------------------------------

MEANT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "limit",
            "n",
            "num",
            "number",
            "subset",
            "sample",
            "samples",
            "people",
            "persons",
            "subjects",
            "max",
        ),
        ("--identities",),
    ),
    **dict.fromkeys(("num-identities", "n-identities", "max-identities", "size"), ("--identities",)),
    **dict.fromkeys(("model", "models", "tracker", "net", "network", "encoder", "fr-model"), ("--backbone",)),
    **dict.fromkeys(("defence", "defences", "defenses", "purifier", "purify", "d"), ("--defense",)),
    **dict.fromkeys(("attacks", "cloak", "cloaks", "a"), ("--attack",)),
    **dict.fromkeys(("method", "methods"), ("--attack", "--defense")),
    **dict.fromkeys(("classifier", "heads"), ("--head",)),
    **dict.fromkeys(("data", "datasets", "faces", "photos", "images", "folder", "input"), ("--dataset",)),
    **dict.fromkeys(("task", "scenario"), ("--protocol",)),
    **dict.fromkeys(("seeds", "random-seed", "random-state", "repeat", "repeats", "runs"), ("--seed",)),
    **dict.fromkeys(
        ("output", "o", "dir", "outdir", "output-dir", "save", "dest", "file", "name"),
        ("--out", "--csv", "--html", "--md"),
    ),
    **dict.fromkeys(("gpu", "cuda", "use-gpu"), ("--device cuda",)),
    **dict.fromkeys(("cpu", "no-gpu", "no-cuda"), ("--device cpu",)),
    **dict.fromkeys(("jobs", "j", "workers", "num-workers", "n-jobs"), ("--engine processes:N", "--threads")),
    **dict.fromkeys(("cores", "cpus"), ("--threads",)),
    **dict.fromkeys(("batch", "bs", "b"), ("--batch-size",)),
    **dict.fromkeys(("suite", "configuration", "settings", "c"), ("--config",)),
    **dict.fromkeys(("cache", "cache-dir", "artefacts", "artifacts"), ("--store",)),
    **dict.fromkeys(("lpips", "alexnet"), ("--lpips-trunk",)),
    **dict.fromkeys(("plan", "dry"), ("--dry-run",)),
    **dict.fromkeys(("markdown",), ("--md",)),
    **dict.fromkeys(("tex",), ("--latex",)),
    **dict.fromkeys(("format", "as-json"), ("--json", "--csv")),
    **dict.fromkeys(("silent", "no-progress", "s"), ("--quiet",)),
    **dict.fromkeys(("debug", "log", "log-level", "verbosity", "trace"), ("--verbose",)),
    **dict.fromkeys(("ci", "wide", "all", "full", "long"), ("--intervals", "--columns")),
}
"""What people call an option, without dashes → what to write here; the first that the command has counts."""


def meant(given: str, command: click.Command) -> str:
    """Return the option of a command that an unknown one stands for: by its meaning, else by its spelling.

    >>> device, threads = click.Option(["--device"]), click.Option(["--threads"])
    >>> command = click.Command("run", params=[device, threads])
    >>> meant("--gpu", command), meant("--workers", command), meant("--thread", command), meant("--attack", command)
    ('--device cuda', '--threads', '--threads', '')

    Args:
        given: as it was typed, e.g. ``--limit`` or ``-n``.
        command: whose options were asked for.
    """
    import difflib

    options = [name for param in command.params for name in param.opts if name.startswith("--")]
    word = given.lstrip("-").replace("_", "-").lower()
    for wanted in MEANT.get(word, ()):
        if wanted.partition(" ")[0] in options:
            return wanted
    # Without the dashes, which would make any two options alike.
    near = difflib.get_close_matches(word, [name[2:] for name in options], n=1)
    return f"--{near[0]}" if near else ""


# -- types that complete themselves --------------------------------------------------------------------------


if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:
    _Text = click.ParamType  # not generic before click 8.4


class PluginName(_Text):
    """The name of a plugin, perhaps with parameters, or ``./file.py:Class``; completed from the registry.

    Args:
        kinds: kinds of plugins, as in `bench.plugins.registry.EVERY`.
        or_kind: whether the name of a kind will do too.
    """

    name = "text"

    def __init__(self, *kinds: str, or_kind: bool = False) -> None:
        self.kinds = kinds
        self.or_kind = or_kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; the registry judges it."""
        del param, ctx
        return str(value)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Split at blanks as a shell does: ``jpeg 'jpeg + median'`` are two."""
        return shlex.split(rv)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """Return the kinds and registered names that begin so; imports no plugin."""
        del ctx, param
        from click.shell_completion import CompletionItem

        from bench.plugins import registry

        if incomplete.startswith((".", "/", "~")):
            return [CompletionItem(incomplete, type="file")]
        found = {name: entry for kind in self.kinds for name, entry in registry.EVERY[kind].entries().items()}
        helps = dict.fromkeys(registry.EVERY) if self.or_kind else {}
        helps |= {name: found[name].summary() for name in sorted(found)}
        return [
            CompletionItem(name, help=text) for name, text in helps.items() if name.startswith(incomplete)
        ]


class RunPath(click.Path):
    """The folder of a finished run; completed with folders that are one."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """Return runs at the path begun or one folder deeper; any folder where there is none."""
        del ctx, param
        from click.shell_completion import CompletionItem

        begun = Path(incomplete)
        whole = incomplete.endswith("/") or not incomplete
        parent, stem = (begun, "") if whole else (begun.parent, begun.name)
        folders = [path for path in _folders(parent) if path.name.startswith(stem)]
        runs = [run for path in folders for run in (path, *_folders(path)) if (run / "spec.json").is_file()]
        return [CompletionItem(str(run)) for run in runs] or [CompletionItem(incomplete, type="dir")]


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except OSError:
        return []


# -- equipping a command -------------------------------------------------------------------------------------

_KINDS: Mapping[str, str] = {
    "attack": "attacks",
    "attacks": "attacks",
    "defense": "defenses",
    "defenses": "defenses",
    "backbone": "backbones",
    "backbones": "backbones",
    "dataset": "datasets",
    "protocol": "protocols",
    "trainer": "trainers",
}
"""Parameters called so take the name of a plugin."""


@functools.cache
def equip(command: click.Command, *path: str) -> click.Command:
    """Give a command, and those below it, what every command has; returns the same object.

    Args:
        command: as its module defines it.
        path: its name, after those of the groups it is in.
    """
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            equip(below, *path, name)
        return command
    if any(isinstance(param, click.Argument) and param.required for param in command.params):
        command.no_args_is_help = True  # called bare, it is asked what it does
    if not any(param.name == "quiet" for param in command.params):
        command.params.append(quiet_option())
    command.params.append(verbose_option())
    for param in command.params:
        if param.name == "quiet":
            param.callback = _note_quiet
        _complete_by_name(param)
        if isinstance(param, click.Option) and long_name(param):
            # The variable of this command is closer than one for all commands, as CLOAKBENCH_LPIPS_TRUNK.
            own = [param.envvar] if isinstance(param.envvar, str) else param.envvar or ()
            param.envvar = [*variables_of(param, path), *own]
    return command


def _complete_by_name(param: click.Parameter) -> None:
    if param.type is click.STRING and param.name in _KINDS:
        param.type = PluginName(_KINDS[param.name])
    if (
        isinstance(param, click.Argument)
        and param.name in {"run", "runs"}
        and isinstance(param.type, click.Path)
    ):
        param.type = RunPath()


def long_name(option: click.Option) -> str:
    """Return an option's long name without its dashes, e.g. ``batch-size``; "" where it has none."""
    names = [name[2:] for name in option.opts if name.startswith("--")]
    return names[0] if names else ""


OWN = frozenset({"as_json", "quiet", "verbose"})
"""Parameters that say how to answer, not what is requested; no other command's setting counts for them."""


_JOINTS = str.maketrans("- ", "__")


def variables_of(option: click.Option, path: Sequence[str]) -> list[str]:
    """Return an option's environment variables, e.g. ``CLOAKBENCH_RUN_BATCH_SIZE``, the nearest first.

    By the command's name, its former ones, and that of the command whose settings it takes.
    """
    names = [tuple(path), *((old,) for old, words in FORMER.items() if words == tuple(path))]
    if path[0] in LEANS_ON and option.name not in OWN:
        names.append((LEANS_ON[path[0]], *path[1:]))
    return ["_".join((PREFIX, *name, long_name(option))).translate(_JOINTS).upper() for name in names]
