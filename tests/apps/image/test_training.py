"""From images and options to a Task."""

import dataclasses

import pytest
import torch

from volano.apps.image import training
from volano.apps.image.application import ImageApplication
from volano.apps.image.options import ImageOptions
from volano.apps.image.splits import split_sets
from volano.apps.image.training import _decide_flip, _statistics
from volano.data.sources import ImageSets, LabelledImages
from volano.device import Device


@pytest.fixture(scope="module")
def application():
    return ImageApplication.read(ImageOptions(seed=3, flip="no", batch_size=64))


def images(labels, size=8):
    count = len(labels)
    generator = torch.Generator().manual_seed(0)
    return LabelledImages(
        images=torch.randint(0, 256, (count, 1, size, size), generator=generator).byte(),
        labels=torch.tensor(labels),
        classes=("a", "b"),
        names=tuple(map(str, range(count))),
        faults=(),
    )


def test_a_task_is_made_again_from_its_resolved_options(application):
    resolved = application.resolved(20)
    again = ImageApplication.read(ImageOptions.from_json(resolved))
    one, other = application.task(20), again.task_of_run()
    assert other.num_steps == one.num_steps == 20
    assert (other.batch_size, again.spec) == (one.batch_size, application.spec)
    assert torch.equal(other.data[:8][0], one.data[:8][0])
    assert resolved["size"] == "thin"


def test_an_epoch_is_as_many_steps_as_there_are_whole_batches(application):
    assert application.steps_in(1.0) == len(application.train) // 64
    assert application.steps_in(2.0) == 2 * (len(application.train) // 64)
    assert application.steps_in(1e-9) == 1
    assert application.recipe_of(application.steps_in(2.0)) == application.recipe(2.0)


def test_another_recipe_is_taken_as_it_is(application):
    recipe = dataclasses.replace(application.recipe_of(20), label_smoothing=0.0, batch_size=32)
    task = application.task(20, recipe)
    assert (task.objective.label_smoothing, task.batch_size) == (0.0, 32)


def test_a_trial_is_thin_unless_another_size_is_asked_for(application):
    wide = application.with_size("wide")
    found, seconds = wide.fit_trial(9.0, lambda task: 0.25, Device("cpu"))
    assert (found.spec.size, seconds) == ("thin", 0.25)
    asked = dataclasses.replace(wide, options=dataclasses.replace(wide.options, size="wide"))
    assert asked.fit_trial(9.0, lambda task: 0.25, Device("cpu"))[0].spec.size == "wide"


def test_an_own_model_has_an_optimizer_that_suits_most(application):
    own = dataclasses.replace(application, own_model=lambda: None)
    assert own.task(20).clip_norm == 1.0
    assert application.task(20).clip_norm is None


class TestSplit:
    def test_sets_of_the_source_stand(self):
        train, valid, test = images([0, 1]), images([0]), images([1])
        sets = ImageSets(train=train, valid=valid, test=test, origin="x")
        assert split_sets(sets, 0) == (train, valid, test, False)
        # One of the two is both.
        for one in ({"valid": valid, "test": None}, {"valid": None, "test": valid}):
            sets = ImageSets(train=train, origin="x", **one)
            assert split_sets(sets, 0) == (train, valid, valid, False)

    def test_some_are_held_out_if_there_is_one_set(self):
        sets = ImageSets(train=images([0, 1] * 20), valid=None, test=None, origin="x")
        train, valid, test, is_held_out = split_sets(sets, 3)
        assert is_held_out
        assert valid is test
        assert set(train.names) | set(test.names) == set(map(str, range(40)))
        assert not set(train.names) & set(test.names)
        assert split_sets(sets, 3)[2].names == test.names != split_sets(sets, 4)[2].names


def test_mirroring_is_found_out_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(training, "flip_is_label_preserving", lambda *_: (True, "so it is"))
    assert _decide_flip("yes", None, None, 0) == (True, "as asked")
    assert _decide_flip("no", None, None, 0) == (False, "as asked")
    assert _decide_flip("auto", None, None, 0) == (True, "so it is")


def test_a_channel_without_contrast_is_not_divided_by_zero():
    pixels = torch.zeros(4, 2, 3, 3, dtype=torch.uint8)
    pixels[:, 1] = 200
    mean, std = _statistics(pixels)
    assert (mean, std) == ((0.0, 200.0), (1.0, 1.0))
