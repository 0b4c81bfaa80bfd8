"""Traces one optimizer step of a task under a plan without memory and without arithmetic: fake
tensors go through the engine's own step, watched by a tracker."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from volano.data import first_batches, rows_of
from volano.data.feed.feed import SLOTS_IN_USE
from volano.data.feed.slots import bytes_in_slot, with_room
from volano.device import Device, random_state_kept
from volano.device.torch_private import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    base_of,
    buffers_of,
    parameters_of,
)
from volano.errors import ObjectiveError, reason_of
from volano.plan import Plan
from volano.plan.prediction import Operation
from volano.planner.memory.accelerator_choices import AcceleratorChoices
from volano.planner.memory.compiled import GraphCapture, activation_budget
from volano.planner.memory.cpu_workspace import (
    reserve_on_accelerator,
    with_workspace,
    workspace_on_cpu,
)
from volano.planner.memory.memory_tracker import READS_A_VALUE, MemoryTracker
from volano.task import Batch, Task, map_tensors, num_examples, split, tensors_of
from volano.training import Session
from volano.training.memory.activations import Activations
from volano.training.state import make_state
from volano.training.step import Step

# As in training/memory/offload.py: a smaller tensor takes longer to send than it frees memory.
LEAST_SENT_BYTES = 4096
TraceTarget = Literal["cpu", "accelerator"]
# The granularity of torch's caching allocators, which round every block up (c10's kMinBlockSize).
ACCELERATOR_GRANULARITY = 512
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)


class CaptureError(ObjectiveError):
    """The error of a step that cannot be captured under fake tensors; it must be measured
    instead."""


@dataclass(frozen=True, kw_only=True)
class TracedStep:
    """The figures of one steady step.

    Attributes:
        peak: the most bytes that live at once; for a compiled plan, as if nothing were fused.
        kept: bytes that live between the passes, or in the update if those are more.
        categories: category of :data:`CATEGORIES` -> its bytes at the peak.
        operator: the operation at which the peak stands, with its module.
        host: bytes that the plan keeps in host memory.
        operations: operations of the whole step.
        has_randomness: whether the objective draws random numbers (dropout).
        assumed: the part of the bytes that is assumed for what an accelerator's library keeps
            without documenting it; over all micro-batches together.
    """

    peak: int
    kept: int
    categories: dict[str, int]
    operator: str
    host: int = 0
    operations: tuple[Operation, ...]
    has_randomness: bool
    assumed: int = 0


def capture(
    task: Task, plan: Plan, *, target: TraceTarget = "cpu", batch: Batch | None = None
) -> TracedStep:
    """Captures a steady step, when there is optimizer state.

    Args:
        task: the task to capture.
        plan: the plan of the step; ``device`` is ignored.
        target: the kind of device for which memory and operations are counted.
        batch: a global batch on the host, of which only shapes and types count; None fetches some
            batches of the task itself.

    Raises:
        CaptureError: the objective, model or optimizer cannot be run without values; ``got`` is the
            reason in one line.
    """
    if batch is None:
        batch = first_batches(task)[0]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with _told(), contextlib.ExitStack() as stack:
        model = fake_model(task, mode)
        stack.enter_context(mode)
        if plan.compile:
            stack.enter_context(activation_budget(plan.activation_budget))
        if target == "accelerator":
            stack.enter_context(AcceleratorChoices())
        return _Capture(task, plan, target, model).run(batch)


class _Capture:
    """The objects of a session, made of fake tensors, and the step that is run on them twice."""

    def __init__(self, task: Task, plan: Plan, target: TraceTarget, model: nn.Module) -> None:
        self._is_cpu = target == "cpu"
        self._task, self._plan, self._model = task, plan, model
        device = _Host("cpu") if self._is_cpu else _Accelerator("cpu")
        self._device = device
        if plan.memory_format == "channels_last":
            to_channels_last(model)
        average = None if task.ema_decay is None else fake_copy(model)
        self._state = make_state(task, plan, device, model, average, on_notice=lambda _: None)
        self._tracker = MemoryTracker(
            granularity=1 if self._is_cpu else ACCELERATOR_GRANULARITY,
            workspace=workspace_on_cpu if self._is_cpu else None,
            completed=with_workspace if self._is_cpu else self._with_reserve,
            has_values=False,
            follows_modules=not plan.compile,
        )
        self._graphs = GraphCapture() if plan.compile else None
        self._assumed = 0

    def _with_reserve(self, func: Any, args: tuple[Any, ...], result: Any) -> Any:
        size = reserve_on_accelerator(func, args, result)
        self._assumed += size
        return (*result[:3], torch.empty(size, dtype=torch.uint8)) if size else result

    def run(self, batch: Batch) -> TracedStep:
        tracker = self._tracker
        size = num_examples(batch)
        micro_batch = min(size, self._plan.micro_batch or size)
        step = self._step(size, micro_batch)
        if self._graphs is not None:  # compiled beforehand: compiling computes nothing of the step
            step(fake_batch(batch), 0)
        # Whether the next batch is on its way to the device already; see RingFeed.
        is_ahead = not self._is_cpu and self._plan.feed == "ring"
        with tracker:
            for model in self._state.models:
                tracker.adopt((*model.parameters(), *model.buffers()), "parameters")
            ahead = self._arrived(batch, "data") if is_ahead else None
            now = self._arrived(batch, "batch")
            # This step makes the gradients' and the optimizer's tensors; the next one is steady.
            step(now, 0)
            tracker.adopt_results(self._state.optimizer)
            tracker.restart()
            self._assumed = 0
            # While a batch is made, the one before it is still held; see TrainingLoop.
            now = self._arrived(batch, "batch")
            step(now, 1)
            tracker.adopt_results(self._state.optimizer)
            del now, ahead
        return self._result(batch, size, micro_batch)

    def _step(self, size: int, micro_batch: int) -> Step:
        objective = (
            self._task.objective
            if self._graphs is None
            else self._graphs.compiled(self._task.objective)
        )
        if self._offloads("activations"):
            objective = _with_hooks(objective, self._sent)
        small = dataclasses.replace(
            self._task,
            objective=self._tracker.objective(objective),
            augment=self._shortened(size, micro_batch),
        )
        # The capture compiles the objective itself, so the engine's step must not.
        return Step(
            small, self._plan.pin(compile=False, micro_batch=micro_batch), self._device,
            self._state, activations=self._activations(), has_values=False,
        )  # fmt: skip

    def _activations(self) -> Activations:
        eager = self._plan.pin(compile=False, activation_budget=1.0, offload="none")
        return Activations(self._model, eager, self._device, lambda _: None)

    def _offloads(self, what: str) -> bool:
        is_asked = self._plan.offload in (what, "all")
        return is_asked and not self._is_cpu and not (what == "activations" and self._plan.compile)

    def _sent(self, tensor: Tensor) -> Tensor | tuple[Tensor]:
        """Returns what is kept of a saved tensor: a copy on the host; see OffloadedActivations."""
        base = base_of(tensor)
        owner = tensor if base is None else base
        # The same tensors stay on the device as in OffloadedActivations.
        if (
            tensor.nbytes < LEAST_SENT_BYTES
            or isinstance(owner, nn.Parameter)
            or tensor.layout != torch.strided
        ):
            return tensor
        copied = torch.empty_like(tensor.detach())
        self._tracker.send_to_host(copied)
        return (copied,)

    def _shortened(
        self, size: int, micro_batch: int
    ) -> Callable[[Batch, torch.Generator], Batch] | None:
        """Wraps ``augment`` of the whole batch so that only those micro-batches are trained on that
        differ: the first, one that adds to its gradients, and the smaller rest."""
        augment, rest = self._task.augment, size % micro_batch
        if micro_batch >= size:
            return augment

        def shortened(batch: Batch, generator: torch.Generator) -> Batch:
            batch = batch if augment is None else augment(batch, generator)
            count = num_examples(batch)
            kept = min(count, min(2, size // micro_batch) * micro_batch + rest)
            return split(batch, kept)[0]

        return shortened

    def _arrived(self, batch: Batch, category: str) -> Batch:
        made = fake_batch(batch)
        self._tracker.adopt(tensors_of(made), category)
        return made

    def _result(self, batch: Batch, size: int, micro_batch: int) -> TracedStep:
        peak = self._tracker.peak()
        data = data_bytes(self._task, self._plan, batch, is_cpu=self._is_cpu)
        categories = {**peak.categories, "data": peak.categories["data"] + data}
        outside = self._tracker.peak_outside_passes()
        host, away = self._tracker.host, 0
        if self._offloads("optimizer"):
            # Offloaded state is on the device only during the update, which then may hold more than
            # the passes.
            state = categories["optimizer_state"]
            away = min(state, max(0, peak.num_bytes - outside))
            host, categories["optimizer_state"] = host + state, state - away
        return TracedStep(
            peak=peak.num_bytes + data - away,
            kept=max(self._tracker.kept - away, outside) + data,
            categories=categories,
            operator=peak.operator,
            host=host,
            operations=self._operations(size, micro_batch),
            has_randomness=self._tracker.has_randomness
            or (self._graphs is not None and self._graphs.has_randomness),
            assumed=self._assumed,
        )

    def _operations(self, size: int, micro_batch: int) -> tuple[Operation, ...]:
        """Returns the operations of all micro-batches: those that were left out are like the
        second."""
        tracker = self._tracker
        counts: Counter[Operation] = tracker.operations()
        left_out = size // micro_batch - 2
        if left_out > 0:
            # The update follows the last backward pass, and is executed once.
            for operation, count in tracker.operations([2]).items():
                if operation.phase != "optimizer":
                    counts[operation] += left_out * count
        return tuple(
            dataclasses.replace(operation, count=count) for operation, count in counts.items()
        )


def _with_hooks(objective: Any, pack: Callable[[Tensor], Any]) -> Callable[[nn.Module, Batch], Any]:
    """Wraps the objective so that what it saves for its backward pass is packed; what comes back is
    new on the device."""

    def hooked(model: nn.Module, batch: Batch) -> Any:
        with saved_tensors_hooks(
            pack, lambda kept: torch.empty_like(kept[0]) if isinstance(kept, tuple) else kept
        ):
            return objective(model, batch)

    return hooked


# ---- what a step is made of, without memory


def fake_model(task: Task, mode: Any) -> nn.Module:
    """The task's model with fake parameters and buffers. It is built without memory if its
    constructor allows that."""
    try:
        with mode, CopyableFakes():
            model = Session.make_model(task)
    except Exception:  # noqa: BLE001 - a constructor may read values, files or addresses
        model = Session.make_model(task)
    known: dict[int, Tensor] = {}
    held = [
        tensors for module in model.modules()
        for tensors in (parameters_of(module), buffers_of(module))
    ]  # fmt: skip
    fakes = {
        id(tensor): _faked(tensor, mode, known)
        for tensors in held for tensor in tensors.values() if tensor is not None
    }  # fmt: skip
    if all(id(fake) == place for place, fake in fakes.items()):
        return model
    try:
        # A copy: what a factory gives, or a part of it, may be the person's own, which stays.
        return copy.deepcopy(model, {**fakes})
    except Exception:  # noqa: BLE001 - modules may refuse to be copied
        for tensors in held:
            tensors.update({n: fakes[id(t)] for n, t in tensors.items() if t is not None})
        return model


def model_without_values(task: Task) -> nn.Module:
    """Returns the task's model without memory for it: it may be larger than this machine."""
    with random_state_kept(Device("cpu")):
        return fake_model(task, FakeTensorMode(allow_non_fake_inputs=True))


