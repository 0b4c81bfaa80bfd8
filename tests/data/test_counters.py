"""Numbers that depend on their place alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volano.data.counters import counter_hash, counter_hashes


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.integers(1, 20))
def test_hashes_of_arrays_and_of_numbers_agree(counters, num):
    assert counter_hashes(tuple(counters), num).tolist() == [
        counter_hash(*counters, i) for i in range(num)
    ]


def test_the_first_number_is_splitmix64s():
    # That of the generator seeded with 0 (Steele, Lea & Flood 2014), as its reference prints it.
    assert counter_hash(0) == 0xE220A8397B1DCDAF


def test_the_order_of_counters_counts():
    assert counter_hash(1, 2) != counter_hash(2, 1)
    assert counter_hash(1) != counter_hash(1, 0)


def test_none_are_an_empty_array():
    found = counter_hashes((1,), 0)
    assert (found.dtype, found.shape) == (np.uint64, (0,))
