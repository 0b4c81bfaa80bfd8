"""What planning costs is bounded, and what it held is given back."""

import gc
import weakref
from typing import Any

import pytest

from planner.faults import WrongGradient, in_bf16
from planner.searching import PLAIN, SlowUnlessNarrow, by_plan, cache, make_task, search
from volano.planner.parity.guard import ParityGuard
from volano.planner.request import PlanRequest
from volano.planner.search import search as searching
from volano.planner.search.time_budget import TimeBudget
from volano.planner.search.timing import TimingRuns

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache"]


def test_nothing_of_a_search_is_alive_when_training_starts(monkeypatch):
    held = []
    whole = searching._Search.__init__

    def noted(self, *args):
        whole(self, *args)
        held.append(weakref.ref(self._guard))
        held.append(weakref.ref(self._profile))

    monkeypatch.setattr(searching._Search, "__init__", noted)
    gc.disable()
    try:
        search()
        assert len(held) == 2
        assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


def test_an_overdrawn_search_takes_what_needs_no_guard(monkeypatch):
    monkeypatch.setattr(
        TimeBudget, "left", property(lambda self: self.total if self.is_racing else -1.0)
    )
    monkeypatch.setattr(TimeBudget, "is_racing", True, raising=False)
    ended = TimingRuns.close

    def close(self):
        ended(self)
        monkeypatch.setattr(TimeBudget, "is_racing", False)

    monkeypatch.setattr(TimingRuns, "close", close)
    monkeypatch.setattr(ParityGuard, "parity", None)  # would fail
    found = search()
    assert found.plan.precision == "fp32"
    assert found.step is not None
    (faster,) = by_plan(found, precision="bf16")
    assert (faster.status, faster.measured < found.step) == ("untried", True)
    assert "the guard was not asked" in faster.reason


def test_nothing_is_blamed_once_time_is_spent(monkeypatch):
    monkeypatch.setattr(ParityGuard, "knobs_at_fault", None)  # would fail
    asked = ParityGuard.parity

    def parity(self, plan):
        found = asked(self, plan)
        monkeypatch.setattr(TimeBudget, "left", -1.0)
        return found

    monkeypatch.setattr(ParityGuard, "parity", parity)
    found = search(make_task(model=lambda: SlowUnlessNarrow(WrongGradient(in_bf16))))
    assert found.plan.precision == "fp32"
    (struck,) = by_plan(found, precision="bf16")
    assert struck.status == "struck"
    assert "at fault" not in struck.reason


@pytest.mark.parametrize(("budget", "is_raised"), [(None, False), (10, True)])
def test_plain_eager_is_refused_under_a_given_budget_only(budget, is_raised):
    one: Any = object.__new__(searching._Search)
    one._request = PlanRequest(budget=budget)
    one._space = type("Space", (), {"base": PLAIN})
    one._cost_model = type("Oracle", (), {"budget": 10})
    one._fits = {"fp32": type("Fit", (), {"applied": lambda *_: None})()}
    struck = {PLAIN.pin(micro_batch=4): ("it is off", {})}
    if is_raised:
        with pytest.raises(searching.PlanError, match="compute the same as plain eager"):
            one._unguarded(struck)
    else:
        assert one._unguarded(struck) == PLAIN


def test_rates_that_cannot_be_measured_are_told_and_the_race_goes_on(monkeypatch):
    def fails(*_):
        raise RuntimeError("no kernel runs")

    monkeypatch.setattr("volano.planner.cost_model.rates_of", fails)
    found = search(make_task(duration="300st"), is_free=True)
    assert found.plan.precision == "bf16"
    assert "not predicted, but measured: RuntimeError: no kernel runs" in found.explanation.notices
