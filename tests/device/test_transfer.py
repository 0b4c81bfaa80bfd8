"""Batches on their way to a device."""

import torch

from volano.device import Device, Transfer


def test_a_transfer_to_the_cpu_copies_nothing():
    transfer = Transfer(Device("cpu"))
    batch = {"x": torch.zeros(2)}
    assert transfer.finish(transfer.start(batch)) is batch
