"""Answers of devices that are not here."""

import pytest

from volano.device import AbsentDevice, find_device


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("H100 80GB", (True, True, True)),
        ("MI300X", (True, True, True)),
        ("Arc B580 12GB", (False, False, True)),
        ("Apple M2 Ultra 64GB", (False, False, False)),
    ],
)
def test_what_its_libraries_can_is_not_asked_of_this_machine(name, answers):
    device = AbsentDevice(find_device(name))
    found = (device.has_graphs, device.can_benchmark_convolutions, device.can_autotune_kernels)
    assert found == answers
    assert not device.is_cpu
    assert device.supports("fp32")


def test_a_precision_is_one_that_the_catalogue_has_a_rate_for():
    assert not AbsentDevice(find_device("T4")).supports("bf16")
    assert AbsentDevice(find_device("H100 80GB")).supports("tf32")
