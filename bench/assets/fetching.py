"""``bench fetch``: from publishers' files to the files of the data folder, each there whole or not at all.

A file is made beside its place and renamed into it once its digest is right. Publishers' files that were downloaded lie
in ``downloads/NAME`` of the data folder, where a download that was cut goes on later, until all files of the entry are
there. Two commands that want one entry take turns.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from bench.assets import catalogue, first_digests
from bench.assets.downloads import (
    FROM,
    FULL_DIGEST,
    DiskFullError,
    NotThereError,
    Patience,
    Progress,
    ResumingDownloader,
    UnreachableError,
    WrongBytesError,
    digest_of,
    require_space,
)
from bench.assets.mirrors import Mirror, finished_names, packaged
from bench.contracts import AssetEntry, AssetFile, Recipe, Source
from bench.data.files import VARIABLE, data_folder
from bench.errors import BenchError, DataError, UsageError

if TYPE_CHECKING:
    import requests

DOWNLOADS = "downloads"
"""Folder of the data folder where publishers' files lie until they have served."""


class Fetched(NamedTuple):
    """What became of an entry: the files written (none where all were here), and what the user should know of it."""

    entry: AssetEntry
    written: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


class Failure(NamedTuple):
    """What could not be fetched, and why."""

    name: str
    error: BenchError


