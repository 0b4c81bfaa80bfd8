"""The size of the network and the number of steps that suit a time, with given figures."""

import dataclasses
from types import SimpleNamespace

import pytest

from volano import Plan
from volano.apps.image import fit
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.apps.image.recipe import DEFAULT_EPOCHS
from volano.planner import PlanRequest, PlanResult
from volano.running.time_limit import TimeLimit


@pytest.fixture(scope="module")
def application():
    return ImageApplication.read(ImageOptions(flip="no"))


@pytest.fixture
def limit(monkeypatch):
    """``limit(seconds, step=...)``: all of these are left, and a step of 64 images by the thin
    network takes so long; others in proportion."""

    def choose_plan(self, task, **options):
        return PlanResult(plan=Plan.baseline("cpu"))

    def make(seconds, *, step, forward=0.0, **options):
        def measure_step(self, task, plan):
            share = {16: 0.25, 32: 1.0, 64: 3.0, 128: 10.0}[
                task.model().groups[0].norms[0].num_features // 4
            ]
            return SimpleNamespace(step=step * share * task.batch_size / 64, startup=0.0)

        monkeypatch.setattr(TimeLimit, "left", lambda self: seconds)
        monkeypatch.setattr(TimeLimit, "choose_plan", choose_plan)
        monkeypatch.setattr(TimeLimit, "measure_step", measure_step)
        monkeypatch.setattr(fit, "_forward_seconds", lambda *_: forward)
        return TimeLimit(
            planning=PlanRequest(device="cpu"), started=0.0, seconds=seconds, **options
        )

    return make


def test_the_time_is_shared_out(application, limit):
    found = fit.fit_into(application, limit(100.0, step=0.1))
    # As asked: 2 s for writing, 5 % each for planning and a slow machine.
    assert found.num_steps == int((100 - 2 - 5 - 5) / 0.1)
    assert found.application.spec.size == "thin"
    assert "100 ms a step, 1.66667 min" in found.reasons[0]
    assert found.length.after_steps == 88
    # Beside a run of twice the seconds a step, half the steps are left.
    assert found.length.num_steps(88, 0.2) == pytest.approx(88 + (100 - 5 - 2 * 2) / 0.2, abs=1)


def test_a_slow_machine_gets_a_smaller_network(application, limit):
    found = fit.fit_into(application, limit(100.0, step=1.0))
    assert found.application.spec.size == "tiny"
    assert found.num_steps == int((100 - 2 - 5 - 5) / 0.25)


def test_a_batch_is_halved_if_there_are_few_steps(application, limit):
    asked = application.with_size("thin").with_options(batch_size=512)
    assert [some.recipe(1.0).batch_size for some, *_ in fit._choices(asked)] == [512, 512]
    large = fit._choices(application)
    assert [some.spec.size for some, *_ in large] == ["thin", "tiny"]


def test_a_long_time_is_not_filled_unless_it_was_asked_for(application, limit):
    usual = fit.fit_into(application, limit(1e5, step=1e-3, is_default=True))
    assert usual.num_steps == usual.application.steps_in(DEFAULT_EPOCHS)
    assert f"at most {DEFAULT_EPOCHS:g} epochs" in usual.reasons[0]
    assert fit.fit_into(application, limit(1e5, step=1e-3)).num_steps > usual.num_steps


def test_the_size_is_that_for_which_the_time_has_enough_epochs(application, limit, monkeypatch):
    sizes = {"wide": (10.0, 24.0), "base": (3.0, 8.0), "thin": (1.0, 2.0), "tiny": (0.25, 0.0)}
    monkeypatch.setattr(fit, "relative_costs", lambda **_: sizes)
    for seconds, size in ((1000.0, "wide"), (100.0, "base"), (40.0, "thin"), (15.0, "tiny")):
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


def test_a_few_steps_are_begun_with_however_short_the_time_is(application, limit):
    found = fit.fit_into(application, limit(1.0, step=20.0))
    assert found.num_steps == 6
    assert found.reasons[-1].startswith("warning: too short a time to learn from: 6 steps of the")
    assert found.length.num_steps(2, 5.0) == 3  # it ends as soon as its own steps say so


@pytest.mark.parametrize(("tune", "epochs"), [("head", 10), ("all", 1)])
def test_a_frozen_trunk_is_planned_for_examples_that_come_again(monkeypatch, tune, epochs):
    options = ImageOptions(from_="pretrained_networks:small", tune=tune, flip="no")
    application = ImageApplication.read(options)
    planned = []

    def stop(limit, sizes, *_, **__):
        planned.extend(size.task() for size in sizes)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "fit_time", stop)
    limit = TimeLimit(planning=PlanRequest(), started=0.0, seconds=60.0)
    with pytest.raises(KeyboardInterrupt):
        fit.fit_into(application, limit)
    assert planned[0].num_steps == epochs * planned[0].steps_per_epoch
