"""Trials with one frozen trunk are trained on what it computes once."""

import functools

import pytest
import torch
from torch import nn

import volano
from conftest import classification
from training.prefix.frozen_nets import Frozen
from volano.device import Device
from volano.packing import groups_of
from volano.study.workers.messages import Assignment, Trial
from volano.study.workers.shared_features import SharedFeatures
from volano.study.workers.worker import Worker
from volano.training import RunFolder, Session, run_task


def frozen():
    """A frozen trunk that does not depend on the task's seed, and a head that does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        trunk = Wide()
    return Frozen(trunk=trunk)


class Wide(nn.Module):
    """A trunk that counts its calls."""

    calls = 0

    def __init__(self, inputs=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 48)
        )

    def forward(self, x):
        Wide.calls += 1
        return self.layers(x)


@pytest.fixture(autouse=True)
def it_always_pays(monkeypatch):
    """What is timed is not what is tested."""
    monkeypatch.setattr("volano.study.workers.shared_features._LEAST_GAIN", 0.0)


@pytest.fixture
def heads(make_task):
    def build(rate, **fields):
        optimizer = functools.partial(torch.optim.AdamW, lr=rate)
        own = {"model": frozen, "optimizer": optimizer, "duration": "3ep"}
        return make_task(**{**own, **fields})

    return build


@pytest.fixture
def shared():
    heard = []
    found = SharedFeatures(Device("cpu"), "fp32", heard.append)
    return found, heard


def test_the_trunk_is_computed_once_for_all(heads, shared):
    features, heard = shared
    tasks = [features.of(heads(rate)) for rate in (1e-3, 1e-2)]
    Wide.calls = 0
    tasks += [features.of(heads(1e-4, seed=9))]
    assert Wide.calls == 0
    assert [len(list(task.model().parameters())) for task in tasks] == [2, 2, 2]
    assert tasks[0].data is tasks[2].data
    (said,) = heard
    assert "layers are frozen and the same in all trials" in said
    assert "576 examples was computed once" in said
    models = [Session.make_model(task) for task in tasks]
    assert len(groups_of(tasks, models)) == 1


def test_a_function_that_makes_models_is_called_once_for_a_seed(heads, shared):
    features, _ = shared
    features.of(heads(1e-3))
    called = []

    def counted():
        called.append(1)
        return frozen()

    tasks = [features.of(heads(rate, model=counted)) for rate in (1e-3, 1e-2, 1e-1)]
    assert len(called) == 1
    first, second = (Session.make_model(task).head[1].weight for task in tasks[:2])
    assert torch.equal(first, second)
    assert first is not second


def test_what_cannot_be_shared_stays_as_it_is(heads, make_task, shared):
    features, heard = shared
    for task in (
        make_task(), heads(1e-3, augment=lambda batch, _: batch), heads(1e-3, valid=None),
        heads(1e-3, collate=torch.utils.data.default_collate),
    ):  # fmt: skip
        assert features.of(task) is task
    assert not heard


def test_another_input_of_the_trunk_is_not_shared(heads, shared):
    features, heard = shared
    features.of(heads(1e-3))

    def halved(model, batch):
        return classification(model, (batch[0] / 2, batch[1]))

    task = heads(1e-3, objective=halved)
    assert features.of(task) is task
    assert "different inputs" in heard[-1]


def test_another_trunk_has_features_of_its_own(heads, make_task, shared):
    features, heard = shared

    def other():
        torch.manual_seed(8)
        return Frozen(trunk=Wide())

    first, second = features.of(heads(1e-3)), features.of(make_task(model=other))
    assert first.data is not second.data
    assert len(heard) == 2


def test_trials_learn_what_they_learn_alone(heads, tmp_path):
    worker = Worker(lambda trial: heads(trial.suggest_float("lr", 0, 1)), device="cpu")
    trials = tuple(Trial(number=n, params={"lr": 0.001 * 3**n}) for n in range(4))
    Wide.calls = 0
    report = worker.run(Assignment(number=0, trials=trials, share=1.0, keep_states=False))
    # One pass over 512 and 64 examples, what it takes to find it and to compare.
    assert Wide.calls < 16 + 2 + 20
    assert any("computed once" in notice for notice in report.notices)
    assert [pack.numbers for pack in report.packs] == [(0, 1, 2, 3)]
    folder = RunFolder(tmp_path / "run")
    folder.make()
    alone = run_task(heads(0.009), volano.Plan.baseline(), folder, observer=volano.Observer())
    assert report.outcomes[2].metrics["loss"] == pytest.approx(
        alone.metrics["valid_loss"], rel=1e-4
    )


def test_a_single_trial_computes_its_trunk_itself(heads):
    worker = Worker(lambda trial: heads(trial.suggest_float("lr", 0, 1)), device="cpu")
    trials = (Trial(number=0, params={"lr": 0.01}),)
    report = worker.run(Assignment(number=0, trials=trials, share=1.0, keep_states=False))
    assert not report.notices


class Own(nn.Module):
    """A trunk in evaluation mode, which no method keeps there."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            layers = nn.Sequential(nn.Linear(64, 100), nn.BatchNorm1d(100), Wide(100))
        self.trunk = layers.requires_grad_(False).eval()
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.trunk(x))


