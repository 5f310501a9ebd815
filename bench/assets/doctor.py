"""What is here, what is missing, and how to get it: the facts behind ``bench doctor``.

Each check looks and never fixes, and never raises: what goes wrong is its finding. Digests of large files are
left to ``bench data list``; here a file counts as there by its size.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.contracts import HealthCheck

if TYPE_CHECKING:
    from bench.contracts import AssetEntry, Binding

OLDEST_PYTHON = (3, 11)

EMBEDDED = "synthetic"
"""The dataset of the embedded default."""

LEAST_FREE = 1 << 30
"""Bytes that should be free where the store is; a run of LFW writes about that much."""

WALK_S = 1.0
"""Seconds after which the store is no longer counted."""

EXTRAS = {
    "face detector": ("facenet_pytorch", "detector", "photos without landmarks"),
    "HEIC photos": ("pi_heif", "heic", "phones' photos in `bench cloak`, `purify`, `inspect`"),
}
"""What an optional part is → its module, the extra that brings it, what it serves."""


class Finding(HealthCheck):
    """The outcome of one check.

    Attributes are documented by their fields, as `bench doctor --json` prints them.
    """

    area: str = Field(description="what it belongs to, e.g. data")


def examine() -> tuple[Finding, ...]:
    """Return the findings of every check, in the order in which they are read."""
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("machine", _python),
        ("machine", _torch),
        ("machine", _devices),
        ("plugins", _plugins),
        ("default", _embedded_default),
        ("methods", _methods),
        ("data", _data),
        ("weights", _weights),
        ("extras", _lpips),
        ("extras", _extras),
        ("store", _store),
    )
    return tuple(finding for area, check in checks for finding in _guarded(area, check))


def can_run(findings: Iterable[Finding]) -> bool:
    """Say whether the embedded default can run here."""
    return all(finding.state == "ok" for finding in findings if finding.needed)


def _guarded(area: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return list(check())
    except Exception as error:  # whatever is wrong with the installation is a finding
        detail = f"{type(error).__name__}: {error}"
        return [
            Finding(
                area=area,
                name=name,
                state="broken",
                detail=detail,
                needed=area in {"machine", "default", "methods", "store"},
            )
        ]


# -- the machine ---------------------------------------------------------------------------------------------


def _python() -> Iterator[Finding]:
    fits = sys.version_info >= OLDEST_PYTHON
    wanted = ".".join(map(str, OLDEST_PYTHON))
    yield Finding(
        area="machine",
        name="Python",
        state="ok" if fits else "broken",
        detail=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        fix="" if fits else f"Install Python {wanted} or newer.",
        needed=True,
    )


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding(area="machine", name="torch", state="ok", detail=torch.__version__, needed=True)
    fix = "pip install --force-reinstall -c constraints.txt torch torchvision"
    try:
        yield Finding(area="machine", name="torchvision", state="ok", detail=_torchvision())
    except Exception as error:  # a mismatched pair fails in several ways
        yield Finding(area="machine", name="torchvision", state="broken", detail=str(error), fix=fix)


def _torchvision() -> str:
    """Return its version, once its compiled operators work with this torch; it is not imported, which takes seconds.

    Raises:
        RuntimeError: it is not there, or is not the one made for this torch.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise RuntimeError("torchvision is not installed")
    version = metadata.version("torchvision")
    made_for = [need for need in metadata.requires("torchvision") or () if need.startswith("torch==")]
    here = torch.__version__.partition("+")[0]
    if made_for and made_for[0].removeprefix("torch==") != here:
        raise RuntimeError(f"torchvision {version} is made for {made_for[0]}, not {here}")
    for library in Path(spec.origin).parent.glob("_C*.so"):
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        kept = torch.ops.torchvision.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
        if kept.tolist() != [0]:
            raise RuntimeError(f"an operator of torchvision {version} gives {kept.tolist()} for [0]")
    return f"{version}, its operators work with this torch"


def _devices() -> Iterator[Finding]:
    import torch

    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    detail = ", ".join(gpus) or "none that torch sees; everything runs on the CPU, slower"
    fix = "" if gpus else "With a GPU: install its driver and a torch built for CUDA."
    yield Finding(area="machine", name="GPU", state="ok" if gpus else "missing", detail=detail, fix=fix)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = f"{cores} cores may be used" + (f"; OMP_NUM_THREADS={limit}" if limit else "")
    yield Finding(area="machine", name="threads", state="ok", detail=told)


