#!/usr/bin/env bash
# Makes a virtual environment, installs the project with its test tools, and runs every check.
# Usage: bash tests/run.sh [pytest arguments]
#   bash tests/run.sh                          all but the slow tests, as continuous integration does
#   bash tests/run.sh -m unit                  what needs nothing but this process; minutes
#   bash tests/run.sh -m "slow or not slow"    everything, as .ci/full does
#   bash tests/run.sh --cov                    with line coverage of the four packages, its total last
set -euo pipefail
cd "$(dirname "$0")/.."
# Compiled when first used, and kept: else every command that a test starts would compile what it imports.
unset PYTHONDONTWRITEBYTECODE
python3 -m venv .venv
. .venv/bin/activate
python -m pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,detector]'
ruff check .
ruff format --check .
mypy
lint-imports
# One worker a core and one thread a worker: torch's threads of two processes slow each other down. A file's tests
# stay together, as they share what they make; files of unit tests come first, then the largest of the others.
export OMP_NUM_THREADS=1
python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not slow" "$@"
