"""How the plan of a run comes about: given, found, or plain eager."""

import json

import pytest
import torch

import volano
from volano.errors import PlanError
from volano.plan import Plan
from volano.planner import EXPLANATION


def test_a_run_keeps_its_explanation_and_a_resume_its_plan(make_task, quiet, tmp_path):
    run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
    record = json.loads((run.path / EXPLANATION).read_text())
    assert volano.Explanation.from_json(record).plan == run.plan
    assert record["origin"] == "trusted"
    assert any(notice.startswith("plan: ") for notice in run.notices)


def test_a_file_is_taken_as_it_is(make_task, quiet, tmp_path):
    plan = Plan.baseline().pin(micro_batch=8, threads=1)
    plan.save(tmp_path / "mine.json")
    run = volano.train(
        make_task(), plan=tmp_path / "mine.json", out=tmp_path / "run", observer=quiet
    )
    assert run.plan == plan
    assert not (run.path / EXPLANATION).exists()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"device": "xpu:0"}, "for a device of this machine; got device='xpu:0'"),
        ({"micro_batch": 64}, "part of the batch; got micro_batch=64"),
        ({"precision": "fp16"}, "computes in"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(make_task, tmp_path, knobs, message):
    with pytest.raises(PlanError, match=message):
        volano.train(make_task(), plan=Plan.baseline().pin(**knobs), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_beyond_the_tolerance_is_refused(make_task, tmp_path):
    plan = Plan.baseline().pin(precision="bf16")
    with pytest.raises(PlanError, match="tolerance, 'exact'"):
        volano.train(make_task(tolerance="exact"), plan=plan, out=tmp_path / "run")


def test_a_given_plan_that_runs_out_of_memory_is_split_if_that_is_the_same(
    make_task, quiet, tmp_path
):
    def scarce(model, batch):
        if len(batch[0]) > 16 and model.training:
            raise torch.OutOfMemoryError("no more")
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    task = make_task(objective=scarce, duration="2st", valid=None)
    run = volano.train(task, plan=Plan.baseline(), out=tmp_path / "run", observer=quiet)
    assert run.plan == Plan.baseline().pin(micro_batch=16)
    assert json.loads((run.path / "run.json").read_text())["may_split"] is None


def weighted(model, batch):
    """A mean over weights that differ, not said in ``Loss.weight``."""
    weights = batch[1].float() + 1
    losses = torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize("how", ["pinned", "given"])
def test_a_micro_batch_that_changes_the_loss_is_said(make_task, quiet, tmp_path, how):
    wanted = (
        {"pins": {"micro_batch": 8}}
        if how == "pinned"
        else {"plan": Plan.baseline().pin(micro_batch=8)}
    )
    notices = [
        volano.train(task, out=tmp_path / name, observer=quiet, **wanted).notices
        for name, task in (("honest", make_task()), ("weighted", make_task(objective=weighted)))
    ]
    said = [[text for text in found if "changes the experiment" in text] for found in notices]
    assert said[0] == []
    assert "micro_batch=8" in said[1][0]
    assert "volano.Loss" in said[1][0]
