"""Depth, batch and number of steps of a language model that suit a time, with given figures."""

from types import SimpleNamespace

import pytest

from volano import Plan
from volano.apps.application import TimeLimit
from volano.apps.text import fit
from volano.apps.text.recipe import MAX_EPOCHS
from volano.planner import PlanRequest


@pytest.fixture
def limit(monkeypatch):
    """``limit(seconds, step=...)``: all of these are left, and a step takes so long."""

    def make(seconds, *, step, startup=0.0, compile=False):
        plan = Plan.baseline().pin(compile=compile)
        asked = []

        def choose_plan(self, task, **options):
            asked.append(options)
            return SimpleNamespace(plan=plan)

        def measure_step(self, task, plan, seconds):
            asked.append(plan.compile)
            return SimpleNamespace(step=step, startup=startup)

        monkeypatch.setattr(TimeLimit, "left", lambda self: seconds)
        monkeypatch.setattr(TimeLimit, "choose_plan", choose_plan)
        monkeypatch.setattr(TimeLimit, "measure_step", measure_step)
        monkeypatch.setattr(TimeLimit, "with_fewer_threads", lambda _, task, *given: (*given, ()))
        monkeypatch.setattr(fit, "_window_seconds", lambda *_: 0.0)
        make.asked = asked
        return TimeLimit(planning=PlanRequest(device="cpu"), started=0.0, seconds=seconds)

    return make


def test_the_time_is_shared_out_and_a_batch_halved_if_there_are_few_steps(small_text, limit):
    found = fit.fit_into(small_text.with_shape(depth=4, batch_size=8), limit(100.0, step=10.0))
    # As asked: 2 s for writing, 5 % each for planning and a slow machine, and a half a preview.
    assert found.num_steps == int((100 - 2 - 10 - 4.0) / 10.0)
    assert found.application.batch_size == 8
    assert "1e+04 ms a step, 1.66667 min" in found.reasons[0]
    assert found.reasons[2].startswith("warning: too short a time to learn from: 8 steps")
    assert [size.batch_size for size in fit._halved(found.application)] == [4, 2, 1]


def test_a_probe_is_timed_uncompiled_and_the_run_as_it_will_be(small_text, limit):
    fit.fit_into(small_text, limit(100.0, step=10.0, compile=True))
    quick, probed, chosen, measured = limit.asked
    assert quick["planning"].forbid == {"compile": (True,)}
    assert quick["seconds"] == pytest.approx(30.0)
    assert chosen == {"seconds": pytest.approx(80.0), "planning_seconds": pytest.approx(5.0)}
    assert (probed, measured) == (False, True)


def test_a_small_text_is_not_read_for_ever(small_text, limit):
    found = fit.fit_into(small_text, limit(1e6, step=0.001))
    assert found.num_steps == found.application.steps_in(MAX_EPOCHS)
    assert f"at most {MAX_EPOCHS:g} epochs" in found.reasons[0]


def test_one_step_is_made_however_short_the_time_is(small_text, limit):
    found = fit.fit_into(small_text, limit(1.0, step=9.0))
    assert found.num_steps == 1
    assert any("one step of the depth" in reason for reason in found.reasons)


def test_a_pinned_depth_stands(small_text, limit):
    pinned = small_text.with_shape(depth=3, batch_size=2)
    found = fit.fit_into(pinned, limit(1e4, step=0.1))
    assert (found.application.spec.depth, found.application.batch_size) == (3, 2)
