"""Plans that do not fit are made to, or refused with what is needed and which lever is missing."""

import pytest
import torch
from torch import nn

from planner.searching import cache, make_task, search  # noqa: F401 - a fixture
from volano.errors import PlanError
from volano.planner import Wish, find_plan
from volano.planner.contest import Contest
from volano.planner.fitting import Fit, _first_that_fits
from volano.planner.oracle import Oracle

MIB = 2**20


class Block(nn.Module):
    """Wide inside and narrow outside, so that its activations are what recomputation saves."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(64, 2048), nn.GELU(), nn.Linear(2048, 64))

    def forward(self, x):
        return x + self.layers(self.norm(x))


def net(norm: bool = False) -> nn.Module:
    return nn.Sequential(nn.Sequential(*(Block(norm) for _ in range(6))), nn.Linear(64, 10))


def task(**fields):
    return make_task(**{"model": net, "batch_size": 512, "duration": "50st", **fields})


@pytest.fixture(autouse=True)
def own_cache(cache):  # noqa: F811 - the fixture
    return cache


def test_a_quarter_of_the_memory_is_enough():
    plain = search(task(), budget=4000 * MIB, is_free=True).explanation
    eager = next(c for c in plain.candidates if c.levers(plain.plan) and c.plan.allocator == "system")
    budget = eager.memory_bytes // 4 + 40 * MIB  # beside what the process needs in any case
    found = search(task(), budget=budget)
    assert found.explanation.verdict == "FITS"
    assert found.plan.micro_batch is not None or found.plan.recompute == "blocks"
    assert found.explanation.memory.upper <= budget


def test_a_batch_that_must_not_be_split_is_left_whole():
    found = search(task(model=lambda: net(norm=True)), budget=100 * MIB)
    assert found.plan.micro_batch is None
    assert found.plan.recompute == "blocks" or found.plan.allocator == "return"
    assert found.may_split is not True


def test_nothing_fits():
    with pytest.raises(PlanError) as caught:
        search(task(), budget=8 * MIB)
    assert "fits into 8 MiB" in str(caught.value)
    assert "Give a budget of" in caught.value.remedy
    assert "offload: the device's memory is the host's" in caught.value.remedy
    told = search(task(), budget=8 * MIB, is_free=True).explanation
    assert told.verdict == "NO"
    assert told.needed > 8 * MIB
    assert any("Give a budget of" in notice for notice in told.notices)


def test_a_pinned_micro_batch_stays():
    found = search(task(), budget=120 * MIB, pins={"micro_batch": 64})
    assert found.plan.micro_batch == 64


@pytest.mark.parametrize("first", range(8))
def test_the_largest_that_fits_is_found_in_few_looks(first):
    looks = []

    def verdict(number):
        looks.append(number)
        return "FITS" if number >= first else "NO"

    found = _first_that_fits([lambda number=number: verdict(number) for number in range(8)])
    assert found == first
    assert len(looks) <= 5


def test_none_fits():
    assert _first_that_fits([lambda: "NO"] * 4) is None
    assert _first_that_fits([lambda: "UNCERTAIN"] * 4) is None
    assert _first_that_fits([lambda: None, lambda: "NO"]) == 0


def test_data_that_takes_half_of_the_budget_is_streamed():
    found = search(task(batch_size=8, model=lambda: nn.Linear(64, 10)), budget=200_000, is_free=True)
    assert found.plan.feed == "ring"
    assert torch.is_grad_enabled()


def test_what_is_too_large_once_compiled_is_not_compiled(monkeypatch):
    """The verdict is the oracle's: here every compiled plan is too large."""
    monkeypatch.setattr(Oracle, "_is_looked_into", lambda _, plan: not plan.compile)
    monkeypatch.setattr(Oracle, "verdict", lambda _, plan: "NO" if plan.compile else "FITS")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda *args, **_: compiled.append(args))
    asked = Wish(device="cpu", budget=4000 * MIB, is_free=True, recalls=False)
    found = find_plan(make_task(duration="300st"), asked)
    assert not compiled
    assert not found.plan.compile
    assert {c.status for c in found.explanation.candidates if c.plan.compile} == {"memory"}
    assert [r.reason for r in found.explanation.refused if r.knob == "compile"][-1:] == [
        "compiled it does not fit the budget"
    ]


def test_what_ran_and_is_too_large_is_not_taken(monkeypatch):
    monkeypatch.setattr(Contest, "_is_too_large", lambda *_: False)
    monkeypatch.setattr(Oracle, "verdict", lambda _, plan: "NO" if plan.precision == "bf16" else "FITS")
    monkeypatch.setattr("volano.planner.search.fit", lambda *_, **__: Fit(ways=({},), needed=1, missing=""))
    found = search(budget=4000 * MIB)
    assert found.plan.precision == "fp32"
    assert {c.status for c in found.explanation.candidates if c.plan.precision == "bf16"} == {"memory"}
