"""Artefacts on disk: written whole or not at all, checked when read.

An artefact is a payload file and a small JSON file beside it that holds its full key, whose digest is the
address, the SHA-256 of the payload, and how long it took. The JSON file is renamed into place last, so an
artefact exists exactly when it is complete; a killed run leaves at most temporary files.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from bench.data.files import no_home
from bench.files import StoreError, sweep, write_atomically
from bench.run.digest import digest

log = logging.getLogger("bench")

VARIABLE = "CLOAKBENCH_STORE"

LOCKS = ".locks"
"""Folder of a store with a lock for each artefact that is being computed, and for each run that others compute for."""

JOBS, WORKERS = ".slurm", ".workers"
"""Folders of a store with a folder for each run: what a cluster's jobs are told, report, print; what workers print."""


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot read {path}: {error.strerror or error}. Choose another folder with --store.")


def default_folder() -> Path:
    """Return `CLOAKBENCH_STORE`, else the platform's user cache folder.

    Raises:
        UsageError: nothing names it, and there is no home folder.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs

    try:
        return Path(platformdirs.user_cache_dir("cloakbench")) / "store"
    except RuntimeError as error:
        raise no_home(VARIABLE, "what runs compute") from error


@dataclass(frozen=True)
class Record:
    """What is known of a stored artefact besides its bytes.

    Attributes:
        key: everything that decided it.
        sha256: of the payload.
        size: bytes of the payload.
        seconds: time it took to compute.
        images: number of images it covers.
    """

    key: Mapping[str, Any]
    sha256: str
    size: int
    seconds: float
    images: int


class MisplacedError(ValueError):
    """A record that lies under the address of another artefact."""


def read_record(path: Path) -> Record:
    """Return the record at a path.

    Raises:
        OSError: it cannot be read.
        MisplacedError: its key is not what the address is the digest of.
        ValueError: it is damaged.
        TypeError: likewise.
    """
    record = Record(**json.loads(path.read_text(encoding="utf-8")))
    if digest(record.key) != path.stem:
        raise MisplacedError
    return record


class Store:
    """A folder of artefacts addressed by digest.

    Args:
        folder: where to keep them; made when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self, stage: str, address: str) -> tuple[Path, Path]:
        """Return where an artefact's payload and record are, or would be."""
        base = self.folder / stage / address[:2] / address
        return base.with_suffix(".bin"), base.with_suffix(".json")

    def __contains__(self, item: tuple[str, str]) -> bool:
        return self.paths(*item)[1].is_file()

    def record(self, stage: str, address: str) -> Record | None:
        """Return what is known of an artefact, or None where there is none or its record is damaged.

        An artefact whose key is not what its address is the digest of is set aside, as by `read`.
        """
        path = self.paths(stage, address)[1]
        try:
            return read_record(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        except MisplacedError:
            self._set_aside(stage, address, "it is another artefact's")
            return None
        except (ValueError, TypeError):
            log.warning("%s is damaged; the artefact will be computed again", path)
            _remove(path)
            return None

    def read(self, stage: str, address: str) -> bytes | None:
        """Return the payload, or None where there is none or it is not what was written.

        One whose payload or key has another digest is set aside (``.corrupt``) and reported, and counts as absent.
        """
        record = self.record(stage, address)
        if record is None:
            return None
        payload_path = self.paths(stage, address)[0]
        try:
            payload = payload_path.read_bytes()
        except FileNotFoundError:
            payload = b""
        except OSError as error:
            raise _unreadable(payload_path, error) from error
        if sha256(payload).hexdigest() == record.sha256:
            return payload
        self._set_aside(stage, address, "its content changed on disk")
        return None

    def _set_aside(self, stage: str, address: str, reason: str) -> None:
        payload_path, record_path = self.paths(stage, address)
        log.warning("artefact %s is corrupt (%s); computing it again", payload_path, reason)
        _remove(record_path)
        with suppress(OSError):
            payload_path.replace(payload_path.with_suffix(".corrupt"))

    def state(self, stage: str, address: str) -> Literal["whole", "absent", "corrupt"]:
        """Say whether an artefact is there as it was written; unlike `read` this changes nothing."""
        payload, record = self.paths(stage, address)
        try:
            wanted = read_record(record).sha256
            return "whole" if sha256(payload.read_bytes()).hexdigest() == wanted else "corrupt"
        except (FileNotFoundError, NotADirectoryError):
            return "corrupt" if record.is_file() else "absent"
        except OSError as error:
            raise _unreadable(payload, error) from error
        except (ValueError, TypeError):
            return "corrupt"

    def checkpoint(self, stage: str, address: str) -> Path:
        """Return where what is being computed may keep itself: a temporary file of a name that stays the same.

        As any temporary file it goes with `sweep`, a day after it was last written.

        Raises:
            StoreError: its folder cannot be made.
        """
        path = self.paths(stage, address)[0].with_name(f".{address[:16]}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot write {path.parent}: {error.strerror or error}. Choose another place with --store."
            ) from error
        return path

    def write(
        self, stage: str, address: str, payload: bytes, *, key: Mapping[str, Any], seconds: float, images: int
    ) -> Record:
        """Store a payload under its address, the digest of its key, and return its record.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        record = Record(dict(key), sha256(payload).hexdigest(), len(payload), round(seconds, 3), images)
        payload_path, record_path = self.paths(stage, address)
        write_atomically(payload_path, payload, "--store")
        described = json.dumps(record.__dict__, indent=1, sort_keys=True)
        write_atomically(record_path, described.encode(), "--store")
        return record

    @contextmanager
    def computing(self, stage: str, address: str) -> Iterator[None]:
        """Hold an artefact while it is computed, so that other runs wait for it rather than compute it as well.

        The system lets go of what a killed process held. Where a folder knows no locks or cannot be written, nothing is
        held.
        """
        with self._held(address, f"waiting for another run, which computes {stage} {address[:12]}"):
            yield

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the store while others compute for this process, so that nobody clears it meanwhile; see `is_in_use`."""
        with self._held(f"run-{secrets.token_hex(8)}", ""):
            yield

    @contextmanager
    def _held(self, name: str, waiting: str) -> Iterator[None]:
        """Hold a lock of the store.

        Args:
            name: of the lock.
            waiting: logged where another process holds it.
        """
        from filelock import FileLock, Timeout

        path = self.folder / LOCKS / f"{name}.lock"
        lock = FileLock(path, fallback_to_soft=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("%s", waiting)
                lock.acquire()
        except (OSError, NotImplementedError):
            yield
            return
        try:
            yield
        finally:
            # Before it is let go: who waits for the file that was removed notices, and waits for a new one.
            _remove(path)
            lock.release()

    def is_in_use(self) -> bool:
        """Say whether a run is computing an artefact of this store now, or has others compute."""
        from filelock import FileLock, Timeout

        for path in (self.folder / LOCKS).glob("*.lock"):
            try:
                with FileLock(path, fallback_to_soft=False).acquire(timeout=0):
                    _remove(path)
            except Timeout:
                return True
            except (OSError, NotImplementedError):
                continue
        return False

    def sweep(self, older_than_s: float = 86_400) -> int:
        """Remove temporary files that killed runs left; returns how many."""
        return sweep(self.folder, time.time() - older_than_s)


def _remove(path: Path) -> None:
    """Remove a file; where the store cannot be written it stays, and what it holds still counts as absent."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
