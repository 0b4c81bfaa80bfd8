"""What candidates are compared with: float64, and eager PyTorch's own error."""

import functools
import math

import pytest
import torch
from torch import nn

from conftest import classification, make_mlp
from planner import faults
from volano import Plan
from volano.planner.parity import reference as module
from volano.planner.parity.check import check_parity
from volano.planner.parity.reference import Reference, first_gradient, restore, weights_of
from volano.training import Session

BASELINE = Plan.baseline()
_NO_TIME = 1e-9


@pytest.fixture
def least_examples(monkeypatch):
    """However long they take, eight examples are looked at."""
    monkeypatch.setattr(module, "_TOO_LONG", math.inf)


HONEST = {
    "baseline": BASELINE,
    "fused": BASELINE.pin(optimizer="fused"),
    "channels_last": BASELINE.pin(memory_format="channels_last"),
    "bf16": BASELINE.pin(precision="bf16"),
    "bf16 and more": BASELINE.pin(
        precision="bf16", memory_format="channels_last", optimizer="foreach"
    ),
    "micro-batches": BASELINE.pin(micro_batch=7),
    "bf16 in micro-batches": BASELINE.pin(precision="bf16", micro_batch=16),
}


class TestReference:
    def test_nothing_of_the_callers_is_touched(self, make_task):
        model = functools.partial(make_mlp, dropout=0.5)
        torch.manual_seed(5)
        before, threads = torch.get_rng_state(), torch.get_num_threads()
        data = make_task().data.tensors[0].clone()
        task = make_task(model=model)
        assert check_parity(
            task, BASELINE.pin(precision="bf16", micro_batch=8, allocator="keep")
        ).passed
        assert torch.equal(torch.get_rng_state(), before)
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, torch.float32)
        assert torch.equal(task.data.tensors[0], data)

    @pytest.mark.usefixtures("least_examples")
    def test_the_batch_is_cut_to_what_is_affordable_and_it_is_said(self, make_task):
        task = make_task(model=functools.partial(make_mlp, dropout=0.5))
        found = check_parity(task, BASELINE.pin(micro_batch=16, precision="bf16"), seconds=_NO_TIME)
        assert found.passed
        assert "8 of the batch's 32 examples" in found.reason
        assert found.figures["examples"] == 8

    @pytest.mark.usefixtures("least_examples")
    @pytest.mark.parametrize(("seconds", "examples"), [(1e-9, [8]), (60.0, [8, 32])])
    def test_the_pass_that_is_timed_is_the_reference_of_a_short_run(
        self, make_task, seconds, examples
    ):
        seen = []

        def objective(model, batch):
            if batch[0].dtype == torch.float64:
                seen.append(len(batch[0]))
            return classification(model, batch)

        task = make_task(objective=objective)
        reference = Reference(task, seconds=seconds)
        found, again = reference.exact(), reference.exact()
        assert seen == examples
        assert found is again
        afresh = Reference(task)
        afresh.probe_batch = reference.probe_batch
        afresh._exact.clear()
        expected = afresh.exact().gradients
        assert all(torch.equal(found.gradients[name], expected[name]) for name in expected)

    def test_a_reference_that_is_too_large_in_float64_is_eager_fp32(self, make_task):
        def objective(model, batch):
            if batch[0].dtype == torch.float64:
                raise torch.OutOfMemoryError("scores of attention")
            return classification(model, batch)

        reference = Reference(make_task(objective=objective))
        assert "OutOfMemoryError" in reference.why_not_float64
        assert check_parity(
            make_task(objective=objective), BASELINE.pin(precision="bf16"), reference=reference
        ).passed

    def test_without_float64_eager_fp32_stands_in_and_it_is_said(self, make_task):
        def objective(model, batch):
            if batch[0].dtype == torch.float64:
                raise TypeError("only singles")
            return classification(model, batch)

        task = make_task(objective=objective)
        reference = Reference(task)
        for plan in HONEST.values():
            found = check_parity(task, plan, reference=reference)
            assert found.passed, found
            assert (
                "against eager fp32, since float64 fails with TypeError: only singles"
                in found.reason
            )
        task = make_task(
            objective=objective, model=functools.partial(faults.WrongGradient, faults.in_parts)
        )
        assert not check_parity(task, BASELINE.pin(micro_batch=16)).passed

    def test_float64_is_nearer_to_the_truth_than_fp32(self, make_task):
        """The truth: a net, data and loss that were written in float64."""

        def objective(model, batch):
            return classification(model, (batch[0].double(), batch[1]))

        truth = Reference(make_task(model=lambda: make_mlp().double(), objective=objective)).exact()
        reference = Reference(
            make_task(objective=lambda model, batch: classification(model, batch).float())
        )
        for name, value in truth.gradients.items():
            exact, single = (
                reference.exact().gradients[name],
                reference.eager("fp32").gradient.gradients[name],
            )
            assert (exact - value).norm() < 1e-12 * value.norm()
            assert (single - value).norm() > 1e-9 * value.norm()

    def test_a_scale_that_is_too_large_for_fp16_is_halved(self, make_task):
        """As a GradScaler does in the first steps of a run; stood in for on the CPU, which has no
        fp16 to train in."""

        class Halves(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

            def forward(self, x):
                hidden = self.first(x)
                if hidden.requires_grad:
                    hidden.register_hook(lambda gradient: gradient.half().float())
                return self.second(hidden)

        reference = Reference(
            make_task(
                model=Halves, objective=lambda model, batch: 1e3 * classification(model, batch)
            )
        )
        session = Session(reference.probe_batch.task, BASELINE, on_notice=lambda _: None)
        session.state.scaler = torch.amp.GradScaler("cpu")
        found, scale = first_gradient(session, reference.probe_batch)
        assert 1 < scale < 2.0**16
        for name, value in reference.exact().gradients.items():
            assert (found.gradients[name] - value).norm() < 1e-3 * value.norm()

    @pytest.mark.usefixtures("least_examples")
    def test_each_outcome_is_computed_once(self, make_task):
        reference = Reference(make_task(), seconds=_NO_TIME)
        assert reference.exact() is reference.exact(micro_batch=4)  # nothing is drawn
        assert reference.eager("fp32") is reference.kept_outcome(BASELINE)
        assert reference.eager("fp32").examples == 8

    @pytest.mark.usefixtures("least_examples")
    def test_micro_batches_have_draws_of_their_own(self, make_task):
        reference = Reference(
            make_task(model=functools.partial(make_mlp, dropout=0.5)), seconds=_NO_TIME
        )
        assert reference.draws(dropout=True)
        assert not reference.draws(dropout=False)
        assert reference.exact().loss != reference.exact(4).loss
        assert reference.exact(dropout=False) is reference.exact(4, dropout=False)

    @pytest.mark.usefixtures("least_examples")
    def test_it_is_halved_down_to_two_examples(self, make_task):
        reference = Reference(make_task(), seconds=_NO_TIME, most_examples=6)
        before = reference.exact()
        sizes = [reference.probe_batch.size]
        while reference.halve():
            sizes.append(reference.probe_batch.size)
        assert sizes == [6, 3, 2]
        assert reference.exact() is not before

    @pytest.mark.parametrize(("seconds", "examples"), [(_NO_TIME, 4), (600.0, 32)])
    def test_four_examples_are_looked_at_where_eight_would_take_too_long(
        self, make_task, seconds, examples
    ):
        reference = Reference(make_task(), seconds=seconds)
        assert reference.probe_batch.size == reference.eager("fp32").examples == examples

    def test_lack_of_memory_is_noted_and_other_errors_are_not(self, make_task):
        reference = Reference(make_task(), seconds=_NO_TIME)
        for error in (ValueError("no"), torch.OutOfMemoryError("none left")):
            with pytest.raises(type(error)), reference.kept(BASELINE):
                raise error
            assert reference.ran_out == isinstance(error, torch.OutOfMemoryError)


def test_weights_and_statistics_are_restored(make_task):
    task = make_task(model=lambda: nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10)))
    session = Session(task, BASELINE, on_notice=lambda _: None)
    before = weights_of(session)
    assert "0.running_mean" in before
    session.step_once(task.data[:32], 0)
    changed = weights_of(session)
    assert not torch.equal(changed["0.running_mean"], before["0.running_mean"])
    restore(session, before)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(session).items())
