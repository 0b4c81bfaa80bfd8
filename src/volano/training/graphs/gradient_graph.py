"""The gradient of a batch as one graph of the device: augment, forward and backward are recorded
once and launched by one call, where the host would need milliseconds to start their kernels.

The update stays outside: it is one kernel or a few (fused), its learning rate is a number of the
host, and the guard, the scaler and the average work as they do everywhere.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.device.graphs import DeviceGraph
from volano.device.torch_private import foreach_copy_
from volano.errors import reason_of
from volano.plan import Plan
from volano.task import Batch, Task, map_tensors, tensors_of
from volano.training.memory.buffers import are_same, places_of, tensors_at

# A host's numbers by which a model may count its steps: a graph would not.
_PLAIN = (bool, int, float, str, type(None))
# Batches of ever other shapes are never recorded.
_MOST_MISSES = 20


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


class GradientGraph:
    """The graph of a step's gradient.

    The first batch of a shape is computed eagerly (libraries choose their kernels, the compiler
    compiles); from the second one on the graph is launched. Batches of other shapes, such as an
    epoch's last, stay eager. What depends on the host within a step (a random number of Python's, a
    count in the model, a value read) cannot be recorded: then all steps stay eager, and
    ``failure`` says why.

    Args:
        parameters: those whose gradient is computed.
        compute: computes loss and metrics of a batch, and leaves the gradient in the parameters;
            it seeds nothing.
        generators: the generators that it draws from, besides the device's default one.

    Attributes:
        failure: why nothing is recorded; None as long as nothing failed.
        on_failure: the function that hears of it.
    """

    def __init__(
        self,
        device: Device,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        compute: Callable[[Batch], tuple[Tensor, dict[str, Tensor | float]]],
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._device, self._model, self._parameters = device, model, parameters
        self._compute, self._generators = compute, generators
        self._places = places_of(model)
        self._seen: str | None = None
        self._num_misses = 0
        self._graph: DeviceGraph | None = None
        self._inputs: list[Tensor] = []
        self._loss: Tensor | None = None
        self._metrics: dict[str, Tensor | float] = {}
        self._gradients: list[Tensor | None] = []
        self.failure: str | None = None
        self.on_failure: Callable[[str], None] = lambda _: None

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]] | None:
        """Returns loss and metrics, with the gradient in the parameters; None if this batch must be
        computed eagerly. Generators are seeded by the caller, before."""
        if self.failure is not None:
            return None
        # The numbers of a batch that are no tensors are part of what is recorded.
        shapes = repr(map_tensors(lambda t: (tuple(t.shape), t.dtype, t.stride()), batch))
        if shapes != self._seen:
            if self._graph is None:
                self._seen = shapes
                self._num_misses += 1
                if self._num_misses > _MOST_MISSES:
                    self._fail("hardly two batches in a row have the same shapes")
            return None
        if self._graph is None:
            self._record(batch)
            if self.failure is not None:
                return None
        else:
            foreach_copy_(self._inputs, list(tensors_of(batch)))
        assert self._graph is not None
        assert self._loss is not None
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        # Copies: losses are kept until the next line of the log, and a replay writes into the same
        # memory.
        return self._loss.clone(), {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self._metrics.items()
        }

    def _record(self, batch: Batch) -> None:
        """Records the gradient of a batch, which is computed by the replay only."""
        inputs = map_tensors(lambda tensor: tensor.clone(), batch)
        before, counts = tensors_at(self._places), _plain_values(self._model)
        states = self._device.generator_states()
        # A graph has memory of its own: what eager steps left behind is given back first.
        gc.collect()
        self._device.release_memory()
        graph = self._device.graph()
        try:
            for parameter in self._parameters:
                parameter.grad = None
            with graph.recording(self._generators):
                loss, self._metrics = self._compute(inputs)
            self._loss = loss
            self._gradients = [parameter.grad for parameter in self._parameters]
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            self._fail(f"a step cannot be recorded: {reason_of(error)}")
        else:
            if self._device.has_drawn_elsewhere(states):
                self._fail("the task draws random numbers on the host")
            elif not are_same(tensors_at(self._places), before):
                self._fail("the model puts new tensors in its buffers' places")
            elif _plain_values(self._model) != counts:
                self._fail("the model counts on the host")
        if self.failure is None:
            self._graph, self._inputs = graph, list(tensors_of(inputs))
            return
        # Nothing was computed: the eager step that follows finds everything as it was.
        for (held, name), tensor in zip(self._places, before, strict=True):
            held[name] = tensor
        _put_back(self._model, counts)
        self._device.set_generator_states(states)
        self._loss, self._metrics, self._gradients = None, {}, []

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self.on_failure(f"graph=True does not apply: {reason}")


def check_recorded(graph: GradientGraph | None) -> None:
    """Raises RuntimeError if steps that should have been recorded could not be: what ran then is
    another plan."""
    if graph is not None and graph.failure is not None:
        raise RuntimeError(graph.failure)


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
