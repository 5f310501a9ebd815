"""How far a run is: its groups as the tasks of a display, or steps for a caller of `bench.api`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.run.graph import Node
from bench.run.planning import Prepared
from bench.run.progress import Step, display, print_line, short_labels

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def of_run(prepared: Prepared, console: Console | None = None) -> Iterator[Callable[[Node, int], None]]:
    """Show how far a run is, and give the function that `bench.run.runner.execute` moves it on by.

    Args:
        prepared: the run.
        console: see `bench.run.progress.display`.
    """
    groups = {(group.stage, group.label): group for group in prepared.groups() if group.images}
    labels = short_labels(groups)
    if not prepared.missing:
        print_line(
            f"All {len(prepared.artefacts)} artefacts were in the store; nothing was computed.", sys.stderr
        )
    with display(console) as shown:
        for key, group in groups.items():
            shown.add(labels[key], group.images, expected=group.seconds, stage=group.stage)

        def advance(node: Node, count: int) -> None:
            if node.group in labels:
                shown.advance(labels[node.group], count)

        yield advance


def calling(prepared: Prepared, callback: Callable[[Step], None]) -> Callable[[Node, int], None]:
    """Return the function that tells `callback` of every step of a run."""
    totals = {(group.stage, group.label): group.images for group in prepared.groups()}
    done: Counter[tuple[str, str]] = Counter()

    def advance(node: Node, count: int) -> None:
        if totals.get(node.group):
            done[node.group] += count
            callback(Step(*node.group, done[node.group], totals[node.group]))

    return advance
