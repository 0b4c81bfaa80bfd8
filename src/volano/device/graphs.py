"""Graphs of a device: a sequence of kernels that is recorded once and launched as one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch

from volano.device.torch_private import draws_within, undone_if_failed


class DeviceGraph:
    """A sequence of kernels, recorded once and then launched by one call of the host.

    Recording runs nothing. A replay reads and writes the very memory that the recorded kernels did:
    inputs are copied into it first, results copied out of it afterwards. Random numbers are drawn
    again, from where the generators stand when a replay begins.

    Args:
        module: torch's module of the device, if it has graphs of its own; None takes those of
            ``torch.accelerator`` (torch 2.13 and later).

    Raises:
        RuntimeError: the device has no graphs.
    """

    def __init__(self, module: Any = None) -> None:
        self._module = module if hasattr(module, "CUDAGraph") else None
        self._graph: Any = (
            torch.accelerator.Graph(capture_error_mode="thread_local")
            if self._module is None
            else self._module.CUDAGraph()
        )

    @contextlib.contextmanager
    def recording(self, generators: Iterable[torch.Generator] = ()) -> Any:
        """Records what is queued inside, on a stream of its own.

        Args:
            generators: the generators that are drawn from inside, besides the device's default one.

        Raises:
            RuntimeError: something inside waits for the device, or cannot be recorded.
        """
        generators = list(generators)
        draws_within(self._graph, generators)
        module = self._module
        if module is None:
            with torch.Stream(), self._graph:
                yield
            return
        pool, index = module.graph_pool_handle(), module.current_device()
        generators.append(module.default_generators[index])
        with (
            # The stream that torch chooses by itself may be another device's; and if recording
            # fails, it would stay the current one.
            module.stream(module.current_stream()),
            undone_if_failed(self._graph, index, pool, generators),
            # Other threads (those that fill the next batch's memory) may go on meanwhile.
            module.graph(
                self._graph, pool=pool, stream=module.Stream(), capture_error_mode="thread_local"
            ),
        ):
            yield

    def replay(self) -> None:
        """Queues all that was recorded."""
        self._graph.replay()


def has_graphs(module: Any) -> bool:
    """Returns whether a device records graphs.

    Args:
        module: torch's module of the device.
    """
    if hasattr(module, "CUDAGraph"):
        return True
    try:
        torch.accelerator.Graph()
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False
    return True