def _faked(tensor: Tensor, mode: Any, known: dict[int, Tensor]) -> Any:
    if mode.is_our_fake(tensor):
        return tensor
    if id(tensor) not in known:
        fake = mode.from_tensor(tensor.detach())
        if isinstance(tensor, nn.Parameter):
            fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
        known[id(tensor)] = fake
    return known[id(tensor)]


class CopyableFakes(TorchFunctionMode):
    """Makes ``copy.deepcopy`` of fake tensors work, as constructors use it that repeat a layer."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__ or not isinstance(args[0], Tensor):
            return func(*args, **(kwargs or {}))
        tensor, known = args
        if id(tensor) not in known:
            copied = torch.empty_like(tensor, requires_grad=False)
            is_parameter = isinstance(tensor, nn.Parameter)
            known[id(tensor)] = (
                nn.Parameter(copied, requires_grad=tensor.requires_grad) if is_parameter else copied
            )
        return known[id(tensor)]


def fake_copy(model: nn.Module) -> nn.Module:
    """Does the same as ``copy.deepcopy``, in a FakeTensorMode."""
    with CopyableFakes():
        return copy.deepcopy(model)


def to_channels_last(model: nn.Module) -> None:
    """Does the same as ``model.to(memory_format=torch.channels_last)``, which does not work on fake
    parameters."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4 and tensor.is_floating_point():
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def fake_batch(batch: Batch) -> Batch:
    """Returns tensors of the batch's shapes and types without values, each with a storage of its
    own; in a FakeTensorMode."""
    return map_tensors(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype), batch)


