"""Which task a rate is of: a dataset, a protocol and a split, with a version that tables never mix.

A protocol and a dataset each have a version of their own (`bench.contracts`). The task has the protocol's, and behind a
point the dataset's once that is above 1, so that no two states of a task share a name: ``lfw-tracker-v1``,
``lfw-tracker-v2``, ``lfw-tracker-v2.2``. Parameters are no part of the name; they are in the columns ``dataset`` and
``protocol``.
"""

from __future__ import annotations

import re

from bench.contracts import Dataset, Protocol
from bench.run.spec import SplitName

_TASK = re.compile(r"(?P<name>.+)-v[1-9][0-9]*(\.[1-9][0-9]*)?")


def task_of(dataset: Dataset, protocol: Protocol, split: SplitName) -> str:
    """Return the name of a task with its version, e.g. ``lfw-tracker-v1`` or ``lfw-tracker-development-v1``."""
    parts = (dataset.name, protocol.name, *(() if split == "evaluation" else (split,)))
    of_dataset = f".{dataset.version}" if dataset.version > 1 else ""
    return f"{'-'.join(parts)}-v{protocol.version}{of_dataset}"


def without_version(task: str) -> str:
    """Return a task's name without its version.

    >>> without_version("lfw-tracker-v2")
    'lfw-tracker'
    """
    found = _TASK.fullmatch(task)
    return found["name"] if found else task
