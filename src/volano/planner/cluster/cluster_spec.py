"""The devices of a cluster, as a person names them: ``"H100 x 64"``, ``"A100 40GB x 16,
p4d.24xlarge"``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from volano.device.catalogue import KnownDevice, KnownMachine, find_device, find_machine, machine_of
from volano.errors import UsageError
from volano.planner.cluster.sharded_step import ClusterLayout

MOST_DEVICES = 10_000
_FORM = re.compile(r"(?P<device>.+?)\s+[xX]\s*(?P<count>\d(?:_?\d){0,8})\s*(,\s*(?P<machine>.+))?")


def names_cluster(text: str) -> bool:
    """Checks whether a text names a number of devices."""
    return _FORM.fullmatch(text.strip()) is not None


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """The devices of a cluster and the machines in which they are.

    Attributes:
        world_size: number of devices.
        per_node: devices of one machine.
        device_text: the device as the person wrote it.
    """

    device: KnownDevice
    machine: KnownMachine
    world_size: int
    per_node: int
    device_text: str

    @classmethod
    def parse(cls, text: str, nodes: int | None = None) -> ClusterSpec:
        """Reads ``"DEVICE x COUNT"``, or ``"DEVICE x COUNT, MACHINE"``; ``nodes`` says on how many
        machines they are, and None fills each.

        Raises:
            UsageError: the text has another form, a name is unknown, or the numbers do not fit.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                "Devices of a cluster must be named as DEVICE x COUNT, or DEVICE x COUNT, MACHINE",
                got=repr(text),
                remedy="Write 'H100 x 64'",
            )
        device, count = find_device(found["device"]), int(found["count"])
        if not 1 <= count <= MOST_DEVICES:
            raise UsageError(f"A cluster must have 1 to {MOST_DEVICES:,} devices", got=f"{count:,}")
        named = found["machine"]
        machine = machine_of(device) if named is None else find_machine(named)
        per_node = min(count, machine.per_node)
        if nodes is not None:
            per_node = cls._divided(count, nodes)
        elif count % per_node:
            raise UsageError(
                f"The number of devices must fill machines of {per_node}",
                got=f"{count} of {machine.name}",
                remedy="Give `nodes`, or another number",
            )
        return cls(
            device=device, machine=machine, world_size=count, per_node=per_node,
            device_text=found["device"],
        )  # fmt: skip

    @staticmethod
    def _divided(count: int, nodes: int) -> int:
        if nodes < 1 or count % nodes:
            raise UsageError(
                "`nodes` must be a number of machines that divides the devices",
                got=f"{nodes} for {count} devices",
            )
        return count // nodes

    @property
    def interconnect(self) -> float:
        """The bytes per second from a device to its neighbours in the machine: through the host, if
        no link of their own joins them."""
        return self.device.interconnect or self.device.host_link

    def layout(self, world_size: int) -> ClusterLayout:
        """Returns the layout of so many of such devices."""
        return ClusterLayout(
            world_size=world_size,
            per_node=min(self.per_node, world_size),
            interconnect=self.interconnect,
            network=self.machine.network
            * self.per_node
            / max(self.per_node, self.machine.per_node),
        )
