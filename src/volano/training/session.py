"""A task made ready to run under a plan: the few objects that live and change."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from volano.data import ORDER_VERSION, Fault, Feed, Key, Order, Quarantine, make_feed
from volano.device import Device, Ranks, random_state_kept
from volano.errors import CheckpointError, PlanError
from volano.plan import SEMANTICS, Plan, semantics_of
from volano.record.json_values import mapping
from volano.task import Task, describe, differences, num_bytes
from volano.task.calls import make_model, preview_of
from volano.task.code_digest import code_of
from volano.training.checkpoints import shards
from volano.training.checkpoints.best_weights import BestWeights
from volano.training.distributed.data_parallel import (
    DataParallel,
    check_own_device,
    check_ranks,
    resharded,
    shard,
    whole_state,
)
from volano.training.evaluate import evaluate, modes_kept
from volano.training.memory.activations import Activations
from volano.training.memory.offload import offloaded_state
from volano.training.memory.out_of_memory import MaySplit, OutOfMemoryFallback
from volano.training.optim.make_optimizer import set_mode
from volano.training.prefix.training_prefix import evaluated_with_prefix, training_prefix
from volano.training.state import make_state
from volano.training.step import Step, takes_whole_batch


class Session:
    """The model, optimizer, average, scaler and feed of a run, and the step at which they stand.

    Args:
        task: the task to train.
        plan: the plan under which it is trained.
        on_notice: the function that hears of every choice of the plan that does not apply; None
            is for sessions that are thrown away.
        on_fault: the function that hears of every corrupt example, with the name of its set:
            ``"data"`` or ``"valid"``.
        may_skip: whether training continues after a step whose numbers are not finite.
        ranks: the ranks with which this process trains together; None is alone.
        may_split: whether the loss of a batch is the sum over its parts, so that a step that runs
            out of memory may be done in smaller ones; see :class:`OutOfMemoryFallback`.

    Raises:
        TaskError: the model or the optimizer is not what the task promises.
        PlanError: the plan does not fit the task or the device.
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        *,
        on_notice: Callable[[str], None] | None = None,
        on_fault: Callable[[str, Fault], None] | None = None,
        may_skip: bool = False,
        ranks: Ranks | None = None,
        may_split: MaySplit = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        on_notice = on_notice or (lambda _: None)
        self.task, self.plan = task, plan
        self.device = device = Device(plan.device)
        check_plan(task, plan)
        check_ranks(task, plan, self.ranks.world_size)
        check_own_device(device, self.ranks)
        self.step = 0
        # Asked for at each step; a task works them out from its data each time.
        self.num_steps, self.evaluation_interval = task.num_steps, task.evaluation_interval
        self.seconds: dict[str, float] = {}
        self._phases: list[str] = []
        self._charged_until = time.perf_counter()
        self._on_fault, self._may_split = on_fault, may_split is True
        self.best = BestWeights(task.patience) if task.keep == "best" else None
        with self.phase("prepare"):
            average, parallel = self._prepare_model(on_notice)
            self.state = make_state(task, plan, device, self.model, average, on_notice=on_notice)
            self.optimizer = self.state.optimizer
            set_mode(self.optimizer, training=True)
            self.order = Order.of(task)
            self.feed = self._feed("data", task.data)
            self.valid_feed = None if task.valid is None else self._feed("valid", task.valid)
            self.activations = Activations(self.model, plan, device, on_notice)
            self.offloaded = offloaded_state(plan, self.optimizer, device, on_notice)
            world_size = self.ranks.world_size
            self.prefix = training_prefix(task, plan, device, self.model, world_size, on_notice)
            self._valid_objective = evaluated_with_prefix(task, self.model, device, self.prefix)
            self.step_once = Step(
                task, plan, device, self.state,
                may_skip=may_skip, parallel=parallel, activations=self.activations,
                offloaded=self.offloaded, prefix=self.prefix, relief=OutOfMemoryFallback(
                    self.activations.start_recomputing, may_split=may_split, ranks=world_size
                ),
            )  # fmt: skip
            for notice in self.step_once.without_effect:
                on_notice(notice)

    def _prepare_model(
        self, on_notice: Callable[[str], None]
    ) -> tuple[nn.Module | None, DataParallel | None]:
        """Makes the model on its device; returns the copy that is to be averaged, and what ranks do
        together."""
        task, plan, device = self.task, self.plan, self.device
        self.model = self.make_model(task)
        # Described before ranks replace parameters by parts, so that a run can be resumed by
        # any number of processes.
        self.description = describe(task, self.model)
        if not self._is_sharded:  # a sharded one may be larger than a device
            self.model.to(device.torch_device)
        if plan.memory_format == "channels_last":
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        # The average is copied before ranks replace the model's parameters by parts of them.
        average = None if task.ema_decay is None else copy.deepcopy(self.model)
        if not self.ranks.are_several:
            if plan.sharding != "none":
                on_notice(f"sharding={plan.sharding} has no effect: there is one process")
            return average, None
        parallel = DataParallel(self.model, plan.sharding, device, self.ranks)
        if average is not None and self._is_sharded:
            shard(average, device, self.ranks, plan.sharding)
        return average, parallel

    make_model = staticmethod(make_model)

    @property
    def kept_model(self) -> nn.Module:
        """The model that is evaluated and kept: the average if there is one."""
        return self.state.kept_model

    def evaluate(self) -> dict[str, float]:
        """Returns loss and metrics of the validation set."""
        assert self.valid_feed is not None
        task = self.task
        if self._valid_objective is not None and self.prefix is not None and self.prefix.is_on:
            task = dataclasses.replace(task, objective=self._valid_objective)
        with self._weights_to_evaluate():
            return evaluate(
                task, self.kept_model, self.task.valid, self.valid_feed, self.device,
                precision=self.plan.precision, micro_batch=self._evaluated_together(),
                may_split=self._may_split and not self._is_sharded, ranks=self.ranks,
            )  # fmt: skip

    @contextmanager
    def _weights_to_evaluate(self) -> Iterator[None]:
        """A context in which the kept model has the weights that are evaluated; nothing of it is
        left in the training that follows."""
        set_mode(self.optimizer, training=False)
        try:
            yield
        finally:
            resharded(self.kept_model)
            set_mode(self.optimizer, training=True)

    @property
    def _is_sharded(self) -> bool:
        return self.ranks.are_several and self.plan.sharding != "none"

    def _evaluated_together(self) -> int | None:
        """Returns the examples of a forward pass in evaluation: not more than in training, if
        batches may be split."""
        if not self.ranks.are_several:
            return self.plan.micro_batch
        if self._is_sharded or not self._may_split:
            return None
        return self.plan.micro_batch or max(1, self.task.batch_size // self.ranks.world_size)

    def keys(self) -> Iterator[Key]:
        """Yields the keys that this process fetches from here to the end of the run: its part of
        each global batch, or all of it if ``augment`` needs the whole batch."""
        ranks = Ranks() if takes_whole_batch(self.task) else self.ranks
        return self.order.keys(
            self.step, self.num_steps, rank=ranks.rank, world_size=ranks.world_size
        )

    def gathered(self) -> nn.Module:
        """The kept model with whole parameters, after the last step. Every rank of a sharded model
        takes part; the first has it then, on the host, and the others keep their parts."""
        set_mode(self.optimizer, training=False)
        if self.best is not None:
            self.best.put_into(self.kept_model)
        if not self._is_sharded:
            return self.kept_model
        state = whole_state(self.kept_model, is_kept=self.ranks.is_first)
        if not self.ranks.is_first:
            return self.kept_model
        model = self.make_model(self.task)
        model.load_state_dict(state)
        return model

    def placed(self, model: nn.Module) -> nn.Module:
        """Moves a gathered model to the device, if that has room for it: there it is tested."""
        if not self._is_sharded or not self.ranks.is_first:
            return model
        free = self.device.free_bytes()
        size = num_bytes([*model.parameters(), *model.buffers()])
        return model if free is not None and size > free else model.to(self.device.torch_device)

    def preview(self) -> dict[str, Any]:
        """Returns what the task's ``preview`` makes of the kept model. Modes and random state are
        put back."""
        assert self.task.preview is not None
        model, precision = self.kept_model, self.plan.precision
        with (
            random_state_kept(self.device),
            modes_kept(model),
            self._weights_to_evaluate(),
            torch.no_grad(),
            self.device.autocast(precision),
        ):
            return preview_of(self.task, model.eval())

    def tell(self, on_notice: Callable[[str], None]) -> None:
        """Says who is to hear what happens to feeds and step from now on."""
        if self.step_once.graph is not None:
            self.step_once.graph.on_failure = on_notice
        for feed in (self.feed, self.valid_feed):
            if feed is not None:
                feed.on_notice = on_notice
        for prefix in (self.prefix, self._valid_objective and self._valid_objective.prefix):
            if prefix is not None:
                prefix.on_mapped = on_notice

    def set_num_steps(self, num_steps: int) -> None:
        """Gives the run another length from here on, with evaluations in proportion. Batches must
        be asked for again; the description stays that of the task with which it began."""
        every = max(1, -(-self.evaluation_interval * num_steps // self.num_steps))
        self.task = dataclasses.replace(
            self.task, duration=f"{num_steps}st", evaluate_every=f"{every}st"
        )
        self.num_steps, self.evaluation_interval = num_steps, every
        self.step_once.num_steps = num_steps

    def take_up_features(self) -> None:
        """Keeps again what the frozen prefix computed in the steps before this one: in the very
        batches in which each example came first, so that the bits are the same."""
        if self.prefix is None or not self.step:
            return
        with self.phase("prepare"):
            keys = self.order.first_keys(self.step)
            with contextlib.closing(self.feed.batches(keys)) as batches:
                for batch in batches:
                    self.step_once.learn(batch)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to ``seconds[name]``, without what phases inside it take."""
        self._charge()
        self._phases.append(name)
        try:
            yield
        finally:
            self._charge()
            self._phases.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._phases:
            current = self._phases[-1]
            self.seconds[current] = self.seconds.get(current, 0.0) + now - self._charged_until
        self._charged_until = now

    def state_dict(self) -> dict[str, Any]:
        """Returns all that changes while training, as tensors and plain values."""
        # Copies to the host may still be under way.
        if self.offloaded is not None:
            self.device.synchronize()
        return {
            "step": self.step,
            "task_digest": self.description["digest"],
            "plan": self.plan.to_json(),
            "order_version": ORDER_VERSION,
            **self.state.state_dict(),
            **({} if self.best is None else {"best": self.best.state_dict()}),
            "rng": self.device.rng_state(),
        }

    def load_state_dict(
        self, state: dict[str, Any], description: dict[str, Any], folder: Path
    ) -> None:
        """Continues where :meth:`state_dict` was called; ``description`` is the earlier run's
        ``task.json``, ``folder`` that of the checkpoint.

        Raises:
            CheckpointError: it belongs to another task, or to another version of the order.
        """
        self.check_same_task(state["task_digest"], description)
        if state["order_version"] != ORDER_VERSION:
            raise CheckpointError(
                f"A checkpoint's order of examples must be of version {ORDER_VERSION}",
                got=state["order_version"],
            )
        state = shards.put_back(state, folder, self.state.template)
        self.step = state["step"]
        self.state.load_state_dict(state)
        if self.best is not None:
            self.best.load_state_dict(state["best"])
        # The optimizer has loaded its state onto the device.
        if self.offloaded is not None:
            self.offloaded.put_away()
        # Last: what is drawn from here on is what the earlier run would have drawn.
        self.device.set_rng_state(state["rng"])

    @staticmethod
    def describe(task: Task) -> dict[str, Any]:
        """Returns the content of ``task.json``."""
        return describe(task, make_model(task))

    def check_same_task(self, digest: Any, description: dict[str, Any]) -> None:
        """Raises CheckpointError when the run was begun with another task than this session's."""
        if digest != self.description["digest"]:
            mine = {**self.description, "code": self.code_as_in(description)}
            changed = differences(mine, description)
            # The run was described by a version that kept its own functions in other modules, or
            # that digested code by another rule, by which nothing has changed: checkpoints of a run
            # that was resumed since hold this version's digest, its description does not.
            form = mapping(description.get("code")).get("form")
            is_earlier = form != self.description["code"]["form"]
            if not changed and (is_earlier or digest == description.get("digest")):
                return
            raise CheckpointError(
                "A resumed run must have the task with which it began",
                got="now != then: " + ("; ".join(changed) or "another digest"),
                remedy="Put back what changed, or start again with volano train; code that you "
                "changed on purpose is taken with `accept` and its name",
            )

    def code_as_in(self, description: dict[str, Any]) -> dict[str, str | None]:
        """Returns the digests of the task's code by the rule of another description of it."""
        form = mapping(description.get("code")).get("form")
        if form == self.description["code"]["form"]:
            return self.description["code"]
        with random_state_kept(self.device):
            return code_of(self.task, self.make_model(self.task), form)

    def _feed(self, name: str, data: Any) -> Feed:
        on_fault = None if self._on_fault is None else functools.partial(self._on_fault, name)
        return make_feed(
            data,
            self.task.collate,
            self.device,
            feed=self.plan.feed,
            workers=self.plan.workers,
            prefetch=self.plan.prefetch,
            seed=self.task.order_seed,
            quarantine=Quarantine(len(data), on_fault),
        )


def check_plan(task: Task, plan: Plan) -> None:
    """Raises PlanError when the plan does not fit the task or the device."""
    Device(plan.device).check_precision(plan.precision)
    if plan.micro_batch is not None and plan.micro_batch > task.batch_size:
        raise PlanError(
            "A micro-batch must be a part of the batch",
            got=f"micro_batch={plan.micro_batch} with batch_size={task.batch_size}",
            remedy="Pin a smaller one",
        )
    if task.keep == "best" and plan.sharding == "full":
        raise PlanError(
            "The best weights must be whole on each process to be kept",
            got="sharding='full' with keep='best'",
            remedy="Pin sharding='none', or keep 'last'",
        )
    limit = SEMANTICS.index(task.tolerance)
    for name, (value, _) in plan.changes(plan.plain).items():
        if SEMANTICS.index(semantics_of(name)) > limit:
            raise PlanError(
                f"A plan's knobs must keep to the task's tolerance, {task.tolerance!r}",
                got=f"{name}={value!r}, which is of class {semantics_of(name)!r}",
                remedy="Widen the task's tolerance, or do not pin it",
            )
