"""The activations that a forward pass keeps for its backward pass: all, some, or on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from volano.device import Device
from volano.device.torch_private import functorch_settings
from volano.plan import Plan
from volano.training.memory.offload import offloaded_activations
from volano.training.memory.recompute import Recompute

_ALL_OF_IT = contextlib.nullcontext()


class Activations:
    """The knobs ``recompute``, ``activation_budget`` and ``offload`` of a plan, as contexts around
    forward passes.

    Args:
        model: the model, on its device.
        plan: whose knobs.
        device: the device on which it computes.
        on_notice: the function that hears of each of them that has no effect.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, device: Device, on_notice: Callable[[str], None]
    ) -> None:
        self._model, self._device = model, device
        self._contexts: list[Callable[[], AbstractContextManager[Any]]] = []
        offloaded = offloaded_activations(plan, device, on_notice)
        if offloaded is not None:
            self._contexts.append(offloaded)
        if plan.activation_budget < 1:
            if plan.compile:
                # Read when the compiler divides a step into forward and backward pass; put back for
                # whatever else is compiled.
                self._contexts.append(
                    lambda: functorch_settings().patch(
                        activation_memory_budget=plan.activation_budget
                    )
                )
            else:
                on_notice(
                    f"activation_budget={plan.activation_budget} has no effect without compile"
                )
        self.recomputes = plan.recompute == "blocks" and self.start_recomputing()
        if plan.recompute == "blocks" and not self.recomputes:
            kind = type(model).__name__
            on_notice(
                f"recompute=blocks has no effect: {kind} holds no lists or sequences of composite "
                "modules"
            )

    def start_recomputing(self) -> bool:
        """Makes blocks be computed again from now on. Returns False if the model has none."""
        recompute = Recompute(self._model, self._device)
        if recompute.names:
            self._contexts.append(recompute.applied)
        self.recomputes = bool(recompute.names)
        return self.recomputes

    def kept(self) -> AbstractContextManager[Any]:
        """A context for one forward pass of a training step."""
        if not self._contexts:
            return _ALL_OF_IT
        if len(self._contexts) == 1:
            return self._contexts[0]()
        return self._all()

    @contextlib.contextmanager
    def _all(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for make in self._contexts:
                stack.enter_context(make())
            yield
