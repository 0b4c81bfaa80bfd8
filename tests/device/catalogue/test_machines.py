"""Machines of several accelerators."""

import pytest

from volano.device.catalogue import find_device, find_machine, machine_of
from volano.device.catalogue.accelerators import DEVICES
from volano.device.catalogue.machines import MACHINES
from volano.errors import UsageError


@pytest.mark.parametrize(
    ("device", "machine", "network"),
    [
        ("A100", "DGX A100", 200e9),
        ("A100 40GB", "DGX A100", 200e9),
        ("H100", "DGX H100", 400e9),
        ("V100", "DGX-1V", 50e9),
        ("L4", "g6.48xlarge", 12.5e9),
        ("L40", "a host with cards", 12.5e9),
        ("RTX 4090", "a host with cards", 12.5e9),
    ],
)
def test_each_device_has_a_machine(device, machine, network):
    found = machine_of(find_device(device))
    assert (found.name, found.network) == (machine, network)


def test_every_machine_is_of_known_devices_and_says_where_that_stands():
    names = [f"{device.name} " for device in DEVICES]
    for machine in MACHINES:
        for device in machine.devices:
            assert any(name.startswith(f"{device} ") for name in names), machine.name
        assert machine.source
        # From 100 Gb/s Ethernet to eight ports of 800 Gb/s.
        assert 12.5e9 <= machine.network <= 800e9


def test_a_machine_is_found_by_its_name():
    assert find_machine("dgx h100").name == "DGX H100"
    assert find_machine("P5.48xlarge").network == 400e9
    with pytest.raises(UsageError, match=r"must be in the catalogue; got 'p5'.*p5\.48xlarge"):
        find_machine("p5")
