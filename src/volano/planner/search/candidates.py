"""The candidates: which plans a task and a device admit, and why the others are refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from volano.device import Device
from volano.errors import PlanError
from volano.plan import SEMANTICS, Plan, knobs_with, semantics_of, varies
from volano.plan.explanation import Refusal
from volano.planner.task_profile import TaskProfile
from volano.task import Task
from volano.training.graphs.gradient_graph import why_not_graph
from volano.training.prefix.feature_room import FeatureRoom
from volano.training.prefix.training_prefix import why_not_cached

# The knobs that the race decides; those of memory are in fit_memory.py, those of the feed in
# choose_feed.py.
RACED = knobs_with("raced")
# A type in which a small product is slower than this share of fp32's rate is not raced. A training
# may gain by its fewer bytes what the product loses, but not more.
_LEAST_SPEED = 0.7


@dataclass(frozen=True, kw_only=True)
class CandidateSpace:
    """The candidates of a task on a device.

    Attributes:
        base: plain eager, with the user's pins and the feed that was chosen.
        options: knob -> its admissible values, that of ``base`` first.
        refused: the other values, with the reasons.
    """

    base: Plan
    options: Mapping[str, tuple[Any, ...]]
    refused: tuple[Refusal, ...]

    @property
    def safe(self) -> Plan:
        """The ``base`` with the choices that need no measuring: memory kept, the update in one
        kernel, and what a frozen prefix computes kept, which was measured when it was found."""
        wanted = {"allocator": "keep", "optimizer": "fused", "prefix": "cached"}
        return self.base.pin(
            **{knob: value for knob, value in wanted.items() if value in self.options[knob]}
        )

    def is_trusted(self, plan: Plan) -> bool:
        """Checks whether a plan differs from ``base`` only in where data and memory lie and in
        torch's own implementations of the same update: there is nothing to check."""
        return set(self.base.changes(plan)) <= {"allocator", "optimizer"}

    def is_predicted(self, plan: Plan) -> bool:
        """Checks whether predictions speak of a plan: they know nothing of fewer threads than the
        others have."""
        return plan.threads == self.base.threads

    def plans(self) -> Iterator[Plan]:
        """Returns every combination, ``base`` first."""
        for values in itertools.product(*(self.options[knob] for knob in RACED)):
            plan = self.base.pin(**dict(zip(RACED, values, strict=True)))
            if plan.compile or plan.compile_mode == self.base.compile_mode:
                yield plan


def admissible(
    task: Task,
    profile: TaskProfile,
    base: Plan,
    *,
    pins: Mapping[str, Any],
    forbidden: Mapping[str, tuple[Any, ...]] | None = None,
    world_size: int = 1,
    budget: int | None = None,
) -> CandidateSpace:
    """Returns the candidates on top of ``base``, which holds the pins already.

    Raises:
        PlanError: a forbidden knob or value does not exist, or all values of a knob are forbidden.
    """
    forbidden = _known(forbidden or {}, base)
    limit = SEMANTICS.index(task.tolerance)
    options: dict[str, tuple[Any, ...]] = {}
    refused: list[Refusal] = []
    for knob in RACED:
        own = getattr(base, knob)
        values = [own]
        if own in forbidden.get(knob, ()):
            refused.append(Refusal(knob=knob, value=own, reason="forbidden by you"))
        shared = "ranks share the cores" if knob == "threads" and world_size > 1 else None
        plain = (getattr(Plan.baseline(base.device), knob), shared)
        alternatives = (
            _prefixes(task, base, profile, world_size, budget)
            if knob == "prefix"
            else _compile_modes(profile, options["compile"])
            if knob == "compile_mode"
            else _alternatives(knob, base, profile, world_size)
        )
        for value, reason in (plain, *alternatives):
            if value == own:
                continue
            if knob in pins:
                reason = f"pinned to {_worded(own)}"
            elif value in forbidden.get(knob, ()):
                reason = "forbidden by you"
            elif base.deterministic and varies(knob, value):
                reason = "equal runs may differ under it, and the plan is to be deterministic"
            elif SEMANTICS.index(semantics_of(knob)) > limit:
                reason = f"the task's tolerance is {task.tolerance!r}"
            if reason is None:
                values.append(value)
            else:
                refused.append(Refusal(knob=knob, value=value, reason=reason))
        options[knob] = _not_forbidden(knob, values, forbidden.get(knob, ()))
    return CandidateSpace(
        base=base.pin(**{knob: values[0] for knob, values in options.items()}),
        options=options,
        refused=tuple(refused),
    )


def _known(forbidden: Mapping[str, tuple[Any, ...]], base: Plan) -> Mapping[str, tuple[Any, ...]]:
    for knob, values in forbidden.items():
        for value in values:
            base.pin(**{knob: value})  # raises for an unknown knob and for an invalid value
    return forbidden


