"""The reference for candidates: a batch's gradient in float64, and eager PyTorch's own error at
each precision."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from volano.device import Device
from volano.device.torch_private import inductor_settings
from volano.errors import reason_of
from volano.plan import Plan
from volano.planner.parity.batch_split import BatchSplit, divisible
from volano.planner.parity.float64 import Float64, SameDraws
from volano.planner.parity.probe_batch import (
    Gradient,
    ProbeBatch,
    gradient_of,
    switch_off_dropout,
    take_probe_batch,
)
from volano.task import Loss, Task, map_tensors, num_examples, split
from volano.training import Session, check_recorded, is_out_of_memory, throwaway_settings

# Passes over the batch in the candidates' types for a reference and one candidate: eager fp32,
# eager at the candidate's precision and the candidate itself take a gradient and three steps each.
# One in float64 comes on top.
_PASSES = 12
_LEAST_EXAMPLES = 8
# The fewest examples if memory is short: one example says nothing about a mean over several.
_FEWEST_EXAMPLES = 2
# The examples that are looked at if the passes over the least would take so many times what there
# is.
_FEW_EXAMPLES, _TOO_LONG = 4, 2.0
_NUM_STEPS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """The results of some steps of the engine on a batch under a plan.

    Attributes:
        gradient: the gradient of the first step, before clipping.
        updates: name -> change of the weights since the start, after the first step and after the
            last.
        examples: number of examples that the objective was given in a step; None if that cannot be
            seen (compiled or recorded).
        scale: the factor by which the loss was multiplied for the range of fp16.
    """

    gradient: Gradient
    updates: tuple[dict[str, Tensor], ...]
    examples: int | None
    scale: float = 1.0


class Reference:
    """The reference of a task and a device, computed once; what a candidate needs is computed when
    it is first asked for, and kept.

    Args:
        task: the task that is trained.
        device: the device on which the candidates run.
        seconds: about how long the passes that one candidate costs may take; the batch is cut until
            they do. 8 of its examples, or all if there are fewer, are looked at, or 4 if 8
            would take twice as long.
        most_examples: limit of the examples that are looked at, if memory is tight; None for no
            limit.

    Attributes:
        probe_batch: the batch on which candidates are compared.
        ran_out: whether a pass ran out of memory; a caller that tries again resets it.
        why_not_float64: the first line of the error if the objective does not run in float64, else
            None.

    Raises:
        Exception: any error that the task's data, model or objective raises under plain eager
            PyTorch.
    """

    def __init__(
        self,
        task: Task,
        device: str = "cpu",
        *,
        seconds: float = 60.0,
        most_examples: int | None = None,
    ) -> None:
        started = time.perf_counter()
        self.device = Device(device)
        self.baseline = Plan.baseline(device)
        self._exact: dict[Any, Gradient] = {}
        self._outcomes: dict[Any, StepOutcome] = {}
        self._divisible: BatchSplit | None = None
        self.why_not_float64: str | None = None
        self.ran_out = self.plain_attention = False
        with self.kept(self.baseline):
            self._whole = whole = take_probe_batch(task, self.device)
            self.probe_batch, self.num_draws = self._affordable(whole, seconds, most_examples)
            self.num_draws_without_dropout = (
                self._count_draws(dropout=False) if self.num_draws else 0
            )
        self.seconds = time.perf_counter() - started

    @contextmanager
    def kept(self, plan: Plan) -> Iterator[None]:
        """Returns a context in which the plan's settings hold; afterwards settings and random state
        are as before."""
        with throwaway_settings(plan):
            try:
                yield
            except Exception as error:
                self.ran_out = self.ran_out or is_out_of_memory(error)
                raise

    def halve(self) -> bool:
        """Halves the examples from here on, and forgets what was computed. Returns False if they
        are too few."""
        if self.probe_batch.size <= _FEWEST_EXAMPLES:
            return False
        self._exact.clear()
        self._outcomes.clear()
        self.probe_batch = self.probe_batch.cut(max(_FEWEST_EXAMPLES, self.probe_batch.size // 2))
        self._give_back()
        return True

    def _give_back(self) -> None:
        gc.collect()
        self.device.release_memory()

    def _affordable(
        self, whole: ProbeBatch, seconds: float, most: int | None
    ) -> tuple[ProbeBatch, int]:
        """Returns the batch cut to what time and memory allow, and how many random numbers a step
        draws."""
        few = min(_LEAST_EXAMPLES, most or _LEAST_EXAMPLES)
        while True:
            try:
                return self._measured(whole, whole.cut(few), seconds, most)
            except Exception as error:
                if few <= _FEWEST_EXAMPLES or not is_out_of_memory(error):
                    raise
            few = most = max(_FEWEST_EXAMPLES, few // 2)
            self._give_back()

    def _measured(
        self, whole: ProbeBatch, few: ProbeBatch, seconds: float, most: int | None
    ) -> tuple[ProbeBatch, int]:
        fewer, draws = few.cut(_FEW_EXAMPLES), SameDraws()
        start = time.perf_counter()
        gradient_of(fewer, self.device, [fewer.batch], draws)
        self.device.synchronize()
        cost = _PASSES * (time.perf_counter() - start) * few.size / fewer.size
        if cost > _TOO_LONG * seconds:
            few = fewer
        elif few is not fewer:
            draws = SameDraws()
            gradient_of(few, self.device, [few.batch], draws)  # also warms up
        self.plain_attention = draws.drops_in_kernels
        start = time.perf_counter()
        gradient_of(few, self.device, [few.batch], nullcontext())
        self.device.synchronize()
        middle = time.perf_counter()
        exact = None
        try:
            mode = Float64(plain_attention=self.plain_attention)
            exact = gradient_of(few, self.device, [few.batch], mode, dtype=torch.float64)
            self.device.synchronize()
        except Exception as error:
            # Attention in float64 keeps its scores, which may be more than a device has.
            if is_out_of_memory(error) and few.size > _FEWEST_EXAMPLES:
                raise
            self.why_not_float64 = reason_of(error)
            self._give_back()
        cost = _PASSES * (middle - start) + (time.perf_counter() - middle)
        size = max(few.size, int(seconds * few.size / cost))
        probe_batch = whole.cut(size if most is None else min(size, most))
        if exact is not None and probe_batch.size == few.size:  # a short run has no time for more
            self._exact[None, True, False] = exact
        return probe_batch, draws.num_draws

    def _count_draws(self, *, dropout: bool) -> int:
        few = self._whole.cut(min(_LEAST_EXAMPLES, self.probe_batch.size))
        draws = SameDraws()
        gradient_of(few, self.device, [few.batch], draws, dropout=dropout)
        return draws.num_draws

    def draws(self, dropout: bool) -> bool:
        """The answer whether a step draws random numbers."""
        return (self.num_draws if dropout else self.num_draws_without_dropout) > 0

    def divisible(self) -> BatchSplit:
        """The answer whether the batch may be split."""
        if self._divisible is None:
            with self.kept(self.baseline):
                self._divisible = divisible(self._whole, self.device)
        return self._divisible

    def exact(
        self,
        micro_batch: int | None = None,
        *,
        dropout: bool = True,
        is_channels_last: bool = False,
    ) -> Gradient:
        """Returns the gradient in float64; in fp32 if that fails, as ``why_not_float64`` says.

        ``micro_batch`` matters if a step draws: each micro-batch has draws of its own.
        """
        if not self.draws(dropout):
            micro_batch = None
        key = (micro_batch, dropout, is_channels_last)
        if key not in self._exact:
            with self.kept(self.baseline):
                self._exact[key] = self._compute(*key)
        return self._exact[key]

    def _compute(self, micro_batch: int | None, dropout: bool, is_channels_last: bool) -> Gradient:
        probe_batch = self.probe_batch
        parts = (
            [probe_batch.batch] if micro_batch is None else split(probe_batch.batch, micro_batch)
        )
        if self.why_not_float64 is None:
            return gradient_of(
                probe_batch, self.device, parts, Float64(plain_attention=self.plain_attention),
                dtype=torch.float64, is_channels_last=is_channels_last, dropout=dropout,
            )  # fmt: skip
        mode = SameDraws(plain_attention=self.plain_attention)
        return gradient_of(
            probe_batch, self.device, parts, mode, is_channels_last=is_channels_last,
            dropout=dropout,
        )  # fmt: skip

    def eager(self, precision: str, *, dropout: bool = True) -> StepOutcome:
        """Returns the outcome of plain eager PyTorch in a precision."""
        return self.kept_outcome(self.baseline.pin(precision=precision), dropout=dropout)

    def kept_outcome(self, plan: Plan, *, dropout: bool = True) -> StepOutcome:
        """Returns the engine's outcome under a plan with which several candidates are compared;
        computed once."""
        key = (plan, dropout)
        if key not in self._outcomes:
            self._outcomes[key] = self.outcome(plan, dropout=dropout)
        return self._outcomes[key]

    def outcome(self, plan: Plan, *, dropout: bool = True) -> StepOutcome:
        """Returns the engine's outcome under a plan that was fitted to the probe batch.

        Raises:
            Exception: any error that a step under the plan raises.
        """
        with self.kept(plan):
            return run_plan(
                self.probe_batch, plan, dropout=dropout, draws=self.draws(dropout),
                plain_attention=self.plain_attention,
            )  # fmt: skip


def run_plan(
    probe_batch: ProbeBatch,
    plan: Plan,
    *,
    dropout: bool,
    draws: bool,
    plain_attention: bool = False,
) -> StepOutcome:
    """Runs some steps of the engine on a batch."""
    counted = _Counted(probe_batch.task.objective)
    task = (
        probe_batch.task
        if plan.compile
        else dataclasses.replace(probe_batch.task, objective=counted)
    )
    session = Session(task, plan)
    if not dropout:
        switch_off_dropout(session.model)
    start = weights_of(session)
    updates: list[dict[str, Tensor]] = []
    with same_draws(plan, draws, plain_attention=plain_attention):
        record_elsewhere(session, probe_batch, start)
        gradient, scale = first_gradient(session, probe_batch, counted.begin)
        # Neither compiled nor recorded code calls the objective that counts.
        examples = None
        if not plan.compile and session.step_once.graph is None:
            examples = counted.examples
            gradient = dataclasses.replace(gradient, weight=counted.weight)
        restore(session, start)
        for step in range(_NUM_STEPS):
            session.step_once(probe_batch.copied(), probe_batch.step + step)
            if step in (0, _NUM_STEPS - 1):
                updates.append(
                    {name: p.detach() - start[name] for name, p in session.model.named_parameters()}
                )
    check_recorded(session.step_once.graph)
    return StepOutcome(gradient=gradient, updates=tuple(updates), examples=examples, scale=scale)


def record_elsewhere(session: Session, probe_batch: ProbeBatch, start: dict[str, Tensor]) -> None:
    """Has a plan's graph recorded on another batch, its first example over and over, so that what
    is compared afterwards is a replay, with other inputs than those it was recorded with."""
    if session.step_once.graph is None:
        return
    other = map_tensors(lambda t: t[:1].expand_as(t).clone() if t.ndim else t, probe_batch.batch)
    for _ in range(2):  # the first one of a shape is eager
        session.step_once.gradient(other, probe_batch.step)
        restore(session, start)


def first_gradient(
    session: Session, probe_batch: ProbeBatch, begin: Callable[[], None] = lambda: None
) -> tuple[Gradient, float]:
    """Returns the gradient of the engine's step, unscaled, and the scale at which it fits into
    fp16.

    The weights stay; buffers move. ``begin`` is called before each attempt.
    """
    scaler = session.state.scaler
    start = weights_of(session)
    # Looks at a few examples, which are no part of the step.
    session.step_once.prepare(probe_batch.batch, probe_batch.step)
    while True:
        begin()
        result = session.step_once.gradient(probe_batch.copied(), probe_batch.step)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        found = {
            name: None if p.grad is None else p.grad.detach() / scale
            for name, p in session.model.named_parameters()
        }
        if scaler is None or scale <= 1.0 or _are_finite(found):
            break
        scaler.update(scale / 2)  # GradScaler begins at 2^16
        restore(session, start)
    buffers = {name: buffer.detach().clone() for name, buffer in session.model.named_buffers()}
    loss = float(result.loss)
    return Gradient(loss=loss, weight=float("nan"), gradients=found, buffers=buffers), scale


def weights_of(session: Session) -> dict[str, Tensor]:
    """Returns copies of parameters and buffers by name."""
    named = [*session.model.named_parameters(), *session.model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


@torch.no_grad()
def restore(session: Session, weights: dict[str, Tensor]) -> None:
    """Restores parameters and buffers: the inverse of :func:`weights_of`."""
    for name, tensor in [*session.model.named_parameters(), *session.model.named_buffers()]:
        tensor.copy_(weights[name])


@contextmanager
def same_draws(plan: Plan, draws: bool, *, plain_attention: bool = False) -> Iterator[None]:
    """Returns a context in which a plan's steps draw the very numbers that eager steps draw from
    the same seeds."""
    if not draws:
        yield
    elif plan.compile:
        with inductor_settings().patch(fallback_random=True):
            yield
    else:
        with SameDraws(plain_attention=plain_attention):
            yield


def _are_finite(gradients: dict[str, Tensor | None]) -> bool:
    return all(bool(value.isfinite().all()) for value in gradients.values() if value is not None)


class _Counted:
    """An objective that counts the examples it was given since the first gradient began."""

    def __init__(self, objective: Any) -> None:
        self._objective = objective
        self.begin()

    def begin(self) -> None:
        """Starts to count from here."""
        self.examples, self.weight = 0, 0.0

    def __call__(self, model: Any, batch: Any) -> Any:
        result = self._objective(model, batch)
        count = num_examples(batch)
        self.examples += count
        self.weight += float(result.weight) if isinstance(result, Loss) else count
        return result
