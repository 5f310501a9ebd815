import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stats.criteria import verdict

ENDS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@given(ENDS, st.floats(0, 1))
def test_a_bound_is_met_exactly_where_every_number_of_the_interval_meets_it(ends, bound):
    low, high = ends
    asked = {"least": (low >= bound, high >= bound), "most": (low <= bound, high <= bound)}
    for name, meets in asked.items():
        expected = "met" if all(meets) else "open" if any(meets) else "short"
        assert verdict(low, high, **{name: bound}) == expected


@given(ENDS, st.floats(0, 1))
def test_more_and_less_are_mirrored(ends, bound):
    low, high = ends
    assert verdict(low, high, least=bound) == verdict(-high, -low, most=-bound)


@pytest.mark.parametrize("ends", [(None, None), (math.nan, math.nan), (0.2, None)])
def test_without_an_interval_nothing_is_met(ends):
    assert verdict(*ends, least=0.1) == "open"
    assert verdict(*ends, most=0.9) == "open"


def test_one_bound_and_two_ends_in_order():
    for bounds in ({}, {"least": 0.1, "most": 0.2}):
        with pytest.raises(ValueError, match="one bound"):
            verdict(0.1, 0.2, **bounds)
    with pytest.raises(ValueError, match=r"lower end 0\.3 is above"):
        verdict(0.3, 0.2, least=0.1)
