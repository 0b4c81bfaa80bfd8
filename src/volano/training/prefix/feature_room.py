"""The room for what frozen modules compute: memory, and then files that are mapped into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from volano.device import Device
from volano.record.cache_folder import cache_folder

# The share of the device's free memory that may be taken, as by resident data; and of the disk's.
FEATURES_SHARE, _DISK_SHARE = 0.4, 0.5
# What a slow disk reads in a second, and how many times as long computing must take.
_DISK_BYTES_A_SECOND, _LEAST_GAIN = 1e8, 2.0


class NoRoomError(Exception):
    """The error of features that take more bytes than they may."""


class FeatureRoom:
    """The bytes that features may take.

    Args:
        memory_bytes: at most in memory; None for no limit.
        disk_bytes: at most in files, of what does not fit there.
        folder: where files lie.

    Attributes:
        taken: the bytes that are taken in memory.
        mapped: the bytes that are taken in files.
        on_mapped: hears, in words, that files are taken.
    """

    def __init__(
        self, memory_bytes: int | None = None, disk_bytes: int = 0, folder: Path | None = None
    ) -> None:
        self.memory_bytes, self.disk_bytes = memory_bytes, disk_bytes
        self.folder = folder or cache_folder()
        self.taken = self.mapped = 0
        self.on_mapped: Callable[[str], None] = lambda _: None

    @classmethod
    def of(cls, device: Device, budget: int | None = None) -> FeatureRoom:
        """Returns the room on a device, or within a budget of its memory, and on this machine's
        disk."""
        free, folder = budget or device.free_bytes(), cache_folder()
        try:
            there = next(place for place in (folder, *folder.parents) if place.exists())
            disk = shutil.disk_usage(there).free
        except OSError:  # a home that this user may not enter: nothing is kept there
            disk = 0
        memory = None if free is None else int(FEATURES_SHARE * free)
        return cls(memory, int(_DISK_SHARE * disk), folder)

    def in_memory(self, num_bytes: int) -> int:
        """Returns how many of so many bytes lie in memory."""
        return num_bytes if self.memory_bytes is None else min(num_bytes, self.memory_bytes)

    def why_not(self, row_bytes: float, num_rows: int, computing: float) -> str | None:
        """Returns why so many rows, each of which takes ``computing`` seconds, are not kept; None
        if they may be."""
        num_bytes = int(row_bytes * num_rows)
        rest = num_bytes - self.in_memory(num_bytes)
        if not rest:
            return None
        said = (
            f"{num_bytes / 2**20:,.0f} MiB of what it computes are more than the "
            f"{self.in_memory(num_bytes) / 2**20:,.0f} MiB that there are for it"
        )
        if rest > self.disk_bytes:
            return f"{said}, and the rest is more than {self.disk_bytes / 2**20:,.0f} MiB of disk"
        if computing < _LEAST_GAIN * row_bytes / _DISK_BYTES_A_SECOND:
            return f"{said}, and reading the rest from a disk may take as long as computing it"
        return None

    def take(self, num_bytes: int) -> bool:
        """Takes so many bytes more, and returns whether they are in memory.

        Raises:
            NoRoomError: they are too many.
        """
        if self.memory_bytes is None or self.taken + num_bytes <= self.memory_bytes:
            self.taken += num_bytes
            return True
        if self.mapped + num_bytes > self.disk_bytes:
            raise NoRoomError(
                f"what it computes takes more than the {self.memory_bytes / 2**20:,.0f} MiB of "
                f"memory and {self.disk_bytes / 2**20:,.0f} MiB of disk that there are for it"
            )
        if not self.mapped:
            self.on_mapped(
                f"what frozen layers compute takes more than the "
                f"{self.memory_bytes / 2**20:,.0f} MiB of memory that there are for it: the rest "
                f"lies in files without a name in {self.folder}, which go with this process"
            )
        self.mapped += num_bytes
        return False
