"""A classifier of clips from the folder to its figures."""

from types import SimpleNamespace

import volano
from volano.apps.application import Finished
from volano.apps.kinds import (
    CLASSIFY_CLIPS,
    application_class,
    application_of_run,
    choose_application,
)
from volano.apps.study_build import application_build
from volano.apps.train import task_to_plan
from volano.apps.video.classify.application import ClipClassifyApplication
from volano.apps.video.classify.training import ClipClassifyTraining
from volano.planner import PlanRequest
from volano.training import RunFolder


def test_directions_are_learned(trained):
    assert trained.metrics["test_accuracy"] == 1.0
    assert trained.metrics["baseline_accuracy"] < 1.0
    assert ClipClassifyApplication.summary(trained)[0].startswith("test accuracy 1.0000 on ")
    report = (trained.path / "report.html").read_text()
    assert "Confusion matrix of 2 classes" in report
    assert "clip classifier" in report


def test_its_folder_leads_to_it_again(trained, folder):
    assert application_of_run(RunFolder.open(trained.path)) is application_class(CLASSIFY_CLIPS)
    again = ClipClassifyTraining.from_run(RunFolder.open(trained.path))
    assert len(again.test) == trained.metrics["num_test"]
    words = RunFolder.open(trained.path).read_json("run.json")["source"]["again"]["words"]
    assert words[:3] == ["volano", "train", "video"]
    assert "--classify" in words


def test_a_stopped_run_is_not_tested():
    application = object.__new__(ClipClassifyApplication)
    assert application.finish(SimpleNamespace(status="stopped"), None) == Finished()


def test_what_can_be_done_next(tmp_path):
    assert (
        ClipClassifyApplication.next_commands(tmp_path)[1] == f"volano predict {tmp_path} CLIPS..."
    )


def test_a_study_tries_its_numbers(folder, monkeypatch):
    monkeypatch.setattr("volano.apps.study_build._TIMING_SECONDS", 0.1)
    build = application_build(
        "video", folder, classify=True, num_frames=4, trials=2, minutes=1.0, device="cpu"
    )
    assert (build.kind, build.metric) == (CLASSIFY_CLIPS, "accuracy")
    assert "kernel_lr" in build.space.parameters
    assert build.source()["kind"] == CLASSIFY_CLIPS


def test_it_is_planned_without_being_trained(folder):
    kind, options = choose_application(
        "video", {"path": folder, "classify": True, "num_frames": 4, "epochs": 1}
    )
    planning = PlanRequest(plan=volano.Plan.baseline(), observer=volano.Observer())
    with task_to_plan(kind, options, planning) as (task, *_):
        assert task.name == "video"
