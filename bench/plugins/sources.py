"""Which state source files had when this process imported them: later edits do not reach the running code."""

import sys
import sysconfig
from pathlib import Path

from bench.errors import UsageError

State = tuple[int, int]
"""Size and time of the last change of a file, by which a change is noticed."""

_states: dict[Path, State] = {}
_seen: set[str] = set()
_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))


def _now(path: Path) -> State:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def is_own(place: str) -> bool:
    """Whether a file or folder is neither Python's nor an installed package's."""
    if not place or place in ("built-in", "frozen") or place.startswith(_INSTALLED):
        return False
    # A user's packages, and those of another environment on the path, are in folders of these names too.
    return not {"site-packages", "dist-packages"} & {*Path(place).parts}


def note(path: Path) -> None:
    """Note a file's state, just before it is imported."""
    _states.setdefault(path, _now(path))


def note_imported() -> None:
    """Note the files of modules that were imported since the last call; installed packages enter keys by version."""
    new = sys.modules.keys() - _seen
    _seen.update(new)
    for name in new:
        module = sys.modules.get(name)
        origin = getattr(module, "__file__", None)
        if isinstance(origin, str) and is_own(origin) and (path := Path(origin)).is_file():
            note(path)


def state(path: Path) -> State:
    """Return the state in which this process imported a file; the present one where it did not.

    Raises:
        UsageError: the file was edited since.
    """
    if path not in _states:
        return _now(path)
    check(path, _states[path])
    return _states[path]


def check(path: Path, known: State) -> None:
    """Check that a file is in a known state.

    Raises:
        UsageError: it was edited, or is gone.
    """
    try:
        same = _now(path) == known
    except FileNotFoundError:
        same = False
    if not same:
        raise UsageError(
            f"{path.name} changed since it was imported, and this process runs the code of before; start anew."
        )


def forget() -> None:
    """Forget every state, as a new process would: for tests that edit files."""
    _states.clear()
    _seen.clear()
