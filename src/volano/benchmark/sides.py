"""The sides that are compared: a plain PyTorch loop and a planned one, and many of them and a
pack."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from volano.data.arrays import rows_of
from volano.device import Device
from volano.device.machine import num_cores
from volano.device.random_state import random_state_kept
from volano.device.torch_private import foreach_lerp_
from volano.packing import Member, Pack
from volano.plan import Plan
from volano.planner import PlanRequest, find_plan
from volano.task import Task, as_loss, map_tensors, num_examples, progress_at
from volano.training import Session, settings_of

_MOST_WORKERS = 4


class PlainLoop:
    """The loop that a person writes: the task's model, objective, optimizer, schedule and batches
    in fp32, a shuffling DataLoader (with worker processes if the data is not in memory), nothing
    read while training."""

    def __init__(self, task: Task, device: Device) -> None:
        self.task, self.device = task, device
        with random_state_kept(device):
            torch.manual_seed(task.seed)
            self.model = task.model().to(device.torch_device).train()
        groups = task.parameter_groups or (lambda model: model.parameters())
        self.optimizer = task.optimizer(groups(self.model))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.average = None
        if task.ema_decay is not None:
            self.average = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.generator = device.generator().manual_seed(task.seed)
        self.loader = DataLoader(
            task.data,
            batch_size=task.batch_size,
            shuffle=True,
            drop_last=task.last_batch == "drop",
            collate_fn=task.collate,
            pin_memory=not device.is_cpu,
            num_workers=0 if rows_of(task.data) is not None else min(_MOST_WORKERS, num_cores()),
            generator=torch.Generator().manual_seed(task.order_seed),
        )
        self.batches, self.step = self._endless(), 0

    def settled(self) -> contextlib.AbstractContextManager[object]:
        """Implements :class:`Side`."""
        return random_state_kept(self.device)

    def make(self, count: int) -> None:
        """Implements :class:`Side`."""
        for _ in range(count):
            self._step(next(self.batches))
        self.device.synchronize()

    def close(self) -> None:
        """Ends the worker processes."""
        self.batches.close()

    def _endless(self) -> Generator[Any, None, None]:
        while True:
            yield from self.loader

    def _step(self, batch: Any) -> None:
        task, place = self.task, self.device.torch_device
        progress = progress_at(self.step % task.num_steps, task.num_steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * task.schedule(progress)
        batch = map_tensors(lambda tensor: tensor.to(place, non_blocking=True), batch)
        if task.augment is not None:
            batch = task.augment(batch, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss = as_loss(task.objective(self.model, batch), num_examples(batch))
        (loss.total / loss.weight).backward()
        if task.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), task.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            assert task.ema_decay is not None
            with torch.no_grad():
                foreach_lerp_(self.average, list(self.model.parameters()), 1 - task.ema_decay)
        self.step += 1


class PlannedLoop:
    """The engine under the plan that is found for the task, with the seconds that planning and the
    start take."""

    def __init__(self, task: Task, device: Device) -> None:
        start = time.perf_counter()
        # A remembered plan would make planning look free.
        self.plan = find_plan(task, PlanRequest(device=device.name, recalls=False)).plan
        self.planning_seconds = time.perf_counter() - start
        start = time.perf_counter()
        with random_state_kept(device), settings_of(self.plan, device):
            self.session = Session(task, self.plan)
        self.batches = self._endless()
        with self.settled():
            self.make(2)
        self.startup_seconds = time.perf_counter() - start

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Implements :class:`Side`."""
        device = self.session.device
        with random_state_kept(device), settings_of(self.plan, device):
            yield

    def make(self, count: int) -> None:
        """Implements :class:`Side`."""
        session = self.session
        for _ in range(count):
            session.step_once(next(self.batches), session.step % session.task.num_steps)
            session.step += 1
        session.device.synchronize()

    def close(self) -> None:
        """Ends the worker processes."""
        self.batches.close()

    def _endless(self) -> Generator[Any, None, None]:
        session = self.session
        while True:
            yield from session.feed.batches(session.order.keys(0, session.task.num_steps))


class OneByOne:
    """A number of plain loops, of which one is trained after the other."""

    def __init__(self, tasks: Sequence[Task], device: Device) -> None:
        self.loops = [PlainLoop(task, device) for task in tasks]

    def settled(self) -> contextlib.AbstractContextManager[object]:
        """Implements :class:`Side`."""
        return self.loops[0].settled()

    def make(self, count: int) -> None:
        """Implements :class:`Side`, by steps of each."""
        for loop in self.loops:
            loop.make(count)

    def close(self) -> None:
        """Ends the loops."""
        for loop in self.loops:
            loop.close()


class Together:
    """The same tasks as one pack, with the seconds that its start takes."""

    def __init__(self, tasks: Sequence[Task], device: Device) -> None:
        start = time.perf_counter()
        members = [Member(number=number, task=task) for number, task in enumerate(tasks)]
        self.pack = Pack(members, device=device.name)
        self.make(1)
        self.startup_seconds = time.perf_counter() - start

    def settled(self) -> contextlib.AbstractContextManager[object]:
        """Implements :class:`Side`; a pack sees to its settings itself."""
        return contextlib.nullcontext()

    def make(self, count: int) -> None:
        """Implements :class:`Side`, by steps of each."""
        self.pack.advance({number: step + count for number, step in self.pack.steps.items()})


def changes_in_words(plan: Plan) -> str:
    """Puts the knobs in which a plan differs from plain eager PyTorch into words."""
    changes = plan.changes(Plan.baseline(plan.device))
    return ", ".join(f"{name}={value}" for name, (value, _) in changes.items()) or "plain eager"
