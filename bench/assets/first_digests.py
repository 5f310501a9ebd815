"""Digests of files whose publishers state none: noted when they are first fetched, and held against them later.

Trust on first use: the first download cannot be checked, every later one can. The notes are a small JSON of the data
folder, for people to read and to hand on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from filelock import FileLock

from bench.data.files import data_folder
from bench.errors import DataError
from bench.files import write_atomically

FILE = "first-digests.json"
"""Of the data folder: place in it, or address → SHA-256 of the first download."""


def noted(key: str) -> str:
    """Return the SHA-256 that was noted for a file's place or a source's address, "" where none was."""
    return _read().get(key, "")


def note(key: str, sha256: str) -> None:
    """Note the SHA-256 of a first download; what was noted before stays."""
    path = data_folder() / FILE
    with FileLock(path.with_name(f".{FILE}.lock")):
        digests = {key: sha256, **_read()}
        text = json.dumps(digests, indent=1, sort_keys=True) + "\n"
        write_atomically(path, text.encode(), "another CLOAKBENCH_DATA")


def check(key: str, sha256: str, what: str) -> bool:
    """Hold a digest against what was noted.

    Args:
        key: a file's place in the data folder, or a source's address.
        sha256: of the file.
        what: names it, for messages.

    Returns:
        whether it is the one that was noted; False where none was.

    Raises:
        DataError: another was noted.
    """
    before = noted(key)
    if before and before != sha256:
        raise DataError(
            f"{what} has SHA-256 {sha256}; the first download had {before} (noted in {data_folder() / FILE}, as the "
            "publisher states none). Nothing was kept. If the publisher has replaced the file, remove that note."
        )
    return bool(before)


def _read() -> Mapping[str, str]:
    path = data_folder() / FILE
    if not path.is_file():
        return {}
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is broken ({error}). Fix it, or remove it and the files it names."
        ) from error
