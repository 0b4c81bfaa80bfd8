"""The machine: one door to torch.accelerator and the CPU, and its measured limits."""

from volano.device.catalogue import KnownDevice, find_device, other_variants
from volano.device.catalogue.absent_device import AbsentDevice
from volano.device.device import Device
from volano.device.kernels import kernel_names, measure_kernels
from volano.device.library_choices import repeatable_products
from volano.device.limits import Limits, bf16_speed, measure_limits, measure_some_limits
from volano.device.machine import OPTIONAL_PACKAGES, describe_machine, num_cores, versions
from volano.device.memory.host_memory import host_memory_bytes
from volano.device.random_state import random_state_kept
from volano.device.ranks import Ranks
from volano.device.transfer import Transfer

__all__ = [
    "OPTIONAL_PACKAGES",
    "AbsentDevice",
    "Device",
    "KnownDevice",
    "Limits",
    "Ranks",
    "Transfer",
    "bf16_speed",
    "describe_machine",
    "find_device",
    "host_memory_bytes",
    "kernel_names",
    "measure_kernels",
    "measure_limits",
    "measure_some_limits",
    "num_cores",
    "other_variants",
    "random_state_kept",
    "repeatable_products",
    "versions",
]
