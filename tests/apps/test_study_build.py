"""Studies without code: their search spaces, and the tasks of their trials."""

import argparse
import dataclasses
import json
import math
import pickle
from pathlib import Path

import optuna
import pytest
import torch

import volano
from volano.apps.options import Setting, not_tried, tried_around, tried_between, tried_up_to_twice
from volano.apps.study_build import ApplicationBuild, application_build, build_of
from volano.errors import UsageError
from volano.packing import Member, Pack
from volano.study.observe import StudyObserver
from volano.study.search_space import Range, SearchSpace


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
            nproc=1,
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


def test_what_a_study_tries():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Recipe:
        lr: float = tried_around(4.0)
        dropout: float = tried_between(0.0, 0.3)
        shift: int = tried_up_to_twice()
        regime: str = not_tried()
        width: int

    from volano.apps.study_build import check_space_of_recipe, default_space
    from volano.study.search_space import Range, SearchSpace

    recipe = Recipe(lr=0.1, dropout=0.5, shift=2, regime="much", width=8)
    space = default_space(recipe)
    assert space.parameters == {
        "lr": Range(low=0.025, high=0.4, log=True),
        "dropout": Range(low=0.0, high=0.5),
        "shift": Range(low=0, high=4),
    }
    assert Setting.of(dataclasses.fields(Recipe)[-1]) == Setting()
    assert check_space_of_recipe(SearchSpace(parameters={"width": (4, 8)}), recipe).parameters == {
        "width": (4, 8)
    }
    with pytest.raises(UsageError, match="must name settings of the recipe; got regime"):
        check_space_of_recipe(SearchSpace(parameters={"regime": ("a", "b")}), recipe)


def test_too_few_minutes_say_how_many_are_enough():
    with pytest.raises(UsageError, match="leave each whole trial 0.2 s at least; got 0.1 for 4"):
        application_build("image", trials=4, minutes=0.1)


def test_a_build_of_python_cannot_be_made_again():
    for source in ({}, {"kind": "python"}):
        with pytest.raises(UsageError, match="can be found again"):
            build_of(source)


def test_data_that_is_gone_is_told_before_a_build_is_made(tmp_path):
    source = {"kind": "image", "dials": {"path": str(tmp_path / "gone")}}
    with pytest.raises(UsageError, match="gone"):
        build_of(source)


def test_a_frozen_trunk_has_no_rate_to_try():
    build = application_build(
        "image", from_="pretrained_networks:small", tune="head", flip="no", trials=4, minutes=0.5,
        device="cpu",
    )  # fmt: skip
    assert set(build.space.parameters) == {"head_lr", "label_smoothing"}


def test_classifiers_of_texts_are_varied_on_an_encoder_alone(tmp_path):
    said = "must be of a pretrained encoder; got Volano's own kinds.*Name an encoder by `from_`"
    with pytest.raises(UsageError, match=said):
        application_build("text", tmp_path, classify=True)