# -- plugins and the default ---------------------------------------------------------------------------------


def _plugins() -> Iterator[Finding]:
    from bench.plugins import registry

    for kind, known in registry.EVERY.items():
        failed = []
        for name, entry in known.entries().items():
            try:
                known.load(name)
            except Exception as error:  # a package of others may fail in any way
                failed.append(
                    Finding(
                        area="plugins",
                        name=name,
                        state="broken",
                        detail=str(error),
                        fix=f"Repair, upgrade or uninstall {entry.distribution}.",
                        needed=entry.distribution == "cloakbench",
                    )
                )
        count = len(known.entries()) - len(failed)
        yield Finding(area="plugins", name=kind, state="ok", detail=f"{count} can be imported")
        yield from failed


def _embedded_default() -> Iterator[Finding]:
    import torch

    from bench.plugins import factory

    binding = _default_binding()
    dataset, name = factory.dataset(EMBEDDED), binding.tracker
    backbone = factory.backbone(name)
    backbone.load(torch.device("cpu"))
    first = dataset.crops(dataset.identities()[0].photos[:1])
    length = backbone.embed_batch(first.float() / 255).shape[1]
    yield Finding(
        area="default",
        name="faces and tracker",
        state="ok",
        detail=f"a face of {dataset.name} gives {length} numbers by {name}",
        needed=True,
    )


def _methods() -> Iterator[Finding]:
    """Ask each attack and defence what it needs of the installation."""
    from bench.plugins import factory, registry

    binding = _default_binding()
    for known in (registry.ATTACKS, registry.DEFENSES):
        for name in known.entries():
            for found in factory.create(known.kind, name).health_checks(binding):
                yield Finding(area="methods", **found.model_dump())


def _default_binding() -> Binding:
    """Return the binding of a method in a cell of the embedded default."""
    from bench.contracts import Binding
    from bench.plugins import factory, registry

    dataset = factory.dataset(EMBEDDED)
    pool = registry.POOLS.load(dataset.default_pool)
    tracker = pool.groups[0][0]
    return Binding(dataset.name, dataset.domain, pool.helpers(tracker), tracker)


# -- data, weights, extras -----------------------------------------------------------------------------------


def _data() -> Iterator[Finding]:
    from bench.assets import catalogue
    from bench.data import files as data_files
    from bench.data import folders

    folder = data_files.data_folder()
    there = folder.is_dir()
    yield Finding(
        area="data",
        name="data folder",
        state="ok" if there else "missing",
        detail=f"{folder} ({_where(data_files.VARIABLE)})",
        fix="" if there else f"`bench fetch NAME` makes it; or point {data_files.VARIABLE} to one.",
    )
    for entry in catalogue.catalogue("dataset"):
        yield _files_of("data", entry)
    for name, path in folders.registered().items():
        here = path.is_dir()
        fix = "" if here else f"Add it again: bench data add {name} FOLDER."
        yield Finding(
            area="data", name=name, state="ok" if here else "missing", detail=f"folder {path}", fix=fix
        )


def _weights() -> Iterator[Finding]:
    from bench.assets import catalogue

    own = {entry.name for entry in catalogue.OWN}  # looked at in other places too: `_lpips`
    for entry in catalogue.catalogue("weights"):
        if entry.name not in own:
            yield _files_of("weights", entry)


def _where(variable: str) -> str:
    return variable if os.environ.get(variable) else f"{variable} is not set"


def _files_of(area: str, entry: AssetEntry) -> Finding:
    """Judge a catalogue entry by the presence and size of its files."""
    from bench.assets import catalogue
    from bench.data.files import data_folder

    absent, wrong = [], []
    for file in entry.files:
        path = data_folder() / file.path
        if not path.is_file():
            absent.append(file.path)
        elif file.bytes and path.stat().st_size != file.bytes:
            wrong.append(f"{file.path} has {path.stat().st_size} bytes, not {file.bytes}")
    state: Literal["ok", "missing", "broken"] = "broken" if wrong else "missing" if absent else "ok"
    detail = "; ".join(wrong) or (
        f"{len(absent)} of {len(entry.files)} files are missing" if absent else "here"
    )
    public = all(map(catalogue.is_public, entry.files))
    fix = "" if state == "ok" else f"`bench fetch {entry.name}`" if public else _by_hand(entry)
    return Finding(area=area, name=entry.name, state=state, detail=detail, fix=fix)


