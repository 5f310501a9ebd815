"""Image-wise optimisation in micro-batches of one fixed, padded size (DESIGN 4, Randomness).

Kernels round differently for different batch shapes and sign steps amplify that, so every forward pass
here has exactly `MICRO_BATCH` rows, whatever the number of images. A finished image's row is taken by the
next image; rows without an image repeat one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bench.contracts import MICRO_BATCH

State = dict[str, Tensor]
"""Named tensors whose first dimension is the row of the micro-batch."""


class ImageWise(Protocol):
    """An optimisation in which no image looks at another."""

    def start(self, images: Sequence[int]) -> State:
        """Return the first state of the images of these indices, one row each."""

    def update(self, state: State) -> Tensor:
        """Do one step in place on all rows; return `MICRO_BATCH` booleans: which rows are finished."""

    def finish(self, state: State) -> Tensor:
        """Return the result of every row, `MICRO_BATCH`×…; rows that are not finished are ignored."""


def optimise(
    task: ImageWise, count: int, advance: Callable[[int], None] = lambda _n: None
) -> tuple[Tensor, ...]:
    """Run `task` over images 0 … count − 1 and return their results in that order.

    Args:
        task: what to start, step and finish.
        count: the number of images.
        advance: called with the number of images just finished.
    """
    results: dict[int, Tensor] = {}
    waiting = list(range(count))
    occupant: list[int | None] = [None] * MICRO_BATCH
    state: State = {}
    while len(results) < count:
        _fill_free_rows(task, state, occupant, waiting)
        finished = task.update(state)
        if not bool(finished.any()):
            continue
        done = [row for row in finished.nonzero().flatten().tolist() if occupant[row] is not None]
        if not done:
            continue
        outcome = task.finish(state)
        for row in done:
            results[_index(occupant[row])] = outcome[row].clone()
            occupant[row] = None
        advance(len(done))
    return tuple(results[i] for i in range(count))


def in_micro_batches(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return `function` of all `rows`, computed `MICRO_BATCH` at a time.

    Args:
        function: maps `MICRO_BATCH`×… to `MICRO_BATCH`×…, each row on its own.
        rows: N×…, N at least 1.
    """
    parts = []
    for begin in range(0, len(rows), MICRO_BATCH):
        part = rows[begin : begin + MICRO_BATCH]
        missing = MICRO_BATCH - len(part)
        padded = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        parts.append(function(padded)[: len(part)])
    return torch.cat(parts)


def _fill_free_rows(task: ImageWise, state: State, occupant: list[int | None], waiting: list[int]) -> None:
    """Put waiting images into free rows; what they start from is computed in one full micro-batch."""
    free = [row for row, image in enumerate(occupant) if image is None]
    chosen = waiting[: len(free)]
    if not chosen:
        return
    del waiting[: len(chosen)]
    fresh = task.start(chosen + [chosen[-1]] * (MICRO_BATCH - len(chosen)))
    rows = free[: len(chosen)]
    if not state or len(rows) == MICRO_BATCH:
        state.update(fresh)
    else:
        for name, values in fresh.items():
            state[name][rows] = values[: len(rows)]
    for row, image in zip(rows, chosen, strict=True):
        occupant[row] = image


def _index(image: int | None) -> int:
    assert image is not None, "a finished row has an image"
    return image
