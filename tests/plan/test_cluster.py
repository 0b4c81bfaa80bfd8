"""Explanations of trainings on clusters, as values."""

import json

import pytest

from volano.plan import Plan
from volano.plan.cluster import ClusterCandidate, ClusterExplanation
from volano.plan.prediction import MemoryPrediction, TimePrediction


def candidate(world_size=8, verdict="FITS", hours=2.0):
    return ClusterCandidate(
        plan=Plan(sharding="full"),
        world_size=world_size,
        passes=1,
        time=TimePrediction(step=0.4, bounds={"compute": 0.3, "network": 0.1}),
        exchanges=0.2,
        memory=MemoryPrediction(peak=10, lower=10, upper=12),
        verdict=verdict,
        examples_per_second=160.0,
        tokens_per_second=None,
        device_hours=hours,
    )


def explanation(*curve):
    return ClusterExplanation(
        task="mine", device_name="H100", machine="DGX H100", world_size=8, num_nodes=1, per_node=8,
        interconnect=4.5e11, network=4e11, sources=("a data sheet",), budget=100, num_steps=1000,
        num_examples=64, planning_seconds=1.0, candidates=(candidate(),), curve=curve,
    )  # fmt: skip


def test_the_share_of_exchanges_is_what_the_step_waits_for():
    assert candidate().exchange_share == pytest.approx(0.25)


def test_the_cheapest_fits():
    found = explanation(candidate(1, "NO", 0.1), candidate(2, hours=3.0), candidate(4, hours=2.5))
    assert found.cheapest.world_size == 4
    assert explanation(candidate(1, "NO")).cheapest is None
    assert found.verdict == "FITS"


def test_it_is_json():
    text = json.loads(json.dumps(explanation(candidate(4)).to_json()))
    assert text["cheapest"]["world_size"] == 4
    assert text["candidates"][0]["plan"]["sharding"] == "full"
    assert text["curve"][0]["step_seconds"] == 0.4
    assert text["verdict"] == "FITS"
