"""A budget of memory that is kept to."""

import pytest

from volano.device import Device
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
