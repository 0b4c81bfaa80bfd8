"""Which classifier is kept, and how many steps a time affords."""

from types import SimpleNamespace

import pytest

from volano import Plan
from volano.apps.targets.find_target import target_class
from volano.apps.targets.numbers import Numbers
from volano.apps.text.classify import fit
from volano.apps.text.classify.fit import _affordable, _better, _head_plan, _try_bag, _try_head
from volano.apps.text.classify.model_spec import BAG, DECODER_HEAD
from volano.planner import PlanRequest
from volano.running.time_limit import TimeLimit


def test_the_bag_is_kept_if_they_are_equal():
    classes = target_class("classes")(names=("a", "b"))
    assert _better({BAG: 0.5, DECODER_HEAD: 0.5}, classes) == BAG
    assert _better({BAG: 0.5, DECODER_HEAD: 0.6}, classes) == DECODER_HEAD
    assert _better({BAG: 0.5}, classes) == BAG
    numbers = Numbers(names=("x",), means=(0.0,), deviations=(1.0,))
    assert _better({BAG: 0.5, DECODER_HEAD: 0.4}, numbers) == DECODER_HEAD


def limit_of(step, **fields):
    class Limit(TimeLimit):
        def measure_step(self, task, plan):
            assert self.world_size == 1
            return SimpleNamespace(step=step)

    return Limit(planning=PlanRequest(), started=0.0, seconds=60.0, **fields)


@pytest.mark.parametrize(
    ("seconds", "most", "steps"), [(10.0, 1000, 100), (10.0, 30, 30), (0.01, 1000, 1), (-5.0, 9, 1)]
)
def test_as_many_steps_as_the_seconds_afford(monkeypatch, seconds, most, steps):
    monkeypatch.setattr(fit.time, "perf_counter", lambda: 5.0)
    limit = limit_of(0.1, world_size=2)
    assert _affordable(limit, None, None, seconds, most=most) == steps


def test_a_head_that_has_no_time_is_not_tried():
    assert _try_head(None, None, limit_of(0.1), 3.9) == (
        None,
        f"{DECODER_HEAD}: not tried, 4 s left are too few",
    )
    assert "0 s left" in _try_head(None, None, limit_of(0.1), -7.0)[1]


def test_a_pin_holds_for_the_head_too():
    plan = Plan.baseline().pin(feed="ring", optimizer="fused")
    assert _head_plan(plan, {}).feed == "resident"
    assert _head_plan(plan, {}).optimizer == "as_given"
    pinned = _head_plan(plan, {"feed": "ring", "optimizer": None})
    assert (pinned.feed, pinned.optimizer) == ("ring", "as_given")


def test_a_bag_that_has_no_time_makes_one_step(monkeypatch):
    def bag_task(*, everything, num_steps=None):
        return SimpleNamespace(num_steps=num_steps or (400 if everything else 420))

    trial = SimpleNamespace(seconds=0.1, metrics={"accuracy": 0.5}, notices=())
    monkeypatch.setattr(fit, "run_trial", lambda task, plan: trial)
    application = SimpleNamespace(bag_task=bag_task, target=SimpleNamespace(figure="accuracy"))
    assert _try_bag(application, None, limit_of(9.0)).num_steps == 1
