"""Where exported runs lie: a folder, a zip file, or an object store through fsspec; each as objects with names.

What lives here: reading and writing objects. What must not: which objects an export has (`bench.run.exports`).
"""

from __future__ import annotations

import os
import re
import secrets
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bench.errors import BenchError, DataError, UsageError
from bench.files import StoreError, write_atomically
from bench.run.folder import ManifestEntry

EXTRA = "pip install 'cloakbench[cloud]'"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://).*")
_LOCAL = frozenset(("file", "local"))
_ZIP = ".zip"
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip file can have: the same objects give the same bytes."""


class AbsentError(DataError):
    """There is no object of a name."""


def entry_of(payload: bytes) -> ManifestEntry:
    """Return digest and size of an object's content."""
    return ManifestEntry(sha256=sha256(payload).hexdigest(), size=len(payload))


class Place(ABC):
    """Objects by name; a name has slashes whatever the system.

    Attributes:
        at_once: how many objects may be read or written at the same time.
    """

    at_once: int = 1

    @abstractmethod
    def __str__(self) -> str:
        """Return how the user named it."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the objects right below a folder, sorted; none where there is no such folder."""

    @abstractmethod
    def look(self, folders: Iterable[str]) -> None:
        """Learn what is in folders and below, for `has`."""

    @abstractmethod
    def has(self, name: str, entry: ManifestEntry) -> bool:
        """Whether an object need not be written: by its content where that is at hand, else by its size."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return an object's content.

        Raises:
            AbsentError: there is none of this name.
            DataError: it is damaged, as far as the place itself can tell.
            StoreError: it cannot be read.
        """

    @abstractmethod
    def write(self, name: str, payload: bytes) -> None:
        """Write an object whole or not at all, over what has its name.

        Raises:
            StoreError: it cannot be written.
        """


@contextmanager
def to_write(text: str) -> Iterator[Place]:
    """Give the place that a text names, to be written: a folder, ``FILE.zip`` or a URL that fsspec understands.

    Raises:
        UsageError: fsspec does not know the protocol, or what it needs is not installed; the zip file is there already.
    """
    if _is_remote(text):
        yield Remote(text)
    elif (path := _local(text)).suffix.lower() == _ZIP and not path.is_dir():
        with _new_zip(path) as place:
            yield place
    else:
        yield Folder(path)


