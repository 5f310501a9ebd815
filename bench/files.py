"""Files written whole or not at all."""

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError, UsageError


class StoreError(BenchError):
    """The store cannot be read or written (a full disk, permissions)."""


def write_atomically(
    path: Path, payload: bytes, option: str = "--out", place: Callable[[Path, Path], None] | None = None
) -> None:
    """Write a file under a temporary name, sync it, then rename it into place.

    Args:
        path: the file.
        payload: its content.
        option: the option that names another place, for the message.
        place: brings the temporary file to its path, or raises; None renames it, over what lies there.

    Raises:
        StoreError: the disk is full or the folder cannot be written; nothing half-written remains.
    """
    # Short, and not the file's own name with more behind it: that may be as long as names can be.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if place is None:
            temporary.replace(path)
        else:
            place(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder may be what is wrong
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        fix = f"choose another place with {option}" if option.startswith("-") else f"name {option}"
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. What was computed before is kept; free some "
            f"space or {fix}, then run the same command again."
        ) from error


def check_writable(path: Path, option: str) -> None:
    """Check that a file or folder can be made at `path`.

    Raises:
        UsageError: something that is not a folder is in the way, or the folder cannot be written.
    """
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(f"{option} {path} cannot be written: {there} is not a folder one can write to.")


def sweep(folder: Path, before: float) -> int:
    """Remove the temporary files that killed processes left in a folder and below; returns how many.

    Args:
        folder: that `write_atomically` wrote in.
        before: files that changed later stay, as somebody may be writing them; seconds of `time.time`.
    """
    stale = [path for path in folder.rglob(".*.tmp") if _changed(path) < before]
    for path in stale:
        with contextlib.suppress(OSError):  # the folder may be read-only
            path.unlink(missing_ok=True)
    return len(stale)


def _changed(path: Path) -> float:
    """Return when a file last changed; now where another process has removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def refuse_full(out: Path) -> None:
    """Refuse to write into a folder that holds something already.

    Raises:
        UsageError: `out` is a file, or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"'{out}' is there and not empty. Name a new folder, or remove it.")
