"""A call whose kernels a device records once, with slots for its inputs, and then launches as one:
the host would need milliseconds to start them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from volano.device import Device
from volano.device.graphs import DeviceGraph
from volano.device.torch_private import foreach_copy_
from volano.errors import reason_of
from volano.task import Batch, map_tensors, tensors_of

# Inputs of ever other shapes are never recorded.
_MOST_MISSES = 20


class RecordedCall:
    """A computation as a graph of the device.

    The first call with inputs of some shapes is left to the caller (libraries choose their kernels,
    the compiler compiles); from the second one in a row on the graph is launched. Inputs of other
    shapes, such as an epoch's last batch, stay eager. What cannot be recorded does too: then
    ``failure`` says why.

    Args:
        device: the device that records.
        generators: the generators that the computation draws from, besides the device's default
            one.

    Attributes:
        result: the computation's result as it was recorded. Each launch writes into its tensors.
        failure: why nothing is recorded; None as long as nothing failed.
        on_failure: the function that hears of it.
    """

    def __init__(self, device: Device, generators: Sequence[torch.Generator] = ()) -> None:
        self._device, self._generators = device, generators
        self._seen: str | None = None
        self._num_misses = 0
        self._graph: DeviceGraph | None = None
        self._slots: list[Tensor] = []
        self.result: Any = None
        self.failure: str | None = None
        self.on_failure: Callable[[str], None] = lambda _: None

    def launched(self, inputs: Batch, compute: Callable[[Batch], Any]) -> bool:
        """Computes by the graph, so that :attr:`result` holds what ``compute(inputs)`` returns.
        Returns False if the caller must compute instead.

        Args:
            inputs: a tree of tensors. What is no tensor in it is part of what is recorded.
            compute: the same computation at each call. Whatever else it reads lies in the same
                memory each time.
        """
        if self.failure is not None:
            return False
        shapes = repr(map_tensors(lambda t: (tuple(t.shape), t.dtype, t.stride()), inputs))
        if shapes != self._seen:
            if self._graph is None:
                self._seen = shapes
                self._num_misses += 1
                if self._num_misses > _MOST_MISSES:
                    self.fail("hardly two batches in a row have the same shapes")
            return False
        if self._graph is None:
            self.record(inputs, compute)
        else:
            foreach_copy_(self._slots, list(tensors_of(inputs)))
        if self._graph is None:
            return False
        self._graph.replay()
        return True

    def record(self, inputs: Batch, compute: Callable[[Batch], Any]) -> None:
        """Records a computation, which is made by the replay only."""
        slots, states = map_tensors(torch.clone, inputs), self._device.generator_states()
        # A graph has memory of its own: what eager steps left behind is given back first.
        gc.collect()
        self._device.release_memory()
        graph = self._device.graph()
        try:
            with graph.recording(self._generators):
                self.result = compute(slots)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            self.fail(f"a step cannot be recorded: {reason_of(error)}")
        else:
            self._graph, self._slots = graph, list(tensors_of(slots))
            if self._device.has_drawn_elsewhere(states):
                self.fail("the task draws random numbers on the host")
        if self.failure is not None:
            self._device.set_generator_states(states)

    def fail(self, reason: str) -> None:
        """Leaves everything to the caller, from now on."""
        self._graph, self._slots, self.result = None, [], None
        self.failure = reason
        self.on_failure(f"graph=True does not apply: {reason}")


def check_recorded(recorded: RecordedCall | None) -> None:
    """Raises RuntimeError if steps that should have been recorded could not be: what ran then is
    another plan."""
    if recorded is not None and recorded.failure is not None:
        raise RuntimeError(recorded.failure)