@dataclass
class Fetcher:
    """Brings entries of the catalogue into the data folder.

    Attributes:
        mirror: where to look instead of at the publishers'; None for these.
        keep: whether downloaded sources stay once they have served.
        report: told of bytes as they arrive.
        say: told in a sentence of what takes time.
        patience: how long a download is tried.
    """

    mirror: Mirror | None = None
    keep: bool = False
    report: Progress = lambda _name, _done, _total: None
    say: Callable[[str], None] = lambda _sentence: None
    patience: Patience = field(default_factory=Patience)
    _dead: dict[str, UnreachableError] = field(default_factory=dict, repr=False)

    def fetch(self, entry: AssetEntry) -> Fetched:
        """Put the files of an entry into the data folder; those there and whole are left alone.

        Raises:
            UsageError: no way is known to one of the files (the others are fetched first).
            DataError: a source does not answer or gives other bytes, a file cannot be made of it, or the disk is full;
                no half file is left, and what was downloaded serves the next attempt.
        """
        found = catalogue.state_of(entry)
        if found.state == "present":
            return Fetched(entry)
        _Work(self, entry).require_way([state for state in found.files if state.state != "present"])
        with _disk(entry), self._turn(entry):
            work = _Work(self, entry)
            for state in catalogue.state_of(entry).files:
                if state.state != "present":
                    work.bring(state)
            work.finish()
        return Fetched(entry, tuple(work.written), tuple(dict.fromkeys(work.notes)))

    def fetch_all(self, entries: Iterable[AssetEntry]) -> tuple[list[Fetched], list[Failure]]:
        """Fetch one entry after the other; what fails does not keep the others from being fetched, a full disk does.

        Returns:
            what was fetched, and what was not.
        """
        fetched: list[Fetched] = []
        failures: list[Failure] = []
        for entry in entries:
            try:
                fetched.append(self.fetch(entry))
            except BenchError as error:
                failures.append(Failure(entry.name, error))
                if isinstance(error, DiskFullError):
                    break
        return fetched, failures

    @contextmanager
    def _turn(self, entry: AssetEntry) -> Iterator[None]:
        """Hold the entry's lock, which ends with the process, however that ends."""
        from filelock import FileLock, Timeout

        folder = data_folder() / DOWNLOADS
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{entry.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.say(f"Another command fetches {entry.name}; this one waits for it.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @cached_property
    def session(self) -> requests.Session:
        """The connections of all downloads."""
        import requests

        return requests.Session()

    def download(self, url: str, name: str, folder: Path, sha256: str = "", size: int = 0) -> Path:
        """Return a file downloaded into a folder, or as an earlier command left it there whole.

        Args:
            url: where it is.
            name: its name in the folder.
            folder: is made if need be.
            sha256: its digest, its first digits, or "".
            size: its bytes; 0 where nobody has stated them.

        Raises:
            DataError: as `ResumingDownloader`.
        """
        import pooch

        host = urlsplit(url).netloc
        if host in self._dead:
            raise self._dead[host]
        pooch.get_logger().setLevel("WARNING")  # the command itself says what is fetched
        folder.mkdir(parents=True, exist_ok=True)
        part, there = folder / f"{name}.part", folder / name
        if there.is_file() and not digest_of(there).startswith(sha256):
            there.unlink()  # pooch compares whole digests only
        require_space(folder, size - (part.stat().st_size if part.exists() else 0), name)
        downloader = ResumingDownloader(part, sha256, self.session, self.report, self.patience, size=size)
        known = f"sha256:{sha256}" if len(sha256) == FULL_DIGEST else None
        try:
            return Path(pooch.retrieve(url, known, fname=name, path=folder, downloader=downloader))
        except UnreachableError as error:
            self._dead[host] = error
            raise


class _Way(NamedTuple):
    """One way to a file.

    Attributes:
        make: writes it.
        accepted: digests it may have then; () for any.
        origin: where it is from, for messages.
        sources: what it is made of.
    """

    make: Callable[[Path], None]
    accepted: tuple[str, ...]
    origin: str
    sources: tuple[Source, ...] = ()


@dataclass
class _Work:
    """One entry being fetched."""

    fetcher: Fetcher
    entry: AssetEntry
    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    without: list[catalogue.FileState] = field(default_factory=list)

    @property
    def downloads(self) -> Path:
        """Where this entry's sources are downloaded to."""
        return data_folder() / DOWNLOADS / self.entry.name

    def require_way(self, states: Sequence[catalogue.FileState]) -> None:
        """Check that there is a way to some file, before anything is locked or written.

        Raises:
            UsageError: there is none to any.
        """
        if not any(True for state in states for _ in self._ways(state.file)):
            self.without = [*states]
            self.finish()

    def bring(self, state: catalogue.FileState) -> None:
        """Put one file into its place by the first way that can be had; remember it where there is none.

        Raises:
            DataError: there are ways, and none can be had.
        """
        refused: list[DataError] = []
        for way in self._ways(state.file):
            try:
                with _beside(state.path) as part:
                    way.make(part)
                    self._accept(state.file, part, way)
                    part.replace(state.path)
            except Exception as error:
                if not _is_full(error):
                    self._drop_unchecked(way.sources)
                if not isinstance(error, (NotThereError, WrongBytesError, UnreachableError)):
                    raise
                refused.append(error)
            else:
                self.written.append(state.path)
                return
        if refused:
            raise _worst(refused)
        self.without.append(state)

    def finish(self) -> None:
        """Remove what was downloaded, once it has served.

        Raises:
            UsageError: there was no way to some file.
        """
        if self.without:
            missing = ", ".join(state.file.path for state in self.without)
            places = ", ".join(str(state.path) for state in self.without)
            lack = (
                "no public source is known for"
                if self.fetcher.mirror is None
                else f"{self.fetcher.mirror} lacks"
            )
            said = (f"{self.entry.name}: {lack} {missing}.", self.entry.how, f"The place is {places}.")
            raise UsageError(" ".join(filter(None, said)))
        if not self.fetcher.keep:
            shutil.rmtree(self.downloads, ignore_errors=True)
        elif self.downloads.is_dir():
            self.notes.append(f"The publishers' files are kept in {self.downloads}.")

    # -- ways to a file --------------------------------------------------------------------------------------

    def _ways(self, file: AssetFile) -> Iterator[_Way]:
        """Yield the ways to a file: finished ones of a mirror, then recipes, those first that need no network."""
        accepted = (file.sha256, *file.equivalents) if file.sha256 else ()
        mirror = self.fetcher.mirror
        for name in finished_names(file) if mirror else ():
            assert mirror is not None
            if path := mirror.path(name):
                yield _Way(partial(shutil.copyfile, path), accepted, str(path))
            elif address := mirror.address(name):
                size = 0 if file.equivalents else file.bytes  # an equal file may be longer
                yield _Way(partial(self._download_to, address, size), accepted, address)
        possible = [recipe for recipe in file.recipes if all(map(self._can_be_had, recipe.sources))]
        for recipe in sorted(possible, key=lambda each: not all(map(packaged, each.sources))):
            names = ", ".join(source.name for source in recipe.sources)
            origin = names if recipe.convert is None else f"what is made of {names}"
            yield _Way(partial(self._cook, recipe, file), accepted[:1], origin, recipe.sources)

    def _can_be_had(self, source: Source) -> bool:
        mirror = self.fetcher.mirror
        if packaged(source):
            return True
        return bool(source.url if mirror is None else mirror.url or mirror.path(source.name))

    def _download_to(self, address: str, size: int, part: Path) -> None:
        self.fetcher.download(address, part.name, self.downloads / "finished", size=size).replace(part)

    def _cook(self, recipe: Recipe, file: AssetFile, part: Path) -> None:
        """Get the sources of a recipe and make the file of them.

        Raises:
            DataError: a source cannot be had, is another, or cannot be converted.
        """
        sources = tuple(map(self._source, recipe.sources))
        if recipe.convert is None:
            require_space(part.parent, file.bytes, file.path)
            shutil.copyfile(sources[0], part)
            return
        require_space(part.parent, 2 * file.bytes, file.path)
        self.fetcher.say(f"Making {file.path} …")
        recipe.convert(sources, part)

    def _drop_unchecked(self, sources: Sequence[Source]) -> None:
        """Remove downloads that no digest checks: where they did not serve, nobody knows whether they are at fault."""
        for source in sources:
            if not source.sha256:
                (self.downloads / source.name).unlink(missing_ok=True)

    def _source(self, source: Source) -> Path:
        """Return a publisher's file: of an installed package, of the mirror, or downloaded.

        Raises:
            DataError: it cannot be had, or is another.
        """
        mirror = self.fetcher.mirror
        if path := packaged(source):
            self.notes.append(
                f"{source.name} was taken from the installed package {source.package.partition(':')[0]}."
            )
            return path
        if mirror is None or mirror.url:
            url = source.url if mirror is None else mirror.address(source.name)
            return self.fetcher.download(url, source.name, self.downloads, source.sha256, source.bytes)
        path = mirror.path(source.name)
        if path is None:
            raise NotThereError(f"{mirror} has no {source.name}. Give another {FROM}.")
        if not (found := digest_of(path)).startswith(source.sha256):
            raise WrongBytesError(
                f"{path} has SHA-256 {found}, expected {source.sha256}. Give another {FROM}."
            )
        return path

    # -- judging what was made -------------------------------------------------------------------------------

    def _accept(self, file: AssetFile, part: Path, way: _Way) -> None:
        """Check a file's digest before it goes to its place.

        Raises:
            WrongBytesError: it has another.
        """
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        found = digest_of(part)
        if way.accepted and found not in way.accepted:
            raise WrongBytesError(
                f"{way.origin} has SHA-256 {found}, {file.path} must have {way.accepted[0]}. Nothing was kept; try "
                f"another source with {FROM}."
            )
        if not file.sha256 and not first_digests.check(file.path, found, way.origin):
            first_digests.note(file.path, found)
            self.notes.append(
                f"The publisher of {file.path} states no digest: the SHA-256 of this first download ({found}) was "
                f"noted in {data_folder() / first_digests.FILE}, and another will be refused."
            )


def _worst(refused: Sequence[DataError]) -> DataError:
    """Return the refusal that says most: another digest, else a host that is silent, else a file that is not there."""
    for kind in (WrongBytesError, UnreachableError):
        if found := [error for error in refused if isinstance(error, kind)]:
            return found[0]
    return refused[-1]


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give the path of a file to write in the place's own folder, so that the last step is a rename."""
    folder = path.parent / f".fetch-{path.name}"
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    folder.mkdir(parents=True)
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _disk(entry: AssetEntry) -> Iterator[None]:
    """Say in a sentence what is the matter with the disk."""
    try:
        yield
    except OSError as error:
        if _is_full(error):
            raise DiskFullError(
                f"{entry.name} is not fetched: {data_folder()} is full ({error.strerror}). Nothing half is left; what "
                f"was downloaded is kept. Free some space, or point {VARIABLE} elsewhere, and run the command again."
            ) from error
        raise DataError(
            f"{entry.name} is not fetched: {error.filename or data_folder()} cannot be written "
            f"({error.strerror or error}). Point {VARIABLE} to a folder that can."
        ) from error


def _is_full(error: Exception) -> bool:
    """Say whether an error means that the disk has no room."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or isinstance(error, DiskFullError)


def failed(failures: Sequence[Failure]) -> BenchError:
    """Return one error for all that could not be fetched: one sentence where no host answers."""
    silent = {error.host: error for _, error in failures if isinstance(error, UnreachableError)}
    others = [failure for failure in failures if not isinstance(failure.error, UnreachableError)]
    parts = [str(error) if name in str(error) else f"{name}: {error}" for name, error in others]
    if silent:
        names = dict.fromkeys(name for name, error in failures if isinstance(error, UnreachableError))
        reason = next(iter(silent.values())).reason
        parts.insert(0, f"{', '.join(names)}: {UnreachableError(' and '.join(silent), reason)}")
    kind = UsageError if all(isinstance(error, UsageError) for _, error in failures) else DataError
    return kind("\n".join(parts))