def data_bytes(task: Task, plan: Plan, batch: Batch, *, is_cpu: bool) -> int:
    """Returns the bytes that a feed adds on the device, in addition to the batch that is trained on
    and the one that is on its way.

    On the CPU, data in tensors lies in memory already, mapped data belongs to the page cache, and a
    selection is copied. A ring with workers has slots, which lie in host memory if the device is an
    accelerator.
    """
    if plan.feed == "resident":
        parts = [rows_of(data) for data in (task.data, task.valid) if data is not None]
        return sum(
            rows.num_bytes()
            for rows in parts
            if rows is not None and not (is_cpu and (rows.is_mapped or rows.indices is None))
        )
    if is_cpu and plan.workers:
        return (plan.workers * plan.prefetch + SLOTS_IN_USE) * with_room(bytes_in_slot(batch))
    return 0


class _Host(Device):
    """The host, whose tensors have no values."""

    def grad_scaler(self, precision: str) -> torch.amp.GradScaler | None:
        """Makes every update, since whether gradients are infinite is a value."""
        return _BlindScaler("cpu") if precision == "fp16" else None


class _Accelerator(_Host):
    """The host, with the answers that an accelerator would give."""

    def has_fused(self, optimizer_class: type[torch.optim.Optimizer]) -> bool:
        """Returns True: torch's accelerators have these."""
        return issubclass(optimizer_class, _FUSED)


class _BlindScaler(torch.amp.GradScaler):
    """A scaler that makes every update, because whether gradients are infinite is a value."""

    def _maybe_opt_step(
        self, optimizer: torch.optim.Optimizer, _state: Any, *args: Any, **kwargs: Any
    ) -> Any:
        return optimizer.step(*args, **kwargs)


# ---- what goes wrong


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Says in one line why a step cannot be captured."""
    try:
        yield
    except DataDependentOutputException as error:
        raise _failure(READS_A_VALUE[1]) from error
    except DynamicOutputShapeException as error:
        raise _failure(f"a shape follows from values ({error.func})") from error
    except ObjectiveError as error:
        raise _failure(str(error.got)) from error
    except Exception as error:  # any error that the user's code raises under fake tensors
        raise _failure(reason_of(error)) from error


def _failure(reason: str) -> CaptureError:
    return CaptureError(READS_A_VALUE[0], got=reason, remedy="Volano measures the step instead")
