"""The accelerators and machines that are known without being here, by what their makers state."""

from volano.device.catalogue.accelerators import KnownDevice, find_device, other_variants
from volano.device.catalogue.machines import KnownMachine, find_machine, machine_of

__all__ = [
    "KnownDevice",
    "KnownMachine",
    "find_device",
    "find_machine",
    "machine_of",
    "other_variants",
]