def _by_hand(entry: AssetEntry) -> str:
    """Return how to get what no address is known for, with the command and the places in full."""
    from bench.data.files import data_folder

    places = [str(data_folder() / file.path) for file in entry.files]
    how = entry.how.replace("--from URL_OR_FOLDER", f"`bench fetch {entry.name} --from URL_OR_FOLDER`")
    if len(places) == 1 and "put it there" in how:
        return how.replace("put it there", f"put it at {places[0]}")
    is_or_are = "place is" if len(places) == 1 else "places are"
    return f"{how} The {is_or_are} {', '.join(places)}."


def _lpips() -> Iterator[Finding]:
    from bench.errors import DataError
    from bench.quality import lpips as lpips_distance

    fix = (
        f"{lpips_distance.FETCH}, or give {lpips_distance.TRUNK_FILE} of torchvision by {lpips_distance.VARIABLE}; "
        "without it LPIPS is NA."
    )
    try:
        found = lpips_distance.lpips_files()
    except DataError as error:
        yield Finding(area="extras", name="LPIPS trunk", state="broken", detail=str(error), fix=fix)
        return
    if isinstance(found, lpips_distance.Unavailable):
        detail = "AlexNet's weights are in no place that is looked at"
        yield Finding(area="extras", name="LPIPS trunk", state="missing", detail=detail, fix=fix)
    else:
        yield Finding(area="extras", name="LPIPS trunk", state="ok", detail=str(found[0]))


def _extras() -> Iterator[Finding]:
    for name, (module, extra, serves) in EXTRAS.items():
        yield Finding(area="extras", **HealthCheck.of_extra(name, module, extra, serves).model_dump())
    chromium = shutil.which("chromium")
    yield Finding(
        area="extras",
        name="Chromium",
        state="ok" if chromium else "missing",
        detail=f"{chromium or 'not on the path'}; only tests of the report need it",
        fix="" if chromium else "Install the system's package chromium.",
    )


# -- the store -----------------------------------------------------------------------------------------------


def _store() -> Iterator[Finding]:
    from bench.run import store

    folder = store.default_folder()
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable = place.is_dir() and os.access(place, os.W_OK)
    fix = f"Choose another folder with --store or {store.VARIABLE}."
    yield Finding(
        area="store",
        name="folder",
        state="ok" if writable else "broken",
        detail=f"{folder} ({_where(store.VARIABLE)})" + ("" if writable else f": {place} cannot be written"),
        fix="" if writable else fix,
        needed=True,
    )
    free = shutil.disk_usage(place).free
    enough = free >= LEAST_FREE
    yield Finding(
        area="store",
        name="disk",
        state="ok" if enough else "broken",
        detail=f"{free / 1e9:.1f} GB free",
        fix="" if enough else f"Free some space; a run on LFW writes about 1 GB. {fix}",
    )
    yield _contents(folder)


def _contents(folder: Path) -> Finding:
    """Count what the store holds, for at most `WALK_S` seconds, and what is left over of runs that were killed."""
    artefacts = size = leftover = corrupt = 0
    until, more = time.monotonic() + WALK_S, ""
    for path, bytes_ in _walk(folder):
        size += bytes_
        artefacts += path.endswith(".json")
        leftover += path.endswith(".tmp")
        corrupt += path.endswith(".corrupt")
        if time.monotonic() > until:
            more = "more than "
            break
    detail = f"{more}{artefacts} artefacts, {more}{size / 1e9:.2f} GB"
    if leftover:
        detail += f", {leftover} unfinished files of killed runs (the next run removes old ones)"
    if not corrupt:
        return Finding(area="store", name="contents", state="ok", detail=detail)
    detail += f", {corrupt} artefacts that changed on disk and were set aside"
    fix = "Check the disk; then delete the files that end in .corrupt. They are computed again when needed."
    return Finding(area="store", name="contents", state="broken", detail=detail, fix=fix)


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 -- pathlib takes three times as long here
            try:
                yield path, os.stat(path).st_size  # noqa: PTH116 -- likewise
            except OSError:
                continue
