#!/usr/bin/env bash
# Makes a virtual environment, installs the project with its test tools, and runs every check.
# Usage: bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv .venv
. .venv/bin/activate
python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,detector]'
ruff check .
ruff format --check .
mypy
lint-imports
# One process with one thread per core is fastest for torch; tests that start processes set their own.
# Tests marked slow are for .ci/full; `bash tests/run.sh -m "slow or not slow"` runs them too.
python -m pytest -m "not slow" "$@"
