"""Trials are made ready, or fail with a reason; rungs fall on ends of epochs where they can."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from conftest import make_mlp
from volano.errors import ExploreError
from volano.study.workers.messages import Assignment, Trial
from volano.study.workers.trial_tasks import TrialTasks, step_of_rung


def assignment(*trials, share=1.0):
    return Assignment(number=0, trials=tuple(trials), share=share)


def trials(*learning_rates):
    return [Trial(number=number, params={"lr": rate}) for number, rate in enumerate(learning_rates)]


class TestRungs:
    @pytest.mark.parametrize(
        ("duration", "share", "step"),
        [
            ("9ep", 1 / 9, 16),  # one epoch of 16 steps
            ("9ep", 1 / 3, 48),
            ("10ep", 1 / 3, 64),  # 3.3 epochs are 4
            ("2ep", 1 / 9, 4),  # 32 steps / 9 = 3.6
            ("2.5ep", 1 / 2, 32),  # 1.25 epochs are 2
            ("2.5ep", 1.0, 40),
            ("100st", 1 / 3, 48),  # 6.25 epochs: 2.08 are 3
            ("7st", 1 / 3, 3),
            ("27ep", 1 / 27, 16),  # 27 * (1 / 27) may be below 1 in binary
        ],
    )
    def test_steps(self, make_task, duration, share, step):
        assert step_of_rung(make_task(duration=duration), share) == step

    @given(epochs=st.integers(1, 60), share=st.floats(1e-3, 1.0), more=st.floats(1e-3, 1.0))
    def test_higher_shares_stand_no_lower_and_the_last_at_the_end(self, epochs, share, more):
        from volano import Task

        data = torch.utils.data.TensorDataset(torch.zeros(50, 1))
        task = Task(
            model=lambda: nn.Linear(1, 1), objective=lambda model, batch: model(batch[0]).mean(),
            data=data, optimizer=torch.optim.SGD, batch_size=8, duration=f"{epochs}ep",
        )  # fmt: skip
        low, high = sorted([share, more])
        assert (
            1
            <= step_of_rung(task, low)
            <= step_of_rung(task, high)
            <= step_of_rung(task, 1.0)
            == task.num_steps
        )


class TestCandidates:
    def test_likes_stand_together(self, make_task):
        def build(trial):
            width = trial.suggest_categorical("width", [16, 32])
            rate = trial.suggest_float("lr", 1e-4, 1.0)
            return make_task(
                model=lambda: nn.Sequential(nn.Linear(64, width), nn.Linear(width, 10)),
                optimizer=lambda params: torch.optim.SGD(params, lr=rate),
            )

        wanted = [
            Trial(number=n, params={"width": 16 if n % 2 else 32, "lr": 0.1 / (n + 1)})
            for n in range(6)
        ]
        candidates = TrialTasks(build)
        made, failed = candidates.of(assignment(*wanted[:4], share=0.5))
        assert not failed
        assert [candidate.standing for candidate in made] == [(n % 2, 0, 16) for n in range(4)]
        assert any("32, 16" in reason for reason in candidates.reasons(0))
        made, _ = candidates.of(assignment(*wanted[4:]))
        assert [candidate.standing.kind for candidate in made] == [0, 1]  # as the ones before

    def test_what_raises_fails_alone_with_its_first_line(self, make_task):
        def build(trial):
            rate = trial.suggest_float("lr", 0, 9)
            if rate == 1:
                raise ValueError("no such rate\nand more")
            if rate == 2:
                return "a task"
            if rate == 3:
                return make_task(valid=None)
            if rate == 4:
                raise SystemExit(3)
            if rate == 6:
                return make_task(keep="best")
            if rate == 5:
                return make_task(model=lambda: nn.Linear(-1, 3))
            return make_task(
                optimizer=lambda params: torch.optim.SGD(
                    params, lr=trial.suggest_float("other", 0, 1)
                )
            )

        made, failed = TrialTasks(build).of(assignment(*trials(0, 1, 2, 3, 4, 5, 6)))
        reasons = {outcome.number: outcome.failure for outcome in failed}
        assert not made
        assert reasons[1] == "ValueError: no such rate"
        assert "build(trial) must return a volano.Task; got str" in reasons[2]
        assert "a task without valid" in reasons[3]
        assert reasons[4] == "SystemExit: 3"
        assert "Error" in reasons[5]
        assert "must keep their last weights" in reasons[6]
        assert "other" in reasons[0]  # a parameter that the trial was not given

    def test_equal_data_that_is_made_anew_is_kept_once(self, make_task):
        made, _ = TrialTasks(lambda trial: make_task()).of(assignment(*trials(1, 2)))
        one, other = (candidate.task for candidate in made)
        assert one.data is other.data
        assert one.valid is other.valid

    def test_other_data_stops_the_study(self, make_task, digits):
        def build(trial):
            size = trial.suggest_int("size", 100, 200)
            return make_task(
                data=torch.utils.data.TensorDataset(digits[0][:size], digits[1][:size])
            )

        candidates = TrialTasks(build)
        candidates.of(assignment(Trial(number=0, params={"size": 100})))
        with pytest.raises(
            ExploreError,
            match="All trials of a study must train.*on the same data.*200 and 100 examples",
        ):
            candidates.of(assignment(Trial(number=7, params={"size": 200})))

    def test_a_task_is_the_same_while_its_parameters_are(self, make_task):
        candidates = TrialTasks(
            lambda trial: make_task(seed=int(trial.suggest_float("lr", 0, 9)), model=make_mlp)
        )
        (one,), _ = candidates.of(assignment(*trials(1)))
        (same,), _ = candidates.of(assignment(*trials(1)))
        (other,), _ = candidates.of(assignment(*trials(2)))
        assert one.task is same.task
        assert other.task.seed == 2
