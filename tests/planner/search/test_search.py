"""The search as a whole: what it leaves alone, what it takes, and what it strikes."""

import functools
import os
import random

import numpy as np
import pytest
import torch
from torch import nn

from planner.faults import WrongGradient, in_bf16
from planner.searching import (
    SlowUnlessNarrow,
    by_plan,
    cache,
    make_task,
    objective,
    random_states,
    search,
)
from volano.errors import PlanError
from volano.planner.parity.check import Parity
from volano.planner.parity.guard import ParityGuard
from volano.planner.search import timing

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache"]


class Watched(torch.utils.data.Dataset):
    """Rows that are made one by one, with random numbers drawn from the data's own generator
    only."""

    def __init__(self):
        self.rows = make_task().data.tensors
        self.state = {"calls": 0}

    def __len__(self):
        return 512

    def __getitem__(self, index):
        return self.rows[0][index], self.rows[1][index]


class FailsIfNarrow(SlowUnlessNarrow):
    def forward(self, x):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no such kernel\nand more lines")
        return super().forward(x)


class InterruptedIfNarrow(SlowUnlessNarrow):
    def forward(self, x):
        torch.rand(3)
        if torch.is_autocast_enabled("cpu"):
            raise KeyboardInterrupt
        return super().forward(x)


class Item(nn.Module):
    """Looks at its numbers on the way, which fake tensors do not have."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x):
        return self.inner(x) * (1.0 if x.sum().item() > -1e9 else 2.0)


def process_state():
    return (
        random_states(), torch.get_num_threads(), torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(), torch.get_default_dtype(),
        {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"},
    )  # fmt: skip


class TestNothingIsTouched:
    @pytest.mark.parametrize("model", [SlowUnlessNarrow, FailsIfNarrow, InterruptedIfNarrow])
    def test_random_state_settings_and_data(self, model):
        data = Watched()
        task = make_task(model=model, data=data)
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        before, rows = process_state(), [tensor.clone() for tensor in data.rows]
        if model is InterruptedIfNarrow:
            with pytest.raises(KeyboardInterrupt):
                search(task, pins={"workers": 0})
        else:
            search(task, pins={"workers": 0})
        assert process_state() == before
        assert all(torch.equal(tensor, row) for tensor, row in zip(data.rows, rows, strict=True))
        assert data.state == {"calls": 0}

    def test_a_model_that_the_caller_holds(self):
        held = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
        made = []

        def copy_of_held():
            import copy

            made.append(copy.deepcopy(held))
            return made[-1]

        optimizer = functools.partial(torch.optim.Adam, lr=0.01)
        before = {name: tensor.clone() for name, tensor in held.state_dict().items()}
        search(make_task(model=copy_of_held, optimizer=optimizer))
        assert made
        assert all(torch.equal(tensor, before[name]) for name, tensor in held.state_dict().items())
        assert all(parameter.grad is None for parameter in held.parameters())
        assert held.training
        assert optimizer.keywords == {"lr": 0.01}


class TestChoice:
    def test_the_fastest_that_agrees(self):
        found = search()
        assert found.plan.precision == "bf16"
        assert found.explanation.origin == "raced"
        chosen = found.explanation.candidates[0]
        assert chosen.plan == found.plan
        assert chosen.status == "chosen"
        assert chosen.parity["seconds"] > 0
        assert chosen.measured == found.step
        for other in found.explanation.candidates[1:]:
            assert other.status == "slower"
            assert other.total > chosen.total

    def test_pins_and_forbidden_values(self):
        found = search(pins={"precision": "fp32"}, forbidden={"optimizer": ("fused",)})
        plans = [candidate.plan for candidate in found.explanation.candidates]
        assert {plan.precision for plan in plans} == {"fp32"}
        assert {plan.optimizer for plan in plans} == {"as_given"}
        with pytest.raises(PlanError):
            search(pins={"speed": 1})

    def test_a_candidate_that_fails(self):
        found = search(make_task(model=FailsIfNarrow))
        assert found.plan.precision == "fp32"
        (failed,) = by_plan(found, precision="bf16")
        assert (failed.status, failed.reason) == ("failed", "RuntimeError: no such kernel")

    def test_an_objective_that_always_fails(self):
        def broken(_model, _batch):
            raise ValueError("my own mistake")

        found = search(make_task(objective=broken))
        assert found.plan == found.explanation.candidates[0].plan
        assert (
            found.explanation.candidates[0].reason == "no candidate ran: ValueError: my own mistake"
        )
        assert found.step is None

    def test_an_objective_that_looks_at_its_numbers(self):
        found = search(make_task(model=Item, duration="300st"), is_free=True)
        assert found.step is not None
        assert any(
            text.startswith("not predicted, but measured") for text in found.explanation.notices
        )


class TestGuard:
    def test_a_wrong_gradient_is_not_taken_though_it_is_the_fastest(self):
        found = search(make_task(model=lambda: SlowUnlessNarrow(WrongGradient(in_bf16))))
        assert found.plan.precision == "fp32"
        (struck,) = by_plan(found, precision="bf16")
        assert struck.status == "struck"
        assert "at fault: precision" in struck.reason
        assert struck.parity
        assert struck.measured < found.step
        assert any(text.startswith("rejected by the guard") for text in found.reasons)

    def test_the_lever_at_fault_strikes_its_siblings(self):
        def net():
            return SlowUnlessNarrow(
                nn.Sequential(WrongGradient(in_bf16), nn.Unflatten(1, (1, 1, 10)), Channels())
            )

        found = search(make_task(model=net))
        struck = by_plan(found, precision="bf16")
        assert [candidate.status for candidate in struck] == ["struck", "struck"]
        assert sorted(c.reason == "it has the knob at fault, precision=bf16" for c in struck) == [
            False,
            True,
        ]


class Channels(nn.Module):
    """A convolution, so that memory formats are raced."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.conv(x).flatten(1)


