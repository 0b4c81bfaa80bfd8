"""Batches on their way to a device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from device.standin import can_be_installed
from volano.device import Device, Transfer
from volano.device.transfer import copies_without_waiting


def test_a_transfer_to_the_cpu_copies_nothing():
    transfer = Transfer(Device("cpu"))
    batch = {"x": torch.zeros(2)}
    assert transfer.finish(transfer.start(batch)) is batch


def test_without_an_accelerator_copies_stay_as_they_are():
    before = torch.Tensor.to
    with copies_without_waiting(lambda _: None):
        assert torch.Tensor.to is before


ON_STANDIN = """
import standin, torch
standin.install()
from volano.device.transfer import copies_without_waiting
name = torch.accelerator.current_accelerator().type
seen, said = [], []
before = torch.Tensor.to
def to(tensor, *arguments, **more):
    seen.append(more.get("non_blocking", False))
    return before(tensor, *arguments, **more)
torch.Tensor.to = to
pinned, plain = torch.ones(2).pin_memory(), torch.ones(2)
with copies_without_waiting(said.append):
    copy = pinned.to(name)
    plain.to(name), pinned.to(torch.float64), pinned.to(name, non_blocking=False)
    copy.to("cpu"), pinned.to(device=torch.device(name))
print(seen, len(set(said)), torch.equal(copy.to("cpu"), plain))
"""


@pytest.mark.skipif(
    not can_be_installed(), reason="this torch takes no device that is written in Python"
)
def test_pinned_memory_is_copied_without_waiting_unless_the_script_says_otherwise():
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", ON_STANDIN],
        capture_output=True, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    assert done.stdout.split("]")[0][1:] == "True, False, False, False, False, True", done.stderr
