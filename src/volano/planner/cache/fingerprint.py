"""The fingerprint by which a plan is found again: the task's structure, its code and shapes, the
device, the versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from volano.device import describe_machine, versions
from volano.plan import Plan
from volano.planner.task_profile import TaskProfile
from volano.task import Task, map_tensors
from volano.task.code_digest import code_digest


def fingerprint(
    task: Task,
    profile: TaskProfile,
    base: Plan,
    *,
    pins: Iterable[str],
    forbidden: Mapping[str, Any],
    budget: int | None,
    world_size: int,
) -> str:
    """Returns 32 hexadecimal digits that are equal for runs that would be planned alike.

    Learning rates, seeds, the content of the data and the length of the run are not part of it:
    none of them changes what a step costs. The code that the task names is, that of the model's own
    classes, and what they read and call.
    """
    machine = describe_machine(profile.device)
    text = {
        "structure": profile.structure,
        "batch": _signature(profile.batch),
        "code": [code_digest(getattr(task, name)) for name in ("objective", "augment", "collate")],
        "task": [
            task.batch_size,
            task.clip_norm is None,
            task.ema_decay is None,
            task.last_batch,
            task.tolerance,
        ],
        # The feed was chosen now, partly by measuring. If it takes part of a budget, it belongs to
        # the fingerprint.
        "base": {**base.to_json(), "feed": None if budget is None else base.feed, "workers": None},
        "data": None if budget is None else profile.resident_bytes,
        # The pins' values stand in the base; a knob that is pinned to its usual value has no other
        # values.
        "pins": sorted(set(pins) - {"feed", "workers"}),
        "forbidden": {knob: list(values) for knob, values in sorted(forbidden.items())},
        "budget": budget,
        "world_size": world_size,
        "device": [
            machine.device_name,
            machine.device_memory,
            machine.num_cores,
            machine.num_threads,
        ],
        "versions": {name: versions()[name] for name in ("torch", "volano")},
    }
    return hashlib.sha256(json.dumps(text, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _signature(batch: Any) -> str:
    def word(tensor: Tensor) -> str:
        return f"{tuple(tensor.shape)} {tensor.dtype}"

    return repr(map_tensors(word, batch))
