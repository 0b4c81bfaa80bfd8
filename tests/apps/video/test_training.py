"""From clips and options to a Task."""

import pytest
import torch

from volano.apps.video.options import VideoOptions
from volano.apps.video.training import VideoTraining, _rows
from volano.data.sources import Clips


@pytest.fixture(scope="module")
def application():
    return VideoTraining.read(VideoOptions(num_frames=6, batch_size=8))


def test_half_of_the_frames_are_the_context(application):
    spec = application.spec
    assert (spec.num_frames, spec.context, spec.network) == (6, 3, "unet")
    assert (spec.classes, spec.class_shares) == ((), ())


def test_steps_are_whole_batches(application):
    assert application.steps_in(1.0) == len(application.sets.train) // 8
    assert application.steps_in(1e-9) == 1


def test_mirroring_is_for_those_who_ask(application):
    assert not application.flip
    assert any("flip=no" in notice for notice in application.notices)
    asked = VideoTraining.read(VideoOptions(num_frames=6, flip="yes"))
    assert asked.flip
    assert not any("flip=no" in notice for notice in asked.notices)


def test_a_batch_that_is_larger_than_the_set_is_said():
    found = VideoTraining.read(VideoOptions(num_frames=6, batch_size=10**6))
    count = len(found.sets.train)
    assert f"batch_size={count}: there are no more clips to train on" in found.notices
    assert found.task(3).batch_size <= count


def test_another_network_has_its_own_shape_and_is_resolved(application):
    other = application.with_network("transformer")
    assert other.spec.patch > 0
    assert other.resolved(5)["network"] == "transformer"
    assert application.resolved(5)["network"] == "unet"
    assert other.task(5).objective.velocity
    assert not application.task(5).objective.velocity


def test_clips_that_are_looked_at_are_spread_over_all():
    clips = Clips(
        frames=torch.arange(10).view(10, 1, 1, 1, 1).byte(), lengths=torch.ones(10),
        labels=torch.arange(10), classes=(), names=tuple(map(str, range(10))),
    )  # fmt: skip
    assert _rows(clips, 3)[2].tolist() == [0, 4, 9]
    assert _rows(clips, 99)[2].tolist() == list(range(10))
