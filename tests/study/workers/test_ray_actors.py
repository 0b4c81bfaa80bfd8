"""Workers as Ray actors, on a cluster of this machine."""

import functools
import os
import sys
import threading

import pytest
import torch

from children import PATIENCE_SECONDS
from conftest import assert_same
from study.builds import digits_mlp, unlucky
from volano.errors import ExploreError, PlanError, UsageError
from volano.study.workers import ray_actors
from volano.study.workers.make_executor import make_executor
from volano.study.workers.messages import Assignment, Lost, Report, Trial
from volano.study.workers.ray_actors import RayActors, import_ray
from volano.study.workers.worker import Worker

ray = pytest.importorskip("ray")


def trial(number, state=None, *, lr=0.1):
    return Trial(number=number, params={"lr": lr, "dropout": 0.1 * number}, state=state)


def assignment(number, *trials, share=1.0):
    return Assignment(number=number, trials=trials, share=share)


def actors(build=digits_mlp, num=2):
    return RayActors(functools.partial(Worker, build, device="cpu", engine="loop"), num=num)


def finished(executor, num=1):
    answers = {}
    while len(answers) < num:
        answer = executor.next_finished(PATIENCE_SECONDS)
        assert answer is not None
        answers[answer[0]] = answer[1]
    return answers


@pytest.fixture
def build(tmp_path):
    """A closure, and one process to die of it."""
    (tmp_path / "one").touch()
    folder = str(tmp_path)

    def build(trial):
        os.environ["MARKS"] = folder
        return unlucky(trial)

    return build


def test_two_actors_and_one_dies(build):
    with actors(build) as executor:
        assert executor.num_workers == 2
        assert executor.next_finished(1.0) is None
        executor.submit(0, assignment(0, trial(0, lr=0.9), share=0.5))  # ends its process
        executor.submit(1, assignment(1, trial(1), trial(2), share=0.5))
        first = finished(executor, 2)
        assert executor.next_finished() is None
    assert not ray.is_initialized()
    assert isinstance(first[0], Lost)
    assert first[0].assignment == 0
    assert "actor died" in first[0].reason
    expected = Worker(digits_mlp, device="cpu", engine="loop").run(
        assignment(1, trial(1), trial(2), share=0.5)
    )
    for outcome, other in zip(first[1].outcomes, expected.outcomes, strict=True):
        assert outcome.metrics == other.metrics
        assert_same(outcome.state, other.state)


@pytest.mark.slow  # four actors import torch
def test_a_new_actor_goes_on_from_the_states(build):
    with actors(build) as executor:
        executor.submit(1, assignment(1, trial(1), trial(2), share=0.5))
        states = {outcome.number: outcome.state for outcome in finished(executor)[1].outcomes}
        for worker in range(2):
            executor.submit(worker, assignment(2 + worker, trial(5, lr=0.35)))  # sleeps
        assert executor.next_finished(0.2) is None
        for actor in executor._actors:
            ray.kill(actor)
        assert all(isinstance(answer, Lost) for answer in finished(executor, 2).values())
        executor.submit(0, assignment(4, trial(1, states[1]), trial(2, states[2])))
        executor.submit(1, assignment(5, trial(3)))
        second = finished(executor, 2)
    expected = Worker(digits_mlp, device="cpu", engine="loop").run(
        assignment(0, trial(1), trial(2), trial(3))
    )
    for outcome, other in zip(
        second[0].outcomes + second[1].outcomes, expected.outcomes, strict=True
    ):
        assert_same(outcome.state, other.state)


@pytest.mark.slow  # two actors import torch
def test_an_actor_for_which_there_is_no_room_any_more_is_lost(monkeypatch):
    with actors(unlucky, num=1) as executor:
        monkeypatch.setattr(ray_actors, "_START_SECONDS", 4.0)
        ray.kill(executor._actors[0])
        executor.submit(0, assignment(0, trial(0)))
        assert isinstance(finished(executor)[0], Lost)
        executor._options = {"num_cpus": 1000}
        executor.submit(0, assignment(1, trial(0)))
        assert executor.next_finished(0.1) is None
        lost = finished(executor)[0]
        assert lost.assignment == 1
        assert "no actor starts" in lost.reason
        monkeypatch.undo()
        executor._options = {"num_cpus": 1}
        executor.submit(0, assignment(2, trial(0)))
        assert isinstance(finished(executor)[0], Report)


@pytest.mark.slow  # three actors, one after the other
def test_errors_come_here():
    def build(trial):
        task = digits_mlp(trial)
        if trial.suggest_float("lr", 0.001, 1.0) > 0.5:
            object.__setattr__(
                task, "data", torch.utils.data.TensorDataset(*(t[:64] for t in task.data.tensors))
            )
        return task

    with actors(build, num=1) as executor:
        executor.submit(0, assignment(0, trial(0), trial(1, lr=0.9)))
        with pytest.raises(ExploreError, match="same data"):
            executor.next_finished(PATIENCE_SECONDS)
        executor.submit(0, assignment(1, trial(2)))
        assert isinstance(finished(executor)[0], Report)
        assert ray.get_runtime_context().gcs_address

        # The one that is there.
        joined = RayActors(functools.partial(Worker, digits_mlp, device="cpu"), num=1)
        joined.submit(0, assignment(0, trial(0)))
        assert isinstance(finished(joined)[0], Report)
        joined.close()
        assert ray.is_initialized()  # it is the other's
        with pytest.raises(PlanError, match="precision"):
            RayActors(functools.partial(Worker, digits_mlp, device="cpu", precision="fp16"), num=1)


def test_what_cannot_be_sent_is_refused():
    lock = threading.Lock()
    with pytest.raises(UsageError, match="can be sent to a cluster"):
        make_executor(lambda trial: lock, ray="local", nproc=1)
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "nowhere.invalid:6379"])
def test_no_cluster_at_the_address(address):
    with pytest.raises(UsageError, match="A Ray cluster must run at the address.*ray start --head"):
        make_executor(digits_mlp, ray=address)
    assert not ray.is_initialized()


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'volano\[cluster\]'"):
        import_ray()
