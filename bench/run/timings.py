"""How long artefacts took: kept with the store for estimates, written into a run's folder for readers."""

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from bench.run.graph import STAGES, Node, Tally
from bench.run.store import Store

log = logging.getLogger("bench")

HISTORY = "timings.jsonl"
"""Kept in the store: seconds per image of what was computed, by stage and method, for estimates."""


SERIAL_SHARE = 0.25
"""Share of a method's time that more threads do not shorten; two threads took 0.63 of the time of one."""


def declared_seconds(nodes: Iterable[Node], threads: int) -> float:
    """Return about how long nodes take by what their methods declare, where this store has timed nothing alike.

    Right to a factor of two or three on a CPU, and too long for a GPU.

    Args:
        nodes: to compute.
        threads: that compute each of them.
    """
    alone = sum(node.core_seconds for node in nodes)
    return alone * (SERIAL_SHARE + (1 - SERIAL_SHARE) / threads)


def seconds_by(store: Store, threads: int) -> Callable[[Node], float]:
    """Return the function that says about how long a node takes: by earlier runs on this store, else as declared.

    Args:
        store: whose history counts.
        threads: that compute each node.
    """
    paces = history(store)

    def seconds(node: Node) -> float:
        pace = paces.get(node.group)
        return declared_seconds([node], threads) if pace is None else pace * node.work

    return seconds


def history(store: Store) -> dict[tuple[str, str], float]:
    """Return the seconds an image took before on this store, by `Node.group`."""
    paces: dict[tuple[str, str], float] = {}
    try:
        lines = (store.folder / HISTORY).read_text(encoding="utf-8").splitlines()
    except OSError:
        return paces
    for line in lines:
        try:
            row = json.loads(line)
            paces[row["stage"], row["label"]] = row["seconds"] / max(row["images"], 1)
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short by a kill costs an estimate, nothing else
    return paces


def remember(store: Store, tally: Tally) -> None:
    """Log what an execution computed, and keep its pace for later estimates."""
    rows = []
    for stage, label in tally.images:
        images, seconds = tally.images[stage, label], round(tally.seconds[stage, label], 3)
        log.info("computed %s %s: %d images, %.1f s", stage, label, images, seconds)
        if not images:
            continue  # others computed them; putting them together tells no pace
        rows.append({"stage": stage, "label": label, "images": images, "seconds": seconds})
    # A full disk has been reported by then; the history only serves estimates.
    with suppress(OSError), (store.folder / HISTORY).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def as_csv(store: Store, nodes: Iterable[Node]) -> str:
    """Return seconds by stage and method over artefacts, whichever run computed them."""
    totals: dict[tuple[str, str], list[float]] = {}
    for node in nodes:
        record = store.record(node.stage, node.address)
        if record is not None:
            total = totals.setdefault(node.group, [0, 0, 0.0])
            total[0] += 1
            total[1] += record.images
            total[2] += record.seconds
    lines = ["stage,method,artefacts,images,seconds,seconds_per_image"]
    ordered = sorted(totals.items(), key=lambda item: (STAGES.index(item[0][0]), item[0][1]))
    for (stage, label), (count, images, seconds) in ordered:
        pace = seconds / images if images else 0
        lines.append(f'{stage},"{label}",{count:.0f},{images:.0f},{seconds:.3f},{pace:.5f}')
    return "\n".join(lines) + "\n"
