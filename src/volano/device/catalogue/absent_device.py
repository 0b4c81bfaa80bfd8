"""A device of the catalogue in the place of one that is here."""

from __future__ import annotations

from functools import cached_property

from volano.device.catalogue.accelerators import KnownDevice
from volano.device.device import Device


class AbsentDevice(Device):
    """A device of the catalogue, with the answers that candidates and applications need."""

    def __init__(self, known: KnownDevice) -> None:
        super().__init__("cpu")
        self.is_cpu = False
        self._known = known

    @property
    def name(self) -> str:
        """The device's name as torch would write it there."""
        return self._known.torch_type

    def supports(self, precision: str) -> bool:
        """Checks whether the catalogue has a rate for the precision."""
        return precision in self._known.flops

    @cached_property
    def has_graphs(self) -> bool:
        """The answer whether such devices record kernels and launch them as one."""
        return self._known.torch_type == "cuda"

    @property
    def can_benchmark_convolutions(self) -> bool:
        """The answer whether there is a library there that times its convolutions."""
        return self._known.torch_type == "cuda"

    @property
    def can_autotune_kernels(self) -> bool:
        """The answer whether the compiler has several kernels for a product there."""
        return self._known.torch_type in ("cuda", "xpu")
