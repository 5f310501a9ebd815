"""For plugin authors: the contract checks, fakes to try a plugin with, and the scaffold of a new plugin.

Not here: what a run does with a plugin (`bench.run`).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.authoring.parametrize import parametrize_with_checks as parametrize_with_checks


def __getattr__(name: str) -> object:
    # The checks need torch; `bench new`, which lives here too, does not.
    if name == "parametrize_with_checks":
        from bench.authoring.parametrize import parametrize_with_checks

        return parametrize_with_checks
    raise AttributeError(f"module 'bench.authoring' has no attribute '{name}'")
