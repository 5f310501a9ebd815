"""CloakBench's harness: it crosses attacks × defences × backbones and measures what protects.

`bench.api` tells the whole benchmark on one page. A room of this package imports only the rooms below it, in the order
that docs/architecture.md draws and ``lint-imports`` checks. The harness knows no method by name; methods live in
`attacks`, `defenses` and `fr_models`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.api import Options as Options
    from bench.api import run as run

__version__ = "0.1.0"


class _Package(ModuleType):
    """This package. Its `run` is the function of `bench.api`, although a room is called so too."""

    @property
    def run(self) -> object:
        """`bench.api.run`, imported when it is asked for: `bench --help` does without torch."""
        from bench.api import run

        return run

    @run.setter
    def run(self, room: ModuleType) -> None:
        """Leave the name to the function: importing a module of the room would bind the room to it."""

    @property
    def Options(self) -> object:  # noqa: N802 - a class
        """`bench.api.Options`, likewise."""
        from bench.api import Options

        return Options


sys.modules[__name__].__class__ = _Package
