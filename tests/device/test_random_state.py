"""Generators stand again where they stood, and continue as if nothing had been drawn."""

import random

import numpy as np
import pytest
import torch

from volano.device import Device, random_state_kept

CPU = Device("cpu")


def draws():
    return torch.rand(1).item(), float(np.random.rand()), random.random()


@pytest.fixture(autouse=True)
def kept():
    with random_state_kept(CPU):
        yield


def test_all_generators_stand_again():
    states = CPU.generator_states()
    first, second = draws(), draws()
    with CPU.states_again(states):
        assert draws() == first
    third = draws()
    CPU.set_generator_states(states)
    assert [draws() for _ in range(3)] == [first, second, third]


def test_the_seeded_one_stands_again_alone():
    CPU.seed(3)
    state = CPU.seeded_state()
    assert state is not None
    first, second = draws(), draws()
    with CPU.seeded_state_again(state):
        again = draws()
    assert again[0] == first[0]
    assert again[1:] != first[1:]
    third = torch.rand(1).item()
    CPU.seed(3)
    assert [torch.rand(1).item() for _ in range(3)] == [first[0], second[0], third]


def test_the_default_generator_is_the_one_that_is_seeded():
    CPU.seed(5)
    expected = torch.rand(3)
    generator = CPU.default_generator()
    assert generator is not None
    generator.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


def test_what_is_drawn_elsewhere_shows():
    states = CPU.generator_states()
    torch.rand(1)
    assert not CPU.has_drawn_elsewhere(states)
    random.random()
    assert CPU.has_drawn_elsewhere(states)
