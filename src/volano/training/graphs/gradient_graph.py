"""The gradient of a batch as one graph of the device: augment, forward and backward are recorded
once and launched by one call.

The update stays outside: it is one kernel or a few (fused), its learning rate is a number of the
host, and the guard, the scaler and the average work as they do everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.plan import Plan
from volano.task import Batch, Task
from volano.training.graphs.recorded_call import RecordedCall
from volano.training.memory.buffers import are_same, places_of, tensors_at

# A host's numbers by which a model may count its steps: a graph would not.
_PLAIN = (bool, int, float, str, type(None))


def why_not_graph(plan: Plan, device: Device, *, are_several: bool) -> str | None:
    """Returns why a plan's steps are not recorded, or None."""
    if not device.has_graphs:
        return f"{device.name} records none"
    if are_several:
        return "ranks exchange gradients in the middle of a step"
    if plan.micro_batch is not None:
        return "the parts of a batch are counted and seeded on the host"
    if plan.prefix == "cached":
        return "what is kept of a frozen prefix is looked up on the host"
    if plan.recompute != "none" or plan.offload != "none":
        return "recomputation and offloading act on the host in the middle of a step"
    return None


class GradientGraph(RecordedCall):
    """The graph of a step's gradient.

    What depends on the host within a step (a random number of Python's, a count in the model, a
    value read) cannot be recorded.

    Args:
        parameters: those whose gradient is computed.
        compute: computes loss and metrics of a batch, and leaves the gradient in the parameters;
            it seeds nothing.
        generators: the generators that it draws from, besides the device's default one.
    """

    def __init__(
        self,
        device: Device,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        compute: Callable[[Batch], tuple[Tensor, dict[str, Tensor | float]]],
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        super().__init__(device, generators)
        self._model, self._parameters, self._compute = model, parameters, compute
        self._places = places_of(model)
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]] | None:
        """Returns loss and metrics, with the gradient in the parameters; None if this batch must be
        computed eagerly. Generators are seeded by the caller, before."""
        if not self.launched(batch, self._compute):
            return None
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        # Copies: losses are kept until the next line of the log, and a replay writes into the same
        # memory.
        loss, metrics = self.result
        return loss.clone(), {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in metrics.items()
        }

    def record(self, inputs: Batch, compute: Callable[[Batch], Any]) -> None:
        """Records the gradient of a batch; refuses one that did something on the host."""
        before, counts = tensors_at(self._places), _plain_values(self._model)
        for parameter in self._parameters:
            parameter.grad = None
        super().record(inputs, compute)
        if self.failure is None:
            self._gradients = [parameter.grad for parameter in self._parameters]
            if not are_same(tensors_at(self._places), before):
                self.fail("the model puts new tensors in its buffers' places")
            elif _plain_values(self._model) != counts:
                self.fail("the model counts on the host")
        if self.failure is None:
            return
        # Nothing was computed: the eager step that follows finds everything as it was.
        for (held, name), tensor in zip(self._places, before, strict=True):
            held[name] = tensor
        _put_back(self._model, counts)
        self._gradients = []


def generators_of(task: Task, generator: torch.Generator) -> tuple[torch.Generator, ...]:
    """Returns the generators that a task's step draws from, besides the device's default one."""
    return () if task.augment is None else (generator,)


def _plain_values(model: nn.Module) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}
        for module in model.modules()
    ]


def _put_back(model: nn.Module, values: list[dict[str, Any]]) -> None:
    for module, earlier in zip(model.modules(), values, strict=True):
        for name, value in earlier.items():
            if getattr(module, name) is not value:
                setattr(module, name, value)
