"""A run that was made before and has nothing left to compute, found out without torch, whose import takes seconds.

A run made with torch leaves a note in the user's cache folder: the digest of its artefacts' addresses and of the files
it wrote. The same request is then planned under stand-ins for torch (`bench.plugins.without_torch`), by the same code:
parameters, code, weights, photos, versions and threads are looked at anew. Where that gives the noted addresses, the
store has their artefacts, and the run's folder holds what was written, nothing is left to compute. Wherever anything
differs, fails or asks torch, the run goes the way with torch. A note never stands for a plan; it only confirms one.

What a plan asks torch itself, the CPU's kernels and its folder of downloads, is noted too, for the same files of torch
and of this harness, the same processor and the same environment variables alone.
"""

from __future__ import annotations

import importlib.util
import logging
import logging.handlers
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plugins import without_torch
from bench.run.digest import REPORTED_PACKAGES, digest, package_versions
from bench.run.remembered import keep, recall

if TYPE_CHECKING:
    from bench.quality.lpips import Lpips, Unavailable
    from bench.run.folder import CellResult, ManifestEntry
    from bench.run.planning import Prepared
    from bench.run.spec import RunSpec

log = logging.getLogger("bench")

Note = Mapping[str, Any]
"""``kernels`` and ``downloads``: what torch says; ``addresses`` and ``files``: digests of what the run is made of."""

