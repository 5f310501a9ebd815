"""Which task a rate is of: a dataset, a protocol and a split, with a version that tables never mix.

A dataset and a protocol each have a version of their own (`bench.contracts`). Either may be raised, never lowered, so
that their sum tells any two states of a task apart: ``lfw-tracker-v1`` becomes ``lfw-tracker-v2`` when one of them is
raised. Parameters are no part of the name; they are in the columns ``dataset`` and ``protocol``.
"""

from __future__ import annotations

import re

from bench.contracts import Dataset, Protocol
from bench.run.spec import SplitName

_TASK = re.compile(r"(?P<name>[^\s]+)-v(?P<version>[1-9][0-9]*)")


def task_of(dataset: Dataset, protocol: Protocol, split: SplitName) -> str:
    """Return the name of a task with its version, e.g. ``lfw-tracker-v1`` or ``lfw-tracker-development-v1``."""
    parts = (dataset.name, protocol.name, *(() if split == "evaluation" else (split,)))
    return f"{'-'.join(parts)}-v{dataset.version + protocol.version - 1}"


def without_version(task: str) -> str:
    """Return a task's name without its version.

    >>> without_version("lfw-tracker-v2")
    'lfw-tracker'
    """
    found = _TASK.fullmatch(task)
    return found["name"] if found else task
