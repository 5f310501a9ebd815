import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks._micro_batch import in_micro_batches, optimise
from bench.contracts import MICRO_BATCH


class Countdown:
    """Image i is finished after `lengths[i]` steps; its result is (i, steps done)."""

    def __init__(self, lengths):
        self.lengths = lengths
        self.updates = 0
        self.started = []

    def start(self, images):
        assert len(images) == MICRO_BATCH
        self.started.append(list(images))
        return {
            "image": torch.tensor(images, dtype=torch.float32).view(-1, 1),
            "done": torch.zeros(MICRO_BATCH),
            "length": torch.tensor([float(self.lengths[i]) for i in images]),
        }

    def update(self, state):
        assert all(len(values) == MICRO_BATCH for values in state.values())
        self.updates += 1
        state["done"] += 1
        return state["done"] >= state["length"]

    def finish(self, state):
        return torch.cat([state["image"], state["done"].view(-1, 1)], 1)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), max_size=40))
def test_every_image_gets_exactly_its_own_steps(lengths):
    advanced = []
    results = optimise(Countdown(lengths), len(lengths), advanced.append)
    assert [r.tolist() for r in results] == [[i, n] for i, n in enumerate(lengths)]
    assert sum(advanced) == len(lengths)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=40))
def test_a_finished_row_is_taken_by_the_next_image_at_once(lengths):
    task = Countdown(lengths)
    optimise(task, len(lengths))
    free_at = [0] * MICRO_BATCH
    for length in lengths:  # greedy list scheduling over the rows
        row = free_at.index(min(free_at))
        free_at[row] += length
    assert task.updates == max(free_at)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 30))
def test_padding_repeats_an_image_that_is_there(count):
    task = Countdown([1] * count)
    optimise(task, count)
    assert {i for images in task.started for i in images} == set(range(count))
    assert task.started[-1][-1] == count - 1


def test_no_images_start_nothing():
    task = Countdown([])
    assert optimise(task, 0) == ()
    assert task.started == []


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 30), width=st.integers(1, 4))
def test_a_function_sees_full_micro_batches_only(count, width):
    sizes = []

    def function(rows):
        sizes.append(len(rows))
        return 2 * rows

    rows = torch.arange(float(count * width)).view(count, width)
    assert torch.equal(in_micro_batches(function, rows), 2 * rows)
    assert set(sizes) == {MICRO_BATCH}
    assert len(sizes) == -(-count // MICRO_BATCH)
