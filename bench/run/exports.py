"""Finished runs given away: what an export holds, and how it is written and taken in.

An export is objects in a place (`bench.run.places`): artefacts as in a store, the run's folder below ``runs``, and
last, so that it is there exactly when all else is, an index below ``exports`` with digest and size of everything. What
lies at a place already is not copied again; what is taken in is held against the index first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from bench.contracts import Frozen
from bench.errors import DataError, UsageError
from bench.files import write_atomically
from bench.run.digest import digest
from bench.run.folder import FILES, FOLDERS, MANIFEST, ManifestEntry, RunFolder
from bench.run.graph import STAGES
from bench.run.places import Place, entry_of
from bench.run.spec import BENCHMARK_VERSION
from bench.run.store import Record, Store

INDICES, RUNS = "exports", "runs"
"""Folders of a place: one index a run, and one folder a run."""

Artefact = tuple[str, str]
"""Stage and address."""

Advance = Callable[[int], None]

T = TypeVar("T")
R = TypeVar("R")

_HEX = re.compile(r"[0-9a-f]{8,64}")
_ADDRESS = re.compile(r"[0-9a-f]{64}")
_RECORD = TypeAdapter(Record)
_SHOWN = 5


class Index(Frozen):
    """What an export of one run holds.

    Attributes:
        run: digest of the run's specification.
        benchmark_version: that made the run.
        artefacts: ``STAGE/ADDRESS`` → digest and size of the payload; a record is held against its own address.
        files: of the run's folder → digest and size.
    """

    run: str
    benchmark_version: str = BENCHMARK_VERSION
    artefacts: Annotated[dict[str, ManifestEntry], Field(default_factory=dict)]
    files: Annotated[dict[str, ManifestEntry], Field(default_factory=dict)]

    def written(self) -> bytes:
        """Return it as it is written, with its own digest."""
        content = self.model_dump(mode="json")
        return json.dumps({"sha256": digest(content), "index": content}, indent=1, sort_keys=True).encode()

    @classmethod
    def read(cls, payload: bytes, where: str) -> Index:
        """Return what was written.

        Raises:
            DataError: it is damaged, or names what an export does not have.
        """
        try:
            found = json.loads(payload)
            if digest(found["index"]) != found["sha256"]:
                raise DataError(f"{where} is damaged: its content has another digest.")
            index = cls.model_validate(found["index"])
        except (ValidationError, ValueError, KeyError, TypeError):
            raise DataError(f"{where} is damaged, or no index of an export.") from None
        if not _HEX.fullmatch(index.run):
            raise DataError(f"{where} names a run '{index.run}', which is none.")
        for name in index.artefacts:
            stage, _, address = name.partition("/")
            if stage not in STAGES or not _ADDRESS.fullmatch(address):
                raise DataError(f"{where} names an artefact '{name}', which is none.")
        if foreign := [name for name in index.files if not _is_of_run(name)]:
            raise DataError(f"{where} names a file '{foreign[0]}', which no run has.")
        return index


def _is_of_run(name: str) -> bool:
    """Whether a run's folder has such a file; a name from elsewhere must not lead out of it."""
    if name in {*FILES, MANIFEST}:
        return True
    path = PurePosixPath(name)
    plain = path.as_posix() == name and "\\" not in name and ".." not in path.parts
    return plain and len(path.parts) > 1 and path.parts[0] in FOLDERS


def _object_names(stage: str, address: str) -> tuple[str, str]:
    """Return the names of an artefact's payload and record, as a store has them."""
    base = f"{stage}/{address[:2]}/{address}"
    return f"{base}.bin", f"{base}.json"


def _index_name(run: str) -> str:
    return f"{INDICES}/{run}.json"


# -- giving away ---------------------------------------------------------------------------------------


def steps(folder: RunFolder, artefacts: Sequence[Artefact]) -> int:
    """Return how often the export of a run tells that it is further.

    Raises:
        DataError: the run is not finished.
    """
    return len(artefacts) + len(folder.manifest()) + 1


