"""Units of work: cut from any graph so that none waits for one that waits for it."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bench.run.units import cut, urgency


@dataclass(frozen=True)
class Piece:
    """What of a node the cut looks at."""

    address: str
    inputs: tuple = ()
    cost: float = 1.0
    stage: str = "cloak"
    label: str = "one"


@st.composite
def graphs(draw):
    """Draw artefacts, each made from some before it, in an order that need not be theirs."""
    pieces = []
    for number in range(draw(st.integers(0, 25))):
        inputs = draw(st.lists(st.sampled_from(pieces), max_size=3, unique=True)) if pieces else []
        pieces.append(Piece(str(number), tuple(inputs), draw(st.floats(0, 100))))
    return draw(st.permutations(pieces))


def cost(piece):
    return piece.cost


@given(graphs(), st.sampled_from([0, 1, 30, 1e9]))
def test_every_artefact_is_in_one_unit_behind_all_that_it_is_made_from(pieces, most):
    units = cut(pieces, cost, most)
    assert [unit.number for unit in units] == list(range(len(units)))
    at = {address: (unit.number, place) for unit in units for place, address in enumerate(unit.addresses)}
    assert len(at) == sum(len(unit.addresses) for unit in units) == len(pieces)
    for piece in pieces:
        for each in piece.inputs:
            assert at[each.address] < at[piece.address]
            own, needed = at[piece.address][0], at[each.address][0]
            assert needed == own or needed in units[own].after


@given(graphs(), st.sampled_from([0, 1, 30, 1e9]))
def test_a_unit_takes_no_longer_than_asked_unless_one_artefact_does(pieces, most):
    costs = {piece.address: piece.cost for piece in pieces}
    for unit in cut(pieces, cost, most):
        assert unit.seconds == sum(costs[address] for address in unit.addresses)
        assert len(unit.addresses) == 1 or unit.seconds <= most


@given(graphs())
def test_urgency_is_the_longest_way_to_the_end(pieces):
    units = cut(pieces, cost, 0)
    longest = urgency(units)

    def way(number):
        follow = [way(each.number) for each in units if number in each.after]
        return units[number].seconds + max(follow, default=0)

    for unit in units:
        assert abs(longest[unit.number] - way(unit.number)) < 1e-6


def test_what_is_not_to_be_computed_is_waited_for_by_nobody():
    stored = Piece("stored")
    (unit,) = cut([Piece("new", (stored,))], cost, 0)
    assert unit.after == frozenset()


def test_short_levels_are_one_unit_and_long_ones_are_not():
    first = [Piece(f"a{number}", cost=40) for number in range(3)]
    second = Piece("b", tuple(first), cost=5)
    third = Piece("c", (second,), cost=5)
    units = cut([third, second, *first], cost, 60)
    assert [unit.addresses for unit in units] == [
        ("a0",), ("a1",), ("a2",), ("b", "c"),
    ]  # fmt: skip
    assert units[3].after == {0, 1, 2}
    assert units[3].what == "cloak one and 1 more"


def test_a_chain_of_ten_thousand_is_cut():
    pieces = [Piece("0")]
    for number in range(1, 10_000):
        pieces.append(Piece(str(number), (pieces[-1],)))
    assert len(cut(pieces, cost, 0)) == 10_000
    assert [unit.seconds for unit in cut(pieces, cost, 1e9)] == [10_000]
