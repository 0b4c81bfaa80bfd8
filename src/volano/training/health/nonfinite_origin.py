"""Finds the origin of a number that is not finite: repeats the step on a copy, with every module
watched."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from volano.data import Fetcher, counter_hash
from volano.device.torch_private import sparse_values_of
from volano.task import Batch, as_loss, num_examples, tensors_of
from volano.training.session import Session
from volano.training.step import AUGMENT_SEEDS, MODEL_SEEDS

_MOST_NAMED = 8  # examples


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The account of a step that went wrong.

    Attributes:
        examples: indices into the data of the whole batch, in its order.
        suspects: the examples among them whose own tensors are not finite.
        module: name of the module where it first shows, ``"objective"`` if behind all of them; None
            if the re-run of the step did not show it.
        where: ``"data"``, ``"weights"``, ``"forward"``, ``"backward"``, ``"moved"`` if the
            weights are no longer those of the step, or None as ``module``.
    """

    examples: list[int]
    suspects: list[int]
    module: str | None
    where: str | None

    def __str__(self) -> str:
        if self.where == "data":
            text = f"the batch itself is not finite in example {_some(self.suspects)}"
        elif self.where == "moved":
            text = (
                "the weights had moved on before it was read, so that no re-run could tell its "
                "module"
            )
        elif self.where is None:
            text = "a re-run of the step did not show it"
        else:
            text = f"first seen in the {self.where} of {self.module}"
        return text if self.where == "data" else f"{text}; examples {_some(self.examples)}"


def diagnose(session: Session, step: int) -> Diagnosis:
    """Runs step ``step`` (from 0) again as far as its backward pass, on a copy of the model.

    Weights, optimizer and random state stay as they are. Whatever fails here (memory for the copy,
    an objective that needs the very model) leaves ``module`` empty: a diagnosis must not hide what
    it is about.
    """
    task, device = session.task, session.device
    key = session.order.key(step)
    examples = key.indices.tolist()
    state = device.rng_state()
    suspects: list[int] = []
    module = where = None
    try:
        batch = device.move(Fetcher(task.data, task.collate, task.order_seed)(key).batch)
        suspects = [examples[row] for row in _rows_that_are_not_finite(batch, len(examples))]
        if suspects:
            where = "data"
        elif not session.step_once.guard.holds_back:
            where = "moved"
        else:
            module, where = _watched(session, batch, step)
    except Exception:  # noqa: BLE001 - see above
        pass
    finally:
        device.set_rng_state(state)
    return Diagnosis(examples=examples, suspects=suspects, module=module, where=where)


def _watched(session: Session, batch: Batch, step: int) -> tuple[str | None, str | None]:
    task, device, plan = session.task, session.device, session.plan
    for name, parameter in session.model.named_parameters():
        if not _is_finite(parameter):
            return name, "weights"
    if task.augment is not None:
        generator = device.generator()
        generator.manual_seed(
            counter_hash(AUGMENT_SEEDS, task.seed, step // task.steps_per_epoch, step)
        )
        batch = task.augment(batch, generator)
    model = copy.deepcopy(session.model)
    model.zero_grad(set_to_none=True)
    watch = _Watch(model)
    device.seed(counter_hash(MODEL_SEEDS, task.seed, step, 0))
    with device.autocast(plan.precision):
        loss = as_loss(task.objective(model, batch), num_examples(batch))
    if watch.forward is not None:
        return watch.forward, "forward"
    if not _is_finite(loss.total):
        return "objective", "forward"
    (loss.total / loss.weight).backward()
    if watch.backward is not None:
        return watch.backward, "backward"
    for name, module in reversed(list(model.named_modules())):
        if not all(
            _is_finite(p.grad) for p in module.parameters(recurse=False) if p.grad is not None
        ):
            return _named(name, module), "backward"
    return None, None


class _Watch:
    """Notes the first module whose output is not finite, and the first whose backward pass made it
    so.

    Gradients arrive at the modules' outputs from the last to the first. If one is the first that
    is not finite, the module whose output's gradient came before it has made it, or the objective
    if none came.
    """

    def __init__(self, model: nn.Module) -> None:
        self.forward: str | None = None
        self.backward: str | None = None
        self._last = "objective"
        for name, module in model.named_modules():
            module.register_forward_hook(self._hook(_named(name, module)))

    def _hook(self, name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            for tensor in tensors_of(output):
                if self.forward is None and not _is_finite(tensor):
                    self.forward = name
                if tensor.requires_grad:
                    tensor.register_hook(lambda gradient: self._look_back(name, gradient))

        return look

    def _look_back(self, name: str, gradient: Tensor) -> None:
        if self.backward is None and not _is_finite(gradient):
            self.backward = self._last
        self._last = name


def _named(name: str, module: nn.Module) -> str:
    return f"{name or 'the model'} ({type(module).__name__})"


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool((sparse_values_of(tensor) if tensor.is_sparse else tensor).isfinite().all())


def _rows_that_are_not_finite(batch: Batch, count: int) -> list[int]:
    rows = torch.zeros(count, dtype=torch.bool)
    for tensor in tensors_of(batch):
        if tensor.is_floating_point() and tensor.ndim and tensor.shape[0] == count:
            rows |= ~tensor.detach().reshape(count, -1).isfinite().all(dim=1).cpu()
    return rows.nonzero().flatten().tolist()


def _some(examples: list[int]) -> str:
    more = len(examples) - _MOST_NAMED
    return ", ".join(map(str, examples[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