def to_read(text: str) -> Place:
    """Return the place that a text names, to be read; see `to_write`.

    Raises:
        UsageError: fsspec does not know the protocol, or what it needs is not installed; there is no such folder.
        DataError: a file that is no zip file.
    """
    if _is_remote(text):
        return Remote(text)
    path = _local(text)
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise UsageError(
            f"there is no folder or file at {path}. Name what `bench store export` wrote: a folder, a .zip file, a URL."
        )
    try:
        return Zip(path, zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as a zip file: {_said(error)}") from None


def _is_remote(text: str) -> bool:
    return _URL.fullmatch(text) is not None and urlsplit(text).scheme not in _LOCAL


def _local(text: str) -> Path:
    return Path(url2pathname(urlsplit(text).path) if _URL.fullmatch(text) else text).expanduser()


class Folder(Place):
    """A folder of this machine; with its artefacts it is a store.

    Args:
        path: the folder; made when first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def names(self, folder: str) -> list[str]:
        """See `Place.names`."""
        found = sorted((self.path / folder).glob("*"))
        return [f"{folder}/{path.name}" for path in found if path.is_file() and not path.name.startswith(".")]

    def look(self, folders: Iterable[str]) -> None:
        """See `Place.look`; it is looked at when asked."""

    def has(self, name: str, entry: ManifestEntry) -> bool:
        """See `Place.has`."""
        try:
            return entry_of((self.path / name).read_bytes()) == entry
        except OSError:
            return False

    def read(self, name: str) -> bytes:
        """See `Place.read`."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise AbsentError(f"{self.path / name} is missing") from None
        except OSError as error:
            raise StoreError(f"cannot read {self.path / name}: {error.strerror or error}.") from None

    def write(self, name: str, payload: bytes) -> None:
        """See `Place.write`."""
        write_atomically(self.path / name, payload, "another folder")


class Zip(Place):
    """A zip file, read or made.

    Args:
        path: what the user named.
        file: of that name, or of the one it has while it is made.
    """

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path = path
        self.file = file

    def __str__(self) -> str:
        return str(self.path)

    def names(self, folder: str) -> list[str]:
        """See `Place.names`."""
        return sorted(name for name in self.file.namelist() if name.rpartition("/")[0] == folder)

    def look(self, folders: Iterable[str]) -> None:
        """See `Place.look`; its list is read."""

    def has(self, name: str, entry: ManifestEntry) -> bool:
        """See `Place.has`."""
        del entry
        return name in self.file.NameToInfo

    def read(self, name: str) -> bytes:
        """See `Place.read`."""
        try:
            return self.file.read(name)
        except KeyError:
            raise AbsentError(f"{name} of {self.path} is missing") from None
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{name} of {self.path} is damaged: {str(error).rstrip('.')}") from None
        except OSError as error:
            raise StoreError(f"cannot read {name} of {self.path}: {_said(error)}") from None

    def write(self, name: str, payload: bytes) -> None:
        """See `Place.write`."""
        try:
            self.file.writestr(zipfile.ZipInfo(name, _FIRST_DAY), payload)
        except OSError as error:
            raise _unwritten(self.path, error) from error


@contextmanager
def _new_zip(path: Path) -> Iterator[Zip]:
    """Give a zip file to be filled, which has its name once it is whole."""
    if path.exists():
        raise UsageError(f"{path} is there already. Give another name, or remove it first.")
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                yield Zip(path, archive)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


class Remote(Place):
    """Whatever fsspec reaches: S3, Google Cloud Storage, SFTP. An object appears there whole, or not at all.

    Args:
        url: as the user wrote it; credentials are found as fsspec and what it uses find them.

    Raises:
        UsageError: fsspec does not know the protocol, or what it needs is not installed.
    """

    at_once = 8

    def __init__(self, url: str) -> None:
        self.url = url
        self._system, root = _opened(url)
        self._root = root.rstrip("/")
        self._sizes: dict[str, int] = {}
        self._looked: set[str] = set()

    def __str__(self) -> str:
        return self.url

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def names(self, folder: str) -> list[str]:
        """See `Place.names`."""
        return [name for name in self._listed(folder) if name.rpartition("/")[0] == folder]

    def look(self, folders: Iterable[str]) -> None:
        """See `Place.look`."""
        for folder in folders:
            if folder not in self._looked:
                self._sizes |= self._listed(folder)
                self._looked.add(folder)

    def _listed(self, folder: str) -> dict[str, int]:
        with self._reaching("list", folder):
            self._system.invalidate_cache()
            try:
                found = self._system.find(self._path(folder), detail=True)
            except FileNotFoundError:  # nor is there a bucket, as is said when something is written or read
                return {}
        start = len(self._root) + 1
        return {path[start:]: int(about["size"] or 0) for path, about in sorted(found.items())}

    def has(self, name: str, entry: ManifestEntry) -> bool:
        """See `Place.has`."""
        return self._sizes.get(name) == entry.size

    def read(self, name: str) -> bytes:
        """See `Place.read`."""
        with self._reaching("read", name):
            try:
                return bytes(self._system.cat_file(self._path(name)))
            except FileNotFoundError:
                raise AbsentError(f"{self.url.rstrip('/')}/{name} is missing") from None

    def write(self, name: str, payload: bytes) -> None:
        """See `Place.write`."""
        with self._reaching("write", name):
            self._system.pipe_file(self._path(name), payload)
        self._sizes[name] = len(payload)

    @contextmanager
    def _reaching(self, verb: str, name: str) -> Iterator[None]:
        """Say in one sentence what failed, by whichever of many libraries' exceptions."""
        try:
            yield
        except BenchError:
            raise
        except Exception as error:
            raise StoreError(
                f"cannot {verb} {self.url.rstrip('/')}/{name}: {_said(error)} Check the address, the credentials (as "
                "fsspec's backend finds them: for s3:// AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL) and the "
                "network; the same command goes on from there."
            ) from error


def _opened(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise UsageError(f"{url} needs fsspec, which is not installed: {EXTRA}.") from None
    try:
        system, root = url_to_fs(url)
    except ImportError as error:
        raise UsageError(
            f"{url} needs a package that is not installed: {_said(error)} For s3://: {EXTRA}."
        ) from None
    except Exception as error:  # of any backend; fsspec's own for an unknown protocol is a ValueError
        raise UsageError(
            f"{url} cannot be used: {_said(error)} Give a folder, a .zip file, or a URL that fsspec understands, such "
            "as s3://BUCKET/PREFIX or gs://BUCKET/PREFIX."
        ) from None
    return system, str(root)


def _unwritten(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {path}: {error.strerror or error}. Free some space or name another place."
    )


def _said(error: Exception) -> str:
    """Return the first line of what an error says, as a sentence."""
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text.strip().rstrip(".") + "."
