"""The host's memory, as far as this process may use it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def host_memory_bytes() -> int:
    """Returns the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_host_bytes() -> int | None:
    """Returns the bytes that a new allocation could take now: within the machine's memory, the
    limits of a container or control group (cgroups(7)), and the limits of the process
    (getrlimit(2)). None if the system reports none."""
    found = [
        value
        for value in (_left_in_machine(), *_left_in_groups(), *_left_in_limits())
        if value is not None
    ]
    return max(0, min(found)) if found else None


def resident_bytes() -> int | None:
    """Returns the bytes of this process that lie in RAM."""
    pages = _pages(1)
    return None if pages is None else pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
    """Returns the most resident bytes since the process began; 0 if the system does not report
    them."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Getrusage(2): kilobytes on Linux, bytes on macOS.
    return peak if sys.platform == "darwin" else peak * 1024


def _left_in_machine() -> int | None:
    # MemAvailable counts what can be reclaimed (proc(5)); SC_AVPHYS_PAGES does not.
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_groups() -> Iterator[int]:
    """Returns what each control group above this process leaves: its limit less what is used and
    cannot be reclaimed."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            root, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.strip("/")
        # Within a container the path may be the host's; the group is then the root that is visible
        # here.
        for folder in (group, *group.parents) if group.is_dir() else (root,):
            left = _left_in_group(folder, *names)
            if left is not None:
                yield left
            if folder == root:
                break


def _left_in_group(
    folder: Path, limit_name: str, used_name: str, reclaimable_name: str
) -> int | None:
    limit, used = _number(folder / limit_name), _number(folder / used_name)
    # Version 1 writes "no limit" as a very large number.
    if limit is None or used is None or limit >= 2**60:
        return None
    reclaimable = 0
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == reclaimable_name:
            reclaimable = int(value)
    return limit - used + reclaimable


def _left_in_limits() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    # The columns of proc(5)'s statm: the whole address space, and data with stack.
    for kind, column in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit, pages = resource.getrlimit(kind)[0], _pages(column)
        if limit != resource.RLIM_INFINITY and pages is not None:
            yield limit - pages * os.sysconf("SC_PAGE_SIZE")


def _pages(column: int) -> int | None:
    for line in _lines(Path("/proc/self/statm")):
        return int(line.split()[column])
    return None


def _number(path: Path) -> int | None:
    for line in _lines(path):
        with contextlib.suppress(ValueError):  # version 2 writes "max"
            return int(line)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
