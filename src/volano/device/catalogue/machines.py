"""The machines of several accelerators, by what makers and providers state: how many devices one
has, and how fast the network between two of them is."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from volano.device.catalogue.accelerators import KnownDevice
from volano.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class KnownMachine:
    """A machine as one is bought or rented.

    Attributes:
        devices: the first words of the catalogue's names of its devices.
        per_node: devices of one machine.
        network: bytes per second from one machine to the others, of all its devices together, in
            one direction.
        source: title of the document.
    """

    name: str
    devices: tuple[str, ...]
    per_node: int
    network: float
    source: str


def _known(name: str, devices: str, per_node: int, gigabits: float, source: str) -> KnownMachine:
    return KnownMachine(
        name=name,
        devices=tuple(devices.split(", ")),
        per_node=per_node,
        network=gigabits * 1e9 / 8,
        source=source,
    )


_EC2 = "Amazon EC2, accelerated computing instances"
_GCE = "Google Compute Engine, GPU machine types"
_AZURE = "Azure, ND-series virtual machines"
# The first one that has a device is taken for it if none is named: makers' own before rented ones.
# fmt: off
MACHINES: tuple[KnownMachine, ...] = (
    _known("DGX-1V", "V100 SXM2", 8, 4 * 100, "NVIDIA DGX-1 with Tesla V100 system architecture"),
    _known("DGX A100", "A100 SXM", 8, 8 * 200, "NVIDIA DGX A100, data sheet"),
    _known("DGX H100", "H100 SXM", 8, 8 * 400, "NVIDIA DGX H100, data sheet"),
    _known("DGX H200", "H200 SXM", 8, 8 * 400, "NVIDIA DGX H200, data sheet"),
    _known("DGX B200", "B200 SXM", 8, 8 * 400, "NVIDIA DGX B200, data sheet"),
    _known("DGX B300", "B300 SXM", 8, 8 * 800, "NVIDIA DGX B300, data sheet"),
    _known("GH200 node", "GH200", 1, 400, "NVIDIA GH200 Grace Hopper Superchip, data sheet"),
    _known(
        "MI300X platform",
        "MI300X, MI325X, MI350X, MI355X",
        8,
        8 * 400,
        "AMD Instinct MI300X platform, cluster reference architecture guide",
    ),
    _known("Frontier node", "MI250X", 8, 4 * 200, "Frontier user guide, Oak Ridge"),
    _known("Aurora node", "Max 1550", 12, 8 * 200, "Aurora user guide, Argonne"),
    _known("g4dn.metal", "T4", 8, 100, _EC2),
    _known("g5.48xlarge", "A10G", 8, 100, _EC2),
    _known("g6.48xlarge", "L4", 8, 100, _EC2),
    _known("g6e.48xlarge", "L40S", 8, 400, _EC2),
    _known("p3dn.24xlarge", "V100 SXM2 32GB", 8, 100, _EC2),
    _known("p4d.24xlarge", "A100 SXM 40GB", 8, 400, _EC2),
    _known("p4de.24xlarge", "A100 SXM 80GB", 8, 400, _EC2),
    _known("p5.48xlarge", "H100 SXM", 8, 3200, _EC2),
    _known("p5en.48xlarge", "H200 SXM", 8, 3200, _EC2),
    _known("a2-highgpu-8g", "A100 SXM 40GB", 8, 100, _GCE),
    _known("a2-ultragpu-8g", "A100 SXM 80GB", 8, 100, _GCE),
    _known("a3-highgpu-8g", "H100 SXM", 8, 800, _GCE),
    _known("a3-megagpu-8g", "H100 SXM", 8, 1600, _GCE),
    _known("a3-ultragpu-8g", "H200 SXM", 8, 3200, _GCE),
    _known("ND A100 v4", "A100 SXM", 8, 8 * 200, _AZURE),
    _known("ND H100 v5", "H100 SXM", 8, 8 * 400, _AZURE),
)
# fmt: on
# Cards in a host of one's own, of which no document tells.
_CARDS = KnownMachine(
    name="a host with cards",
    devices=(),
    per_node=8,
    network=100e9 / 8,
    source="assumed: 8 cards, and 100 Gb/s Ethernet between machines",
)


def machine_of(device: KnownDevice) -> KnownMachine:
    """Returns the machine in which a device usually is; an assumed one if none is known."""
    words = f"{device.name} "
    return next(
        (one for one in MACHINES if words.startswith(tuple(f"{name} " for name in one.devices))),
        _CARDS,
    )


def find_machine(text: str) -> KnownMachine:
    """Finds a machine by its name.

    Raises:
        UsageError: no machine has that name.
    """
    wanted = _plain(text)
    for machine in MACHINES:
        if _plain(machine.name) == wanted:
            return machine
    near = difflib.get_close_matches(wanted, [_plain(one.name) for one in MACHINES], 3, 0.0)
    raise UsageError(
        "A machine must be in the catalogue",
        got=repr(text),
        remedy=f"Nearest: {', '.join(one.name for one in MACHINES if _plain(one.name) in near)}",
    )


def _plain(text: str) -> str:
    return re.sub(r"[\s_\-]+", " ", text.lower()).strip()
