"""Looking after a store: what is damaged in it, and what can go.

What lives here: reading a whole store, repairing it, removing artefacts. What must not: how an artefact is written or
read (`bench.run.store`), which artefacts a run has (`bench.run.planning`), and copies of them (`bench.run.exports`).
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from bench.errors import UsageError
from bench.run.graph import STAGES
from bench.run.store import JOBS, WORKERS, MisplacedError, Store, read_record

State = Literal["whole", "damaged", "misplaced", "incomplete", "set aside", "temporary"]

MEANINGS: dict[State, str] = {
    "whole": "as it was written",
    "damaged": "payload or record is not what was written",
    "misplaced": "another artefact's, by its key",
    "incomplete": "a payload without its record, or the other way round; a killed run leaves such",
    "set aside": "found damaged before",
    "temporary": "a file that a killed run was writing",
}
"""What each state is."""

HARMFUL: tuple[State, ...] = ("damaged", "misplaced")
"""States that nothing but a fault of the disk, or somebody's hand, brings about."""

Advance = Callable[[int], None]

_PREFIX = re.compile(r"[0-9a-f]{2}")
_ARTEFACT = re.compile(r"[0-9a-f]{64}\.(bin|json|corrupt)")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""The folders and files that a store has."""

_DAY = 86_400
"""Seconds; a temporary file that is younger may be being written."""


@dataclass(frozen=True)
class Item:
    """An artefact, or what is left of one.

    Attributes:
        stage: the stage it is of.
        address: its digest; "" of a temporary file.
        state: one of `MEANINGS`.
        files: its files.
        size: their bytes.
        changed: when the newest of them was written, seconds since 1970.
    """

    stage: str
    address: str
    state: State
    files: tuple[Path, ...]
    size: int
    changed: float


def survey(store: Store, advance: Advance = lambda _n: None) -> Iterator[Item]:
    """Yield everything in a store, each payload read and held against its record.

    Args:
        store: it is only read.
        advance: called with the number of artefacts looked at.

    Raises:
        UsageError: the folder is no store.
    """
    for stage, files in _files_by_artefact(store):
        address = files[0].stem if not files[0].name.startswith(".") else ""
        yield _item(stage, address, files)
        advance(1)


def count(store: Store) -> int:
    """Return how many artefacts and remains a store has; reads no payload.

    Raises:
        UsageError: the folder is no store.
    """
    return sum(1 for _ in _files_by_artefact(store))


def _files_by_artefact(store: Store) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Yield stage and files of each artefact, sorted; a temporary file is alone. Files of others are not looked at."""
    if not store.folder.is_dir():
        raise UsageError(f"there is no store at {store.folder}. Give its folder with --store.")
    for stage in STAGES:
        together: dict[str, list[Path]] = {}
        for path in sorted((store.folder / stage).glob("*/*")):
            if _is_ours(path):
                together.setdefault(path.name if path.name.startswith(".") else path.stem, []).append(path)
        yield from ((stage, tuple(files)) for files in together.values())


def _is_ours(path: Path) -> bool:
    """Say whether a store writes such a file: a folder of photos has the name of a stage too."""
    named = _ARTEFACT.fullmatch(path.name)
    place = named is not None and path.name.startswith(path.parent.name)
    return (place or _TEMPORARY.fullmatch(path.name) is not None) and (
        _PREFIX.fullmatch(path.parent.name) is not None and path.is_file()
    )


def _item(stage: str, address: str, files: tuple[Path, ...]) -> Item:
    found = [path.stat() for path in files if path.exists()]
    size = sum(one.st_size for one in found)
    changed = max((one.st_mtime for one in found), default=0.0)
    return Item(stage, address, _state(address, files), files, size, changed)


def _state(address: str, files: tuple[Path, ...]) -> State:
    if not address:
        return "temporary"
    by_ending = {path.suffix: path for path in files}
    if ".json" not in by_ending or ".bin" not in by_ending:
        return "set aside" if ".corrupt" in by_ending else "incomplete"
    try:
        record = read_record(by_ending[".json"])
        payload = by_ending[".bin"].read_bytes()
    except MisplacedError:
        return "misplaced"
    except (OSError, ValueError, TypeError):
        return "damaged"
    return "whole" if sha256(payload).hexdigest() == record.sha256 else "damaged"


def states(items: Iterable[Item]) -> dict[State, int]:
    """Count items by state, in the order of `MEANINGS`."""
    counted = Counter(item.state for item in items)
    return {state: counted[state] for state in MEANINGS if counted[state]}


# -- repairing and removing ----------------------------------------------------------------------------


def repair(items: Iterable[Item]) -> list[Item]:
    """Remove what is not whole, so that the next run computes it again; returns what was removed.

    A temporary file that is younger than a day is left: a run may be writing it.
    """
    chosen = [item for item in items if item.state != "whole" and not _may_be_written(item)]
    remove(chosen)
    return chosen


def _may_be_written(item: Item) -> bool:
    return item.state == "temporary" and item.changed > time.time() - _DAY


def removable(items: Iterable[Item], needed: frozenset[str], older_than_s: float) -> list[Item]:
    """Return the artefacts that no run given needs and that are older than a time, and all that is not whole."""
    before = time.time() - older_than_s
    return [
        item
        for item in items
        if item.changed <= before
        and (item.state != "whole" or item.address not in needed)
        and not _may_be_written(item)
    ]


def remove(items: Iterable[Item]) -> None:
    """Remove items, each record before its payload: what is interrupted leaves no record without a payload."""
    for item in items:
        for path in sorted(item.files, key=lambda file: file.suffix != ".json"):
            path.unlink(missing_ok=True)


def left_by_engines(store: Store, older_than_s: float) -> list[Path]:
    """Return the folders that runs on several processes or a cluster left in a store, of runs that are gone.

    While a run is alive its store is in use (`Store.is_in_use`), and none of them is to be removed. Where that cannot
    be known, and for jobs that outlive their run, nothing goes in which something has changed within a day.

    Args:
        store: it is only read.
        older_than_s: what has changed within so many seconds stays as well.
    """
    before = time.time() - max(older_than_s, _DAY)
    found = (path for name in (JOBS, WORKERS) for path in sorted((store.folder / name).glob("*")))
    return [path for path in found if path.is_dir() and _last_change(path) <= before]


def _last_change(folder: Path) -> float:
    """Return when something in a folder last changed; now where it is changing as it is looked at."""
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:
        return time.time()


def remove_folders(folders: Iterable[Path]) -> None:
    """Remove folders that engines left, and the folder above where that is the last."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()
