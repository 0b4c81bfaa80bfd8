"""Plans that do not fit are made to, or refused with what is needed and which knob is missing."""

import pytest
import torch
from torch import nn

from planner.searching import PLAIN, cache, make_task, search  # noqa: F401 - a fixture
from volano.errors import PlanError
from volano.planner.cost_model import CostModel
from volano.planner.memory.predict import predict_memory
from volano.planner.search.fit_memory import Fit, _first_that_fits
from volano.planner.search.race import CandidateRace

MIB = 2**20
# Each precision is fitted in the same way.
ONE_PRECISION = {"precision": ("bf16",)}


class Block(nn.Module):
    """Wide inside and narrow outside, so that its activations are what recomputation saves; no
    product of matrices, since a bf16 one of this width takes seconds on a processor without units
    for it."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64) if norm else nn.Identity()
        self.scale = nn.Parameter(torch.ones(256, 64))

    def forward(self, x):
        wide = nn.functional.gelu(self.norm(x)[:, None] * self.scale)
        return x + nn.functional.gelu(wide).mean(1)


def net(norm: bool = False) -> nn.Module:
    return nn.Sequential(nn.Sequential(*(Block(norm) for _ in range(6))), nn.Linear(64, 10))


def task(**fields):
    return make_task(**{"model": net, "batch_size": 64, "duration": "50st", **fields})


@pytest.fixture(autouse=True)
def own_cache(cache):  # noqa: F811 - the fixture
    return cache


def test_a_quarter_of_the_memory_is_enough():
    eager = predict_memory(task(), PLAIN).memory
    budget = eager.peak // 4 + 40 * MIB  # beside what the process needs in any case
    found = search(task(), budget=budget, forbidden=ONE_PRECISION)
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
        search(task(), budget=MIB // 8, forbidden=ONE_PRECISION)
    assert "must fit into" in str(caught.value)
    assert "Give a budget of" in caught.value.remedy
    assert "offload: the device's memory is the host's" in caught.value.remedy
    told = search(task(), budget=MIB // 8, is_free=True, forbidden=ONE_PRECISION).explanation
    assert told.verdict == "NO"
    assert told.needed > MIB // 8
    assert any("Give a budget of" in notice for notice in told.notices)


class Unpredictable(nn.Module):
    """Looks at a value, which a step without values does not have."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x):
        return self.inner(x) * (2.0 if x.sum().item() > 1e9 else 1.0)


def test_a_budget_that_cannot_be_checked_is_no_silent_yes():
    with pytest.raises(PlanError) as caught:
        search(task(model=Unpredictable), budget=2**34, forbidden=ONE_PRECISION)
    assert "must be predictable if a budget is given" in str(caught.value)
    assert ".item()" in str(caught.value)
    told = search(task(model=Unpredictable), budget=2**34, is_free=True, forbidden=ONE_PRECISION)
    assert told.explanation.verdict is None
    assert any("not predicted" in notice for notice in told.explanation.notices)


def test_a_pinned_micro_batch_stays():
    found = search(task(), budget=120 * MIB, pins={"micro_batch": 8})
    assert found.plan.micro_batch == 8


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
    found = search(
        task(batch_size=8, model=lambda: nn.Linear(64, 10)), budget=200_000, is_free=True
    )
    assert found.plan.feed == "ring"
    assert torch.is_grad_enabled()


def test_what_ran_and_is_too_large_is_not_taken(monkeypatch):
    monkeypatch.setattr(CandidateRace, "_is_too_large", lambda *_: False)
    monkeypatch.setattr(
        CostModel, "verdict", lambda _, plan: "NO" if plan.precision == "bf16" else "FITS"
    )
    it_fits = Fit(ways=({},), needed=1, missing="")
    monkeypatch.setattr("volano.planner.search.fit_memory.fit_memory", lambda *_, **__: it_fits)
    found = search(budget=4000 * MIB)
    assert found.plan.precision == "fp32"
    assert {c.status for c in found.explanation.candidates if c.plan.precision == "bf16"} == {
        "memory"
    }
