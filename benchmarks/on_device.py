"""The option ``--device NAME`` of every benchmark that trains: where it runs; ``cpu`` if it is left
out."""

from __future__ import annotations

import contextlib
import os
import sys

import torch

from volano import Plan
from volano.device import Device

# A variable, so that a benchmark's children run where it does.
_NAME = "VOLANO_BENCHMARK_DEVICE"


def take_device() -> Device:
    """Takes ``--device NAME`` out of the command line, whatever else it has, and returns that
    device."""
    for place, word in enumerate(sys.argv):
        if word == "--device" and place + 1 < len(sys.argv):
            os.environ[_NAME] = sys.argv[place + 1]
            del sys.argv[place : place + 2]
            break
        if word.startswith("--device="):
            os.environ[_NAME] = word.partition("=")[2]
            del sys.argv[place]
            break
    return device()


def device() -> Device:
    """Returns the device of this benchmark."""
    return Device(os.environ.get(_NAME, "cpu"))


def baseline() -> Plan:
    """Returns plain eager PyTorch on it."""
    return Plan.baseline(device().name)


def words() -> str:
    """Returns what stands above a benchmark's figures."""
    here = device()
    name = "" if here.is_cpu else f", {here.name}"
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads{name}"


def autocast(precision: str) -> contextlib.AbstractContextManager[None]:
    """Returns the context of ``fp32`` or ``bf16`` of a plain loop."""
    return device().autocast(precision)
