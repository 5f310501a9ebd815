"""What takes time to find out and follows from bytes alone, kept between processes in the user's cache folder.

All of it may be deleted at any time: it is found out again. Nothing here fails; what cannot be read was never kept.
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any


@cache
def _folder() -> Path | None:
    import platformdirs

    try:
        return Path(platformdirs.user_cache_dir("cloakbench")) / "found"
    except RuntimeError:  # no home folder
        return None


def remembered(of: Sequence[str], find: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what was found for the same texts before, in this process or another, else find it.

    Args:
        of: all that decides what is found: digests of what is read, and of the code that reads it.
        find: gives an object as JSON has it.
    """
    kept = recall(of)
    if kept is not None:
        return kept
    found = find()
    keep(of, found)
    return found


def recall(of: Sequence[str]) -> Mapping[str, Any] | None:
    """Return what was kept for the same texts, None where nothing was."""
    path = _path(of)
    if path is None:
        return None
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_bytes())
        if isinstance(kept, dict) and kept.get("of") == path.stem and isinstance(kept.get("found"), dict):
            return dict(kept["found"])
    return None


def keep(of: Sequence[str], found: Mapping[str, Any]) -> None:
    """Keep what was found for some texts, in the place of what was there; see `remembered`."""
    path = _path(of)
    if path is not None:
        with suppress(OSError):
            _write(path, json.dumps({"found": found, "of": path.stem}))


def _path(of: Sequence[str]) -> Path | None:
    folder = _folder()
    name = sha256("\0".join(of).encode()).hexdigest()
    return None if folder is None else folder / name[:2] / f"{name}.json"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all; unsynced, as what a power cut takes is found out again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105  # over what another process wrote meanwhile
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
