"""Write what is installed here, with versions and licences, as CycloneDX (JSON).

    .venv/bin/python -m benchmarks.materials sbom.json

The extras ``dev`` and ``test`` have the program that lists packages; licences are those of ``benchmarks/licences.py``,
as it finds fewer.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from benchmarks.dependencies import ROOT, declared, installed
from benchmarks.licences import licence


def bill() -> dict[str, Any]:
    """Return the list of materials of this Python's environment, without paths, the same each time."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate"]
    project = ["--pyproject", str(ROOT / "pyproject.toml"), sys.executable]
    listed: dict[str, Any] = json.loads(
        subprocess.run([*command, *project], check=True, capture_output=True).stdout
    )
    packages = installed(declared())
    for component in listed["components"]:
        name = canonicalize_name(component["name"])
        if name in packages and (stated := licence(name, packages[name])):
            component["licenses"] = [{"expression": stated, "acknowledgement": "concluded"}]
    return listed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write what is installed here as CycloneDX.")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(bill(), indent=2) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}")