_OF_SESSIONS = frozenset(
    {
        *(
            "_",
            "COLUMNS",
            "COLORTERM",
            "DBUS_SESSION_BUS_ADDRESS",
            "DISPLAY",
            "FORCE_COLOR",
            "LINES",
            "LS_COLORS",
        ),
        *("NO_COLOR", "OLDPWD", "PWD", "SHLVL", "STY", "TERM", "TMUX", "TMUX_PANE", "WINDOWID"),
        *("SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "XDG_SESSION_ID"),
    }
)
"""Environment variables that tell of a terminal or a login and of nothing that computes; all others count."""

_OF_PROCESSORS = frozenset(
    {
        *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
        *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
        *("uarch", "isa", "cpu", "features"),
    }
)
"""Lines of ``/proc/cpuinfo`` that say what a processor is, on x86, Arm, RISC-V and others."""

_OF_GPUS = ("nvidia*", "dxg", "kfd")
"""Devices by which GPUs are there, in ``/dev``."""

_OF_PLANS = ("torch", "bench.plugins.factory")
"""Modules that a process which has planned before has imported; what they remember must not see a stand-in."""

_NOT_OF_ADDRESSES = frozenset({"leaderboard.csv", "run.log", "spec.json", "timings.csv"})
"""Files of a run's folder that are made anew, tell of one execution, or are compared with the plan itself."""


class Again:
    """A request that may have been made before.

    Args:
        spec: the matrix.
        given: arguments of `bench.run.planning.Options`, which are not made here as its module imports torch.
    """

    def __init__(self, spec: RunSpec, given: Mapping[str, Any]) -> None:
        self._spec, self._given = spec, given
        # Now, before anything is imported that sets environment variables.
        self._of = _what_a_note_holds_for(spec, given)

    @contextmanager
    def planned(self, *, in_folder: bool) -> Iterator[Prepared | None]:
        """Give the run without torch where nothing of it is left to compute, else None.

        Of what it gives, data may be read; nothing can be computed with it.

        Args:
            in_folder: whether the run's folder must hold it, not only the store.
        """
        begun = any(name in sys.modules for name in _OF_PLANS)
        note = None if self._of is None or begun else recall(self._of)
        if note is None:
            yield None
            return
        with without_torch.stand_ins(_answers(note)) as standing:
            found = self._found(note, in_folder=in_folder)
            if found is not None:
                standing.go()
                yield found
                return
        yield None

    def _found(self, note: Note, *, in_folder: bool) -> Prepared | None:
        try:
            with _logged_once() as logged:
                prepared = self._prepared()
                if addresses(prepared) != note["addresses"] or prepared.missing:
                    return None
                if in_folder and not (_is_whole(prepared) and _is_written(prepared, note["files"])):
                    return None
        except (Exception, SystemExit) as error:  # whatever it is, the way with torch tells
            log.debug("planning with torch, as planning without it failed", exc_info=error)
            return None
        for record in logged:
            log.handle(record)
        return prepared

    def _prepared(self) -> Prepared:
        from bench.run import planning
        from bench.run.device import Machine, use_device

        options = planning.Options(**self._given)
        device, threads = use_device(options.device, options.threads)
        lpips = _described_lpips(options.lpips_trunk)
        machine = Machine(device, threads, options.batch_size, lpips, options.limits, options.precision)
        return planning.prepare(self._spec, options, machine)

    def note(self, prepared: Prepared, results: Iterable[CellResult]) -> None:
        """Note a run that was made with torch, where all of it is there and a note may stand for it.

        Args:
            prepared: the run.
            results: what became of each cell.
        """
        complete = all(result.status == "ok" for result in results)
        if self._of is None or not complete or prepared.machine.device.type != "cpu":
            return
        import torch

        keep(
            self._of,
            {
                "kernels": torch.backends.cpu.get_cpu_capability(),
                "downloads": torch.hub.get_dir(),
                "addresses": addresses(prepared),
                "files": _files_digest(prepared.folder.manifest()),
            },
        )


def addresses(prepared: Prepared) -> str:
    """Return the digest of the addresses of all artefacts that a run's cells need."""
    return digest(sorted({f"{node.stage}/{node.address}" for node in prepared.targets}))


# -- what a note holds for -----------------------------------------------------------------------------------------


def _what_a_note_holds_for(spec: RunSpec, given: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return all that decides what is noted, besides what a plan looks at itself; None where no note may be taken."""
    torch, processor = _torch(), _processor()
    elsewhere = given["engine"] is not None or not _is_on_cpu(given["device"])
    if torch is None or processor is None or elsewhere:
        return None
    asked = {name: str(given[name]) for name in ("device", "threads", "precision", "store", "lpips_trunk")}
    environment = {name: value for name, value in os.environ.items() if name not in _OF_SESSIONS}
    return (
        "a run made before",
        spec.model_dump_json(),
        digest(asked),
        str(Path.cwd()),
        digest(environment),
        digest(package_versions(REPORTED_PACKAGES)),
        f"{sys.version} {sys.executable} {platform.system()} {platform.machine()} {os.cpu_count()}",
        _harness(),
        torch,
        processor,
    )


def _is_on_cpu(device: str) -> bool:
    """Return whether a run computes on the CPU, as far as that can be known without torch."""
    if device == "auto":
        return not any(found for name in _OF_GPUS for found in Path("/dev").glob(name))
    return device == "cpu"


def _torch() -> str | None:
    """Return the digest of which torch would be imported; None where that cannot be told."""
    try:
        distribution = metadata.distribution("torch")
        spec = importlib.util.find_spec("torch")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    folder, listed = Path(str(distribution.locate_file("torch"))), distribution.read_text("RECORD")
    if not listed or spec is None or spec.origin is None or Path(spec.origin).parent != folder:
        return None
    return digest([listed, *_states([*folder.glob("*.py"), *(folder / "lib").glob("*")])])


def _processor() -> str | None:
    """Return the digest of what processors this machine has; None where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = {line for line in text.splitlines() if line.partition(":")[0].strip() in _OF_PROCESSORS}
    return digest(sorted(lines)) if lines else None


def _harness() -> str:
    """Return the digest of the state of the harness' own files: what it writes into folders is not part of keys."""
    return digest(_states(Path(__file__).parents[1].rglob("*.py")))


def _states(files: Iterable[Path]) -> list[str]:
    found = ((file, file.stat()) for file in files)
    return sorted(f"{file} {state.st_size} {state.st_mtime_ns}" for file, state in found)


# -- under stand-ins -----------------------------------------------------------------------------------------------


class _Cpu:
    """Stands for ``torch.device("cpu")``.

    Attributes:
        type: as torch has it.
        index: likewise.
    """

    type = "cpu"
    index = None

    def __init__(self, name: str) -> None:
        if name != "cpu":
            raise ValueError(f"a run without torch is on the CPU, not on {name}")

    def __str__(self) -> str:
        return self.type


def _answers(note: Note) -> without_torch.Answers:
    return {
        "torch.backends.cpu.get_cpu_capability": lambda: note["kernels"],
        "torch.cuda.is_available": lambda: False,
        "torch.device": _Cpu,
        "torch.hub.get_dir": lambda: note["downloads"],
    }


def _described_lpips(trunk: Path | None) -> Lpips | Unavailable:
    """Return LPIPS without its weights: what a plan needs of it, and nothing that could measure."""
    from bench.data.files import sha256_of
    from bench.quality.lpips import Lpips, Unavailable, lpips_files

    files = lpips_files(trunk)
    return files if isinstance(files, Unavailable) else Lpips({}, (), sha256_of(files[0]))


@contextmanager
def _logged_once() -> Iterator[list[logging.LogRecord]]:
    """Hold back what is logged: the way with torch logs it again."""
    held = logging.handlers.BufferingHandler(capacity=sys.maxsize)
    before, log.propagate = (log.handlers, log.propagate), False
    log.handlers = [held]
    try:
        yield held.buffer
    finally:
        log.handlers, log.propagate = before


# -- what is there -------------------------------------------------------------------------------------------------


def _is_whole(prepared: Prepared) -> bool:
    """Return whether the artefacts that cells need are there as they were written."""
    once = {node.address: node for node in prepared.targets}.values()
    return all(prepared.store.state(node.stage, node.address) == "whole" for node in once)


def _is_written(prepared: Prepared, files: str) -> bool:
    """Return whether the run's folder holds the files of a digest, and what is requested now.

    Raises:
        BenchError: the folder is not a finished run's, or damaged.
    """
    from bench.run.folder import FILES, as_json, split_json

    folder = prepared.folder
    listed, cells = folder.manifest(), folder.cells()
    needed = {*FILES, *(name for cell in cells for name in cell.files())} - {"leaderboard.csv"}
    there = folder.entries(needed)
    requested = prepared.facts.model_dump(mode="json")
    return (
        all(name in listed and there.get(name) == listed[name] for name in needed)
        and _files_digest(listed) == files
        and (folder.path / "spec.json").read_bytes() == as_json(requested)
        and (folder.path / "splits.json").read_bytes() == as_json(split_json(prepared.run.split))
        and [(cell.cell, cell.requested, cell.status, cell.threat) for cell in cells] == _expected(prepared)
    )


def _expected(prepared: Prepared) -> list[tuple[Any, ...]]:
    requested = prepared.run.cells_requested
    return [(cell, cell in requested, "ok", prepared.threats[cell]) for cell in prepared.run.cells]


def _files_digest(listed: Mapping[str, ManifestEntry]) -> str:
    kept = {name: entry.sha256 for name, entry in listed.items() if name not in _NOT_OF_ADDRESSES}
    return digest(kept)
