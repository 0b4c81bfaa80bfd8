"""The memory of a step: predicted without running it, or measured by running one; and whether it
fits."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from volano.device import Device
from volano.device.isolated import IsolatedError, run_here, run_isolated_each
from volano.device.random_state import random_state_kept
from volano.device.torch_private import load_compiler, load_dynamo
from volano.plan import Plan
from volano.plan.explanation import MemoryVerdict
from volano.plan.prediction import CATEGORIES, MemoryPrediction, Operation
from volano.planner.memory.compiled import Interval, interval
from volano.planner.memory.cpu_workspace import reserve_on_cpu, workspace_on_cpu
from volano.planner.memory.memory_tracker import MemoryTracker
from volano.planner.memory.trace_step import (
    ACCELERATOR_GRANULARITY,
    TracedStep,
    TraceTarget,
    capture,
)
from volano.task import Batch, Task, num_bytes, tensors_of
from volano.training import Session, throwaway_settings

# A capture takes seconds; one that takes longer hangs, or really builds its model from a large
# file.
_TIMEOUT = 120.0
# The share of a budget that a plan may fill.
_SHARE = 0.95
# torch refuses autograd in a child whose parent has used an accelerator's autograd threads.
_NO_AUTOGRAD = "Unable to handle autograd's threading"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The figures of a step of a task under a plan that are known without running it.

    Attributes:
        memory: bytes at the step's peak.
        operations: operations of the whole step, all micro-batches together.
        has_randomness: whether the objective draws random numbers (dropout); None if that is not
            known.
        target: the kind of device for which it holds.
    """

    memory: MemoryPrediction
    operations: tuple[Operation, ...] = field(repr=False, default=())
    has_randomness: bool | None = None
    target: TraceTarget = "cpu"


def predict_memory(
    task: Task,
    plan: Plan,
    *,
    target: TraceTarget = "cpu",
    batch: Batch | None = None,
    timeout: float = _TIMEOUT,
) -> Prediction:
    """Predicts memory and operations of a steady step, captured under fake tensors in a process of
    its own.

    Args:
        task: the task to capture.
        plan: the plan of the step; its ``device`` is ignored.
        target: ``"cpu"``, or ``"accelerator"``, which may be absent.
        batch: a global batch on the host, of which only shapes and types count; None fetches some
            batches of the task itself.
        timeout: seconds after which the capture is given up.

    Raises:
        IsolatedError: the step cannot be captured; ``reason`` says why in one line. Measure the
            step instead.
    """
    (found,) = trace_each(task, [plan], target=target, batch=batch, timeout=timeout)
    if isinstance(found, IsolatedError):
        raise found
    return prediction_of(found, plan, target)


def trace_each(
    task: Task,
    plans: Sequence[Plan],
    *,
    target: TraceTarget = "cpu",
    batch: Batch | None = None,
    timeout: float = _TIMEOUT,
) -> list[TracedStep | IsolatedError]:
    """Captures a step under each plan as :func:`predict_memory` does, as many at a time as there
    are cores; the plans' allocators are of no account. The error stands for a plan whose step
    cannot be captured."""
    load_libraries(compiles=any(plan.compile for plan in plans))
    functions = [partial(capture, task, plan, target=target, batch=batch) for plan in plans]
    return _aside(functions, timeout)


def prediction_of(traced: TracedStep, plan: Plan, target: TraceTarget) -> Prediction:
    """Returns the prediction that follows from a traced step."""
    return Prediction(
        memory=_bounded(traced, plan, target),
        operations=traced.operations,
        has_randomness=traced.has_randomness,
        target=target,
    )


def load_libraries(*, compiles: bool = False) -> None:
    """Loads what any first step of torch loads (80 MB of Python code, with ``torch.optim``), and
    what captures need: once in this process instead of in every child, and before this process's
    bytes are counted."""
    load_dynamo()
    if compiles:
        load_compiler()


def _aside(functions: Sequence[Callable[[], Any]], timeout: float) -> list[Any]:
    """Runs captures in child processes, or in this one beside an accelerator, whose autograd
    threads do not survive a fork. Captures on the host's fake tensors are not known to end a
    process."""
    # A child of a process with an accelerator's context ends at its first backward pass: the
    # autograd threads of each device ask for that context.
    if Device.count():
        return [_here(function) for function in functions]
    found = run_isolated_each(functions, timeout=timeout)
    return [
        _here(function)
        if isinstance(answer, IsolatedError) and _NO_AUTOGRAD in answer.reason
        else answer
        for function, answer in zip(functions, found, strict=True)
    ]


def _here(function: Callable[[], Any]) -> Any:
    try:
        with random_state_kept(Device("cpu")):
            return run_here(function)
    except IsolatedError as error:
        return error


