"""The order is a permutation for everything, and nothing but (seed, epoch, number of examples)
moves it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.data import Order, in_sequence, order, permutation

SEEDS = st.integers(0, 2**63 - 1)


@given(st.integers(1, 3000), SEEDS, st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(num_examples, seed, epoch):
    order = permutation(seed, epoch, num_examples)
    assert np.array_equal(np.sort(order), np.arange(num_examples))


@given(
    st.integers(1, 500),
    st.integers(1, 64),
    SEEDS,
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 200),
)
def test_ranks_share_a_global_batch_out(
    num_examples, batch_size, seed, world_size, keep_last, step
):
    batch_size = min(batch_size, num_examples)
    order = Order(num_examples=num_examples, batch_size=batch_size, seed=seed, keep_last=keep_last)
    alone = order.key(step)
    shares = [order.key(step, rank=rank, world_size=world_size) for rank in range(world_size)]
    together = np.empty_like(alone.indices)
    for rank, share in enumerate(shares):
        assert share.epoch == alone.epoch
        together[rank::world_size] = share.indices
    assert np.array_equal(together, alone.indices)


@given(st.integers(1, 500), st.integers(1, 64), SEEDS, st.integers(0, 50), st.integers(0, 20))
def test_any_start_gives_the_same_rest(num_examples, batch_size, seed, start, length):
    order = Order(num_examples=num_examples, batch_size=min(batch_size, num_examples), seed=seed)
    whole = list(order.keys(0, start + length))
    rest = list(order.keys(start, start + length))
    for expected, key in zip(whole[start:], rest, strict=True):
        assert expected.epoch == key.epoch
        assert np.array_equal(expected.indices, key.indices)


@given(st.integers(1, 300), st.integers(1, 50), SEEDS)
def test_an_epoch_visits_every_example_once(num_examples, batch_size, seed):
    order = Order(num_examples=num_examples, batch_size=batch_size, seed=seed, keep_last=True)
    keys = list(order.keys(0, order.steps_per_epoch))
    assert sorted(np.concatenate([key.indices for key in keys])) == list(range(num_examples))
    assert {key.epoch for key in keys} == {0}
    assert order.key(order.steps_per_epoch).epoch == 1


def test_the_order_is_written_in_stone():
    # A change of these numbers changes every experiment: raise ORDER_VERSION with it.
    assert permutation(0, 0, 10).tolist() == [3, 1, 9, 6, 2, 4, 7, 8, 0, 5]
    assert permutation(7, 3, 10).tolist() == [8, 7, 9, 4, 6, 5, 0, 2, 3, 1]


def test_seeds_and_epochs_differ():
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_positions_are_uniform():
    # Each of 8 examples comes first equally often: chi-square with 7 degrees of freedom, 99.99 %
    # below 29.9.
    firsts = np.bincount([permutation(seed, 0, 8)[0] for seed in range(8000)], minlength=8)
    assert ((firsts - 1000) ** 2 / 1000).sum() < 29.9


def test_the_order_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        permutation(0, 0, 10)[0] = 1


@given(st.integers(1, 300), st.integers(1, 50))
def test_an_evaluation_visits_everything_in_sequence(num_examples, batch_size):
    indices = np.concatenate([key.indices for key in in_sequence(num_examples, batch_size)])
    assert indices.tolist() == list(range(num_examples))


def test_the_order_of_a_task(make_task):
    order = Order.of(make_task(batch_size=100, last_batch="keep", seed=7))
    assert (order.num_examples, order.batch_size, order.keep_last) == (512, 100, True)
    assert order.seed == make_task(seed=7).order_seed


def test_many_orders_at_once_are_sorted_once_an_epoch(monkeypatch):
    made = []
    sort = order.permutation.__wrapped__
    monkeypatch.setattr(order, "permutation", lambda *given: made.append(given) or sort(*given))
    orders = [Order(num_examples=20, batch_size=4, seed=seed) for seed in range(7)]
    for _ in zip(*(one.keys(0, 10) for one in orders), strict=True):
        pass
    assert sorted(made) == [(seed, epoch, 20) for seed in range(7) for epoch in range(2)]
