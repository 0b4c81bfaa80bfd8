"""What candidates depend on, asked once of a task and a device."""

import functools

import pytest
import torch
from torch import nn

from planner.searching import make_task, random_states
from volano.device import Device
from volano.planner import task_profile
from volano.planner.task_profile import profile_task, resident_data_bytes

CPU = Device("cpu")


def structure_of(**fields):
    return profile_task(make_task(**fields), CPU).structure


def test_rates_are_no_part_of_the_structure_and_flags_are():
    one = structure_of()
    assert one == structure_of(optimizer=functools.partial(torch.optim.SGD, lr=9.0, momentum=0.1))
    assert one != structure_of(
        optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)
    )
    assert one != structure_of(optimizer=torch.optim.Adam)


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.2)),
        lambda: nn.Sequential(nn.Linear(64, 10, bias=False), nn.Dropout(0.1)),
        lambda: nn.Sequential(nn.Linear(64, 10), nn.Identity()),
    ],
)
def test_what_a_layer_was_made_with_is_part_of_it(model):
    plain = structure_of(model=lambda: nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.1)))
    assert structure_of(model=model) != plain


def test_a_frozen_parameter_is_another_structure():
    def frozen():
        model = nn.Linear(64, 10)
        model.bias.requires_grad_(False)
        return model

    assert structure_of(model=frozen) != structure_of(model=lambda: nn.Linear(64, 10))


def test_bytes_images_and_blocks():
    found = profile_task(make_task(model=lambda: nn.Linear(64, 10)), CPU)
    assert found.parameter_bytes == 4 * 65 * 10
    assert not found.has_images
    assert found.blocks == ()
    assert len(found.batch[0]) == 32

    def images():
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
            nn.Linear(144, 10),
        )  # fmt: skip

    found = profile_task(make_task(model=images), CPU)
    assert found.has_images
    # Buffers count: mean and variance of four channels, and the count of batches in 8 bytes.
    assert found.parameter_bytes == 4 * (4 * 9 + 4 + 8 + 8 + 1450) + 8


def test_an_update_that_does_not_apply_says_why():
    found = profile_task(make_task(optimizer=torch.optim.RMSprop), CPU)
    assert "RMSprop" in found.why_not_fused
    assert profile_task(make_task(), CPU).why_not_fused is None


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(task_profile.shutil, "which", lambda _: None)
    assert "C++ compiler" in profile_task(make_task(), CPU).why_not_compile
    monkeypatch.setattr(task_profile.shutil, "which", lambda name: name == "clang++")
    assert profile_task(make_task(), CPU).why_not_compile is None


def test_nothing_is_drawn():
    torch.manual_seed(3)
    before = random_states()
    profile_task(make_task(), CPU)
    assert random_states() == before


def test_resident_bytes_are_those_of_all_data_or_none():
    task = make_task()
    assert resident_data_bytes(task) == 512 * (64 * 4 + 8)
    assert resident_data_bytes(make_task(valid=task.data)) == 2 * 512 * (64 * 4 + 8)
    assert resident_data_bytes(make_task(collate=torch.utils.data.default_collate)) is None
    assert resident_data_bytes(make_task(valid=[task.data[0]])) is None
