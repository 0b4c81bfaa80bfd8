"""What the contract of an application gives to one that leaves it as it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from volano import Plan
from volano.apps import application as module
from volano.apps.application import Application, Finished, Table, TimeLimit, TrainedModel
from volano.apps.options import Options, option
from volano.errors import CheckpointError, UsageError
from volano.planner import PlanRequest, PlanResult
from volano.training import RunFolder


@dataclass(frozen=True, kw_only=True)
class DotOptions(Options):
    """Options of :class:`Dots`."""

    width: int = option(3, "How wide.", at_least=1)
    num_steps: int | None = option(None, "Found out.", is_resolved=True)


@dataclass(frozen=True, kw_only=True)
class Dots(Application):
    """An application that gives nothing but what it must."""

    kind = "dots"
    options_type = DotOptions
    final_metric = "test_dots"

    options: Any
    origin: str = "nowhere"
    faults: tuple = ()
    notices: tuple = ()
    tasks: Any = None

    @classmethod
    def read(cls, options, scratch=None):
        return cls(options=options, origin=str(scratch), tasks=[])

    def steps_in(self, epochs):
        return max(1, round(10 * epochs))

    def recipe_of(self, num_steps):
        return num_steps

    def task(self, num_steps, recipe=None):
        self.tasks.append((num_steps, recipe))
        return SimpleNamespace(num_steps=num_steps)


def dots(**options):
    return Dots(options=DotOptions(**options), tasks=[])


class FakeLimit(TimeLimit):
    """A limit of which the clock stands still and a step takes what is said here."""

    step, startup, asked = 0.1, 2.0, None

    def left(self):
        return self.seconds

    def choose_plan(self, task, **options):
        self.asked.append((task.num_steps, options))
        return SimpleNamespace(plan=Plan.baseline())

    def measure_step(self, task, plan, seconds):
        self.asked.append((task.num_steps, seconds))
        return SimpleNamespace(step=self.step, startup=self.startup)


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setattr(FakeLimit, "asked", [])
    return lambda seconds: FakeLimit(planning=PlanRequest(), started=0.0, seconds=seconds)


class TestFewerThreads:
    """Beside other processes a step of two threads waits for the one that has no core."""

    @pytest.fixture
    def fitted(self, monkeypatch):
        def fit(seconds_by_threads, *, agrees=True, **planning):
            class Limit(FakeLimit):
                def measure_step(self, task, plan, seconds):
                    return SimpleNamespace(step=seconds_by_threads[plan.threads], startup=0.0)

            monkeypatch.setattr(module.torch, "get_num_threads", lambda: 4)
            monkeypatch.setattr(
                module, "check_parity", lambda *_, **__: SimpleNamespace(passed=agrees)
            )
            limit = Limit(planning=PlanRequest(**planning), started=0.0, seconds=60.0)
            chosen = PlanResult(plan=Plan.baseline("cpu"), explanation=None, reasons=())
            timed = SimpleNamespace(step=seconds_by_threads[None], startup=0.0)
            found, step, said = limit.with_fewer_threads(None, chosen, timed)
            return found.plan.threads, step.step, said

        return fit

    def test_as_few_as_save_time(self, fitted):
        assert fitted({None: 0.4, 2: 0.2, 1: 0.1}) == (
            1, 0.1, ("threads=1: 100 ms a step instead of 200 ms with more",),
        )  # fmt: skip
        assert fitted({None: 0.4, 2: 0.2, 1: 0.19})[0] == 2

    def test_none_that_computes_something_else(self, fitted):
        assert fitted({None: 0.4, 2: 0.2, 1: 0.1}, agrees=False) == (None, 0.4, ())

    def test_what_the_user_says_stands(self, fitted):
        assert fitted({None: 0.4, 2: 0.2, 1: 0.1}, forbid={"threads": (1,)})[0] is None


class TestFit:
    def test_as_many_steps_as_the_time_that_is_left(self, limit):
        found = dots().fit(limit(100.0))
        # A tenth and two seconds are kept back, and what the first step takes beyond a step.
        assert found.num_steps == int((100 - 2.0 - 12.0) / 0.1)
        assert found.reasons == ("860 steps: 100 ms a step, 1.66667 min",)
        assert FakeLimit.asked == [(10, {"seconds": 88.0}), (10, 2.0)]

    def test_one_step_is_made_in_any_case(self, limit):
        assert dots().fit(limit(1.0)).num_steps == 1
        assert FakeLimit.asked[0] == (10, {"seconds": 1.0})

    def test_epochs_need_no_timing(self, limit):
        found = dots().fit_epochs(limit(100.0), 2.5)
        assert (found.num_steps, found.reasons) == (25, ())
        assert FakeLimit.asked == [(25, {})]

    def test_a_trial_is_the_application_itself(self):
        one = dots()
        seen = []
        found, seconds = one.fit_trial(9.0, lambda task: seen.append(task.num_steps) or 0.5, None)
        assert found is one
        assert (seconds, seen) == (0.5, [1000])


class TestTimeLimit:
    def test_what_is_left_is_what_has_not_passed(self, monkeypatch):
        monkeypatch.setattr(time, "perf_counter", lambda: 130.0)
        limit = TimeLimit(planning=PlanRequest(), started=100.0, seconds=60.0)
        assert limit.left() == 30.0

    def test_a_plan_is_chosen_for_all_ranks(self, monkeypatch):
        calls = []
        monkeypatch.setattr(module, "choose_plan", lambda *given, **how: calls.append((given, how)))
        own, other = PlanRequest(), PlanRequest(device="cpu")
        limit = TimeLimit(planning=own, started=0.0, seconds=1.0, world_size=4)
        limit.choose_plan("task")
        limit.choose_plan("task", seconds=3.0, is_raced=False, planning=other)
        assert calls == [
            (("task", own), {"world_size": 4, "seconds": None, "is_raced": True}),
            (("task", other), {"world_size": 4, "seconds": 3.0, "is_raced": False}),
        ]

    def test_any_processes_may_train_unless_something_is_said(self):
        assert TimeLimit(planning=PlanRequest(), started=0, seconds=1).check(None, None) is None


class TestOfARun:
    def folder(self, tmp_path, record):
        folder = RunFolder(tmp_path)
        folder.write_json("run.json", record)
        return folder

    def test_resolved_options_make_the_same_task_again(self, tmp_path):
        resolved = dots(width=7).resolved(12)
        assert (resolved["width"], resolved["num_steps"]) == (7, 12)
        again = Dots.from_run(self.folder(tmp_path, {"source": {"dials": resolved}}))
        assert again.options == DotOptions(width=7, num_steps=12)
        assert again.task_of_run().num_steps == 12
        assert again.origin == "None"  # it needs no folder for files

    def test_files_that_reading_wrote_lie_in_the_runs_folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Dots, "needs_scratch", True)
        folder = self.folder(tmp_path, {"source": {"dials": dots().resolved(1)}})
        assert Dots.from_run(folder).origin == str(tmp_path)

    def test_data_that_is_gone_is_named_in_its_words(self, tmp_path):
        resolved = dots(path=str(tmp_path / "gone")).resolved(1)
        with pytest.raises(UsageError, match="gone"):
            Dots.from_run(self.folder(tmp_path, {"source": {"dials": resolved}}))

    @pytest.mark.parametrize(
        "record",
        [{}, {"source": None}, {"source": {}}, {"source": {"dials": {"colour": 1}}},
         {"source": {"dials": {"width": 0}}}, {"source": {"dials": None}}],
    )  # fmt: skip
    def test_a_run_without_its_options_is_told(self, tmp_path, record):
        with pytest.raises(CheckpointError, match="a run of the dots application must hold its"):
            Dots.options_of(self.folder(tmp_path, record))

    def test_defaults_write_nothing_and_test_nothing(self, tmp_path):
        one = dots()
        one.write(RunFolder(tmp_path), None)
        assert list(tmp_path.iterdir()) == []
        assert one.finish(None, None) == Finished()
        assert one.goal() == {}

    def test_an_application_that_says_no_figures_has_those_of_its_run(self):
        run: Any = SimpleNamespace(metrics={"test_dots": 0.123456, "num_test": 3})
        assert Dots.summary(run) == ["test dots 0.1235  num test 3"]
        assert Dots.next_commands(Path("runs/1")) == ["volano eval runs/1"]

    def test_one_that_cannot_be_used_says_so(self, tmp_path):
        with pytest.raises(UsageError, match="can be used if its application has `load`.*Dots"):
            Dots.load(RunFolder(tmp_path))


class TestTrainedModel:
    def test_it_is_put_on_the_device_and_evaluates(self, tmp_path):
        module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
        model = TrainedModel(RunFolder(tmp_path), module, "cpu")
        assert not any(part.training for part in model.module.modules())
        assert (model.path, model.classes, model.generate_options) == (tmp_path, (), None)
        assert repr(model) == f"TrainedModel({str(tmp_path)!r}, Sequential on cpu)"

    def test_without_a_test_it_says_so(self, tmp_path):
        with pytest.raises(UsageError, match="application has no test; got evaluate\\('x'\\)"):
            TrainedModel(RunFolder(tmp_path), nn.Linear(1, 1)).evaluate("x")

    def test_figures_are_put_into_words_and_the_rest_is_left(self, tmp_path):
        model = TrainedModel(RunFolder(tmp_path), nn.Linear(1, 1))
        result = {"mean_error": 0.123456, "num_rows": 12345, "notices": [], "origin": "x"}
        assert model.describe_evaluation(result) == ["mean error 0.1235", "num rows 12345"]


def test_an_application_that_leaves_out_what_it_must_give_is_not_made():
    class Half(Application):
        kind = "half"

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_a_table_has_no_columns_of_numbers_unless_it_says_so():
    assert Table(title="", columns=("a",), rows=[]).right == ()
