"""A step that went wrong is run again, and says which module it was."""

import pytest
import torch
from torch import nn

import volano
from conftest import assert_same, classification, make_mlp
from training.nonfinite import Explodes, InfiniteGradient, Overflows, state_of
from volano import Plan
from volano.errors import NumericsError
from volano.training import Session
from volano.training.health.nonfinite_origin import Diagnosis, diagnose


class TestDiagnosis:
    def session(self, make_task, **fields):
        return Session(make_task(**fields), Plan.baseline(), on_notice=lambda _: None)

    def test_the_module_whose_output_is_not_finite(self, make_task):
        model = lambda: nn.Sequential(nn.Linear(64, 32), Overflows(), nn.Linear(32, 10))  # noqa: E731
        found = diagnose(self.session(make_task, model=model), 0)
        assert (found.module, found.where) == ("1 (Overflows)", "forward")

    def test_the_module_whose_backward_pass_is_not_finite(self, make_task):
        model = lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), Explodes(), nn.Linear(32, 10))  # noqa: E731
        found = diagnose(self.session(make_task, model=model), 0)
        assert (found.module, found.where) == ("2 (Explodes)", "backward")
        first = lambda: nn.Sequential(Explodes(), nn.Linear(64, 10))  # noqa: E731 - nothing before it has a gradient
        assert diagnose(self.session(make_task, model=first), 0).where is None

    def test_a_gradient_that_the_objective_makes(self, make_task):
        def objective(model, batch):
            return InfiniteGradient.apply(classification(model, batch))

        found = diagnose(self.session(make_task, objective=objective), 0)
        assert (found.module, found.where) == ("objective", "backward")

    def test_a_weight_that_was_bad_before(self, make_task):
        session = self.session(make_task)
        with torch.no_grad():
            session.model[3].weight[2, 2] = float("nan")
        found = diagnose(session, 0)
        assert (found.module, found.where) == ("3.weight", "weights")

    def test_what_does_not_show_again_is_said(self, make_task):
        session = self.session(make_task)
        before, random_state = state_of(session), torch.get_rng_state()
        found = diagnose(session, 3)
        assert "did not show it; examples" in str(found)
        assert_same(state_of(session), before)
        assert torch.equal(torch.get_rng_state(), random_state)
        assert not any(module._forward_hooks for module in session.model.modules())


def test_the_first_loss_is_diagnosed_like_any_other(make_task, quiet, tmp_path):
    with pytest.raises(
        NumericsError,
        match="at step 1 they were not; got loss nan: first seen in the forward of objective",
    ):
        volano.train(
            make_task(
                model=make_mlp,
                objective=lambda model, batch: classification(model, batch) * float("nan"),
            ),
            out=tmp_path / "run",
            observer=quiet,
        )


def test_examples_that_are_not_finite_are_named(make_task, digits):
    pixels = digits[0][:512].clone()
    pixels[[7, 300]] = float("nan")
    data = torch.utils.data.TensorDataset(pixels, digits[1][:512])
    session = Session(make_task(data=data), Plan.baseline(), on_notice=lambda _: None)
    steps = [step for step in range(16) if {7, 300} & set(session.order.key(step).indices)]
    found = [diagnose(session, step) for step in steps]
    assert sorted(index for one in found for index in one.suspects) == [7, 300]
    assert {(one.where, one.module) for one in found} == {("data", None)}
    assert "the batch itself is not finite in example" in str(found[0])


def test_of_many_examples_some_are_named():
    moved = Diagnosis(examples=list(range(20)), suspects=[], module=None, where="moved")
    assert "the weights had moved on" in str(moved)
    assert str(moved).endswith("examples 0, 1, 2, 3, 4, 5, 6, 7 and 12 more")
    seen = Diagnosis(examples=[3], suspects=[], module="0 (Linear)", where="forward")
    assert str(seen) == "first seen in the forward of 0 (Linear); examples 3"


def test_an_objective_that_fails_in_the_rerun_hides_nothing(make_task):
    def objective(model, batch):
        raise RuntimeError("only once")

    session = Session(make_task(objective=objective), Plan.baseline(), on_notice=lambda _: None)
    found = diagnose(session, 0)
    assert (found.module, found.where, len(found.examples)) == (None, None, 32)
