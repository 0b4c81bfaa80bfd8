"""Trials are dealt evenly, and stay where they are as far as that goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from volano.study.workers.assignments import deal


@given(
    st.sets(st.integers(0, 99), max_size=40),
    st.integers(1, 6),
    st.dictionaries(st.integers(0, 99), st.integers(0, 7)),
)
def test_each_trial_once_and_nobody_two_more_than_another(numbers, num_workers, homes):
    workers = list(range(num_workers))
    dealt = deal(numbers, workers, homes)
    assert sorted(number for mine in dealt.values() for number in mine) == sorted(numbers)
    counts = [len(dealt.get(worker, ())) for worker in workers]
    assert max(counts) - min(counts) <= 1
    for worker, mine in dealt.items():
        assert list(mine) == sorted(mine)
        # Whoever is away from a worker that is idle was in excess there.
        away = [n for n in numbers if homes.get(n) == worker and n not in mine]
        assert not away or all(homes.get(n) == worker for n in mine)


def test_survivors_stay_where_their_state_lives():
    assert deal([1, 4, 6, 9], [0, 1], {1: 1, 4: 0, 6: 1, 9: 0}) == {0: (4, 9), 1: (1, 6)}
    assert deal([1, 4, 6], [0, 1], {1: 1, 4: 1, 6: 1}) == {0: (6,), 1: (1, 4)}
    assert deal([1, 2], [3], {}) == {3: (1, 2)}
    assert deal([1], [0, 1], {1: 1}) == {1: (1,)}
