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
def test_every_artefact_is_in_one_batch_behind_all_that_it_is_made_from(pieces, most):
    batches = cut(pieces, cost, most)
    assert [batch.number for batch in batches] == list(range(len(batches)))
    at = {each.address: (batch.number, place) for batch in batches for place, each in enumerate(batch.nodes)}
    assert len(at) == sum(len(batch.nodes) for batch in batches) == len(pieces)
    for piece in pieces:
        for each in piece.inputs:
            assert at[each.address] < at[piece.address]
            own, needed = at[piece.address][0], at[each.address][0]
            assert needed == own or needed in batches[own].after


@given(graphs(), st.sampled_from([0, 1, 30, 1e9]))
def test_a_batch_takes_no_longer_than_asked_unless_one_artefact_does(pieces, most):
    for batch in cut(pieces, cost, most):
        assert batch.seconds == sum(map(cost, batch.nodes))
        assert len(batch.nodes) == 1 or batch.seconds <= most


@given(graphs())
def test_urgency_is_the_longest_way_to_the_end(pieces):
    batches = cut(pieces, cost, 0)
    longest = urgency(batches)

    def way(number):
        follow = [way(each.number) for each in batches if number in each.after]
        return batches[number].seconds + max(follow, default=0)

    for batch in batches:
        assert abs(longest[batch.number] - way(batch.number)) < 1e-6


def test_what_is_not_to_be_computed_is_waited_for_by_nobody():
    stored = Piece("stored")
    (batch,) = cut([Piece("new", (stored,))], cost, 0)
    assert batch.after == frozenset()


def test_short_levels_are_one_batch_and_long_ones_are_not():
    first = [Piece(f"a{number}", cost=40) for number in range(3)]
    second = Piece("b", tuple(first), cost=5)
    third = Piece("c", (second,), cost=5)
    batches = cut([third, second, *first], cost, 60)
    assert [tuple(each.address for each in batch.nodes) for batch in batches] == [
        ("a0",), ("a1",), ("a2",), ("b", "c"),
    ]  # fmt: skip
    assert batches[3].after == {0, 1, 2}
    assert batches[3].what == "cloak one and 1 more"


def test_a_chain_of_ten_thousand_is_cut():
    pieces = [Piece("0")]
    for number in range(1, 10_000):
        pieces.append(Piece(str(number), (pieces[-1],)))
    assert len(cut(pieces, cost, 0)) == 10_000
    assert [batch.seconds for batch in cut(pieces, cost, 1e9)] == [10_000]
