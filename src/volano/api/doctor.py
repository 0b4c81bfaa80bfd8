"""Finds what the machine is, what it can do at most, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from volano.device import OPTIONAL_PACKAGES, Device, describe_machine, measure_limits, versions


def doctor(device: str | None = None) -> dict[str, Any]:
    """Returns facts, measured limits and versions; takes about a second.

    Returns:
        ``machine`` (sizes in bytes), ``limits`` (operations or bytes per second), ``versions``, and
        ``missing``: package -> what it is for and how to get it.

    Raises:
        UsageError: the device is not on this machine.
    """
    place = Device(device)
    found = versions()
    missing = {
        package: f"{purpose}: pip install 'volano[{extra}]'"
        for package, (extra, purpose) in OPTIONAL_PACKAGES.items()
        if found[package] is None
    }
    return {
        "machine": asdict(describe_machine(place)),
        "limits": asdict(measure_limits(place)),
        "versions": found,
        "missing": missing,
    }
