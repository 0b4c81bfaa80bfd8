"""The Task of fine-tuning."""

import dataclasses

import pytest
import torch

from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions


@pytest.fixture(scope="module")
def application():
    options = ImageOptions(from_="pretrained_networks:small", tune="head", flip="no")
    return ImageApplication.read(options)


def test_the_head_alone_has_nothing_before_its_trunk_that_draws(application):
    task = application.task(10)
    model = task.model()
    assert task.augment is None
    assert [p.requires_grad for p in model.trunk.parameters()].count(True) == 0
    groups = task.parameter_groups(model)
    assert sum(len(group["params"]) for group in groups) == 2
    assert groups[0]["weight_decay"] == application.begun.probe.weight_decay


def test_all_layers_are_trained_on_moved_pictures(application):
    task = application.with_tune("all").task(10)
    assert task.augment.translate == 1
    assert task.optimizer is torch.optim.AdamW
    model = task.model()
    assert all(p.requires_grad for p in model.parameters())
    assert model.tune == "all"


def test_a_study_tries_its_rates(application):
    recipe = application.recipe_of(10)
    twice = dataclasses.replace(recipe, head_lr=2 * recipe.head_lr)
    one, other = (application.task(10, r) for r in (recipe, twice))
    rates = [task.parameter_groups(task.model())[0]["lr"] for task in (one, other)]
    assert rates[1] == pytest.approx(2 * rates[0])


def test_the_same_task_is_made_again_from_resolved_options(application):
    resolved = application.resolved(10)
    again = ImageApplication.read(ImageOptions.from_json(resolved)).task_of_run()
    assert str(again.model.args[0]) == str(application.task(10).model.args[0])
