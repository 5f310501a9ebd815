"""The user's own photo folders, registered by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from bench.data.files import VARIABLE, data_folder
from bench.errors import DataError

FOLDERS = "folders.json"


def registered() -> Mapping[str, Path]:
    """Return the user's own folders: name → path, sorted by name.

    Raises:
        DataError: ``folders.json`` of the data folder is broken.
    """
    file = data_folder() / FOLDERS
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): Path(path) for name, path in sorted(content.items())}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{file} is broken ({error}). Fix or remove it and add the folders again.") from error


def write_whole(file: Path, text: str) -> None:
    """Write a text so that a kill leaves the old file or the new one.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error}. Point {VARIABLE} elsewhere.") from error
