"""A budget of memory that is kept to."""

import pytest
import torch

from volano.device import Device, memory_limit
from volano.device.device import Memory
from volano.device.memory_limit import memory_limited

GIB = 2**30


@pytest.fixture
def accelerator(monkeypatch):
    """A device of 16 GiB with the switch, and what was set."""
    device, given = Device("cpu"), []
    device.is_cpu = False
    device._module = type(
        "Backend",
        (),
        {"set_per_process_memory_fraction": staticmethod(lambda *args: given.append(args))},
    )
    memory = Memory(allocated=0, peak=0, total=16 * GIB)
    monkeypatch.setattr(Device, "memory", lambda _: memory)
    return device, given


def test_the_allocator_is_given_what_the_driver_leaves(accelerator):
    device, given = accelerator
    with memory_limited(device, 5 * GIB) as is_limited:
        assert is_limited
        assert given == [(0.25, device.torch_device)]
    assert given[1:] == [(1.0, device.torch_device)]


def test_nothing_is_limited_without_a_budget_or_a_switch(accelerator):
    device, given = accelerator
    with memory_limited(device, None) as is_limited:
        assert not is_limited
    device._module = type("Backend", (), {})
    with memory_limited(device, GIB) as is_limited:
        assert not is_limited
    with memory_limited(Device("cpu"), GIB) as is_limited:
        assert not is_limited
    assert given == []


@pytest.fixture
def settings(monkeypatch):
    """What the allocator of a device whose segments can grow was told."""
    given = []
    monkeypatch.setattr(Device, "has_growing_segments", True)
    monkeypatch.setattr(memory_limit, "set_allocator", lambda text: given.append(text) or True)
    for name in memory_limit._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return given


def test_segments_grow_under_a_budget(accelerator, settings):
    device, _ = accelerator
    with memory_limited(device, 5 * GIB):
        assert settings == ["expandable_segments:True"]
    assert settings[1:] == ["expandable_segments:False"]
    with memory_limited(device, None):
        pass
    assert len(settings) == 2


def test_what_a_person_has_set_stands(accelerator, settings, monkeypatch):
    device, _ = accelerator
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    with memory_limited(device, 5 * GIB) as is_limited:
        assert is_limited
    assert settings == []


def test_segments_grow_on_nvidias_devices_on_linux(monkeypatch):
    device = Device("cpu")
    assert not device.has_growing_segments
    device.torch_device = torch.device("cuda", 0)
    monkeypatch.setattr("sys.platform", "linux")
    for release, grows in (("6.8.0-generic", True), ("5.15.1-microsoft-standard-WSL2", False)):
        monkeypatch.setattr("platform.release", lambda release=release: release)
        assert device.has_growing_segments == grows
    monkeypatch.setattr("platform.release", lambda: "6.8.0")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not device.has_growing_segments
