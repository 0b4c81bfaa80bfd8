"""Keeps what a step finds, so that one that fails can be repeated: nothing of it remains."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from volano.device import Device
from volano.device.torch_private import version_of
from volano.task import Batch, tensors_of
from volano.training.memory.buffers import SavedBuffers, Uncopied, changed, is_small, places_of

# Steps from one note of the host's generators to the next as long as nothing draws from them: a
# note and a comparison take some 30 us, less than 1 us a step.
_NOTED_EVERY = 32


class BeforeStep:
    """Copies and notes of what a step finds: buffers, the batch, what is not copied, generators.

    Args:
        model: the model, on its device.
        keeps_all: whether all buffers are copied, not only small ones and statistics.
    """

    def __init__(self, model: nn.Module, device: Device, *, keeps_all: bool) -> None:
        copied = places_of(model, None if keeps_all else is_small)
        self._buffers = SavedBuffers(copied)
        self._uncopied = Uncopied(model, copied)
        self._generators = UnseededGenerators(device)
        self._inputs: list[tuple[Tensor, int]] = []

    def save(self) -> None:
        """Copies the buffers: a forward pass moves statistics (BatchNorm's) before its loss is
        known, or runs out of memory."""
        self._buffers.save()

    def put_back(self) -> None:
        """Puts the buffers back."""
        self._buffers.put_back()

    def note(self, batch: Batch) -> None:
        """Notes what else a step may change."""
        self._inputs = [(tensor, version_of(tensor)) for tensor in tensors_of(batch)]
        self._uncopied.note()
        self._generators.note()

    def settle(self) -> None:
        """Settles what the first step shows of all, after its gradients."""
        self._uncopied.settle()

    def undo(self) -> str:
        """Puts all back as it was; returns what remains of the step in words, mostly nothing.

        Raises:
            RunError: something was changed of which there is no copy.
        """
        if any(version_of(tensor) != version for tensor, version in self._inputs):
            raise changed("a batch")
        self._uncopied.put_back()
        self._buffers.put_back()
        return "" if self._generators.put_back() else "; it draws other random numbers on the host"


class UnseededGenerators:
    """The random generators that no step seeds (Python's, NumPy's, of an accelerator's run the
    host's), as they stood before a step.

    They are noted before the first two steps and then now and then; before each step from when they
    have been seen to move. If they stand as they were noted, no step since has drawn from them.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._states: Any = None
        self._num_steps = 0
        self._moves = self._are_noted = False

    def note(self) -> None:
        """Notes them before a step, if it is time to."""
        self._are_noted = self._moves or self._num_steps < 2 or self._num_steps % _NOTED_EVERY == 0
        self._num_steps += 1
        if self._are_noted:
            self._moves = self._moves or (
                self._states is not None and self._device.has_drawn_elsewhere(self._states)
            )
            self._states = self._device.generator_states()

    def put_back(self) -> bool:
        """Returns whether they stand as they did before the step; if they moved and were not
        noted, they are from here on."""
        if self._are_noted:
            self._device.set_generator_states(self._states)
        elif self._device.has_drawn_elsewhere(self._states):
            self._states, self._moves = self._device.generator_states(), True
            self._are_noted = True
            return False
        return True
