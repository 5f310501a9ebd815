import json
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.erasablemask.curriculum import (
    APPEARANCE_GOAL,
    EVERYTHING_AT_ONCE,
    LATEST_END,
    LIKENESS_GOAL,
    MEMORY,
    RAMP,
    Curriculum,
    Stage,
)

NEVER = (-1.0, 2.0)
"""Progress that reaches no goal."""


def course(steps, progress):
    """The curriculum before each step, and after the last."""
    stands = [Curriculum()]
    for step in range(steps):
        stands.append(stands[-1].after(step, steps, *progress(step)))
    return stands


def begins(stands):
    """Stage → step at which it began."""
    return {stand.stage: stand.since for stand in stands}


measured = st.tuples(st.floats(-1, 1), st.floats(-2, 2))


@given(steps=st.integers(1, 120), data=st.data())
@settings(max_examples=60, deadline=None)
def test_stages_only_go_forward_and_end_by_their_share_of_the_steps(steps, data):
    seen = data.draw(st.lists(measured, min_size=steps, max_size=steps))
    stands = course(steps, seen.__getitem__)
    for step, (before, after) in enumerate(pairwise(stands)):
        assert after.stage - before.stage in {0, 1}
        assert after.since == (step + 1 if after.stage is not before.stage else before.since)
        # A stage has one step at least, so a training of very few steps may be one step late for each.
        for stage, share in LATEST_END.items():
            if before.stage == stage:
                assert step < max(share * steps, stage + 1)
    for step, stand in enumerate(stands[:-1]):
        weights = stand.weights(step, steps)
        assert all(0 <= w <= 1 for w in (weights.attribute, weights.adversarial, weights.restoration))


@given(steps=st.integers(20, 3000))
@settings(max_examples=20, deadline=None)
def test_without_progress_each_stage_takes_all_of_its_share(steps):
    began = begins(course(steps, lambda _step: NEVER))
    assert began[Stage.ATTRIBUTE] == 0
    assert 0 <= began[Stage.ADVERSARIAL] - 0.1 * steps < 1
    assert 0 <= began[Stage.RESTORATION] - 0.4 * steps < 1


def test_a_goal_reached_ends_a_stage_at_once():
    began = begins(course(1000, lambda _step: (APPEARANCE_GOAL, LIKENESS_GOAL)))
    assert began == {Stage.ATTRIBUTE: 0, Stage.ADVERSARIAL: 1, Stage.RESTORATION: 2}
    almost = begins(course(1000, lambda _step: (APPEARANCE_GOAL - 1e-6, LIKENESS_GOAL + 1e-6)))
    assert almost == {Stage.ATTRIBUTE: 0, Stage.ADVERSARIAL: 100, Stage.RESTORATION: 400}


def test_each_stage_waits_for_its_own_goal():
    looks_alike = begins(course(1000, lambda _step: (1.0, 2.0)))
    assert looks_alike == {Stage.ATTRIBUTE: 0, Stage.ADVERSARIAL: 1, Stage.RESTORATION: 400}
    fools = begins(course(1000, lambda _step: (-1.0, -2.0)))
    assert fools == {Stage.ATTRIBUTE: 0, Stage.ADVERSARIAL: 100, Stage.RESTORATION: 101}


def test_progress_is_a_running_mean_that_one_lucky_step_does_not_move_far():
    seen = [-0.5, 0.4, 0.1, -0.2]
    stand = course(4, lambda step: (0.0, seen[step]))[-1]
    mean = seen[0]
    for value in seen[1:]:
        mean = MEMORY * mean + (1 - MEMORY) * value
    assert stand.likeness == pytest.approx(mean)
    lucky = course(1000, lambda step: (1.0 if step == 1 else 0.0, 2.0))
    assert begins(lucky)[Stage.ADVERSARIAL] == 100
    # After n steps at 1 from a first one of 0 the mean is 1 − MEMORYⁿ; 0.3 is passed at n = 7.
    steady = course(1000, lambda step: (float(step > 0), 2.0))
    assert begins(steady)[Stage.ADVERSARIAL] == 8


def test_erasing_rises_in_a_line_to_its_full_weight_and_stays():
    steps = 500
    stands = course(steps, lambda _step: NEVER)
    start = begins(stands)[Stage.RESTORATION]
    risen = [stand.weights(step, steps).restoration for step, stand in enumerate(stands[:-1])]
    assert risen[:start] == [0.1] * start
    end = start + round(RAMP * steps)
    for step in range(start, steps):
        expected = min(1.0, 0.1 + 0.9 * (step - start) / (RAMP * steps))
        assert risen[step] == pytest.approx(expected)
    assert risen[end:] == [1.0] * (steps - end)
    assert risen == sorted(risen)


def test_each_stage_stresses_its_own_loss_and_forgets_no_other():
    steps = 500
    stands = course(steps, lambda _step: NEVER)
    first, second, last = (stands[step].weights(step, steps) for step in (0, 100, 499))
    assert first.attribute == second.adversarial == last.restoration == 1
    assert first.attribute > max(first.adversarial, first.restoration)
    assert second.adversarial > max(second.attribute, second.restoration)
    assert min(*asdict(first).values(), *asdict(second).values(), *asdict(last).values()) > 0
    assert set(asdict(EVERYTHING_AT_ONCE).values()) == {1.0}


@given(steps=st.integers(1, 40), data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_curriculum_read_from_a_checkpoint_goes_on_as_if_nothing_had_been(steps, data):
    seen = data.draw(st.lists(measured, min_size=steps, max_size=steps))
    cut = data.draw(st.integers(0, steps))
    whole = course(steps, seen.__getitem__)
    facts = json.loads(json.dumps(asdict(whole[cut])))
    stand = Curriculum(**{**facts, "stage": Stage(facts["stage"])})
    for step in range(cut, steps):
        stand = stand.after(step, steps, *seen[step])
    assert stand == whole[-1]