def export(
    store: Store,
    folder: RunFolder,
    artefacts: Sequence[Artefact],
    place: Place,
    advance: Advance = lambda _n: None,
) -> list[Artefact]:
    """Write a finished run and what it is made from to a place.

    Args:
        store: with the artefacts; each is checked as it is read.
        folder: of the run; each file is checked as it is read.
        artefacts: that the run is made from.
        place: what it holds already is not written again.
        advance: called with the number of artefacts and files done.

    Returns:
        The artefacts that are not in the store; where there are any, all others are written, and no index.

    Raises:
        DataError: the run is not finished, or a file is not what it wrote.
        StoreError: the store cannot be read, or the place not written.
    """
    run, files = folder.facts().run, folder.manifest()
    files[MANIFEST] = entry_of((folder.path / MANIFEST).read_bytes())
    place.look([*STAGES, f"{RUNS}/{run}", INDICES])
    before = _index_before(place, run)
    found = _each(place.at_once, artefacts, lambda one: _give(store, one, place), advance)
    listed = {"/".join(one): entry for one, entry in found if entry is not None}
    if absent := [one for one, entry in found if entry is None]:
        return absent

    def give_file(name: str) -> None:
        there = f"{RUNS}/{run}/{name}"
        if before.get(name) != files[name] or not place.has(there, files[name]):
            place.write(
                there, folder.content(name) if name != MANIFEST else (folder.path / name).read_bytes()
            )

    _each(place.at_once, list(files), give_file, advance)
    version = folder.facts().benchmark_version
    index = Index(run=run, benchmark_version=version, artefacts=listed, files=files)
    place.write(_index_name(run), index.written())
    return []


def _give(store: Store, artefact: Artefact, place: Place) -> ManifestEntry | None:
    """Write one artefact where it is not yet; returns its payload's digest and size, None where the store has none."""
    record, path = store.record(*artefact), store.paths(*artefact)[1]
    if record is None:
        return None
    entry, described = ManifestEntry(sha256=record.sha256, size=record.size), path.read_bytes()
    of_payload, of_record = _object_names(*artefact)
    if not place.has(of_payload, entry):
        payload = store.read(*artefact)
        if payload is None:
            return None
        place.write(of_payload, payload)
    if not place.has(of_record, entry_of(described)):
        place.write(of_record, described)
    return entry


def _index_before(place: Place, run: str) -> Mapping[str, ManifestEntry]:
    """Return the files that an earlier export of a run wrote."""
    try:
        return Index.read(place.read(_index_name(run)), str(place)).files
    except DataError:
        return {}


def _each(at_once: int, items: Sequence[T], do: Callable[[T], R], advance: Advance) -> list[tuple[T, R]]:
    """Do something with each of many things, so many at once; the first error ends it, once what is in work is done."""
    if at_once == 1:
        return [(item, _then(do(item), advance)) for item in items]
    with ThreadPoolExecutor(at_once) as pool:
        futures: dict[Future[R], T] = {pool.submit(do, item): item for item in items}
        try:
            for future in as_completed(futures):
                _then(future.result(), advance)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [(item, future.result()) for future, item in futures.items()]


def _then(result: R, advance: Advance) -> R:
    advance(1)
    return result


