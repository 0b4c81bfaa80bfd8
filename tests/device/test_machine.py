"""What is told of the machine."""

import torch

from volano.device import Device, describe_machine, versions


def test_facts():
    machine = describe_machine(Device("cpu"))
    assert machine.num_cores >= 1
    assert machine.precisions == ("fp32", "bf16")
    assert versions()["torch"].startswith(torch.__version__.split("+")[0])
