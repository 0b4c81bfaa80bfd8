"""Studies through the public door: from a function, from a reference, from an application; and what
comes after."""

import functools
import math

import pytest
import torch

import volano
from study.builds import digits_mlp
from volano.api.explore import _own_goal
from volano.apps.study_build import ApplicationBuild, task_of_trial
from volano.errors import ExploreError, PlanError, UsageError
from volano.study.observe import StudyObserver
from volano.study.progress import PlainStudyProgress
from volano.study.search_space import SearchSpace

HERE = {"device": "cpu", "nproc": 1}


class Heard(StudyObserver):
    def __init__(self):
        self.notices, self.rungs, self.ends = [], [], []

    def on_notice(self, text):
        self.notices.append(text)

    def on_rung(self, decision):
        self.rungs.append(decision)

    def on_end(self, study):
        self.ends.append(study.status)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    heard = Heard()
    made = volano.explore(
        "study.builds:digits_mlp",
        9,
        rungs=2,
        out=tmp_path_factory.mktemp("s") / "study",
        observer=heard,
        **HERE,
    )
    made.heard = heard
    return made


def test_a_study_of_a_function_named_by_its_module(study):
    assert study.status == "finished"
    assert [trial.state for trial in study.trials].count("complete") == 3
    assert study.best.value == min(t.value for t in study.trials if t.state == "complete")
    assert study.heard.ends == ["finished"]
    assert sum(len(rung.cut) for rung in study.heard.rungs) == 6
    assert study.facts["source"] == {"kind": "reference", "reference": "study.builds:digits_mlp"}
    page = study.path("report.html").read_text()
    assert f"{study.best.params['lr']:.3g}"[:4] in page
    assert len(study.optuna.trials) == 9


def test_its_trials_are_what_they_are_alone(study):
    verification = volano.verify(study, n=2)
    assert verification.passed, verification.lines()


def test_its_best_trial_is_trained_at_full_length_and_goes_on_when_it_is_stopped(
    study, quiet, tmp_path
):
    task, number = task_of_trial(study.folder)
    assert number == study.best.number
    run = volano.train(
        task, plan=volano.Plan.baseline(), out=tmp_path / "run", observer=quiet,
        source={"kind": "trial", "study": str(study.folder), "trial": number},
    )  # fmt: skip
    assert run.metrics["valid_loss"] == pytest.approx(study.best.value, rel=1e-3)
    from volano.running.processes import task_of
    from volano.training import RunFolder

    again = task_of(RunFolder.open(run.path))
    assert again.optimizer.keywords == task.optimizer.keywords


def test_a_trial_is_named_by_its_number(study):
    task, number = task_of_trial(study.folder, "3")
    assert number == 3
    assert task.optimizer.keywords["lr"] == study.trial(3).params["lr"]
    with pytest.raises(ExploreError, match="A trial must be named by its number; got 99"):
        task_of_trial(study.folder, 99)
    with pytest.raises(UsageError, match="A trial must be 'best' or a number; got 'worst'"):
        task_of_trial(study.folder, "worst")


def test_a_study_of_a_function_of_python_cannot_be_made_again(tmp_path):
    made = volano.explore(digits_mlp, 3, rungs=1, out=tmp_path / "study", observer=Heard(), **HERE)
    assert made.facts["source"] == {"kind": "python"}
    with pytest.raises(UsageError, match="build function that can be found again.*module:build"):
        task_of_trial(made.folder)
    assert task_of_trial(made.folder, build=digits_mlp)[1] == made.best.number


def test_a_study_goes_on_with_its_own_settings(tmp_path):
    first = volano.explore(
        digits_mlp,
        3,
        rungs=1,
        metric="loss",
        seed=5,
        out=tmp_path / "study",
        observer=Heard(),
        **HERE,
    )
    more = volano.explore(
        digits_mlp, 5, out=tmp_path / "study", resume=True, observer=Heard(), **HERE
    )
    assert [t.params for t in more.trials[:3]] == [t.params for t in first.trials]
    assert len(more.trials) == 5
    assert more.settings["seed"] == 5
    with pytest.raises(UsageError, match="A study to resume must have a folder"):
        volano.explore(digits_mlp, resume=True)


