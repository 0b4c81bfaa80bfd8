"""Plans for many devices that are not here: what fits, how fast it is, what the exchanges take,
and what is cheapest. The task's global batch stays as it is; the devices share it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch

from volano.device import AbsentDevice, Device
from volano.device.isolated import IsolatedError
from volano.device.torch_private import AnyBatchNorm
from volano.errors import PlanError, UsageError
from volano.plan import SEMANTICS, Plan, semantics_of
from volano.plan.cluster import ClusterCandidate, ClusterExplanation
from volano.planner.cluster.cluster_spec import MOST_DEVICES, ClusterSpec
from volano.planner.cluster.sharded_step import (
    GatherUnits,
    predict_exchanges,
    shard_memory,
    shard_time,
)
from volano.planner.cluster.step_costs import CostsByMicroBatch, StepCosts
from volano.planner.memory.predict import Prediction, predict_memory, verdict
from volano.planner.memory.trace_step import model_without_values
from volano.planner.offline import budget_of
from volano.planner.parity.guard import ParityGuard
from volano.planner.request import PlanRequest
from volano.planner.search.candidates import admissible
from volano.planner.search.fit_memory import why_whole_batch
from volano.planner.task_profile import profile_task
from volano.planner.time.roofline import Rates
from volano.task import Task, split, tensors_of

# What the exchanges of several ranks keep for themselves (NCCL's channels and their buffers).
_COMMUNICATOR_BYTES = 2**30
# A batch of fewer operations is computed here, to see whether its loss is a sum over parts: seconds
# on a core. A model of more bytes is not built here at all.
_LOOKED_AT_FLOPS, _LOOKED_AT_BYTES = 1e11, 256 * 2**20
_SHARDINGS = ("none", "hybrid", "full")


def explain_cluster(
    task: Task, text: str, request: PlanRequest, *, nodes: int | None = None
) -> ClusterExplanation:
    """Returns how a task would train on ``text`` (``"H100 x 64"``), on ``nodes`` machines.

    Raises:
        UsageError: the catalogue has no such device or machine, or the devices do not divide the
            batch.
        PlanError: a pin is not a knob or a value of one, or the step cannot be predicted.
    """
    return _OnCluster(task, ClusterSpec.parse(text, nodes), request).explanation()


class _OnCluster:
    """The search for one cluster."""

    def __init__(self, task: Task, spec: ClusterSpec, request: PlanRequest) -> None:
        self._started = time.perf_counter()
        if task.batch_size % spec.world_size:
            raise UsageError(
                "The number of devices must divide the batch, which they share",
                got=f"{spec.world_size:,} devices and batch_size={task.batch_size:,}",
                remedy=f"Take {_nearest(task.batch_size, spec.world_size)} devices, or give the "
                "task another batch_size",
            )
        self._task, self._spec, self._request = task, spec, request
        self._budget, self._notices = budget_of(spec.device_text, spec.device, request)
        self._rates = Rates.of_known(spec.device)
        self._look_at_model()
        self._plan = self._base_plan()
        self._costs: dict[str, CostsByMicroBatch] = {}
        self._example_flops = 0.0
        self._may_split = self._splits()

    def _look_at_model(self) -> None:
        """Profiles the task without memory for its model, which may be larger than this machine."""
        model = model_without_values(self._task)
        here = profile_task(self._task, Device("cpu"), model=model)
        self._profile = dataclasses.replace(
            here, device=AbsentDevice(self._spec.device), bf16_speed=1.0, why_not_compile=None
        )
        self._has_batch_statistics = any(isinstance(m, AnyBatchNorm) for m in model.modules())
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._gradient_bytes = sum(p.numel() * p.element_size() for p in trained.values())
        self._units = GatherUnits.of_blocks(
            {name: p.numel() for name, p in model.named_parameters()}, self._profile.blocks
        )

    def _base_plan(self) -> Plan:
        """Returns the knobs that are the same for every candidate: the fastest precision, an update
        in one kernel, nothing compiled, as ranks run it."""
        pins = self._request.pins
        base = Plan.baseline(self._spec.device.torch_type).pin(**pins)
        if "feed" not in pins:
            is_resident = self._profile.resident_bytes is not None
            base = base.pin(feed="resident" if is_resident else "ring")
        space = admissible(
            self._task, self._profile, base, pins=pins, forbidden=self._request.forbid,
            world_size=self._spec.world_size,
        )  # fmt: skip
        rates = self._spec.device.flops
        precision = max(space.options["precision"], key=lambda name: rates.get(name, 0.0))
        wanted = {"allocator": "system"} if "allocator" not in pins else {}
        return space.safe.pin(precision=precision, **wanted)

    def _splits(self) -> bool:
        """Returns whether a rank's part of the batch may be cut into micro-batches."""
        if why_whole_batch(self._task, self._request.pins) is not None:
            return False
        self._costs_of("none").at(1)
        flops = self._example_flops * self._task.batch_size
        if flops > _LOOKED_AT_FLOPS or self._profile.parameter_bytes > _LOOKED_AT_BYTES:
            is_sum = not self._has_batch_statistics
            self._notices.append(
                "The loss of a batch is taken to be the sum over its examples, so that it may be "
                "cut into micro-batches: it is too large to look here"
                if is_sum
                else "The batch stays whole: the model takes statistics of it"
            )
            return is_sum
        return ParityGuard(self._task, Device("cpu"), lambda: 10.0).divisible.yes

    # ---- candidates

    def explanation(self) -> ClusterExplanation:
        """Returns the explanation for the devices asked for, and the curve over others."""
        spec, found = self._spec, sorted(self._ways(self._spec.world_size), key=_preference)
        return ClusterExplanation(
            task=self._task.name,
            device_name=spec.device.name,
            machine=spec.machine.name,
            world_size=spec.world_size,
            num_nodes=spec.world_size // spec.per_node,
            per_node=spec.per_node,
            interconnect=spec.interconnect,
            network=spec.layout(spec.world_size).network,
            sources=(spec.device.source, spec.machine.source),
            budget=self._budget,
            num_steps=self._task.num_steps,
            num_examples=self._task.batch_size,
            candidates=tuple(found),
            curve=tuple(
                min(self._ways(count), key=_preference) for count in sorted(set(self._counts()))
            ),
            planning_seconds=time.perf_counter() - self._started,
            notices=tuple(self._notices),
        )

    def _counts(self) -> Iterator[int]:
        """Yields numbers of devices that divide the batch and fill machines: powers of two."""
        yield self._spec.world_size
        count, most = 1, min(self._task.batch_size, MOST_DEVICES)
        while count <= most:
            fills = count <= self._spec.per_node or count % self._spec.per_node == 0
            if self._task.batch_size % count == 0 and fills:
                yield count
            count *= 2

    def _ways(self, world_size: int) -> Iterator[ClusterCandidate]:
        """Yields, for each sharding that the task admits, its best candidate."""
        layout = self._spec.layout(world_size)
        for sharding in _SHARDINGS:
            is_useful = {
                "none": True,
                "hybrid": 1 < layout.per_node < world_size,
                "full": world_size > 1,
            }
            if is_useful[sharding] and self._admits("sharding", sharding):
                yield min(self._of_sharding(world_size, sharding), key=_preference)

    def _of_sharding(self, world_size: int, sharding: str) -> Iterator[ClusterCandidate]:
        part = self._task.batch_size // world_size
        for recompute in self._recomputes:
            for size in self._micro_batches(part):
                yield self._candidate(world_size, sharding, recompute, size)

    @cached_property
    def _recomputes(self) -> tuple[str, ...]:
        """The values of ``recompute`` that are admitted and can be predicted."""
        if not (self._profile.blocks and self._admits("recompute", "blocks")):
            return ("none",)
        others = ("none",) if self._admits("recompute", "none") else ()
        try:
            self._costs_of("blocks").at(1)
        except PlanError as error:
            if not others:
                raise
            self._notices.append(f"recompute=blocks is left out: {error.got}")
            return others
        return (*others, "blocks")

    def _micro_batches(self, part: int) -> Iterator[int]:
        pinned = self._request.pins.get("micro_batch")
        if pinned is not None or not self._may_split:
            yield min(part, pinned or part)
            return
        size = part
        while size >= 1:
            yield size
            size = -(-size // 2) if size > 1 else 0

    def _admits(self, knob: str, value: str) -> bool:
        request = self._request
        if knob in request.pins:
            return request.pins[knob] == value
        usual = getattr(Plan(), knob)
        allowed = SEMANTICS.index(semantics_of(knob)) <= SEMANTICS.index(self._task.tolerance)
        return value not in request.forbid.get(knob, ()) and (allowed or value == usual)

    def _candidate(
        self, world_size: int, sharding: str, recompute: str, size: int
    ) -> ClusterCandidate:
        part, layout = self._task.batch_size // world_size, self._spec.layout(world_size)
        passes, costs = -(-part // size), self._costs_of(recompute).at(size)
        alone = costs.step(passes, layout.num_shards(sharding))
        step = shard_time(alone, self._units, layout, passes=passes, sharding=sharding)
        memory = shard_memory(costs.memory, self._units, layout, sharding)
        if world_size > 1:
            memory = dataclasses.replace(memory, upper=memory.upper + _COMMUNICATOR_BYTES)
        rate = self._task.batch_size / step.step
        tokens = self._tokens_per_example()
        knobs: dict[str, Any] = {
            "sharding": sharding if world_size > 1 else "none",
            "recompute": recompute,
            "micro_batch": None if size == part else size,
        }
        return ClusterCandidate(
            plan=self._plan.pin(**knobs),
            world_size=world_size,
            passes=passes,
            time=step,
            exchanges=predict_exchanges(self._units, layout, passes=passes, sharding=sharding),
            memory=memory,
            verdict=verdict(Prediction(memory=memory, target="accelerator"), self._budget),
            examples_per_second=rate,
            tokens_per_second=None if tokens is None else rate * tokens,
            device_hours=world_size * (step.step * self._task.num_steps / 3600),
        )

    def _tokens_per_example(self) -> float | None:
        """Returns the indices of an example, if the batch is a table of them."""
        tables = [
            tensor
            for tensor in tensors_of(self._profile.batch)
            if tensor.ndim == 2 and not (tensor.is_floating_point() or tensor.dtype == torch.uint8)
        ]
        return max((tensor.shape[1] for tensor in tables), default=None)

    # ---- captures

    def _costs_of(self, recompute: str) -> CostsByMicroBatch:
        if recompute not in self._costs:
            batch_size = self._task.batch_size
            sizes = {1, batch_size // self._spec.world_size, batch_size}
            self._costs[recompute] = CostsByMicroBatch(
                lambda size: self._captured(recompute, size), tuple(sizes)
            )
        return self._costs[recompute]

    def _captured(self, recompute: str, size: int) -> StepCosts:
        plan = self._plan.pin(recompute=recompute, micro_batch=None, compile=False)
        try:
            found = self._predicted(plan, size)
        except IsolatedError as error:
            raise PlanError(
                "A training on a cluster must have a step that can be predicted", got=error.reason
            ) from error
        return StepCosts.of_captured(found, plan, self._rates, self._gradient_bytes)

    def _predicted(self, plan: Plan, size: int) -> Prediction:
        try:
            part = split(self._profile.batch, size)[0]
            found = predict_memory(self._task, plan, target="accelerator", batch=part)
        except IsolatedError:
            # One example alone has no statistics of a batch; what two take is more.
            if size > 1 or self._task.batch_size == 1:
                raise
            return self._predicted(plan, 2)
        self._example_flops = sum(one.flops * one.count for one in found.operations) / size
        return found


def _nearest(batch_size: int, wanted: int) -> str:
    divisors = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
    near = sorted(sorted(divisors, key=lambda count: abs(count - wanted))[:3])
    return " or ".join(f"{count:,}" for count in near)


def _preference(candidate: ClusterCandidate) -> tuple[int, float]:
    """Returns the sort key: candidates that fit by their time, the others by their memory."""
    order = {"FITS": 0, "UNCERTAIN": 1, "NO": 2}[candidate.verdict]
    return order, candidate.time.step if order == 0 else float(candidate.memory.peak)
