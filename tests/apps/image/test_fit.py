"""The size of the network and the number of steps that suit a time, with given figures."""

import dataclasses
from types import SimpleNamespace

import pytest

from volano import Plan
from volano.apps.application import TimeLimit
from volano.apps.image import fit
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.apps.image.recipe import DEFAULT_EPOCHS
from volano.planner import PlanRequest


@pytest.fixture(scope="module")
def application():
    return ImageApplication.read(ImageOptions(flip="no"))


@pytest.fixture
def limit(monkeypatch):
    """``limit(seconds, step=...)``: all of these are left, and a step takes so long."""
    asked = []

    def choose_plan(self, task, **options):
        asked.append(options)
        return SimpleNamespace(plan=Plan.baseline())

    def make(seconds, *, step, startup=0.0, forward=0.0, **options):
        monkeypatch.setattr(TimeLimit, "left", lambda self: seconds)
        monkeypatch.setattr(TimeLimit, "choose_plan", choose_plan)
        timed = SimpleNamespace(step=step, startup=startup)
        monkeypatch.setattr(TimeLimit, "measure_step", lambda *_: timed)
        monkeypatch.setattr(TimeLimit, "with_fewer_threads", lambda _, task, *given: (*given, ()))
        monkeypatch.setattr(fit, "_forward_seconds", lambda *_: forward)
        return TimeLimit(planning=PlanRequest(), started=0.0, seconds=seconds, **options)

    make.asked = asked
    return make


def test_the_time_is_shared_out(application, limit):
    found = fit.fit_into(application.with_size("thin"), limit(100.0, step=1.0, startup=7.0))
    assert found.num_steps == 100 - 7 - 2 - 5 - 5
    assert "1e+03 ms a step, 1.66667 min" in found.reasons[0]
    assert limit.asked[0] == {"seconds": 100.0, "is_raced": True, "planning_seconds": 5.0}
    assert found.length.after_steps == 9
    # Beside a run of twice the seconds a step, half the steps are left.
    assert found.length.num_steps(9, 2.0) == 9 + int((100 - 5 - 2 * 2) / 2)


def test_a_long_time_is_not_filled_unless_it_was_asked_for(application, limit):
    usual = fit.fit_into(application, limit(1e5, step=1e-3, is_default=True))
    assert usual.num_steps == usual.application.steps_in(DEFAULT_EPOCHS)
    assert f"at most {DEFAULT_EPOCHS:g} epochs" in usual.reasons[0]
    assert fit.fit_into(application, limit(1e5, step=1e-3)).num_steps > usual.num_steps


def test_the_size_is_that_for_which_the_time_has_enough_epochs(application, limit, monkeypatch):
    sizes = {"wide": (10.0, 24.0), "base": (3.0, 8.0), "thin": (1.0, 0.0)}
    monkeypatch.setattr(fit, "relative_costs", lambda **_: sizes)
    for seconds, size in ((1000.0, "wide"), (100.0, "base"), (20.0, "thin")):
        found = fit.fit_into(application, limit(seconds, step=0.1))
        assert found.application.spec.size == size
        assert f"of the {size} network" in found.reasons[0]


def test_the_final_test_is_made_cheaper_if_it_would_take_more_than_its_share(application, limit):
    moved = dataclasses.replace(
        application, spec=dataclasses.replace(application.spec, translate=1)
    )
    usual = fit.fit_into(moved, limit(100.0, step=0.1)).application
    assert (usual.options.views, usual.options.num_test) == (True, None)
    num = len(application.test)
    found = fit.fit_into(moved, limit(100.0, step=0.1, forward=8.0 / num)).application
    assert (found.options.views, found.options.num_test) == (False, None)
    found = fit.fit_into(moved, limit(80.0, step=0.1, forward=6.5 / num))
    assert found.application.options.num_test == len(found.application.tested) < num
    assert any(f"of {num} images" in reason for reason in found.reasons)
    again = ImageApplication.read(ImageOptions(**found.application.resolved(found.num_steps))).task(
        found.num_steps
    )
    task = found.application.task(found.num_steps)
    assert len(again.valid) == len(task.valid)
    assert again.evaluate_every == task.evaluate_every


def test_a_size_that_was_asked_for_stands(limit, monkeypatch):
    monkeypatch.setattr(fit, "relative_costs", None)  # would fail
    asked = ImageApplication.read(ImageOptions(flip="no", size="base"))
    assert fit.fit_into(asked, limit(1000.0, step=0.1)).application.spec.size == "base"


def test_one_step_is_made_however_short_the_time_is(application, limit):
    found = fit.fit_into(application, limit(1.0, step=5.0))
    assert found.num_steps == 1
    assert found.reasons[-1].startswith("warning: too short a time to learn from: one step of")
    assert "give 2.9 minutes or more" in found.reasons[-1]
