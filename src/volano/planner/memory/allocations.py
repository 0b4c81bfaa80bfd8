"""What a device has handed out, counted by itself: on the CPU by torch's profiler, which records every allocation."""

from __future__ import annotations

import contextlib
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from volano.device import Device

_MARK = "volano: a new peak"


class AllocationRecord:
    """A context whose peak is that since the last :meth:`begin`, of what was allocated within it on the CPU, and of all
    that is allocated on another device.

    Args:
        device: whose memory.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._profile: Any = None
        if device.is_cpu:
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> AllocationRecord:
        if self._profile is not None:
            self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._profile is not None:
            self._profile.__exit__(*error)

    def begin(self) -> None:
        """Starts a new peak with what is allocated now."""
        self._device.reset_peak_memory()
        with record_function(_MARK) if self._profile is not None else contextlib.nullcontext():
            pass

    def peak(self) -> int:
        """Bytes. On the CPU to be asked after the context has ended."""
        if self._profile is None:
            return self._device.memory().peak or 0
        live = peak = 0
        for event in sorted(self._profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
            if event.name() == _MARK:
                peak = live
            elif event.name() == "[memory]":
                live += event.nbytes()
                peak = max(peak, live)
        return peak
