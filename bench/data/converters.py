"""Converters by name: what makes a file of the data folder is imported when it is called, and never before.

A converted file is pinned by its digest, which enters the key of what is computed with it. So the converter's code is
no part of that key: a text names it where an import would have made it one.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from bench.contracts import Convert


@dataclass(frozen=True)
class Converter:
    """A converter (`bench.contracts.Convert`) by name.

    Attributes:
        name: ``MODULE:FUNCTION``.
    """

    name: str

    def load(self) -> Convert:
        """Return the function."""
        module, _, function = self.name.partition(":")
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]

    def __call__(self, sources: tuple[Path, ...], target: Path) -> None:
        """Make `target` of `sources`.

        Raises:
            DataError: a source is not what it should be.
        """
        self.load()(sources, target)
