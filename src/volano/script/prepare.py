"""A loop of one's own under a plan: ``volano.prepare`` and ``volano.advise``."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from volano.device import Device
from volano.device.torch_private import version_of
from volano.errors import UsageError, reason_of
from volano.plan import Plan
from volano.planner import PlanRequest, find_plan
from volano.planner.parity.batch_split import BatchSplit
from volano.planner.parity.guard import ParityGuard
from volano.script.loaders import LoaderSettings, TreatedLoaders
from volano.script.plan import ScriptPlan
from volano.task import (
    Loss,
    Objective,
    Task,
    as_loss,
    check_has_gradient,
    check_objective_result,
    num_examples,
    split,
    tensors_of,
)
from volano.training import choose_implementation
from volano.training.graphs.compiling import CompiledFunction
from volano.training.memory.buffers import SavedBuffers, Uncopied, changed, is_small, places_of
from volano.training.memory.out_of_memory import OutOfMemoryFallback, repeated
from volano.training.optim.make_optimizer import make_again, with_own_marks


def advise(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    *,
    loss: Objective,
    num_steps: int | None = None,
    device: str | None = None,
    clip_norm: float | None = None,
) -> ScriptPlan:
    """Returns the plan under which a loop of one's own would be fastest on this machine. Nothing of
    one's own is trained or changed: copies are.

    Args:
        model, optimizer, loader: what is trained, by what, on what.
        loss: ``(model, batch) -> scalar tensor`` (mean over the batch's examples) ``| Loss``.
        num_steps: optimizer steps that will be made; short runs are not worth measuring candidates.
            None is a pass over the loader.
        device: the device as torch writes it; None is the accelerator, or the CPU without one.
        clip_norm: largest L2 norm of the gradient, or None.

    Raises:
        UsageError: the loader cannot be planned for.
    """
    task = _task_of(model, optimizer, loader, loss, num_steps=num_steps, clip_norm=clip_norm)
    return _script_plan(find_plan(task, PlanRequest(device=device)).plan, loader)


def prepare(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    *,
    loss: Objective,
    plan: ScriptPlan | None = None,
    num_steps: int | None = None,
    device: str | None = None,
    clip_norm: float | None = None,
    on_notice: Callable[[str], None] | None = None,
) -> PreparedLoop:
    """Prepares a loop of one's own: model and optimizer stay the same objects, a batch of the
    loader stays one step.

    ::

        session = volano.prepare(model, optimizer, loader, loss=loss)
        for epoch in range(3):
            for batch in session:
                value = session.step(batch)

    Args:
        model, optimizer, loader, loss, num_steps, device, clip_norm: see ``volano.advise``.
        plan: the plan; None is the one that ``volano.advise`` gives.
        on_notice: the function that hears of what does not apply, and of smaller parts when memory
            runs out; None prints it on standard error.
    """
    if plan is None:
        plan = advise(
            model, optimizer, loader,
            loss=loss, num_steps=num_steps, device=device, clip_norm=clip_norm,
        )  # fmt: skip
    return PreparedLoop(
        model, optimizer, loader, loss, plan,
        device=Device(device), clip_norm=clip_norm, on_notice=on_notice or _print_notice,
    )  # fmt: skip


class PreparedLoop:
    """A model, an optimizer and a loader under a plan. Made by ``volano.prepare``.

    Iterating gives the loader's batches on the device; :meth:`step` makes an optimizer step of one.

    Attributes:
        num_steps: optimizer steps that were made.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: DataLoader[Any],
        loss: Objective,
        plan: ScriptPlan,
        *,
        device: Device,
        clip_norm: float | None,
        on_notice: Callable[[str], None],
    ) -> None:
        self.plan, self.num_steps = plan, 0
        self._model, self._optimizer, self._loader = model, optimizer, loader
        self._device, self._clip_norm, self._on_notice = device, clip_norm, on_notice
        self._precision = plan.precision or "fp32"
        device.check_precision(self._precision)
        self._context = contextlib.ExitStack()
        self._context.enter_context(
            device.settings(
                precision=self._precision,
                threads=plan.threads,
                allocator=plan.allocator or "system",
            )
        )
        model.to(device.torch_device)
        if plan.memory_format is not None:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        wanted = Plan(device=device.name, optimizer="fused" if plan.fused else "as_given")
        reason = choose_implementation(optimizer, model, wanted, device)
        if reason is not None:
            on_notice(f"fused does not apply: {reason}")
        self._scaler = device.grad_scaler(self._precision)
        self._loss = loss
        self._objective: Any = loss if plan.compile is None else CompiledFunction(loss)
        settings = LoaderSettings.of(plan)
        self._loaders = None if settings is None else TreatedLoaders(settings, self)
        copied = places_of(model, is_small)
        self._buffers, self._uncopied = SavedBuffers(copied), Uncopied(model, copied)
        self._split: Plan = Plan(device=device.name, compile=plan.compile is not None)
        self._is_checked = False

    def did(self, words: str) -> None:
        """Hears what was done to the loader: what the plan says."""

    def left(self, words: str) -> None:
        """Hears what was left as it was, and why; tells it."""
        self._on_notice(words)

    def __iter__(self) -> Iterator[Any]:
        """Yields the loader's batches of one pass, on the device."""
        loader = self._loader
        batches = iter(loader) if self._loaders is None else self._loaders.iterate(loader)
        for batch in batches:
            yield self._device.move(batch, non_blocking=bool(self.plan.non_blocking))

    def __len__(self) -> int:
        return len(self._loader)

    def step(self, batch: Any) -> Tensor:
        """Makes one optimizer step of a batch on the device. Returns its loss, a scalar on the
        device that nobody has waited for.

        If it runs out of memory it is repeated in smaller parts, with the same gradient; where the
        loss of a batch is not the sum of its parts', it fails instead.

        Raises:
            RunError: it does not fit into the memory.
            ObjectiveError: the loss is none.
        """
        loss = self._gradient(batch)
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self.num_steps += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Returns what a training needs to go on: weights, optimizer, scaler, steps, the states of
        random generators. The place in a pass over the loader is not part of it."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "num_steps": self.num_steps,
            "random": self._device.rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a result of :meth:`state_dict`, of another plan too."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(with_own_marks(state["optimizer"], self._optimizer))
        if self._scaler is not None and state["scaler"] is not None:
            self._scaler.load_state_dict(state["scaler"])
        self.num_steps = int(state["num_steps"])
        self._device.set_rng_state(state["random"])

    def close(self) -> None:
        """Puts the process's settings back, and ends the loader's workers."""
        if self._loaders is not None:
            self._loaders.undo()
        self._context.close()

    def __enter__(self) -> PreparedLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _gradient(self, batch: Any) -> Tensor:
        """Computes the gradients of a batch, in smaller parts if there is not enough memory."""
        self._buffers.save()
        self._uncopied.note()
        versions = [(tensor, version_of(tensor)) for tensor in tensors_of(batch)]
        states = self._device.generator_states()

        def relieve(reason: str) -> None:
            self._optimizer.zero_grad(set_to_none=True)
            gc.collect()
            self._device.release_memory()
            if any(version_of(tensor) != version for tensor, version in versions):
                raise changed("a batch")
            self._uncopied.put_back()
            self._buffers.put_back()
            self._device.set_generator_states(states)
            # Asked once, when it matters: on a few examples, whose step fits.
            fallback = OutOfMemoryFallback(lambda: False, may_split=self._may_split().yes, ranks=1)
            self._split = fallback.after(self._split, num_examples(batch), reason)
            self.left(
                f"step {self.num_steps} ran out of memory ({reason}): from here on in parts of "
                f"{self._split.micro_batch} examples, with the same gradient"
            )

        result = repeated(lambda: self._attempt(batch), relieve)
        self._uncopied.settle()
        return result

    def _attempt(self, batch: Any) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        count, size = num_examples(batch), self._split.micro_batch
        losses: list[Loss] = []
        for part in [batch] if size is None else split(batch, size):
            with self._device.autocast(self._precision):
                result = self._objective(self._model, part)
            if not self._is_checked:
                check_objective_result(result)
                check_has_gradient(result)
                self._is_checked = True
            loss = as_loss(result, num_examples(part))
            if size is not None:
                mean = loss.total / count
            else:  # of a plain mean, that number itself: bitwise that of a loop by hand
                mean = result if isinstance(result, Tensor) else loss.total / loss.weight
            (mean if self._scaler is None else self._scaler.scale(mean)).backward()
            losses.append(Loss(total=loss.total.detach(), weight=loss.weight))
        total = torch.stack([loss.total for loss in losses]).sum()
        weight = sum(loss.weight for loss in losses)
        # The loss may weigh something else than examples, known when all parts are.
        if size is not None and not (isinstance(weight, float | int) and weight == count):
            for parameter in self._model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(count / weight)
        return total / weight

    def _may_split(self) -> BatchSplit:
        if self._split.micro_batch is not None:
            return BatchSplit(yes=True, reason="", difference=0.0)  # found out before
        task = _task_of(self._model, self._optimizer, self._loader, self._loss)
        found = ParityGuard(task, self._device, lambda: 0.0).divisible
        if not found.yes:
            self.left(f"the batch stays whole: {found.reason}")
        return found


