"""Freed memory is given back where the C library can, and nowhere else does asking fail."""

import ctypes
import sys

import pytest

from bench.run import memory


@pytest.fixture(autouse=True)
def asked_anew():
    memory._malloc_trim.cache_clear()
    yield
    memory._malloc_trim.cache_clear()


def test_the_c_library_is_asked_to_give_back_all(monkeypatch):
    class Library:
        def __init__(self, name):
            assert name is None
            self.given = []

        def malloc_trim(self, pad):
            given.append(pad)

    given = []
    monkeypatch.setattr(ctypes, "CDLL", Library)
    memory.give_back()
    memory.give_back()
    assert given == [0, 0]


def test_arrow_is_asked_where_it_is_in_use(monkeypatch):
    asked = []

    class Arrow:
        def default_memory_pool():
            return Arrow

        def release_unused():
            asked.append(None)

    monkeypatch.setitem(sys.modules, "pyarrow", Arrow)
    memory.give_back()
    monkeypatch.delitem(sys.modules, "pyarrow")
    memory.give_back()
    assert asked == [None]


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_a_system_that_cannot_is_left_alone(monkeypatch, error):
    def no_library(_name):
        raise error("no such thing")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    memory.give_back()
    assert memory._malloc_trim() is None