def test_a_trunk_keeps_the_mode_in_which_it_was_made(heads, shared):
    features, heard = shared
    task = heads(1e-2, model=Own)
    model = Session.make_model(task)
    made = features.of(task)
    assert "computed once" in heard[0]
    (pixels, _), (kept,) = made.data.tree
    torch.testing.assert_close(kept[:32], model.trunk(pixels[:32]), rtol=1e-4, atol=1e-5)


def test_a_trial_goes_on_with_the_state_that_it_has(heads):
    def build(trial):
        return heads(trial.suggest_float("lr", 0, 1))

    def run(worker, share, *trials):
        return worker.run(Assignment(number=0, trials=trials, share=share)).outcomes

    trials = [Trial(number=n, params={"lr": 0.01 + n / 100}) for n in range(2)]
    on_features = run(Worker(build, device="cpu"), 1 / 3, *trials)[0]
    (whole,) = run(Worker(build, device="cpu"), 1 / 3, trials[0])
    assert set(on_features.state["model"]) < set(whole.state["model"])
    ends = []
    for state in (on_features.state, whole.state):  # each alone in a worker that knows no other
        again = Trial(number=0, params=trials[0].params, state=state)
        (outcome,) = run(Worker(build, device="cpu"), 1.0, again)
        assert outcome.failure is None
        ends.append(outcome.metrics["loss"])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)


def groups(model):
    return [{"params": [*model.trunk.layers.parameters(), *model.head.parameters()]}]


def test_groups_of_parameters_may_name_frozen_modules(heads):
    def build(trial):
        return heads(trial.suggest_float("lr", 0, 1), parameter_groups=groups)

    trials = [Trial(number=n, params={"lr": 0.01 + n / 100}) for n in range(2)]
    worker = Worker(build, device="cpu")
    outcomes = worker.run(Assignment(number=0, trials=tuple(trials), share=1 / 3)).outcomes
    assert [outcome.failure for outcome in outcomes] == [None, None]


def test_an_exact_tolerance_shares_nothing(heads, shared):
    found, _ = shared
    task = heads(0.1, tolerance="exact")
    assert found.of(task) is task


def test_it_is_said_why_frozen_layers_are_not_shared(heads, make_task):
    def said(**fields):
        worker = Worker(
            lambda trial: heads(trial.suggest_float("lr", 0, 1), **fields), device="cpu"
        )
        trials = tuple(Trial(number=n, params={"lr": 0.001 * 3**n}) for n in range(3))
        report = worker.run(Assignment(number=0, trials=trials, share=1.0, keep_states=False))
        return [notice for notice in report.notices if "not shared by the trials" in notice]

    (notice,) = said(augment=lambda batch, _: batch)
    assert notice.endswith("`augment` makes other examples in each epoch")
    assert not said(augment=lambda batch, _: batch, model=functools.partial(nn.Linear, 64, 10))
