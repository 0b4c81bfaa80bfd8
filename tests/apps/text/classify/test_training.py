import pickle

import optuna
import pytest
import torch

import volano
from data.sources.text.test_labelled_texts import read_classes, write_table
from volano.api.train import train_trial
from volano.apps.study_build import application_build
from volano.apps.text.classify.model_spec import BAG, ClassesSpec, predict_texts
from volano.apps.text.classify.training import ClassifyTraining
from volano.device import Device
from volano.plan import Plan
from volano.study.observe import StudyObserver
from volano.training import run_trial


def test_the_bag_learns(tmp_path):
    application = read_classes(write_table(tmp_path / "t.csv"))
    assert application.is_held_out
    assert 3 <= len(application.test) <= 36
    assert not set(application.fit_rows) & set(application.choice)
    plan = Plan.default("cpu").pin(feed="ring", workers=0, memory_format="contiguous")
    trial = run_trial(application.bag_task(everything=False), plan)
    assert trial.metrics["accuracy"] == 1.0
    spec = ClassesSpec(
        classes=application.train.classes,
        kept=BAG,
        candidates={BAG: 1.0},
        num_buckets=application.num_buckets,
    )
    logits = predict_texts(trial.model, spec, ["a hammer", "my horse"], Device("cpu"), None)
    assert [spec.classes[row] for row in logits.argmax(1).tolist()] == ["tool", "animal"]


@pytest.fixture
def build(encoder_table, encoder_folder, monkeypatch):
    monkeypatch.setattr("volano.apps.study_build._TIMING_SECONDS", 0.05)
    found = application_build(
        "text", encoder_table, classify=True, from_=f"hf:{encoder_folder}", trials=2, rungs=1,
        minutes=0.5, device="cpu",
    )  # fmt: skip
    found.num_steps = 4
    return found


def test_trials_of_an_encoder_are_compared_by_texts_that_none_is_trained_on(build):
    assert (build.kind, build.metric, build.direction) == ("classify", "accuracy", "maximize")
    assert build.options["tune"] == "head"
    probe = build._application.begun.probe
    assert set(build.space.parameters) == {"head_lr", "weight_decay"}
    decay = build.space.parameters["weight_decay"]
    assert decay.low < probe.weight_decay < decay.high
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    task, other = build(sampler.ask()), build(sampler.ask())
    texts = [{tuple(row.tolist()) for row in data.tree[0]} for data in (task.data, task.valid)]
    assert texts[0].isdisjoint(texts[1])
    assert set(task.valid.tree[2].tolist()) == {0, 1}
    decays = [one.parameter_groups(one.model())[0]["weight_decay"] for one in (task, other)]
    assert decays[0] != decays[1]


def test_the_head_of_an_encoder_is_solved_once_for_all_workers(build, monkeypatch):
    again = pickle.loads(pickle.dumps(build))
    monkeypatch.setattr(ClassifyTraining, "begin", lambda *_: pytest.fail("it is solved again"))
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    head = again(trial).model().head
    assert torch.equal(head.center, build._application.begun.probe.center)


def test_solving_a_head_is_taken_from_the_time_of_the_trials(build, monkeypatch):
    given = []

    def fit_trial(application, seconds, seconds_per_step, device):
        given.append((seconds, application.start is not None))
        return application, 1.0

    monkeypatch.setattr(ClassifyTraining, "fit_trial", fit_trial)
    build._start = None
    build.resolved(1000.0, 4.0, Device("cpu"), build.space)
    ((seconds, is_solved),) = given
    assert is_solved
    assert 200.0 < seconds < 250.0


def test_the_best_trial_of_an_encoder_becomes_a_run(build, tmp_path):
    told = []

    class Keep(StudyObserver):
        def on_notice(self, text):
            told.append(text)

    study = volano.explore(
        build, trials=2, rungs=1, out=tmp_path / "study", device="cpu", nproc=1, observer=Keep()
    )
    assert any("are frozen and the same in all trials" in text for text in told), told
    assert {trial.state for trial in study.trials} == {"complete"}
    run = train_trial(study.folder, out=tmp_path / "run", planning={"plan": Plan.baseline("cpu")})
    assert run.metrics["kept"] == "pretrained encoder"
    assert run.metrics["test_accuracy"] > 0.8
    assert torch.equal(run.model.head.center, volano.load(run).module.head.center)
