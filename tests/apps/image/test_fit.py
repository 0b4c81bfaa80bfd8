"""The size of the network and the number of steps that suit a time, with given figures."""

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

    def make(seconds, *, step, startup=0.0, **options):
        monkeypatch.setattr(TimeLimit, "left", lambda self: seconds)
        monkeypatch.setattr(TimeLimit, "choose_plan", choose_plan)
        monkeypatch.setattr(fit, "_measure", lambda *_: (step, startup, 0.0))
        return TimeLimit(planning=PlanRequest(), started=0.0, seconds=seconds, **options)

    make.asked = asked
    return make


def test_a_part_of_the_time_is_kept_back(application, limit):
    found = fit.fit_into(application.with_size("thin"), limit(100.0, step=1.0, startup=7.0))
    assert found.num_steps == 100 - 7 - 3 - 15
    assert "1000 ms a step, 1.66667 min" in found.reasons[0]
    # A plan for the probe is taken without a race, that of the run for the time that is left.
    assert limit.asked == [{"seconds": 100.0, "is_raced": False}, {"seconds": 82.0}]


def test_a_long_time_is_not_filled_unless_it_was_asked_for(application, limit):
    usual = fit.fit_into(application, limit(1e5, step=1e-3, is_default=True))
    assert usual.num_steps == usual.application.steps_in(DEFAULT_EPOCHS)
    assert f"at most {DEFAULT_EPOCHS:g} epochs" in usual.reasons[0]
    assert fit.fit_into(application, limit(1e5, step=1e-3)).num_steps > usual.num_steps


def test_the_size_is_that_for_the_epochs_of_the_thin_network(application, limit, monkeypatch):
    asked = []
    monkeypatch.setattr(fit, "choose_size", lambda **facts: asked.append(facts) or "wide")
    found = fit.fit_into(application, limit(1000.0, step=0.1))
    assert found.application.spec.size == "wide"
    steps = int((1000 - 3 - 150) / 0.1)
    assert asked[0]["epochs_of_thin"] == steps / application.steps_in(1.0)
    assert "of the wide network" in found.reasons[0]


def test_a_size_that_was_asked_for_stands(limit, monkeypatch):
    monkeypatch.setattr(fit, "choose_size", None)  # would fail
    asked = ImageApplication.read(ImageOptions(flip="no", size="base"))
    assert fit.fit_into(asked, limit(1000.0, step=0.1)).application.spec.size == "base"


def test_one_step_is_made_however_short_the_time_is(application, limit):
    found = fit.fit_into(application, limit(1.0, step=5.0))
    assert found.num_steps == 1
    assert found.reasons[0].endswith("are too short for more")
