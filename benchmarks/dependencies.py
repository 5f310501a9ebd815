"""List what the project depends on, with licences: makes ``docs/dependencies.md``.

    python -m benchmarks.dependencies

Ranges are those of ``pyproject.toml``, licences those of what is installed, so every extra must be. Why a dependency is
there is written on the page by hand, and kept.
"""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.licences import licence

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
TEXT = """\
# Dependencies

For anyone who packages the project or must know what comes with it.

```bash
.venv/bin/python -m benchmarks.materials sbom.json
```

writes what is installed, with versions and licences, as CycloneDX; it needs the extra `dev` or `test`. `.ci/lowest`
installs each direct dependency at the lowest version that is allowed here, and runs with them (in `.ci/run` all but
torch, torchvision and the test tools); `constraints.txt` has the versions that the results were made with.

`python -m benchmarks.dependencies` makes this page where every extra is installed; only "why" is written by hand. Tests
hold ranges and licences against `pyproject.toml` and the installed packages, and allow only the licences that
`benchmarks/licences.py` names. A licence is what a package states; what else its wheel holds is added where it asks for
more.

## Asked for

| package | range | licence | why | extra |
|---|---|---|---|---|
{direct}

## Brought by these

On Linux with Python 3.11. NVIDIA's packages come with PyPI's wheels of torch for Linux, not with builds for the CPU.

| licence | packages |
|---|---|
{indirect}
"""


def declared(pyproject: Path = ROOT / "pyproject.toml") -> dict[str, list[Requirement]]:
    """Return extra → what the project asks for with it; the empty name is without any."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in groups.items()}


def installed(groups: Mapping[str, Iterable[Requirement]]) -> dict[str, Distribution]:
    """Return name → metadata of all that requirements bring, directly or not; what is not installed is left out."""
    found: dict[str, Distribution] = {}
    left, seen = [each for requirements in groups.values() for each in requirements], set[str]()
    while left:
        requirement = left.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        found[canonicalize_name(requirement.name)] = package
        left += _brought(package, requirement.extras)
    return found


def _brought(package: Distribution, extras: Iterable[str]) -> list[Requirement]:
    environments = [{"extra": extra} for extra in ("", *extras)]
    requirements = map(Requirement, package.requires or ())
    return [
        each
        for each in requirements
        if each.marker is None or any(each.marker.evaluate(environment) for environment in environments)
    ]


def direct(groups: Mapping[str, Iterable[Requirement]]) -> dict[str, tuple[str, str]]:
    """Return name → range and extras of what the project asks for; what every install has comes first.

    Raises:
        SystemExit: two extras ask for two ranges of one package.
    """
    spans: dict[str, str] = {}
    extras: dict[str, list[str]] = defaultdict(list)
    for extra, requirements in groups.items():
        for each in requirements:
            name = canonicalize_name(each.name)
            span = spans.setdefault(name, str(each.specifier))
            if span != str(each.specifier):
                raise SystemExit(f"{name} is asked for as {span} and as {each.specifier}; give it one range")
            extras[name].append(extra)
    return {
        name: (spans[name], ", ".join(extras[name]))
        for name in sorted(spans, key=lambda n: ("" not in extras[n], n))
    }


def rows(text: str) -> dict[str, list[str]]:
    """Return first cell → all cells of the rows of a page's tables."""
    lines = re.findall(r"^\| (.+) \|$", text, re.MULTILINE)
    return {cells[0]: cells for cells in (line.split(" | ") for line in lines)}


def page(before: str) -> str:
    """Return the page, with the reasons of the one before.

    Raises:
        SystemExit: an extra is not installed, so that licences are not known.
    """
    groups = declared()
    licences = {name: licence(name, package) for name, package in installed(groups).items()}
    asked, kept = direct(groups), rows(before)
    if absent := sorted(asked.keys() - licences.keys()):
        raise SystemExit(f"not installed: {', '.join(absent)}; install the project with all its extras")
    by_licence: dict[str, list[str]] = defaultdict(list)
    for name in sorted(licences.keys() - asked.keys()):
        by_licence[licences[name]].append(name)
    return TEXT.format(
        direct=_table(
            (n, span, licences[n], kept[n][3] if n in kept else "", extras)
            for n, (span, extras) in asked.items()
        ),
        indirect=_table((text, ", ".join(names)) for text, names in sorted(by_licence.items())),
    )


def _table(cells: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
