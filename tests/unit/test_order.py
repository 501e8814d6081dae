from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqscan.probe.order import Permutation


def test_bijection_for_every_small_size():
    for size in range(300):
        assert sorted(Permutation(size, seed=size)) == list(range(size))


@given(st.integers(1, 5000), st.integers(0, 2**64))
def test_bijection_whatever_the_seed(size, seed):
    assert sorted(Permutation(size, seed)) == list(range(size))


@given(st.integers(2**32, 2**100), st.integers(0, 2**64), st.data())
def test_big_sizes_stay_inside_without_collisions(size, seed, data):
    order = Permutation(size, seed)
    places = data.draw(st.lists(st.integers(0, size - 1), unique=True, max_size=50))
    found = [order[i] for i in places]
    assert all(0 <= at < size for at in found)
    assert len(set(found)) == len(places)


def test_order_depends_on_the_seed_and_on_nothing_else():
    assert list(Permutation(1000, 1)) == list(Permutation(1000, 1))
    assert list(Permutation(1000, 1)) != list(Permutation(1000, 2))
    # fixed for all time: a plan that is resumed by a later version must find its order again
    assert list(Permutation(10, 7)) == [0, 1, 3, 8, 5, 7, 9, 6, 4, 2]


def test_order_looks_shuffled():
    order = list(Permutation(65_535, 3))
    steps = {b - a for a, b in pairwise(order)}
    assert len(steps) > 20_000
    fixed = sum(at == i for i, at in enumerate(order))
    assert fixed < 20
    # early probes reach all quarters of the space alike
    quarters = [sum(at * 4 // 65_535 == q for at in order[:1000]) for q in range(4)]
    assert min(quarters) > 180


def test_index_outside_is_refused():
    for index in (-1, 10):
        with pytest.raises(IndexError):
            Permutation(10, 0)[index]
