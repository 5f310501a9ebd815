"""Where data and weights that the project does not ship are found.

The data folder is `CLOAKBENCH_DATA`, else the platform's user data folder; `bench fetch` fills it. Files are known by
their path inside it and pinned by SHA-256.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from bench.errors import DataError, UsageError

VARIABLE = "CLOAKBENCH_DATA"


def data_folder() -> Path:
    """Return the data folder; it need not exist.

    Raises:
        UsageError: nothing names it, and there is no home folder.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs

    try:
        return Path(platformdirs.user_data_dir("cloakbench"))
    except RuntimeError as error:
        raise no_home(VARIABLE, "data and weights") from error


def no_home(variable: str, what: str) -> UsageError:
    """Return the error for a user who has no home folder, as in some containers.

    Args:
        variable: the environment variable that names the place.
        what: what lies there.
    """
    return UsageError(
        f"there is no home folder to keep {what} in: HOME is not set, and the system knows none of this user. "
        f"Set HOME, or {variable} to a folder."
    )


@lru_cache(maxsize=256)
def _sha256_of_state(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; remembered while its size and time stay the same."""
    state = path.stat()
    return _sha256_of_state(path, state.st_size, state.st_mtime_ns)


def locate(relative: str, sha256: str = "", *, equivalents: Sequence[str] = (), fix: str = "") -> Path:
    """Return the path of a file of the data folder.

    Args:
        relative: path inside the data folder.
        sha256: expected digest; not checked when empty.
        equivalents: digests of files that serve as well.
        fix: a sentence that says how to get the file.

    Raises:
        DataError: the file is missing or its digest differs.
    """
    path = data_folder() / relative
    if not path.is_file():
        how = fix or f"Point {VARIABLE} to a folder that has it."
        raise DataError(f"'{relative}' is not in the data folder {data_folder()}. {how}")
    if sha256 and (found := sha256_of(path)) not in (sha256, *equivalents):
        raise DataError(f"{path} has SHA-256 {found}, expected {sha256}. Fetch it again.")
    return path