def _task_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    loss: Objective,
    *,
    num_steps: int | None = None,
    clip_norm: float | None = None,
) -> Task:
    """Returns the Task of which copies are trained while a plan is looked for."""
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        raise UsageError(
            "A loader must have a map-style dataset and a batch size for a plan to be found",
            got=f"a loader of {type(loader.dataset).__name__}, batch_size={loader.batch_size}",
            remedy="Give `plan`, volano.ScriptPlan(...)",
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {**group, "params": [names[id(p)] for p in group["params"] if id(p) in names]}
        for group in optimizer.param_groups
    ]

    def copied() -> nn.Module:
        try:
            return copy.deepcopy(model)
        except RuntimeError as error:  # of weights that are computed: torch.nn.utils.weight_norm
            raise UsageError(
                "A plan is looked for with copies of the model, which copy.deepcopy must take",
                got=reason_of(error),
                remedy="Use torch.nn.utils.parametrizations, or give `plan`",
            ) from error

    def own_groups(model: nn.Module) -> list[dict[str, Any]]:
        found = dict(model.named_parameters())
        return [{**group, "params": [found[name] for name in group["params"]]} for group in groups]

    return Task(
        model=copied,
        objective=loss,
        data=loader.dataset,
        optimizer=lambda parameters: make_again(optimizer, parameters),
        parameter_groups=own_groups,
        batch_size=loader.batch_size,
        collate=loader.collate_fn,
        last_batch="drop" if loader.drop_last else "keep",
        clip_norm=clip_norm,
        duration=f"{num_steps or max(1, len(loader))}st",
        name="loop",
    )


def _script_plan(plan: Plan, loader: DataLoader[Any]) -> ScriptPlan:
    """Returns what of a task's plan concerns a loop of one's own."""
    workers = plan.workers if plan.feed == "ring" and not loader.num_workers else 0
    return ScriptPlan(
        num_workers=workers or None,
        persistent_workers=True if workers else None,
        precision=None if plan.precision == "fp32" else plan.precision,
        memory_format=None if plan.memory_format == "contiguous" else plan.memory_format,
        fused=True if plan.optimizer == "fused" else None,
        compile="default" if plan.compile else None,
        threads=plan.threads,
        allocator="keep" if plan.allocator == "keep" else None,
    )


def _print_notice(line: str) -> None:
    from volano.training import make_progress

    make_progress().on_notice(line)
