"""The user's own photo folders, registered by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bench.data.files import data_folder
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
