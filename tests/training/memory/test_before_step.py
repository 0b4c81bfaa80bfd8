"""What a step found is put back, the host's random generators too."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from volano.device import Device
from volano.errors import RunError
from volano.training.memory.before_step import _NOTED_EVERY, BeforeStep, UnseededGenerators


def steps(generators, count, draw=lambda: None):
    for _ in range(count):
        generators.note()
        draw()


class TestGenerators:
    @pytest.fixture(autouse=True)
    def kept(self):
        states = random.getstate(), np.random.get_state()
        yield
        random.setstate(states[0])
        np.random.set_state(states[1])

    @pytest.fixture
    def generators(self):
        return UnseededGenerators(Device("cpu"))

    @pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: random.gauss(0, 1)])
    @pytest.mark.parametrize("begins", [0, 1, _NOTED_EVERY + 3])
    def test_what_a_step_drew_is_drawn_again(self, generators, draw, begins):
        steps(generators, begins)
        # From the first note after it has begun on, each step is noted.
        steps(generators, _NOTED_EVERY + 1, draw)
        generators.note()
        drawn = draw()
        assert generators.put_back()
        assert draw() == drawn

    def test_a_step_that_was_not_noted_and_drew_nothing_is_as_before(self, generators):
        steps(generators, 7)
        assert generators.put_back()

    def test_what_begins_between_two_notes_is_said_once(self, generators):
        steps(generators, 7)
        generators.note()
        random.random()
        assert not generators.put_back()
        again = random.random()
        assert generators.put_back()  # the second attempt has failed as well
        assert random.random() == again

    def test_they_are_looked_at_now_and_then_alone(self, generators, monkeypatch):
        looks = []
        real = Device.generator_states
        monkeypatch.setattr(
            Device, "generator_states", lambda self: (looks.append(1), real(self))[1]
        )
        steps(generators, 10 * _NOTED_EVERY)
        assert len(looks) <= 2 * 11 + 1


def test_nothing_of_a_step_remains():
    model = nn.BatchNorm1d(4)
    before = BeforeStep(model, Device("cpu"), keeps_all=False)
    batch = torch.randn(8, 4)
    before.save()
    before.note(batch)
    model(batch)
    assert before.undo() == ""
    assert model.num_batches_tracked == 0
    batch.zero_()
    with pytest.raises(RunError, match="a batch that the objective"):
        before.undo()
