"""The stages of every application's training, with an application of no work."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from volano import Observer
from volano.apps import train as module
from volano.apps.application import Application, Finished, Fitted
from volano.apps.train import _fit, _scratch, _time_limit, resume_application, task_to_plan
from volano.errors import UsageError
from volano.plan import Plan
from volano.planner import NotPredictedError, PlanRequest, PlanResult
from volano.record.run_folder import PAGE
from volano.running.processes import Processes, TrainingRequest
from volano.training import RunFolder


class Dots:
    """Stands in for an application."""

    kind, default_minutes, needs_scratch, final_metric = "dots", 3.0, False, "test_dots"

    minutes_of = classmethod(Application.minutes_of.__func__)
    sample_minutes = 0.25
    origin = "dots"

    def __init__(self, options):
        self.options = options

    @classmethod
    def read(cls, options, scratch):
        options.scratch = scratch
        return cls(options)

    def fit(self, limit):
        chosen = PlanResult(plan=Plan.baseline("cpu"), step=0.5)
        return Fitted(application=self, chosen=chosen, num_steps=int(limit.seconds))

    def fit_epochs(self, limit, epochs):
        return Fitted(application=self, chosen=None, num_steps=int(1000 * epochs))

    def task(self, num_steps):
        return f"{num_steps} steps"


def options(**fields) -> Any:
    return SimpleNamespace(
        **{"minutes": None, "epochs": None, "path": "here", "tried": None, **fields}
    )


def limit_of(given, processes=None):
    return _time_limit(Dots, given, PlanRequest(), 5.0, processes)


class TestTimeLimit:
    def test_minutes_are_the_applications_own_unless_they_are_given(self):
        limit = limit_of(options())
        assert (limit.seconds, limit.is_default, limit.started) == (180.0, True, 5.0)
        limit = limit_of(options(minutes=0.5))
        assert (limit.seconds, limit.is_default) == (30.0, False)

    def test_ranks_are_those_of_the_processes(self):
        assert limit_of(options()).world_size == 1
        assert limit_of(options(), Processes(nproc=3)).world_size == 3


def test_epochs_or_time():
    assert _fit(Dots(options()), limit_of(options(minutes=2.0))).num_steps == 120
    assert _fit(Dots(options(epochs=2.5)), limit_of(options())).num_steps == 2500


def test_a_task_to_plan_is_what_would_be_trained():
    given = options(minutes=1.0)
    with task_to_plan(Dots, given, PlanRequest()) as (task, request, said):
        assert task == "60 steps"
        assert request.timed == {Plan.baseline("cpu"): 0.5}
        assert said == ()
    assert given.scratch is None


class TestDeviceThatIsNotHere:
    class There(Dots):
        def fit(self, limit):
            assert limit.left() == limit.seconds
            assert not limit.planning.place.is_cpu
            return dataclasses.replace(super().fit(limit), reasons=("40 steps: 1 min", "small"))

    def test_what_is_trained_there_is_chosen_for_it(self):
        request = PlanRequest(on="H100")
        with task_to_plan(self.There, options(minutes=1.0), request) as (task, request, said):
            assert task == "60 steps"
            assert not request.timed
        assert said == (
            "Chosen for H100, by steps as they are predicted there: 40 steps: 1 min; small",
        )

    def test_what_cannot_be_known_there_is_chosen_here_and_said(self):
        class Unknown(Dots):
            def fit(self, limit):
                if limit.planning.on is not None:
                    raise NotPredictedError
                return super().fit(limit)

        pretrained = options(minutes=1.0, from_="hf:net")
        for kind, given in ((Unknown, options(minutes=1.0)), (Dots, pretrained)):
            with task_to_plan(kind, given, PlanRequest(on="H100")) as (task, _, said):
                assert task == "60 steps"
                assert "those of a run on this machine" in said[0]


class TestScratch:
    class Writing(Dots):
        needs_scratch = True

    def test_most_need_none(self):
        with _scratch(Dots) as scratch:
            assert scratch is None

    def test_it_lies_on_the_disk_of_the_run_and_goes_with_the_end(self, tmp_path):
        near = tmp_path / "runs" / "new" / "text-1"  # not made yet
        with _scratch(self.Writing, near=near) as scratch:
            assert scratch.parent == tmp_path
            assert scratch.name.startswith(".volano-dots-")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(RuntimeError), _scratch(self.Writing, near=near):
            raise RuntimeError("the text cannot be read")
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_tested_has_nothing_left(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json(
        "run.json", {"schema_version": 1, "metrics": {"test_dots": 1.0}, "status": "finished"}
    )
    (tmp_path / PAGE).touch()  # the last file that a run writes
    with pytest.raises(UsageError, match="finished"):
        resume_application(Dots, tmp_path, TrainingRequest.of())


def test_what_the_final_test_says_is_kept_with_the_run(monkeypatch):
    ended = {}

    def end_run(run, _observer, **facts):
        ended.update(facts)
        return run, {"total": 9.0}

    run = module.Run(
        path=Path("run"), status="finished", model=None, plan=None, seconds={}, notices=(),
        metrics={"valid_loss": 2.0, "x": 1},
    )  # fmt: skip
    monkeypatch.setattr(module, "end_run", end_run)
    monkeypatch.setattr(module, "with_notices", lambda run, notices, _: run)
    application: Any = SimpleNamespace(
        is_held_out=False,
        finish=lambda run, task: Finished(metrics={"x": 3}, details={"figures": "all"}),
    )
    found = module._finish(run, application, None, {}, 0.0, Observer())
    assert found.metrics == ended["metrics"] == {"valid_loss": 2.0, "x": 3}
    assert ended["is_held_out"] is False
    assert found.seconds == {"total": 9.0}
    assert found.details == {"figures": "all", "is_held_out": False}


@pytest.mark.parametrize(("loading", "writing"), [(0.0, 2.0), (1.2, 1.0), (3.0, 1.8), (10.0, 6.0)])
def test_what_comes_at_the_end_is_expected_to_take_its_share_of_loading(loading, writing):
    assert module._writing_seconds(loading) == pytest.approx(writing)