class TestLength:
    def test_a_run_too_short_is_trusted_and_measures_nothing(self, monkeypatch):
        monkeypatch.setattr(timing, "TimingRun", None)  # would fail
        for found in (
            search(make_task(duration="19st")),
            search(seconds=29.0),
            search(is_raced=False),
        ):
            assert found.explanation.origin == "trusted"
            assert found.step is None
            assert found.plan.precision == "fp32"
            assert all(c.measured is None for c in found.explanation.candidates)

    def test_a_short_run_tries_on_parts_of_batches_what_the_first_steps_tell(
        self, cache, monkeypatch
    ):
        sizes = set()

        def seen(model, batch):
            if model.training:
                sizes.add(len(batch[0]))
            return objective(model, batch)

        monkeypatch.setattr(ParityGuard, "parity", lambda *_: Parity(passed=True, reason=""))
        found = search(make_task(duration="299st", objective=seen))
        assert sizes == {10}  # of 32, times 0.299
        assert found.explanation.origin == "raced"
        timed = [c.plan.precision for c in found.explanation.candidates if c.measured is not None]
        assert sorted(timed) == ["bf16", "fp32"]
        assert any("timed on 30% of each batch" in reason for reason in found.reasons)
        assert not (cache / "plans").exists()  # another run's steps are timed whole

    def test_an_objective_of_whole_batches_is_not_timed_on_parts(self):
        def whole(model, batch):
            assert len(batch[0]) == 32
            return objective(model, batch)

        found = search(make_task(duration="299st", objective=whole))
        assert (found.explanation.origin, found.step) == ("trusted", None)

    def test_a_gain_smaller_than_the_guards_own_time_is_left(self, monkeypatch):
        monkeypatch.setattr(ParityGuard, "parity", None)  # would fail
        monkeypatch.setattr("volano.planner.search.timed_candidates.GUARD_SECONDS", 60.0)
        found = search(make_task(duration="299st"))
        assert found.plan.precision == "fp32"
        (faster,) = by_plan(found, precision="bf16")
        assert (faster.status, faster.measured < found.step) == ("untried", True)

    def test_nothing_is_left_that_could_be_faster(self, monkeypatch):
        monkeypatch.setattr(timing.TimingRuns, "final", None)  # would fail
        monkeypatch.setattr("volano.planner.cost_model.trace_each", None)
        found = search(make_task(tolerance="rounding"), pins={"threads": 1})
        assert found.explanation.origin == "raced"
        assert any("planning ended early" in reason for reason in found.reasons)


class TestSeveralRanks:
    def test_one_part_is_timed_and_the_plan_is_of_the_whole(self):
        found = search(world_size=2)
        assert found.plan.threads is None
        assert found.plan.device == "cpu"
        assert found.explanation.num_examples == 32
        assert found.explanation.num_steps == 50000
        assert not any(c.plan.compile for c in found.explanation.candidates)

    def test_pinned_threads(self):
        assert search(world_size=2, pins={"threads": 1}).plan.threads == 1
