"""Studies through the public door: from a function, from a reference, from an application; and what
comes after."""

import argparse
import functools
import json
import math
import pickle
from pathlib import Path

import optuna
import pytest
import torch

import volano
from study.builds import digits_mlp
from volano.api.explore import _own_goal
from volano.apps.study_build import ApplicationBuild, application_build, build_of, task_of_trial
from volano.errors import ExploreError, PlanError, UsageError
from volano.packing import Member, Pack
from volano.study.observe import StudyObserver
from volano.study.progress import PlainStudyProgress
from volano.study.search_space import Range, SearchSpace

HERE = {"device": "cpu", "workers": 1}


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
    with pytest.raises(
        UsageError, match="build function must be one that can be made again.*module:build"
    ):
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
    assert (more.settings["device"], more.settings["workers"]) == ("cpu", 1)


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
        (3, "explore takes build.*got int"),
        ("study.builds:nothing", "must have the name; got nothing"),
        ("study.builds:MARKS", "must have the name"),
    ],
)
def test_what_is_no_build_is_refused(build, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        volano.explore(build, 3, out=tmp_path / "study", **HERE)
    assert not (tmp_path / "study").exists()


@pytest.fixture(scope="module")
def of_images():
    build = application_build("image", trials=8, minutes=0.5, seed=3, device="cpu")
    build.num_steps = 20
    return build


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """80 KB of the standard library's own text."""
    folder = tmp_path_factory.mktemp("texts")
    source = Path(argparse.__file__).read_text(encoding="utf-8")[:80_000]
    (folder / "argparse.txt").write_text(source, encoding="utf-8")
    return folder


def test_the_goal_is_the_builds_own_or_ones_own():
    build = ApplicationBuild("image", {}, SearchSpace(parameters={"rest_lr": (0.1,)}), 1)
    assert _own_goal(build, None) == {"metric": "accuracy", "direction": "maximize"}
    assert _own_goal(build, "accuracy") == {"metric": "accuracy", "direction": "maximize"}
    assert _own_goal(build, "loss") == {}
    assert _own_goal(digits_mlp, None) == {}


@pytest.mark.parametrize("kind", ["text", "video"])
def test_texts_and_clips_have_spaces_too(kind, texts):
    build = application_build(
        kind, texts if kind == "text" else None, trials=4, minutes=0.4, seed=1, device="cpu"
    )
    recipe = build._application.recipe_of(build.num_steps)
    for name, value in build.space.parameters.items():
        assert value.low <= getattr(recipe, name) <= value.high, name
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    one, other = build(sampler.ask()), build(sampler.ask())
    assert one.num_steps == other.num_steps == build.num_steps
    pack = Pack(
        [Member(number=n, task=task) for n, task in enumerate((one, other))],
        device="cpu",
        engine="loop",
    )
    pack.advance({0: 1, 1: 1})
    assert all(math.isfinite(loss) for loss in pack.losses().values())
    again = build_of(json.loads(json.dumps(build.source())))
    assert again.space == build.space


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


class TestApplications:
    def test_its_space_lies_around_the_recipe(self, of_images):
        build = of_images
        recipe = build._application.recipe_of(20)
        rate = build.space.parameters["kernel_lr"]
        assert isinstance(rate, Range)
        assert rate.low < recipe.kernel_lr < rate.high
        assert (build.metric, build.direction) == ("accuracy", "maximize")

    def test_its_trials_differ_in_the_numbers_alone_and_make_one_pack(self, of_images):
        build, sampler = (
            of_images,
            optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)),
        )
        tasks = [build(sampler.ask()) for _ in range(3)]
        assert len({task.objective.label_smoothing for task in tasks}) == 3
        assert all(task.data is tasks[0].data and task.order_seed == 3 for task in tasks)
        pack = Pack(
            [Member(number=n, task=task) for n, task in enumerate(tasks)],
            device="cpu",
            engine="lowered",
        )
        pack.advance(dict.fromkeys(pack.numbers, 2))
        assert len(set(pack.losses().values())) == 3

    def test_it_is_made_again_from_what_the_study_keeps(self, of_images):
        build = of_images
        source = json.loads(json.dumps(build.source()))
        trial = optuna.trial.FixedTrial(
            {"kernel_lr": 0.05, "rest_lr": 0.005, "label_smoothing": 0.0, "translate": 1}
        )
        one, other = build(trial), build_of(source)(trial)
        assert other.objective.label_smoothing == one.objective.label_smoothing == 0.0
        assert other.num_steps == one.num_steps == 20
        assert torch.equal(other.data[0][0], one.data[0][0])
        assert isinstance(pickle.loads(pickle.dumps(build)), ApplicationBuild)

    def test_a_space_of_ones_own_names_settings_of_the_recipe(self):
        space = SearchSpace.from_json({"kernel_rl": [0.1, 0.2]})
        with pytest.raises(
            UsageError, match="must name settings of the recipe; got kernel_rl. Say kernel_lr"
        ):
            application_build("image", space=space, trials=4, minutes=0.5, device="cpu")

    @pytest.mark.parametrize("values", [{"low": -0.1, "high": 0.1}, [0.0, 0.1]])
    def test_rates_are_above_zero(self, values):
        with pytest.raises(
            UsageError, match="A learning rate must be above 0; got .* of kernel_lr"
        ):
            application_build(
                "image",
                space=SearchSpace.from_json({"kernel_lr": values}),
                trials=4,
                minutes=0.5,
                device="cpu",
            )

    def test_whole_bounds_of_a_real_setting_are_bounds_of_real_numbers(self):
        space = SearchSpace.from_json(
            {"label_smoothing": {"low": 0, "high": 1}, "translate": {"low": 0, "high": 2}}
        )
        build = application_build("image", space=space, trials=4, minutes=0.5, device="cpu")
        asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        assert 0 < build(asked).objective.label_smoothing < 1
        assert isinstance(asked.params["translate"], int)

    def test_a_study_of_it_is_verified_from_its_folder(self, of_images, tmp_path):
        study = volano.explore(
            of_images,
            trials=3,
            rungs=1,
            out=tmp_path / "study",
            device="cpu",
            workers=1,
            observer=StudyObserver(),
        )
        assert volano.verify(study.folder, n=1).passed

    @pytest.mark.parametrize(
        ("name", "value"), [("eta", 1), ("eta", 0), ("rungs", 0), ("trials", 0)]
    )
    def test_settings_that_cannot_be_meant_are_refused_before_anything_is_read(self, name, value):
        with pytest.raises(UsageError, match=f"`{name}` must be a whole number"):
            application_build("image", **{"trials": 4, name: value}, minutes=0.5)

    def test_a_trial_may_be_trained_for_longer(self, of_images):
        assert of_images.lengthened(2.0).num_steps == of_images._application.steps_in(2.0)

    def test_what_splits_packs_may_be_in_it(self):
        space = SearchSpace.from_json({"batch_size": [64, 128], "label_smoothing": [0.0, 0.1]})
        build = application_build("image", space=space, trials=4, minutes=0.5, device="cpu")
        tasks = [
            build(optuna.trial.FixedTrial({"batch_size": size, "label_smoothing": 0.1}))
            for size in (64, 128)
        ]
        assert [task.batch_size for task in tasks] == [64, 128]
