"""A plan under which an evaluation fails is not taken."""

import torch
from torch import nn

import volano
from volano import Plan
from volano.device import Device
from volano.planner.parity.evaluation import EvaluationTrials
from volano.planner.parity.guard import ParityGuard


def reads_numpy(model, batch):
    output = model(batch[0])
    loss = nn.functional.cross_entropy(output, batch[1], reduction="sum")
    if model.training:
        return volano.Loss(total=loss, weight=len(batch[1]))
    best = output.numpy().max()  # NumPy has no bfloat16
    return volano.Loss(total=loss, weight=len(batch[1]), metrics={"best": float(best)})


def test_a_metric_that_fails_on_a_narrow_type_rejects_the_precision(make_task):
    task = make_task(objective=reads_numpy)
    narrow = Plan.baseline().pin(precision="bf16", memory_format="channels_last")
    trials = EvaluationTrials(task)
    assert "BFloat16" in trials.failure(narrow)
    assert trials.failure(Plan.baseline().pin(threads=1)) is None
    assert trials.knobs_at_fault(narrow) == ("precision",)
    guard = ParityGuard(task, Device("cpu"), lambda: 5.0)
    assert "an evaluation fails with" in guard.parity(narrow).reason
    assert guard.knobs_at_fault(narrow) == ("precision",)


def test_a_preview_is_tried_too(make_task):
    def preview(model):
        return {"first": model(torch.zeros(1, 64)).numpy().tolist()}

    trials = EvaluationTrials(make_task(preview=preview))
    assert trials.failure(Plan.baseline().pin(precision="bf16")) is not None


def test_what_fails_in_plain_eager_is_no_fault_of_a_plan(make_task):
    def fails(model, batch):
        if model.training:
            return nn.functional.cross_entropy(model(batch[0]), batch[1])
        raise ValueError("never works")

    trials = EvaluationTrials(make_task(objective=fails))
    assert trials.failure(Plan.baseline().pin(precision="bf16")) is None
