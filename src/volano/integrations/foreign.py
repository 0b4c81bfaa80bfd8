"""The pieces that the integrations share: schedules as tables, loaders as sets, refusals by the
name of a hook."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from volano.errors import TaskError


@dataclass(frozen=True)
class TabulatedSchedule:
    """The multipliers of a run's learning rates, one for each optimizer step."""

    multipliers: tuple[float, ...]

    def __call__(self, progress: float) -> float:
        """Returns the multiplier at a progress from 0 to 1."""
        count = len(self.multipliers)
        return self.multipliers[min(int(progress * count), count - 1)]


def tabulated(
    optimizer: torch.optim.Optimizer, scheduler: Any, num_steps: int, *, interval: int = 1
) -> TabulatedSchedule:
    """Returns the multipliers that a scheduler of torch gives its optimizer.

    Args:
        optimizer: an optimizer that is not used for anything else.
        scheduler: a scheduler of it that depends on nothing but the number of its steps.
        num_steps: optimizer steps of the run.
        interval: optimizer steps between two of the scheduler's.

    Raises:
        TaskError: it depends on more, or parameter groups go different ways.
    """
    name = type(scheduler).__name__
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise TaskError("A schedule must depend on the progress alone", got=name)
    bases = [float(group["initial_lr"]) for group in optimizer.param_groups]
    found = []
    optimizer.step()  # without gradients it does nothing; schedulers warn if none was made
    for step in range(num_steps):
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        ratios = [rate / base for rate, base in zip(rates, bases, strict=True) if base]
        if ratios and max(ratios) - min(ratios) > 1e-9 * max(1.0, max(ratios)):
            raise TaskError(
                "A schedule must multiply the rates of all parameter groups alike",
                got=f"{name}, by {min(ratios):g} to {max(ratios):g} at step {step}",
            )
        found.append(ratios[0] if ratios else 1.0)
        if (step + 1) % interval == 0:
            scheduler.step()
    return TabulatedSchedule(tuple(found))


def refuse_hooks(found: Iterable[str], leave_out: Collection[str], owner: str) -> None:
    """Raises TaskError for hooks of a person's own that a Task would not call."""
    names = [name for name in found if name not in leave_out]
    if names:
        raise TaskError(
            "A Task has a model, an objective and an optimizer, and calls no hook",
            got=f"{owner}.{names[0]}" + (f" and {', '.join(names[1:])}" if names[1:] else ""),
            remedy=f"Keep the loop of yours, with volano run; or, if the training is the same "
            f"without, leave_out={names}",
        )


def set_of(loader: Any, *, is_training: bool) -> dict[str, Any]:
    """Returns what a Task says of a loader: its set, batches and the last one of an epoch.

    Raises:
        TaskError: its order is not a shuffled one, or it is no DataLoader.
    """
    if not isinstance(loader, DataLoader):
        raise TaskError("Data must come as a torch DataLoader", got=type(loader).__name__)
    if not is_training:
        return {"data": loader.dataset, "collate": loader.collate_fn}
    batches: Any = loader.batch_sampler
    sampler: Any = batches.sampler if type(batches) is BatchSampler else None
    # Accelerate makes one of its own, which shuffles too.
    is_usual = isinstance(sampler, RandomSampler) and type(sampler).__module__.startswith(
        ("torch.", "accelerate.")
    )
    if not is_usual or sampler.replacement:
        kind = type(batches if sampler is None else sampler).__name__
        raise TaskError(
            "A loader must shuffle: a Task has an order of its own, which is shuffled",
            got=f"a loader with a {kind}",
            remedy="Make the loader with shuffle=True, or keep the loop of yours with volano run",
        )
    return {
        "data": loader.dataset,
        "collate": loader.collate_fn,
        "batch_size": batches.batch_size,
        "last_batch": "drop" if batches.drop_last else "keep",
    }
