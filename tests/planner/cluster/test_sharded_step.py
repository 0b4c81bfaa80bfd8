"""A rank that shares a model with others: exchanges and memory."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.plan.prediction import MemoryPrediction, TimePrediction
from volano.planner.cluster.sharded_step import (
    ClusterLayout,
    GatherUnits,
    predict_exchanges,
    shard_memory,
    shard_time,
)

UNITS = GatherUnits(parameters=(3_000_000, 1_000_000, 1_000_000, 1_000_000), gather_bytes=2)
NODE = ClusterLayout(world_size=8, interconnect=300e9, hop=0.0, efficiency=1.0)
ALONE = dataclasses.replace(NODE, world_size=1)
CATEGORIES = {
    "parameters": 24_000_000,
    "gradients": 24_000_000,
    "optimizer_state": 48_000_000,
    "activations": 7_000_001,
    "temporaries": 500,
    "batch": 64,
}
WHOLE = MemoryPrediction(
    peak=sum(CATEGORIES.values()),
    lower=sum(CATEGORIES.values()) - 400,
    upper=10**9,
    categories=CATEGORIES,
)


def test_exchanges_by_hand():
    # Seven eighths of 6 million parameters, twice gathered in 2 bytes and once reduced in 4, in
    # each of 3 passes.
    assert predict_exchanges(UNITS, NODE, passes=3) == pytest.approx(3 * 6e6 * 8 * 7 / 8 / 300e9)
    late = dataclasses.replace(NODE, hop=1.0, interconnect=float("inf"))
    assert predict_exchanges(UNITS, late, passes=1) == 3 * 4 * 7
    assert predict_exchanges(UNITS, ALONE, passes=3) == 0


def test_machines_exchange_as_fast_as_the_network_between_them():
    assert dataclasses.replace(NODE, world_size=16, network=50e9).rate == 50e9
    assert dataclasses.replace(NODE, world_size=8, network=50e9).rate == 300e9
    assert dataclasses.replace(NODE, world_size=16, network=900e9).rate == 300e9


@given(st.floats(1e-6, 10), st.integers(1, 512), st.integers(1, 64))
def test_exchanges_only_add_and_bounds_add_up(seconds, world_size, passes):
    alone = TimePrediction(
        step=seconds, bounds={"compute": seconds}, kinds={"matmul": seconds}, startup=2.0
    )
    ranks = dataclasses.replace(NODE, world_size=world_size)
    shared = shard_time(alone, UNITS, ranks, passes=passes)
    exchanges = predict_exchanges(UNITS, ranks, passes=passes)
    assert max(seconds, exchanges) <= shared.step <= (seconds + exchanges) * (1 + 1e-12)
    assert sum(shared.bounds.values()) == pytest.approx(shared.step) == sum(shared.kinds.values())
    assert shared.startup == 2.0


def test_one_rank_holds_what_a_device_alone_does():
    assert shard_memory(WHOLE, UNITS, ALONE).peak == WHOLE.peak
    assert shard_memory(WHOLE, UNITS, ALONE).categories == CATEGORIES


@given(st.integers(2, 1024))
def test_more_ranks_hold_less_each_but_never_less_than_a_unit_and_the_activations(world_size):
    shared = shard_memory(WHOLE, UNITS, dataclasses.replace(NODE, world_size=world_size))
    more = shard_memory(WHOLE, UNITS, dataclasses.replace(NODE, world_size=2 * world_size))
    assert more.peak <= shared.peak
    assert sum(shared.categories.values()) == shared.peak
    assert shared.lower <= shared.peak <= shared.upper
    assert shared.lower >= CATEGORIES["activations"] + 3_000_000 * 2
    assert shared.categories["activations"] == CATEGORIES["activations"]


def test_memory_by_hand():
    shared = shard_memory(WHOLE, UNITS, NODE)
    # An eighth of 96 MB; the two largest units gathered in 2 bytes, the gradients of one in 4.
    assert shared.peak == 12_000_000 + 7_000_001 + 500 + 64 + 4_000_000 * 2 + 3_000_000 * 4


def test_units_are_the_blocks_and_the_rest():
    elements = {
        "embed.weight": 10,
        "blocks.0.a": 1,
        "blocks.1.a": 2,
        "blocks.1.inner.0.w": 4,
        "blocks.10.a": 8,
    }
    units = GatherUnits.of_blocks(
        elements, ("blocks.0", "blocks.1", "blocks.1.inner.0", "blocks.10")
    )
    assert units.parameters == (10, 1, 2, 4, 8)
    assert (units.gather_bytes, units.reduce_bytes) == (4, 4)
    assert GatherUnits.of_blocks({"weight": 3}, ()).parameters == (3,)


def test_whole_copies_sum_their_gradients_once_a_step():
    # Seven eighths of 6 million gradients in 4 bytes, there and back, however many passes.
    for passes in (1, 5):
        assert predict_exchanges(UNITS, NODE, passes=passes, sharding="none") == pytest.approx(
            2 * 6e6 * 4 * 7 / 8 / 300e9
        )
    assert predict_exchanges(UNITS, ALONE, passes=3, sharding="none") == 0
    assert shard_memory(WHOLE, UNITS, NODE, "none").peak == WHOLE.peak


def test_hybrid_sharding_stays_within_machines_but_for_one_sum():
    nodes = dataclasses.replace(NODE, world_size=32, network=50e9)
    within = predict_exchanges(UNITS, NODE, passes=3)
    between = 2 * 6e6 * 4 * 3 / 4 / 50e9
    found = predict_exchanges(UNITS, nodes, passes=3, sharding="hybrid")
    assert found == pytest.approx(within + between)
    assert found < predict_exchanges(UNITS, nodes, passes=3, sharding="full")
    assert shard_memory(WHOLE, UNITS, nodes, "hybrid").peak == shard_memory(WHOLE, UNITS, NODE).peak
