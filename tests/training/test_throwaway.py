import pytest
import torch

from volano import Plan
from volano.errors import NumericsError
from volano.training import RunFolder, run_task, run_trial, throwaway_session


def test_settings_and_random_state_are_put_back(make_task):
    torch.manual_seed(123456789)  # not the seed of the task
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with throwaway_session(make_task(), Plan.baseline().pin(threads=threads + 1)) as session:
        assert torch.get_num_threads() == threads + 1
        assert not torch.equal(torch.get_rng_state(), before)
        assert session.step == 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)


def test_its_numbers_are_those_of_a_run(make_task, tmp_path):
    task, plan = make_task(), Plan.baseline()
    before = torch.get_rng_state()
    trial = run_trial(task, plan)
    assert torch.equal(torch.get_rng_state(), before)
    folder = RunFolder.reserve(tmp_path / "run", "task")
    folder.make()
    run = run_task(task, plan, folder)
    assert trial.metrics["loss"] == run.metrics["valid_loss"]
    for mine, theirs in zip(trial.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not trial.model.training
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_loss_that_is_no_number_is_an_error(make_task):
    def objective(model, batch):
        loss = model(batch[0]).square().mean()
        objective.calls += 1
        return loss if objective.calls < 3 else loss * float("nan")

    objective.calls = 0
    with pytest.raises(NumericsError, match="at step 3 they were not; got loss nan"):
        run_trial(make_task(objective=objective, valid=None), Plan.baseline())