# -- taking in -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """A run that was taken in.

    Attributes:
        run: its digest.
        folder: where its files are.
        artefacts: how many it is made from.
        copied: how many of these were not in the store.
        kept: whether its folder was there already, with other files, and was left as it is.
        faults: what is missing at the place or not what was exported, a sentence each; none where all is well.
    """

    run: str
    folder: Path
    artefacts: int
    copied: int
    kept: bool
    faults: tuple[str, ...]


def indices(place: Place, runs: Iterable[str] = ()) -> list[Index]:
    """Return what is exported at a place.

    Args:
        place: to look at.
        runs: how the digests of those that are wanted begin; empty for all.

    Raises:
        UsageError: nothing, or none of a run that is wanted.
        DataError: an index is damaged.
        StoreError: the place cannot be read.
    """
    found = {PurePosixPath(name).stem: name for name in place.names(INDICES) if name.endswith(".json")}
    if not found:
        raise UsageError(
            f"there is no finished export at {place}: no {INDICES}/RUN.json, which `bench store export` writes last. "
            "Check the address, or finish the export by the same command again."
        )
    wanted = tuple(runs) or ("",)
    chosen = dict.fromkeys(name for run in wanted for name in _beginning(run, found, place))
    return [Index.read(place.read(name), f"{place}: {name}") for name in chosen]


def _beginning(run: str, found: Mapping[str, str], place: Place) -> list[str]:
    names = [name for key, name in sorted(found.items()) if key.startswith(run)]
    if not names:
        raise UsageError(f"run '{run}' is not exported at {place}. There: {', '.join(sorted(found))}.")
    return names


def take(index: Index, place: Place, store: Store, folder: Path, advance: Advance = lambda _n: None) -> Taken:
    """Copy an exported run into a store and a folder, each object checked before it is written.

    Args:
        index: of the run.
        place: where it lies.
        store: for the artefacts; what it holds whole is not read again.
        folder: for the run's files.
        advance: called with the number of artefacts and files done.

    Raises:
        UsageError: the folder holds another run.
        StoreError: the place cannot be read, or store or folder not written.
    """
    RunFolder(folder).check_free_for(index.run)
    kept = _is_another(folder, index)
    missing = [name for name in index.artefacts if not _is_whole(name, store, advance)]
    faults = _each(place.at_once, missing, lambda name: _take(index, name, place, store), advance)
    copied = sum(not fault for _, fault in faults)
    if not kept:
        faults += _take_files(index, place, folder, advance)
    said = tuple(fault for _, fault in faults if fault)
    return Taken(index.run, folder, len(index.artefacts), copied, kept, said)


def _is_another(folder: Path, index: Index) -> bool:
    """Whether a finished run lies there that is not this very one, e.g. as it was computed here too."""
    path = folder / MANIFEST
    return path.is_file() and entry_of(path.read_bytes()) != index.files.get(MANIFEST)


def _is_whole(name: str, store: Store, advance: Advance) -> bool:
    stage, _, address = name.partition("/")
    whole = store.state(stage, address) == "whole"
    advance(whole)
    return whole


def _take(index: Index, name: str, place: Place, store: Store) -> str:
    """Take one artefact in; returns what is wrong with it, "" for nothing."""
    stage, _, address = name.partition("/")
    of_payload, of_record = _object_names(stage, address)
    try:
        payload = _checked(place, of_payload, index.artefacts[name])
        record = _record(place, of_record, address, index.artefacts[name])
    except DataError as fault:
        return str(fault)
    store.write(stage, address, payload, key=record.key, seconds=record.seconds, images=record.images)
    return ""


def _checked(place: Place, name: str, entry: ManifestEntry) -> bytes:
    """Return an object that is what was exported.

    Raises:
        DataError: it is not.
    """
    payload = place.read(name)
    if len(payload) != entry.size:
        raise DataError(f"{name} is {len(payload)} bytes long, and was {entry.size}")
    if entry_of(payload) != entry:
        raise DataError(f"{name} is not what was exported: it has another SHA-256")
    return payload


def _record(place: Place, name: str, address: str, entry: ManifestEntry) -> Record:
    payload = place.read(name)
    try:
        record = _RECORD.validate_json(payload)
    except ValidationError:
        raise DataError(f"{name} is damaged") from None
    if digest(record.key) != address or (record.sha256, record.size) != (entry.sha256, entry.size):
        raise DataError(f"{name} is damaged, or another artefact's")
    return record


def _take_files(index: Index, place: Place, folder: Path, advance: Advance) -> list[tuple[str, str]]:
    """Take a run's files in, those last by which it is known as finished; returns what is wrong with each."""
    last = [name for name in ("cells.json", MANIFEST) if name in index.files]
    others = [name for name in index.files if name not in last]

    def take_file(name: str) -> str:
        entry, path = index.files[name], folder / name
        try:
            if not (path.is_file() and entry_of(path.read_bytes()) == entry):
                write_atomically(path, _checked(place, f"{RUNS}/{index.run}/{name}", entry))
        except DataError as fault:
            return str(fault)
        return ""

    faults = _each(place.at_once, others, take_file, advance)
    for name in last:
        if not any(fault for _, fault in faults):
            faults.append((name, take_file(name)))
        advance(1)
    return faults


def check(taken: Iterable[Taken], place: Place) -> None:
    """Check that nothing was wrong with what was taken in.

    Raises:
        DataError: something was; names it.
    """
    faults = [fault for one in taken for fault in one.faults]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DataError(
            f"{len(faults)} objects at {place} are missing or damaged: {'; '.join(faults[:_SHOWN])}{more}. None of "
            "them was taken in, all others were. Remove them there, export the run again and give the same command."
        )