def _bounded(captured: TracedStep, plan: Plan, target: TraceTarget) -> MemoryPrediction:
    found = Interval(lower=captured.peak, point=captured.peak, upper=captured.peak)
    if plan.compile:
        found = interval(captured.kept, captured.peak, plan.activation_budget)
    # The bytes that an accelerator's library really keeps may be half of those assumed, or twice.
    reserve = reserve_on_cpu(found.upper, plan.allocator) if target == "cpu" else captured.assumed
    # Fusing saves temporaries first, then activations.
    categories, saved = dict(captured.categories), captured.peak - found.point
    for name in (
        "temporaries",
        "activations",
        "gradients",
        "optimizer_state",
        "batch",
        "data",
        "parameters",
    ):
        taken = min(saved, categories[name]) if saved > 0 else saved
        categories[name] -= taken
        saved -= taken
    return MemoryPrediction(
        peak=found.point,
        lower=max(0, found.lower - captured.assumed // 2),
        upper=found.upper + reserve,
        categories=categories,
        operator=captured.operator,
        host=captured.host,
    )


# ---- measured


def measure(task: Task, plan: Plan) -> MemoryPrediction:
    """Measures the bytes live at the peak of the second step, which is really run on a throw-away
    copy of everything.

    Random state and settings are put back; the data is only read. On an accelerator its own count
    is used, which includes the workspaces of kernels.

    Raises:
        Exception: any error of the task's code or the device, out of memory included.
    """
    with throwaway_settings(plan) as device:
        return (
            _measured_whole(task, plan, device) if plan.compile else _measured(task, plan, device)
        )


def _measured_whole(task: Task, plan: Plan, device: Device) -> MemoryPrediction:
    """Measures a compiled step, whose kernels allocate without informing a dispatch mode: by the
    device's own count, or by the profiler's on the CPU. Everything that is neither parameter,
    gradient, state nor batch counts as activations."""
    with AllocationRecord(device) as record:
        session = Session(task, plan)
        with contextlib.closing(
            session.feed.batches(session.order.keys(0, task.num_steps))
        ) as batches:
            batch: Any = None
            for step in range(min(2, task.num_steps)):
                record.begin()
                batch = next(batches)
                session.step_once(batch, step)
            device.synchronize()
        groups = session.optimizer.param_groups
        state: Any = [dict(values) for values in session.optimizer.state.values()]
        categories = dict.fromkeys(CATEGORIES, 0) | {
            "parameters": num_bytes([*session.model.parameters(), *session.model.buffers()]),
            "gradients": num_bytes(
                [p.grad for group in groups for p in group["params"] if p.grad is not None]
            ),
            "optimizer_state": num_bytes(state),
            "batch": num_bytes(batch),
        }
    peak = max(record.peak(), sum(categories.values()))
    categories["activations"] = peak - sum(categories.values())
    return MemoryPrediction(
        peak=peak, lower=peak, upper=peak, categories=categories, origin="measured"
    )


_MARK = "volano: a new peak"


class AllocationRecord:
    """A context that records what a device has allocated, by the device's own count or by torch's
    profiler on the CPU.

    Its peak is counted since the last :meth:`begin`: over what was allocated within the context on
    the CPU, and over all that is allocated on another device.

    Args:
        device: the device whose memory is recorded.
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
        """Returns the peak in bytes. On the CPU ask for it after the context has ended."""
        if self._profile is None:
            return self._device.memory().peak or 0
        live = peak = 0
        for event in sorted(
            self._profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()
        ):
            if event.name() == _MARK:
                peak = live
            elif event.name() == "[memory]":
                live += event.nbytes()
                peak = max(peak, live)
        return peak


def _measured(task: Task, plan: Plan, device: Device) -> MemoryPrediction:
    tracker = MemoryTracker(
        granularity=1 if device.is_cpu else ACCELERATOR_GRANULARITY,
        workspace=workspace_on_cpu if device.is_cpu else None,
    )
    session = Session(dataclasses.replace(task, objective=tracker.objective(task.objective)), plan)
    with (
        tracker,
        contextlib.closing(session.feed.batches(session.order.keys(0, task.num_steps))) as batches,
    ):
        for model in session.state.models:
            tracker.adopt((*model.parameters(), *model.buffers()), "parameters")
        device.synchronize()
        batch: Any = None
        for step in range(min(2, task.num_steps)):
            tracker.restart()
            device.reset_peak_memory()
            batch = next(batches)
            tracker.adopt(tensors_of(batch), "batch")
            session.step_once(batch, step)
            tracker.adopt_results(session.optimizer)
        device.synchronize()
    return _told(tracker, device)


def _told(tracker: MemoryTracker, device: Device) -> MemoryPrediction:
    peak = tracker.peak()
    counted = None if device.is_cpu else device.memory().peak
    total = peak.num_bytes if counted is None else max(counted, peak.num_bytes)
    categories = {
        **peak.categories,
        "temporaries": peak.categories["temporaries"] + total - peak.num_bytes,
    }
    return MemoryPrediction(
        peak=total,
        lower=total,
        upper=total,
        categories=categories,
        operator=peak.operator,
        origin="measured",
    )


# ---- whether it fits


# The memory that an accelerator takes in addition to live tensors: bytes of the driver's context
# and of libraries' workspaces, and a factor on live bytes for an allocator whose blocks do not fit
# the next request. Priors, to be replaced by measurements if the device is here. Context: 0.5 to
# 0.7 GiB are seen on recent GPUs with torch's kernels loaded. Workspace: torch gives each stream's
# matrix library 32 MiB on Hopper and 8 MiB before (getChosenWorkspaceSize), and convolutions as
# much as they ask for. Fragmentation: allocated against reserved bytes of published runs of fixed
# shapes; a third for what varies.
_BESIDE = {"cpu": 0, "accelerator": (768 + 256) * 2**20}
_FRAGMENTATION = {"cpu": 1.0, "accelerator": 1.05}


def needed_bytes(prediction: Prediction) -> int:
    """Returns the bytes of a budget under which the step certainly fits."""
    target = prediction.target
    return int((prediction.memory.upper * _FRAGMENTATION[target] + _BESIDE[target]) / _SHARE) + 1


def verdict(prediction: Prediction, budget: int) -> MemoryVerdict:
    """Returns whether a step fits a budget of bytes: ``"FITS"`` if it certainly does with a
    twentieth left, ``"NO"`` if it certainly does not."""
    if needed_bytes(prediction) <= budget:
        return "FITS"
    return "NO" if prediction.memory.lower > budget else "UNCERTAIN"