def test_the_table_is_taken_away_however_a_study_ends(tmp_path, monkeypatch):
    closed = []
    own = PlainStudyProgress.close
    monkeypatch.setattr(PlainStudyProgress, "close", lambda self: (closed.append(self), own(self)))

    def build(trial):
        raise ValueError("no task today")

    with pytest.raises(ExploreError, match="no task today"):
        volano.explore(build, 12, out=tmp_path / "study", **HERE)
    assert len(closed) == 1


def test_a_study_goes_on_where_it_was(tmp_path):
    volano.explore(digits_mlp, 2, rungs=1, out=tmp_path / "study", observer=Heard(), **HERE)
    more = volano.explore(digits_mlp, 3, out=tmp_path / "study", resume=True, observer=Heard())
    assert (more.settings["device"], more.settings["nproc"]) == ("cpu", 1)


def test_a_member_that_diverges_is_pruned_with_the_reason(tmp_path):
    def build(trial):
        task = digits_mlp(trial)
        if trial.number == 1:
            return functools.partial(volano.Task, **{**task.__dict__, "optimizer": _diverging})()
        return task

    made = volano.explore(build, 4, rungs=1, out=tmp_path / "study", observer=Heard(), **HERE)
    assert made.trial(1).state == "pruned"
    assert math.isnan(made.trial(1).value) or math.isnan(made.trial(1).rungs[-1].training_loss)
    assert [made.trial(n).state for n in (0, 2, 3)] == ["complete"] * 3


def _diverging(parameters):
    return torch.optim.SGD(parameters, lr=1e30)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (3, "`build` must be a function build.*got int"),
        ("study.builds:nothing", "must name something in its module.*; got 'nothing'"),
        ("study.builds:MARKS", "must name something in its module"),
    ],
)
def test_what_is_no_build_is_refused(build, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        volano.explore(build, 3, out=tmp_path / "study", **HERE)
    assert not (tmp_path / "study").exists()


def test_the_goal_is_the_builds_own_or_ones_own():
    build = ApplicationBuild("image", {}, SearchSpace(parameters={"rest_lr": (0.1,)}), 1)
    assert _own_goal(build, None) == {"metric": "accuracy", "direction": "maximize"}
    assert _own_goal(build, "accuracy") == {"metric": "accuracy", "direction": "maximize"}
    assert _own_goal(build, "loss") == {}
    assert _own_goal(digits_mlp, None) == {}


def test_what_a_study_cannot_be_meant_with_leaves_no_folder(tmp_path):
    with pytest.raises(
        UsageError, match="`sampler` must be one of Optuna's, or one like them; got int"
    ):
        volano.explore(digits_mlp, trials=2, out=tmp_path / "s", sampler=3)
    with pytest.raises(PlanError, match="computes in"):
        volano.explore(digits_mlp, trials=2, out=tmp_path / "s", precision="fp8", device="cpu")
    assert not (tmp_path / "s").exists()


def test_a_study_that_explore_returned_needs_no_build_to_be_verified(tmp_path):
    study = volano.explore(
        digits_mlp, trials=2, rungs=1, out=tmp_path / "s", observer=StudyObserver(), **HERE
    )
    assert volano.verify(study, n=1).passed


def test_a_study_goes_on_in_its_precision(tmp_path):
    volano.explore(
        digits_mlp, trials=2, rungs=1, out=tmp_path / "s", observer=StudyObserver(), **HERE
    )
    with pytest.raises(UsageError, match="must keep its precision; got bf16, and it has fp32"):
        volano.explore(
            digits_mlp, trials=3, out=tmp_path / "s", resume=True, precision="bf16", **HERE
        )


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (digits_mlp, {"trails": 3}, "`trails` is no option of a study. Like it: `trials`"),
        (digits_mlp, {"path": "photos"}, "`path` and `space` are for a new study"),
        ("text", {"path": ".", "classify": True}, "must be of a pretrained encoder"),
        ("image", {"epochs": 3}, "must get `minutes` for the length of its trials; got `epochs`"),
        ("image", {"siez": "thin"}, "`siez` is no option of the image application"),
    ],
)
def test_options_that_no_study_has_are_refused(build, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        volano.explore(build, 3, out=tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()
