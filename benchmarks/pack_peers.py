"""What packs are held against: a tuned hand-written loop, and the trial function of the
tutorials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

import volano
from on_device import device
from pack_tasks import make_task
from volano.data import counter_hash
from volano.data.order import permutation
from volano.task import as_loss, num_examples, progress_at, tensors_of

MODEL = 12  # first counter of the seeds of a model's own draws: volano.training.step.MODEL_SEEDS


class TunedLoop:
    """One configuration, trained as someone would who wants it fast: tensors in memory, one gather
    an epoch, batches as slices, the fused optimizer, gradients dropped rather than zeroed, nothing
    read while training.

    Args:
        task: with plain tensors as data, without clipping, average or augmentation.
        is_compiled: whether forward pass and loss are compiled.
        same_draws: whether the generator is seeded at each step as the engine does, so that the
            trajectory is the same. It costs some microseconds, so it is not done where time is
            measured.
    """

    def __init__(
        self, task: volano.Task, *, is_compiled: bool = False, same_draws: bool = False
    ) -> None:
        assert (task.clip_norm, task.ema_decay, task.augment) == (None, None, None)
        self.task, self.same_draws = task, same_draws
        torch.manual_seed(task.seed)
        self.model = task.model().to(device().torch_device)
        self.optimizer = task.optimizer(self.model.parameters())
        for group in self.optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.is_scheduled = task.schedule != volano.constant()
        self.columns = tuple(map(device().move, tensors_of(task.data.tree)))
        self.objective: Any = torch.compile(task.objective) if is_compiled else task.objective
        self.step = 0

    def run(self, count: int) -> None:
        """The next ``count`` steps."""
        size, per_epoch = self.task.batch_size, self.task.steps_per_epoch
        stop = self.step + count
        while self.step < stop:
            epoch, first = divmod(self.step, per_epoch)
            last = min(per_epoch, first + stop - self.step)
            order = permutation(self.task.order_seed, epoch, len(self.task.data))[
                first * size : last * size
            ]
            rows = device().move(torch.from_numpy(order.copy()))
            columns = [column[rows] for column in self.columns]
            for start in range(0, (last - first) * size, size):
                parts = [column[start : start + size] for column in columns]
                self._step(parts[0] if len(parts) == 1 else tuple(parts))

    def _step(self, batch: Any) -> None:
        if self.same_draws:
            torch.manual_seed(counter_hash(MODEL, self.task.seed, self.step, 0))
        if self.is_scheduled:
            progress = progress_at(self.step, self.task.num_steps)
            self.optimizer.param_groups[0]["lr"] = self.rate * self.task.schedule(progress)
        self.optimizer.zero_grad(set_to_none=True)
        self.objective(self.model, batch).backward()
        self.optimizer.step()
        self.step += 1

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """``loss``, and accuracy where there is one, of the validation set, in one batch."""
        batch = device().move(self.task.valid.tree)
        self.model.eval()
        loss = as_loss(self.task.objective(self.model, batch), num_examples(batch))
        self.model.train()
        return {
            "loss": float(loss.total / loss.weight),
            **{name: float(value) for name, value in loss.metrics.items()},
        }


def tutorial(
    name: str,
    params: Mapping[str, Any],
    epochs: int,
    report: Callable[[int, dict[str, float]], None],
) -> dict[str, float]:
    """The trial function that tutorials of Optuna and Ray Tune show: DataLoaders with their
    defaults, the optimizer with its defaults, a loss read at each step for the mean, an evaluation
    and a report after each epoch.

    Args:
        report: told of the epochs that are complete and the figures then; what it raises ends the
            trial.
    """
    task = make_task(name, params)
    torch.manual_seed(params["seed"])
    loader = DataLoader(_dataset(task.data), batch_size=task.batch_size, shuffle=True)
    valid_loader = DataLoader(_dataset(task.valid), batch_size=task.batch_size)
    model = task.model()
    optimizer = task.optimizer(model.parameters())
    figures: dict[str, float] = {}
    for epoch in range(epochs):
        model.train()
        running = 0.0
        for batch in loader:
            optimizer.zero_grad()
            loss: Any = task.objective(model, _unpacked(batch))
            loss.backward()
            optimizer.step()
            running += loss.item()
        model.eval()
        sums: dict[str, float] = {}
        with torch.no_grad():
            for batch in valid_loader:
                part = as_loss(task.objective(model, _unpacked(batch)), len(batch[0]))
                figures = {
                    "loss": part.total.item() / part.weight,
                    **{k: float(v) for k, v in part.metrics.items()},
                }
                for key, value in figures.items():
                    sums[key] = sums.get(key, 0.0) + value * len(batch[0])
        figures = {key: value / len(task.valid) for key, value in sums.items()}
        report(epoch + 1, {**figures, "training_loss": running / len(loader)})
    return figures


def _dataset(data: volano.Arrays) -> TensorDataset:
    return TensorDataset(*tensors_of(data.tree))


def _unpacked(batch: list[torch.Tensor]) -> Any:
    return batch[0] if len(batch) == 1 else tuple(batch)
