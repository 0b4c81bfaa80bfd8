"""An optimizer step of a task under a plan."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from volano.data import counter_hash
from volano.device import Device, Ranks
from volano.device.random_state import random_state_kept
from volano.device.torch_private import foreach_mul_
from volano.errors import note_caller
from volano.plan import Plan
from volano.task import (
    Batch,
    Loss,
    Task,
    as_loss,
    check_finite,
    check_has_gradient,
    check_objective_result,
    mean_metrics,
    num_examples,
    progress_at,
    split,
)
from volano.task.calls import called
from volano.training.distributed.data_parallel import DataParallel, local, whole
from volano.training.graphs.compiling import compiled_blocks, compiled_objective, why_not_as_said
from volano.training.graphs.gradient_graph import GradientGraph, generators_of, why_not_graph
from volano.training.memory.activations import Activations
from volano.training.memory.before_step import BeforeStep
from volano.training.memory.offload import OffloadedState
from volano.training.memory.out_of_memory import (
    OutOfMemoryFallback,
    is_out_of_memory,
    repeated,
    update_failed,
)
from volano.training.nonfinite_guard import NonfiniteGuard
from volano.training.optim.make_optimizer import closure_needed, set_learning_rates
from volano.training.prefix.frozen_prefix import NOT_ALIKE, FrozenPrefix
from volano.training.state import TrainState

AUGMENT_SEEDS, MODEL_SEEDS = 11, 12  # first counters of the seeds: what the randomness is for


class StepResult(NamedTuple):
    """The results of a step: scalars on the device, not yet read.

    ``is_bad``: loss or gradient are not finite, and neither weights nor optimizer state were
    touched.
    """

    loss: Tensor
    metrics: dict[str, Tensor | float]
    is_bad: bool = False


class Step:
    """A step as a callable: augment, forward and backward in micro-batches, clip, update, average.

    With ``total_i / weight_i`` the loss of micro-batch ``i``, the gradient is that of
    ``sum(total_i) / sum(weight_i)``: the same number as for the whole batch. Nothing here waits for
    the device, but for the check of the very first loss, and as the guard says.

    Several ranks (``parallel``) each take a part of the batch; loss, weight and gradient are summed
    over all of them.

    ``may_skip``: whether training continues after a bad step, which then must not show in the
    model's buffers either.

    ``prefix``: the model's frozen modules, if what they compute is kept.

    ``has_values``: False if tensors have shapes and no values (FakeTensorMode): nothing is read
    of them.

    Attributes:
        graph: the graph of its gradient, if the plan has it recorded.
        without_effect: what of the plan does not apply to it, in sentences.
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        device: Device,
        state: TrainState,
        *,
        may_skip: bool = False,
        parallel: DataParallel | None = None,
        activations: Activations | None = None,
        offloaded: OffloadedState | None = None,
        relief: OutOfMemoryFallback | None = None,
        prefix: FrozenPrefix | None = None,
        has_values: bool = True,
    ) -> None:
        self._parallel = parallel
        self._ranks = Ranks() if parallel is None else parallel.ranks
        self._factor = 1 if parallel is None else parallel.factor
        self._exchanging = _no_exchange if parallel is None else parallel.exchanging
        self._kept = contextlib.nullcontext if activations is None else activations.kept
        self.without_effect: list[str] = []
        self._objective: Any = compiled_objective(task.objective, plan)
        blocks = compiled_blocks(state.model, plan)
        if reason := why_not_as_said(state.model, plan, blocks):
            self.without_effect.append(reason)
        if blocks is not None:
            # Outermost: what computes a block again runs the compiled code again.
            self._kept = functools.partial(blocks.applied, self._kept)
        self._fetched = contextlib.nullcontext if offloaded is None else offloaded.fetched
        self._task, self._plan, self._device = task, plan, device
        self._state, self._model, self._optimizer = state, state.model, state.optimizer
        self._parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        self._generator = device.generator()
        self.num_steps = task.num_steps  # of the whole run, by which progress is measured
        self._autocast = functools.partial(device.autocast, plan.precision)
        self._is_checked = False
        self._has_values = has_values
        self.guard = NonfiniteGuard(
            device, state.optimizer, has_scaler=state.scaler is not None, reads_at_once=may_skip,
            share=None if parallel is None else parallel.share_flag, has_values=has_values,
        )  # fmt: skip
        self._relief, self._prefix = relief, prefix
        self._loss = self._way_to_loss()
        self._prepared_step: int | None = None
        self.graph = self._graph_of_plan() if plan.graph else None
        # Told of the plan from here on, the reason and the step; None lets a step that runs out of
        # memory fail.
        self.on_relief: Callable[[Plan, str, int], None] | None = None
        self._before = BeforeStep(state.model, device, keeps_all=may_skip)

    def _way_to_loss(self) -> Callable[[Batch], Any]:
        """Returns what computes the objective of a part: by ranks together, with what is kept of a
        frozen prefix, or straight."""
        if self._parallel is not None:
            return self._parallel.loss
        if self._prefix is not None:
            return functools.partial(self._prefix.loss, self._computed)
        return functools.partial(self._objective, self._model)

    def _graph_of_plan(self) -> GradientGraph | None:
        reason = why_not_graph(self._plan, self._device, are_several=self._ranks.are_several)
        if reason is not None:
            self.without_effect.append(f"graph=True does not apply: {reason}")
            return None
        generators = generators_of(self._task, self._generator)
        return GradientGraph(self._device, self._model, self._parameters, self._whole, generators)

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Makes optimizer step ``step`` (from 0) on a global batch that lies on the device."""
        result = self.gradient(batch, step)
        if self._update(step, result.loss):
            return result
        # The forward pass has moved the model's statistics on numbers that are not finite.
        self._before.put_back()
        return result._replace(is_bad=True)

    def gradient(self, batch: Batch, step: int) -> StepResult:
        """The step without its update: each parameter's ``grad`` is then that of the batch's loss,
        not yet clipped, and times the scaler's scale if there is one."""
        task = self._task
        with called("schedule"):
            set_learning_rates(self._optimizer, task.schedule(progress_at(step, self.num_steps)))
        self._before.save()
        self.prepare(batch, step)
        if self._relief is None or self.on_relief is None:
            result = self._whole_gradients(batch, step)
        else:
            self._before.note(batch)
            result = repeated(
                functools.partial(self._whole_gradients, batch, step),
                functools.partial(self._relieve, self._relief, self.on_relief, batch, step),
            )
            self._before.settle()
        # The first loss is read at once, so that a task that is wrong from the start fails at its
        # first step; later ones are the guard's.
        if not self._is_checked:
            if step == 0 and self.guard.is_deferred and self._has_values:
                check_finite(result.loss.item(), where="at step 0, the first of this run")
            self._is_checked = True
        return result

    def learn(self, batch: Batch) -> None:
        """Keeps what the frozen prefix computes of a batch, in the parts in which a step computes
        it. Weights, buffers and random state stay as they are."""
        if self._prefix is None:
            return
        self._before.save()
        with random_state_kept(self._device):
            self._prefix.begin(self._computed, batch)
            for part in split(batch, self._plan.micro_batch or num_examples(batch)):
                self._prefix.learn(self._computed, part)
        self._before.put_back()

    def prepare(self, batch: Batch, step: int) -> None:
        """Finds the frozen prefix in a run's first batch, and looks at it again in the first of
        each epoch; once for a step."""
        prefix = self._prefix
        if prefix is None or not prefix.is_on or step == self._prepared_step:
            return
        self._prepared_step = step
        self._before.save()
        if prefix.facts is None:
            prefix.begin(self._computed, batch)
        elif step % self._task.steps_per_epoch == 0:
            prefix.spot_check(self._computed, batch)
        else:
            return
        self._before.put_back()

    def _whole_gradients(self, batch: Batch, step: int) -> StepResult:
        try:
            return self._gradients(batch, step)
        except NOT_ALIKE as error:
            # Nothing of the attempt remains: the step is done again without what was kept.
            assert self._prefix is not None
            self._prefix.stop(str(error))
            self._before.put_back()
        return self._gradients(batch, step)

    def _gradients(self, batch: Batch, step: int) -> StepResult:
        """Augments a batch and adds up the gradients of its parts."""
        if self._task.augment is not None:
            # Seeded by the step: a resumed run, or a repeated attempt, draws the same numbers.
            self._generator.manual_seed(seed_of_augmentation(self._task, step))
        if self.graph is not None:
            self._seed(step, 0)
            result = self.graph(batch)
            if result is not None:
                return StepResult(*result)
        batch = augmented(self._task, batch, self._generator, self._ranks)
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(*self._summed(self._parts_of(batch), step))

    def _parts_of(self, batch: Batch) -> list[Batch]:
        """Returns the parts of a batch that this process computes: the whole of it, micro-batches,
        or of several ranks its own."""
        size = self._plan.micro_batch
        if self._parallel is None:
            return [batch] if size is None else split(batch, size)
        with self._kept():  # the first step of a run makes a forward pass here
            return self._parallel.parts_of(
                batch, size, self._objective,
                is_global=takes_whole_batch(self._task), autocast=self._autocast,
            )  # fmt: skip

    def _summed(
        self, parts: list[Batch], step: int | None
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Adds up the gradients of parts; ``step`` None leaves generators as they stand."""
        parallel, ranks = self._parallel, self._ranks
        is_whole = parallel is None and len(parts) == 1
        sizes = [] if is_whole else [num_examples(part) for part in parts]
        # All ranks take equal parts, so the number of examples needs no exchange.
        count = sum(sizes) * ranks.world_size
        losses: list[Loss] = []
        for index, part in enumerate(parts):
            if step is not None:
                # Stochastic layers are seeded by a number that no other part of any rank has.
                self._seed(step, index * ranks.world_size + ranks.rank)
            # Gradients add up on each rank first: only the last part's backward pass exchanges.
            with self._exchanging(index == len(parts) - 1):
                result = self._objective_of(part)
                if is_whole:
                    # Its weight is known before its backward pass: nothing to correct.
                    mean, metrics = _mean(result)
                    self._backward(mean)
                    return mean.detach(), metrics
                loss = as_loss(result, sizes[index])
                total = loss.total if self._factor == 1 else loss.total * self._factor
                # Divided by the number of examples for the range of fp16; the exact weight follows.
                self._backward(total / count)
            losses.append(
                Loss(total=loss.total.detach(), weight=loss.weight, metrics=_detached(loss.metrics))
            )
        total, weight, metrics = _sums(losses) if parallel is None else parallel.sums(losses)
        # The loss may weigh something else than examples (tokens that count), and the weight of all
        # parts is known only now.
        if not (isinstance(weight, float | int) and weight == count):
            gradients = [local(p.grad) for p in self._parameters if p.grad is not None]
            foreach_mul_(gradients, count / weight)
        return total / weight, metrics

    def _relieve(
        self,
        relief: OutOfMemoryFallback,
        on_relief: Callable[[Plan, str, int], None],
        batch: Batch,
        step: int,
        reason: str,
    ) -> None:
        """Makes the parts smaller, since there is not enough memory; nothing of the failed attempt
        remains."""
        # What it left is freed before anything is copied back: gradients, graphs in cycles, and
        # blocks that the allocator keeps.
        self._optimizer.zero_grad(set_to_none=True)
        gc.collect()
        self._device.release_memory()
        reason += self._before.undo()
        own = num_examples(batch)
        # With most augmentations this rank has the batch of all ranks.
        if takes_whole_batch(self._task):
            own //= self._ranks.world_size
        self._plan = relief.after(self._plan, own, reason)
        self.graph = None  # of a whole batch
        if self._prefix is not None and self._plan.recompute != "none":
            self._prefix.stop("blocks are computed again for want of memory")
        on_relief(self._plan, reason, step)

    def _seed(self, step: int, number: int) -> None:
        self._device.seed(counter_hash(MODEL_SEEDS, self._task.seed, step, number))

    def _whole(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Augments a whole batch and computes its gradient, from generators as they stand."""
        return self._summed([augmented(self._task, batch, self._generator, self._ranks)], None)

    def _objective_of(self, part: Batch) -> Any:
        with self._kept(), self._autocast():
            try:
                result = self._loss(part)
            except Exception as error:
                note_caller(error, "the task's objective")
                raise
        if not self._is_checked:
            check_objective_result(result)
            check_has_gradient(result)
        return result

    def _computed(self, batch: Batch) -> Any:
        with self._autocast():
            return self._objective(self._model, batch)

    def _backward(self, loss: Tensor) -> None:
        scaler = self._state.scaler
        with called("objective"):
            (loss if scaler is None else scaler.scale(loss)).backward()

    def _update(self, step: int, loss: Tensor) -> bool:
        """Updates the weights. Returns whether that was done, or will show on the device not to
        have been."""
        scaler = self._state.scaler
        # Clipping and the guard look at the true gradient, not at the scaled one.
        if scaler is not None:
            scaler.unscale_(self._optimizer)
        norm = None
        if self._task.clip_norm is not None:
            norm = whole(nn.utils.clip_grad_norm_(self._parameters, self._task.clip_norm))
        if not self.guard.lets_pass(loss, norm):
            # The scaler has found the overflow in `unscale_`, and lowers its scale here.
            if scaler is not None:
                scaler.update()
            return False
        try:
            with self._fetched():
                if scaler is not None:
                    scaler.step(self._optimizer)
                    scaler.update()
                else:
                    self._optimizer.step()
        except Exception as error:
            if is_out_of_memory(error):
                raise update_failed(error) from error
            # Of an optimizer whose signature does not say so: it asks, or just calls it.
            if "closure" in str(error) or "'NoneType' object is not callable" in str(error):
                raise closure_needed(type(self._optimizer).__name__) from error
            note_caller(error, "the task's optimizer")
            raise
        if self._state.ema is not None:
            self._state.ema.update(step)
        return True


def _no_exchange(_is_last: bool) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def takes_whole_batch(task: Task) -> bool:
    """Checks whether a rank needs the batch of all ranks: an augmentation draws for it, and cannot
    change a part of it alone."""
    return task.augment is not None and not hasattr(task.augment, "of_part")


def augmented(task: Task, batch: Batch, generator: torch.Generator, ranks: Ranks) -> Batch:
    """Returns the augmented batch: a rank's part, if the augmentation can change that alone; the
    batch itself if there is none."""
    augment: Any = task.augment
    if augment is None:
        return batch
    with called("augment"):
        if ranks.are_several and not takes_whole_batch(task):
            return augment.of_part(batch, generator, ranks.rank, ranks.world_size)
        return augment(batch, generator)


def seed_of_augmentation(task: Task, step: int) -> int:
    """Returns the seed of the generator with which the batch of ``step`` (from 0) is augmented."""
    return counter_hash(AUGMENT_SEEDS, task.seed, step // task.steps_per_epoch, step)


def _mean(result: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The loss of a whole batch, and its metrics."""
    if not isinstance(result, Loss):
        return result, {}
    weight = result.weight.reshape(()) if isinstance(result.weight, Tensor) else result.weight
    return result.total.reshape(()) / weight, _detached(result.metrics)


def _sums(losses: list[Loss]) -> tuple[Tensor, Tensor | float, dict[str, Tensor | float]]:
    """Returns the loss, its weight, and each metric's mean, over micro-batches."""
    total = torch.stack([loss.total for loss in losses]).sum()
    return total, sum(loss.weight for loss in losses), mean_metrics(losses)


def _detached(metrics: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
    # A metric with a gradient would keep its step's whole graph until it is read.
    return {
        name: value.detach() if isinstance(value, Tensor) else value
        for name, value in metrics.items()
    }
