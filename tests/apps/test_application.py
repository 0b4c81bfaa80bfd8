"""What the contract of an application gives to one that leaves it as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from volano.apps import application as module
from volano.apps.application import Application, Finished, Table, TrainedModel
from volano.apps.options import Options, option
from volano.errors import CheckpointError, UsageError
from volano.planner import PlanRequest
from volano.running.fit_time import FittedSize
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import NetworkCosts
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
        return SimpleNamespace(num_steps=num_steps, evaluation_interval=3)


def dots(**options):
    return Dots(options=DotOptions(**options), tasks=[])


class TestFit:
    @pytest.fixture
    def found(self, monkeypatch):
        """What the time of a run comes to, as given."""
        asked = []

        def fit_time(limit, sizes, **given):
            asked.append((limit, [size.task().num_steps for size in sizes], given))
            network = NetworkCosts(name="net", step=0.1)
            schedule = SimpleNamespace(num_steps=860)
            return FittedSize(
                number=0, chosen="a plan", schedule=schedule, network=network,
                reasons=("said",), length=None,
            )  # fmt: skip

        monkeypatch.setattr(module, "fit_time", fit_time)
        return asked

    def test_as_many_steps_as_the_time_comes_to(self, found):
        limit = TimeLimit(planning=PlanRequest(), started=0.0, seconds=100.0)
        fitted = dots().fit(limit)
        assert (fitted.num_steps, fitted.chosen) == (860, "a plan")
        assert fitted.reasons == ("860 steps: 100 ms a step, 1.66667 min", "said")
        assert found == [(limit, [10], {"num_evaluations": 4})]

    def test_epochs_need_no_timing(self, monkeypatch):
        monkeypatch.setattr(TimeLimit, "choose_plan", lambda self, task: f"for {task.num_steps}")
        limit = TimeLimit(planning=PlanRequest(), started=0.0, seconds=100.0)
        found = dots().fit_epochs(limit, 2.5)
        assert (found.num_steps, found.chosen, found.reasons) == (25, "for 25", ())

    def test_a_trial_is_the_application_itself(self):
        one = dots()
        seen = []
        found, seconds = one.fit_trial(9.0, lambda task: seen.append(task.num_steps) or 0.5, None)
        assert found is one
        assert (seconds, seen) == (0.5, [1000])


def test_the_minutes_are_those_asked_for_or_those_of_the_data(monkeypatch):
    monkeypatch.setattr(Dots, "sample_minutes", 0.5)
    for given, minutes in (({}, 0.5), ({"path": "x"}, 3.0), ({"path": "x", "minutes": 7.0}, 7.0)):
        assert Dots.minutes_of(DotOptions(**given)) == minutes


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
        with pytest.raises(UsageError, match="must have `model_type` or `load`.*Dots"):
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

    def test_figures_that_its_folder_cannot_keep_are_told(self, tmp_path):
        model = TrainedModel(RunFolder(tmp_path / "gone"), nn.Linear(1, 1))
        found = model._evaluated("other", "data", {"loss": 0.5, "notices": ["as ever"]})
        assert found["loss"] == 0.5
        assert found["notices"][0] == "as ever"
        assert found["notices"][1].startswith("not kept: A run's folder must be writable")

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
