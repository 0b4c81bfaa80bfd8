"""The best weights are kept, and a run without patience ends; both survive a kill."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import volano
from volano.errors import TaskError
from volano.plan import Plan
from volano.training.checkpoints.best_weights import BestWeights


def objective(model, batch):
    x, y = batch
    return ((model(x) - y) ** 2).mean()


def overfitting(**changes):
    """A task whose validation loss falls, then rises: more features than examples, with noise."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(60, 30, generator=generator), torch.randn(60, 1, generator=generator)
    y = x[:, :1] + 2 * noise
    task = volano.Task(
        model=lambda: nn.Linear(30, 1),
        objective=objective,
        data=TensorDataset(x[:20], y[:20]),
        valid=TensorDataset(x[20:], y[20:]),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.05),
        batch_size=10,
        duration="60ep",
        evaluate_every="2ep",
    )
    return dataclasses.replace(task, **changes)


def losses(run):
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["valid_loss"] for line in lines if "valid_loss" in line}


def trained(task, out):
    return volano.train(task, out=out, plan=Plan.baseline("cpu"))


def test_the_weights_of_the_best_evaluation_are_kept(tmp_path):
    run = trained(overfitting(keep="best"), tmp_path / "run")
    found = losses(run)
    best = min(found, key=lambda step: found[step])
    assert best < max(found) == 120
    assert run.metrics["valid_loss"] == found[best]
    task = overfitting()
    with torch.no_grad():
        loss = objective(run.model, task.valid.tensors)
    assert loss.item() == pytest.approx(found[best], rel=1e-5)
    assert any(f"kept: the weights of step {best}," in text for text in run.notices)
    last = trained(overfitting(), tmp_path / "last")
    assert losses(last) == found
    assert last.metrics["valid_loss"] == found[120]


def test_without_patience_left_a_run_ends(tmp_path):
    run = trained(overfitting(keep="best", patience=3), tmp_path / "run")
    found = losses(run)
    best = min(found, key=lambda step: found[step])
    assert max(found) == best + 3 * 4
    record = json.loads((run.path / "run.json").read_text())
    assert (record["status"], record["step"], record["kept_step"]) == ("finished", max(found), best)
    assert any("no smaller valid loss since" in text for text in run.notices)


def test_without_patience_left_a_run_that_was_killed_before_its_page_ends_there(tmp_path):
    task = overfitting(keep="best", patience=3)
    run = volano.train(
        task,
        out=tmp_path / "run",
        plan=Plan.baseline("cpu"),
        safety=volano.Safety(save_every="2st"),
    )
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "report.html").unlink()
    again = volano.resume(run.path, task=task)
    after = json.loads((run.path / "run.json").read_text())
    assert (after["step"], again.metrics) == (record["step"], run.metrics)


class Stop(volano.Observer):
    def __init__(self, step):
        self.step = step

    def on_evaluation(self, record):
        if record["step"] == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [8, 20])
def test_a_resumed_run_keeps_what_an_uninterrupted_one_does(tmp_path, step):
    task = overfitting(keep="best", patience=5)
    whole = trained(task, tmp_path / "whole")
    safety = volano.Safety(save_every="3st")
    with pytest.raises(KeyboardInterrupt):
        volano.train(
            task, out=tmp_path / "cut", plan=Plan.baseline("cpu"), observer=Stop(step),
            safety=safety,
        )  # fmt: skip
    again = volano.resume(tmp_path / "cut", task=task)
    assert losses(again) == losses(whole)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True)
    )
    assert again.metrics["valid_loss"] == whole.metrics["valid_loss"]


def test_a_loss_that_is_no_number_is_not_the_best():
    best, model = BestWeights(None), nn.Linear(1, 1)
    best.look(1, {"loss": float("nan")}, model)
    best.look(2, {"loss": 1.0}, model)
    best.look(3, {"loss": float("nan")}, model)
    assert (best.step, best.has_waited) == (2, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep": "worst"}, "'last' or 'best'"),
        ({"keep": "best", "valid": None}, "needs `valid`"),
        ({"patience": 3}, "must come with `keep`"),
        ({"keep": "best", "patience": 0}, "above 0"),
    ],
)
def test_what_cannot_be_kept_is_refused(changes, said):
    with pytest.raises(TaskError, match=said):
        overfitting(**changes)
