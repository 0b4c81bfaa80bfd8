"""Collects facts about the machine and the installation, for ``volano doctor`` and for a run's
record."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from volano.device.device import Device
from volano.device.memory.host_memory import host_memory_bytes
from volano.thread_waits import SPIN_COUNT

CORE_PACKAGES = (
    "torch", "numpy", "pillow", "safetensors", "scikit-learn", "matplotlib",
    "rich", "typer", "jinja2", "tokenizers", "av",
)  # fmt: skip
# The oldest and the newest torch with which the tests were run (docs/decisions/dependencies.md).
TESTED_TORCH = ((2, 9), (2, 14))
# package -> (extra that brings it, what it is for)
OPTIONAL_PACKAGES = {
    "pyarrow": ("data", "Parquet tables"),
    "datasets": ("data", "Hugging Face datasets, JSONL and CSV larger than memory"),
    "onnx": ("onnx", "volano export --to onnx"),
    "onnxscript": ("onnx", "volano export --to onnx"),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine on which a run happens. Sizes in bytes; ``spin_count`` is what the environment
    says to OpenMP (:mod:`volano.thread_waits`)."""

    system: str
    python: str
    processor: str
    num_cores: int
    num_threads: int
    host_memory: int
    device: str
    device_name: str
    device_memory: int | None
    num_accelerators: int
    precisions: tuple[str, ...]
    spin_count: str | None = None


def describe_machine(device: Device) -> Machine:
    """Returns the facts that cost nothing to ask for."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        processor=_processor(),
        num_cores=num_cores(),
        num_threads=torch.get_num_threads(),
        host_memory=host_memory_bytes(),
        device=device.name,
        device_name=name_of(device),
        device_memory=device.memory().total,
        num_accelerators=torch.accelerator.device_count(),
        precisions=tuple(
            name for name in ("fp32", "tf32", "bf16", "fp16") if device.supports(name)
        ),
        spin_count=os.environ.get(SPIN_COUNT),
    )


def versions() -> dict[str, str | None]:
    """Returns package -> version, or None if an optional package is not installed."""
    return {name: _version(name) for name in ("volano", *CORE_PACKAGES, *OPTIONAL_PACKAGES)}


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def untested_torch() -> str | None:
    """Returns how this torch lies outside of those that Volano was tested with, in words; None if
    it does not."""
    oldest, newest = TESTED_TORCH
    own = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if oldest <= own <= newest:
        return None
    tested = " to ".join(".".join(map(str, version)) for version in TESTED_TORCH)
    return (
        f"torch {torch.__version__} is {'older' if own < oldest else 'newer'} than those that this "
        f"version of Volano was tested with ({tested})"
    )


def num_cores() -> int:
    """Returns the number of cores that this process may use; a container or taskset may leave fewer
    than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def name_of(device: Device) -> str:
    """Returns the name of the chip that a device is."""
    # Asks for no memory of the device: what starts later may want it whole.
    if device.is_cpu:
        return _processor()
    ask = getattr(torch.get_device_module(device.torch_device), "get_device_name", None)
    return device.name if ask is None else str(ask(device.torch_device))
