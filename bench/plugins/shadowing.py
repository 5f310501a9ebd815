"""Folders that hide the project's packages: Python takes the first of a name, and looks where it was started first."""

import importlib.util
from pathlib import Path

from bench.errors import UsageError

PACKAGES = ("attacks", "bench", "defenses", "fr_models")
"""Of such plain names that a user may have a folder called the same."""

HOME = Path(__file__).parents[2]
"""Where they lie."""


def check() -> None:
    """Check that the four packages are those of one installation; none is imported.

    A folder of photos called ``attacks`` is enough where the project is installed editable, and only there is a
    hidden `bench` found out here: elsewhere Python stops before it.

    Raises:
        UsageError: another folder of one of the names would be imported in its place.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places = [*((spec and spec.submodule_search_locations) or ()), spec and spec.origin]
        found = next((Path(place).resolve() for place in places if place), None)
        own = (HOME / name).resolve()
        if found is not None and found != own:
            raise UsageError(
                f"'{found}' hides CloakBench's package '{own}': Python would import `{name}` from the former. "
                f"Rename it, or start from another folder; the command `bench`, unlike `python -m bench`, does not "
                f"import from the working directory unless PYTHONPATH names it."
            )
