"""What the readers of other programs' files are tried with: files that lie, are cut off, or are of another kind."""

import tracemalloc

import pytest
from hypothesis import strategies as st

from bench.errors import DataError


def _mutated(content):
    """Return a strategy of files made of a whole one: cut off, overwritten in places, with something put in."""
    places = st.integers(0, len(content) - 1)
    overwritten = st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)

    def overwrite(changes):
        changed = bytearray(content)
        for place, new in changes:
            changed[place : place + len(new)] = new
        return bytes(changed)

    return st.one_of(
        places.map(lambda end: content[:end]),
        overwritten.map(overwrite),
        st.tuples(places, st.binary(min_size=1, max_size=8)).map(
            lambda change: content[: change[0]] + change[1] + content[change[0] :]
        ),
        st.binary(max_size=64),
    )


@pytest.fixture(scope="session")
def mutated():
    return _mutated


@pytest.fixture(scope="session")
def read_or_refuse(tmp_path_factory):
    """Return a function that writes a file and reads it: what is read, or the error, which must be a sentence.

    Neither may take more memory than a small file can be worth.
    """
    folder = tmp_path_factory.mktemp("hostile")

    def tried(read, content, name):
        path = folder / name
        path.write_bytes(content)
        tracemalloc.start()
        try:
            return read(path)
        except DataError as error:
            text = str(error)
            assert name in text
            assert text.endswith(".")
            assert "\n" not in text
            return error
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 100 * len(content) + 2_000_000

    return tried
