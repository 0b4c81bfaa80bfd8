"""A process's place among those that train together; what several say to each other is in
training/distributed."""

import pytest
import torch

from volano.device.ranks import Ranks
from volano.errors import UsageError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_torchrun_a_process_is_alone(environment):
    ranks = Ranks.from_environment()
    assert ranks == Ranks()
    assert (ranks.is_first, ranks.are_several) == (True, False)


def test_torchrun_says_the_place(environment):
    for name, value in zip(NAMES, ("5", "8", "1"), strict=True):
        environment.setenv(name, value)
    ranks = Ranks.from_environment()
    assert (ranks.rank, ranks.world_size, ranks.local_rank) == (5, 8, 1)
    assert (ranks.is_first, ranks.are_several) == (False, True)


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", None), ("LOCAL_RANK", None), ("WORLD_SIZE", "many")]
)
def test_half_a_place_is_an_error(environment, name, value):
    for each in NAMES:
        environment.setenv(each, "1")
    environment.delenv(name) if value is None else environment.setenv(name, value)
    with pytest.raises(
        UsageError, match="need RANK, WORLD_SIZE, LOCAL_RANK; got .*Start with torchrun"
    ):
        Ranks.from_environment()


def test_who_is_alone_hears_itself():
    alone = Ranks()
    tensor = torch.tensor([1.0, 2.0])
    assert alone.join() is alone
    assert alone.add_up(tensor) is tensor
    assert alone.largest([1, 3.5]) == [1, 3.5]
    assert (alone.tell("text"), alone.tell()) == ("text", "")
    agreement = alone.agreement()
    assert agreement(True, False) == [True, False]
    assert agreement.finish() == []