def _not_forbidden(knob: str, values: list[Any], forbidden: tuple[Any, ...]) -> tuple[Any, ...]:
    kept = tuple(value for value in values if value not in forbidden)
    if not kept:
        raise PlanError(
            f"At least one value of {knob} must be left",
            got=f"forbidden: {', '.join(map(_worded, forbidden))}",
            remedy="Forbid fewer",
        )
    return kept


def _alternatives(
    knob: str, base: Plan, profile: TaskProfile, world_size: int
) -> Iterator[tuple[Any, str | None]]:
    """Returns the values of a knob, each with the reason why this task on this device does not take
    it, or None."""
    device = profile.device
    if knob == "allocator":
        missing = None if profile.can_keep_memory else "the C library here has no such setting"
        yield "keep", missing
        yield "return", missing or "it is for what does not fit otherwise"
    elif knob == "optimizer":
        yield "fused", profile.why_not_fused
        plain = "torch takes it by itself if it pays"
        plain = "as_given is one loop on the CPU as well" if device.is_cpu else plain
        yield "foreach", profile.why_not_foreach or plain
    elif knob == "memory_format":
        reason = None if profile.has_images else "no parameter has four dimensions"
        if base.sharding != "none":
            reason = "parameters that are cut into parts lie in one piece"
        yield "channels_last", reason
    elif knob == "precision":
        yield from _precisions(profile)
    elif knob == "compile":
        several = _why_not_compiled_by_ranks(base, profile) if world_size > 1 else None
        yield True, profile.why_not_compile or several
    elif knob == "conv_benchmark":
        yield True, _why_not_benchmarked(profile)
    elif knob == "graph" and (device.has_graphs or not device.is_cpu):
        yield True, why_not_graph(base, device, are_several=world_size > 1)
    elif knob == "threads":
        yield from _threads(device, profile, world_size)


def _precisions(profile: TaskProfile) -> Iterator[tuple[str, str | None]]:
    device = profile.device
    able = [name for name in ("fp32", "tf32", "bf16", "fp16") if device.supports(name)]
    for value in ("tf32", "bf16", "fp16"):
        reason = None
        if value not in able:
            reason = f"{device.name} computes in {', '.join(able)}"
        elif value == "bf16" and not device.has_bf16_units:
            reason = (
                f"{device.name} has no units for it, and is many times slower in it than in fp32"
            )
        elif value == "bf16" and profile.bf16_speed < _LEAST_SPEED:
            reason = (
                f"a small product in it runs at {profile.bf16_speed:.2g} times the rate of fp32"
            )
        elif value == "fp16" and "bf16" in able and device.has_bf16_units:
            reason = "bf16 is as fast, and its range needs no scaling of the loss"
        yield value, reason


def _why_not_compiled_by_ranks(base: Plan, profile: TaskProfile) -> str | None:
    """Returns why ranks that train together do not compile. Each compiles in its first step what
    one process alone can time and check; it cannot check what they exchange within a pass."""
    if base.sharding != "none":
        return "parts of parameters are gathered in the middle of what would be compiled"
    if profile.shares_statistics:
        return "statistics of batches are exchanged in the middle of what would be compiled"
    return None


def _why_not_benchmarked(profile: TaskProfile) -> str | None:
    if not profile.device.can_benchmark_convolutions:
        return f"{profile.device.name} has no library that times its convolutions"
    if not profile.has_convolutions:
        return "the model has no convolutions"
    return None if profile.has_one_shape else "batches differ in shape, and each would be timed"


def _compile_modes(
    profile: TaskProfile, compiles: tuple[bool, ...]
) -> Iterator[tuple[str, str | None]]:
    nothing = None if True in compiles else "nothing is compiled"
    repeats = None if profile.num_repeats > 1 else "no blocks of the model are built alike"
    yield "blocks", nothing or repeats
    triton = f"{profile.device.name} has no kernels that could be timed for it"
    yield "max-autotune", nothing or (None if profile.device.can_autotune_kernels else triton)


def _prefixes(
    task: Task, base: Plan, profile: TaskProfile, world_size: int, budget: int | None
) -> Iterator[tuple[str, str | None]]:
    facts = profile.prefix
    if isinstance(facts, str):
        yield "cached", facts
        return
    room = FeatureRoom.of(profile.device, budget)
    no_room = room.why_not(facts.row_bytes, len(task.data), facts.computing)
    yield "cached", why_not_cached(task, base, world_size) or no_room


def _threads(
    device: Device, profile: TaskProfile, world_size: int
) -> Iterator[tuple[int, str | None]]:
    if not device.is_cpu or world_size > 1:  # ranks share the cores already
        return
    count = profile.num_threads // 2
    while count >= 1:
        yield count, None
        count //= 2


def _worded(value: Any) -> str:
    return {None: "torch's own", True: "on", False: "off"}.get(value, str(value))
