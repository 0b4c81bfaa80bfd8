"""Planning for devices that are not here."""

import pytest
from torch import nn

from planner.searching import cache, make_task  # noqa: F401 - a fixture
from volano import Plan
from volano.device import find_device
from volano.errors import UsageError
from volano.planner import (
    Explanation,
    NotPredictedError,
    PlanRequest,
    absent_plan,
    absent_step,
    cost_model,
    explain_absent,
    offline,
)


def task(**fields):
    return make_task(
        model=lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)), **fields
    )


def test_it_fits_and_everything_is_predicted():
    wide = make_task(
        model=lambda: nn.Sequential(nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 10)),
        batch_size=512,
    )
    found = explain_absent(wide, "H100 80GB", PlanRequest())
    assert (found.verdict, found.is_present, found.origin) == ("FITS", False, "predicted")
    assert "H100" in found.device_name
    assert found.measured is None
    assert found.candidates[0].total == min(c.total for c in found.candidates)
    assert all(c.measured is None and c.predicted is not None for c in found.candidates)
    assert Explanation.from_json(found.to_json()) == found


def test_a_budget_that_is_too_small():
    # No micro-batches: with each of the other knobs the step is traced anew.
    found = explain_absent(task(tolerance="exact"), "H100 80GB", PlanRequest(budget=1000))
    assert found.verdict == "NO"
    assert found.needed > 1000


def test_a_faster_device_is_predicted_to_be_faster():
    wide = make_task(
        model=lambda: nn.Sequential(nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 10)),
        batch_size=512,
    )
    slow, fast = (
        explain_absent(wide, name, PlanRequest(pins={"precision": "fp32"}))
        for name in ("T4", "H100 80GB")
    )
    assert fast.time.step < slow.time.step


def test_an_unknown_device_is_told_the_nearest():
    with pytest.raises(UsageError, match="Nearest: .*H100"):
        explain_absent(task(), "H1000 Ultra", PlanRequest())


def test_an_objective_that_reads_its_numbers_is_said():
    def objective(model, batch):
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * (1.0 if loss.item() > 0 else 2.0)

    found = explain_absent(task(objective=objective), "A100", PlanRequest())
    assert found.verdict is None
    assert any("not predicted" in notice and ".item()" in notice for notice in found.notices)


def test_a_name_of_several_is_judged_by_the_smallest_memory():
    found = explain_absent(task(), "A100", PlanRequest())
    assert found.budget == find_device("A100 SXM 40GB").memory < find_device("A100").memory
    assert "The memory is that of the smallest, A100 SXM 40GB" in found.notices
    assert (
        explain_absent(task(), "A100 80GB", PlanRequest()).budget
        == find_device("A100 SXM 80GB").memory
    )


def test_a_request_for_a_device_is_planned_and_timed_there():
    request = PlanRequest(on="H100 80GB", seconds=60.0, pins={"compile": False})
    assert not request.place.is_cpu
    assert request.quick().on == request.on
    chosen, there = absent_plan(task(), request), find_device("H100 80GB").torch_type
    assert chosen.plan.device == request.place.name == there
    assert chosen.step == absent_step(task(), chosen.plan, request).step > 0
    # As many steps as the time is enough for, and not the task's.
    (eager,) = (c for c in chosen.explanation.candidates if c.plan == c.plan.plain.pin(
        feed=c.plan.feed))  # fmt: skip
    assert chosen.explanation.num_steps == int(60.0 / eager.predicted.step)


def test_without_a_race_it_is_the_plan_that_needs_no_measuring():
    chosen = absent_plan(task(), PlanRequest(on="H100 80GB", is_raced=False))
    assert (chosen.plan.precision, chosen.plan.compile) == ("fp32", False)
    assert chosen.step > 0


def test_a_step_is_captured_once_for_tasks_that_are_alike(monkeypatch):
    captured, trace_each = [], cost_model.trace_each

    def traced(own, plans, **more):
        captured.extend(plan.precision for plan in plans)
        return trace_each(own, plans, **more)

    monkeypatch.setattr(cost_model, "trace_each", traced)
    monkeypatch.setattr(offline, "_captures", {})
    request = PlanRequest(on="H100 80GB")
    chosen = absent_plan(task(), request)
    assert captured == ["fp32", "fp32", "bf16"]  # plain eager; TF32 is fp32 to a capture
    step = absent_step(task(duration="7st"), chosen.plan, request)
    assert step.step == chosen.step
    assert explain_absent(task(), "H100 80GB", request).plan == chosen.plan
    assert len(captured) == 3
    absent_step(task(batch_size=16), chosen.plan, request)
    assert len(captured) == 4


def test_what_a_race_there_decides_is_left_to_it():
    found = explain_absent(task(), "H100 80GB", PlanRequest())
    left = {r.knob for r in found.refused if r.reason == "what it saves shows in a race there"}
    assert left == {"graph", "compile_mode"}  # and no convolution to time
    assert not any("records none" in refusal.reason for refusal in found.refused)


def test_what_cannot_be_predicted_there_is_said():
    def objective(model, batch):
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * (1.0 if loss.item() > 0 else 2.0)

    request, own = PlanRequest(on="A100"), task(objective=objective)
    with pytest.raises(NotPredictedError):
        absent_plan(own, request)
    with pytest.raises(NotPredictedError):
        absent_step(own, Plan(device="cuda"), request)
