"""The Task: WHAT is trained. It knows nothing of plans."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from volano.errors import TaskError, reason_of
from volano.task.batch import Batch
from volano.task.duration import Duration
from volano.task.loss import Loss
from volano.task.schedule import Schedule, constant

Objective = Callable[[nn.Module, Batch], Tensor | Loss]
TOLERANCES = ("exact", "rounding", "precision")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A complete experiment: a run of the same Task learns the same thing under every plan.

    Attributes:
        model: ``() -> nn.Module``, a fresh one each call; called once per run, after seeding with
            ``seed``.
        objective: ``(model, batch) -> scalar tensor`` (mean over the batch's examples) ``| Loss``.
            A pure function: it is called in training mode for steps, in evaluation mode for
            ``valid``.
        data: map-style training set (``__len__``, ``__getitem__``, ``__getitems__`` if it has one).
        optimizer: ``(params) -> torch.optim.Optimizer``; ``params`` are the model's parameters, or
            the result of ``parameter_groups``.
        batch_size: examples per optimizer step, over all ranks and micro-batches.
        duration: ``"10ep"``, ``"5000st"``, or ``"10min"`` of the whole call: turned into steps
            before the first one, by timing some.
        valid: map-style set for evaluation, or None.
        parameter_groups: ``(model) -> list of dicts``, as ``torch.optim`` takes them; None is one
            group of all.
        schedule: progress (0 to 1) -> multiplier of each group's learning rate.
        clip_norm: largest L2 norm of the global gradient, or None.
        ema_decay: decay of an exponential moving average of the weights; the average is evaluated
            and kept.
        collate: ``(list of examples) -> batch`` on the host; None stacks, as torch's
            ``default_collate``.
        augment: ``(batch, generator) -> batch`` on the device, training only; draws from the
            generator alone. Each of several ranks makes and augments the whole batch, unless
            ``augment`` has a method ``of_part(batch, generator, rank, world_size)`` that changes
            every ``world_size``-th example, from ``rank`` on, as it would within the whole.
        evaluate_every: how often ``valid`` is evaluated; it is always evaluated at the end.
        keep: ``"last"`` keeps the weights of the last step, ``"best"`` those of the evaluation with
            the smallest loss of ``valid``.
        patience: with ``keep="best"``, so many evaluations without a smaller loss end the run; None
            trains to the end.
        preview: ``(model) -> mapping`` of samples to look at during the run (of text, say): called
            after each evaluation with the model that is kept, in evaluation mode and without
            gradients. Its JSON goes to ``previews.jsonl``; no number of the run depends on it.
        last_batch: ``"drop"`` an epoch's incomplete last batch or ``"keep"`` it.
        seed: seed of the initial weights, the order, the augmentation and the model's own
            randomness.
        data_seed: seed of the order and of the random numbers with which examples are made, so that
            several seeds can be tried on one order of the data; None stands for ``seed``.
        tolerance: how far a plan may go: ``"exact"``, ``"rounding"`` or ``"precision"``.
        name: name for the run's folder and messages.

    Raises:
        TaskError: when the task is made, if a field is invalid.
    """

    model: Callable[[], nn.Module]
    objective: Objective
    data: Any
    optimizer: Callable[[Any], torch.optim.Optimizer]
    batch_size: int
    duration: str | Duration
    valid: Any = None
    parameter_groups: Callable[[nn.Module], Iterable[Any]] | None = None
    schedule: Schedule = constant()  # noqa: RUF009 - a frozen value
    clip_norm: float | None = None
    ema_decay: float | None = None
    collate: Callable[[list[Any]], Batch] | None = None
    augment: Callable[[Batch, torch.Generator], Batch] | None = None
    evaluate_every: str | Duration = "1ep"
    keep: Literal["last", "best"] = "last"
    patience: int | None = None
    preview: Callable[[nn.Module], Mapping[str, Any]] | None = None
    last_batch: Literal["drop", "keep"] = "drop"
    seed: int = 0
    data_seed: int | None = None
    tolerance: Literal["exact", "rounding", "precision"] = "precision"
    name: str = "task"

    def __post_init__(self) -> None:
        for name in ("batch_size", "seed", "data_seed", "patience", "clip_norm", "ema_decay"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        object.__setattr__(self, "duration", Duration.parse(self.duration))
        object.__setattr__(self, "evaluate_every", Duration.parse(self.evaluate_every))
        assert isinstance(self.evaluate_every, Duration)
        if self.evaluate_every.unit == "min":
            raise TaskError(
                "`evaluate_every` must be epochs or steps",
                got=str(self.evaluate_every),
                remedy="Write '1ep' or '500st'",
            )
        self._check_callables()
        self._check_numbers()
        self._check_data("data", self.data)
        if self.valid is not None:
            self._check_data("valid", self.valid)
        if self.preview is not None and self.valid is None:
            raise TaskError(
                "`preview` needs `valid`: it is called after evaluations",
                got="a task without valid",
                remedy="Give valid",
            )
        self._check_keep()
        if self.last_batch == "drop" and len(self.data) < self.batch_size:
            raise TaskError(
                "The training set must fill at least one batch",
                got=f"{len(self.data)} examples and batch_size={self.batch_size}",
                remedy="Take a smaller batch_size, or last_batch='keep'",
            )

    @property
    def order_seed(self) -> int:
        """The seed of the order: ``data_seed``, or ``seed`` if that is None."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def steps_per_epoch(self) -> int:
        """The optimizer steps in one pass over the data."""
        full, rest = divmod(len(self.data), self.batch_size)
        return full + (1 if rest and self.last_batch == "keep" else 0)

    @property
    def num_steps(self) -> int:
        """The optimizer steps of the whole run."""
        assert isinstance(self.duration, Duration)
        return self.duration.steps(self.steps_per_epoch)

    @property
    def evaluation_interval(self) -> int:
        """The optimizer steps between two evaluations."""
        assert isinstance(self.evaluate_every, Duration)
        return self.evaluate_every.steps(self.steps_per_epoch)

    def _check_keep(self) -> None:
        if self.keep not in ("last", "best"):
            raise TaskError("`keep` must be 'last' or 'best'", got=repr(self.keep))
        if self.keep == "best" and self.valid is None:
            raise TaskError(
                "`keep` 'best' needs `valid`, whose loss says which weights are best",
                got="a task without valid",
                remedy="Give valid, or keep 'last'",
            )
        patience = self.patience
        if patience is not None and not (_is_whole(patience) and patience > 0):
            raise TaskError(
                "`patience` must be a whole number of evaluations above 0", got=repr(patience)
            )
        if patience is not None and self.keep != "best":
            raise TaskError(
                "`patience` must come with `keep` 'best'", got=f"patience={patience} alone"
            )

    def _check_callables(self) -> None:
        if isinstance(self.model, nn.Module):
            raise TaskError(
                "`model` must be a function that makes a fresh nn.Module each call",
                got=f"an instance of {type(self.model).__name__}",
                remedy=f"Pass model=lambda: {type(self.model).__name__}(...)",
            )
        if isinstance(self.optimizer, torch.optim.Optimizer):
            raise TaskError(
                "`optimizer` must be a function from parameters to a torch.optim.Optimizer",
                got=f"an instance of {type(self.optimizer).__name__}",
                remedy="Pass optimizer=functools.partial(torch.optim.AdamW, lr=...)",
            )
        for name in ("model", "objective", "optimizer", "schedule"):
            if not callable(getattr(self, name)):
                raise TaskError(
                    f"`{name}` must be a callable", got=type(getattr(self, name)).__name__
                )
        self._check_schedule()
        for name in ("parameter_groups", "collate", "augment", "preview"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TaskError(f"`{name}` must be a callable or None", got=type(value).__name__)

    def _check_schedule(self) -> None:
        rule = "`schedule` must be a function from progress (0 to 1) to a multiplier of the rates"
        remedy = "Take volano.cosine(), linear(), trapezoid() or constant(), or a function of yours"
        made = getattr(self.schedule, "func", self.schedule)
        scheduler = torch.optim.lr_scheduler.LRScheduler
        if isinstance(made, scheduler) or (isinstance(made, type) and issubclass(made, scheduler)):
            raise TaskError(rule, got="a scheduler of torch.optim's", remedy=remedy)
        found: Any = None
        try:
            found = self.schedule(0.0)
            is_number, got = math.isfinite(found), f"{found!r} at progress 0"
        except Exception as error:  # noqa: BLE001 - a person's function may raise anything
            is_number, got = False, f"{found!r} at progress 0 ({reason_of(error)})"
        if not is_number:
            raise TaskError(rule, got=got, remedy=remedy)

    def _check_numbers(self) -> None:
        if not (_is_whole(self.batch_size) and self.batch_size > 0):
            raise TaskError(
                "`batch_size` must be a whole number of examples above 0", got=repr(self.batch_size)
            )
        for name, seed in (("seed", self.seed), ("data_seed", self.order_seed)):
            if not (_is_whole(seed) and 0 <= seed < 2**63):
                raise TaskError(
                    f"`{name}` must be a whole number from 0 to 2**63 - 1", got=repr(seed)
                )
        norm, decay = self.clip_norm, self.ema_decay
        if norm is not None and not (_is_number(norm) and 0 < norm <= sys.float_info.max):
            raise TaskError("`clip_norm` must be a finite norm above 0, or None", got=repr(norm))
        if decay is not None and not (_is_number(decay) and 0.0 < decay < 1.0):
            raise TaskError(
                "`ema_decay` must lie between 0 and 1",
                got=repr(decay),
                remedy="0.999 averages 1,000 steps",
            )
        if not isinstance(self.name, str):
            raise TaskError("`name` must be a text", got=repr(self.name))
        if self.last_batch not in ("drop", "keep"):
            raise TaskError("`last_batch` must be 'drop' or 'keep'", got=repr(self.last_batch))
        if self.tolerance not in TOLERANCES:
            raise TaskError(
                f"`tolerance` must be one of {', '.join(TOLERANCES)}", got=repr(self.tolerance)
            )

    @staticmethod
    def _check_data(name: str, data: Any) -> None:
        if why := _why_no_examples(data):
            raise TaskError(
                f"`{name}` must hold one example at each index",
                got=why,
                remedy="Make tensors of it: torch.utils.data.TensorDataset(X, y)",
            )
        has_getitem = hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)
        if isinstance(data, Mapping) or not (isinstance(data, Sized) and has_getitem):
            is_iterable = isinstance(data, Iterable) and not isinstance(data, Mapping | DataLoader)
            raise TaskError(
                f"`{name}` must be a map-style dataset with __len__ and __getitem__(index)",
                got=type(data).__name__,
                remedy="Write what can only be iterated to disk once: volano.spool(data, folder)"
                if is_iterable
                else "Wrap tensors in torch.utils.data.TensorDataset; pass a DataLoader's "
                ".dataset, not the loader",
            )
        try:
            count = len(data)
        except Exception as error:
            raise TaskError(
                f"`{name}` must know how many examples it holds", got=f"len: {reason_of(error)}"
            ) from error
        if count == 0:
            raise TaskError(f"`{name}` must hold at least one example", got="0 examples")


def _plain(value: Any) -> Any:
    """Returns a number of NumPy's as one of Python's, which JSON can hold; else the value."""
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _why_no_examples(data: Any) -> str | None:
    """Returns what data is whose indices count columns or arrays, not examples; None if it is
    not."""
    if hasattr(data, "iloc") or (hasattr(data, "columns") and hasattr(data, "to_numpy")):
        return f"a table, {type(data).__name__}, whose indices are columns"
    if isinstance(data, tuple | list) and len(data) == 2:
        first, second = (tuple[int, ...](getattr(part, "shape", ())) for part in data)
        # Two examples that differ in form could not be stacked.
        if first and second and first[0] == second[0] and first[1:] != second[1:]:
            return f"two arrays of {first[0]} examples"
    return None
