"""What is told of the machine."""

import tomllib
from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion

from volano.device import Device, describe_machine, versions
from volano.device.machine import TESTED_TORCH, untested_torch


def test_facts():
    machine = describe_machine(Device("cpu"))
    assert machine.num_cores >= 1
    assert machine.precisions == ("fp32", "bf16")
    assert versions()["torch"].startswith(torch.__version__.split("+")[0])


@pytest.mark.parametrize(
    ("version", "said"),
    [("2.8.1+cpu", "older"), ("2.9.0", None), ("2.14.1+cu130", None), ("3.0.0a0", "newer")],
)
def test_a_torch_outside_of_those_that_were_tested_is_told(monkeypatch, version, said):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    found = untested_torch()
    assert (found is None) if said is None else (f"{version} is {said} than" in found)


def test_the_oldest_tested_torch_is_the_oldest_that_is_allowed():
    project = Path(__file__).parents[2] / "pyproject.toml"
    oldest = ".".join(map(str, TESTED_TORCH[0]))
    assert f"torch>={oldest}" in tomllib.loads(project.read_text())["project"]["dependencies"]
