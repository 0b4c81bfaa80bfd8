"""Fewer threads beside other processes, by the time of a product."""

import pytest
import torch

from volano import Plan
from volano.planner import PlanRequest
from volano.running import busy_cores
from volano.running.busy_cores import beside_others, threads_of


@pytest.fixture
def machine(monkeypatch):
    """``machine(seconds by threads)``: how long the product takes on a machine of four cores."""

    def make(seconds):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
        monkeypatch.setattr(busy_cores, "_product_seconds", seconds.__getitem__)
        return PlanRequest(device="cpu")

    return make


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [
        ({4: 1.0, 2: 1.9}, None),
        ({4: 1.0, 2: 0.9}, None),
        ({4: 4.0, 2: 1.0, 1: 1.5}, 2),
        ({4: 9.0, 2: 3.0, 1: 1.5}, 1),
    ],
)
def test_as_few_as_save_time(machine, seconds, threads):
    found, said = beside_others(machine(seconds))
    assert found.pins.get("threads") == threads
    assert [text.split(":")[0] for text in said] == ([f"threads={threads}"] if threads else [])


@pytest.mark.parametrize(
    "given",
    [{"pins": {"threads": 3}}, {"forbid": {"threads": (1,)}}, {"plan": Plan.baseline("cpu")}],
)
def test_what_the_user_says_stands(machine, given):
    machine({4: 9.0, 2: 3.0, 1: 1.0})
    request = PlanRequest(**given)
    assert beside_others(request) == (request, ())
    assert beside_others(PlanRequest(device="cpu"), world_size=2)[1] == ()


def test_the_threads_of_a_request_hold_for_a_while():
    before = torch.get_num_threads()
    with threads_of(PlanRequest(pins={"threads": before + 1})):
        assert torch.get_num_threads() == before + 1
    with threads_of(PlanRequest()):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_a_product_takes_some_time():
    before = torch.get_num_threads()
    assert 0.0 < busy_cores._product_seconds(1) < 1.0
    assert torch.get_num_threads() == before
