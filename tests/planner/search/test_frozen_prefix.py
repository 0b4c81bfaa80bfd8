"""The search keeps what a slow frozen prefix computes, counts its first epoch, and says so."""

import time

import pytest
from torch import nn

from planner.searching import cache, make_task, search
from volano.plan.explanation import Explanation

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache"]


class SlowTrunk(nn.Module):
    """A frozen part that takes its time, and a head."""

    def __init__(self):
        super().__init__()
        self.trunk = Slow()
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.trunk(x))


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 16).requires_grad_(False)

    def forward(self, x):
        time.sleep(0.01)
        return self.linear(x)


def test_it_is_chosen_and_explained():
    task = make_task(model=SlowTrunk, duration="40ep", tolerance="rounding")
    found = search(task)
    assert found.plan.prefix == "cached"
    chosen = found.explanation.candidates[0]
    assert chosen.filling > 0
    assert chosen.total == pytest.approx(640 * chosen.measured + 16 * chosen.filling, rel=1e-6)
    assert found.startup >= 16 * chosen.filling
    (said,) = [notice for notice in found.explanation.notices if "frozen" in notice]
    assert said.startswith("1 of 2 layers are frozen, and what they compute of an example is kept")
    assert "39 of 40 epochs skip" in said
    assert said in found.reasons
    again = Explanation.from_json(found.explanation.to_json())
    assert again.candidates[0].filling == chosen.filling
    assert again.network == found.explanation.network
    assert [part.trained for part in again.network.parts] == [0, 170]
    assert again.network.saved_seconds == pytest.approx(624 * chosen.filling)
    assert again.network.is_measured
    assert again.network.frozen.startswith("what 1 of 2 layers compute, which are frozen, is kept")
    # Taken up for another length, the epoch that fills is counted again.
    remembered = search(make_task(model=SlowTrunk, duration="60ep", tolerance="rounding"))
    assert remembered.explanation.origin == "remembered"
    assert remembered.plan.prefix == "cached"


def test_a_short_run_keeps_it_without_a_race():
    found = search(make_task(model=SlowTrunk, duration="3ep", tolerance="rounding"))
    assert found.explanation.origin == "trusted"
    assert found.plan.prefix == "cached"
    assert found.explanation.network.saved_seconds > 0
    assert not found.explanation.network.is_measured
