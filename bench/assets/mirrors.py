"""Where a file may be had instead of from its publisher: a folder here or on a server, or an installed package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from bench.assets.downloads import digest_of
from bench.contracts import AssetFile, Source
from bench.errors import UsageError


@dataclass(frozen=True)
class Mirror:
    """A copy somebody has: publishers' files under their own names, or finished ones under their place or name.

    Attributes:
        folder: on this machine; None where it is on a server.
        url: of the folder on a server, "" where it is here.
    """

    folder: Path | None
    url: str = ""

    @classmethod
    def at(cls, text: str) -> Mirror:
        """Return the mirror that ``--from`` names.

        Raises:
            UsageError: it is no address that can be read, or no folder.
        """
        parts = urlsplit(text)
        if parts.scheme in ("http", "https"):
            return cls(None, text.rstrip("/"))
        if "://" in text and parts.scheme != "file":
            raise UsageError(
                f"--from '{text}' cannot be read; valid: http://…, https://…, file://… or a folder."
            )
        folder = Path(unquote(parts.path)) if parts.scheme == "file" else Path(text).expanduser()
        if not folder.is_dir():
            raise UsageError(
                f"--from '{text}' is not a folder. Name one that holds the files, or the URL of one."
            )
        return cls(folder.absolute())

    def path(self, name: str) -> Path | None:
        """Return a file of a folder here, None where there is none."""
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.is_file() else None

    def address(self, name: str) -> str:
        """Return the address of a file on a server, "" where the mirror is a folder here."""
        return f"{self.url}/{quote(name)}" if self.url else ""

    def __str__(self) -> str:
        return self.url or str(self.folder)


def finished_names(file: AssetFile) -> tuple[str, ...]:
    """Return the names under which a mirror may hold a file of the data folder as it is."""
    return file.path, Path(file.path).name


def packaged(source: Source) -> Path | None:
    """Return the file of an installed package that is a source, by its digest; None where there is none.

    The package is looked up, not imported.
    """
    package, _, inner = source.package.partition(":")
    if not inner:
        return None
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    for place in places:
        path = Path(place) / inner
        if path.is_file() and digest_of(path).startswith(source.sha256):
            return path
    return None
