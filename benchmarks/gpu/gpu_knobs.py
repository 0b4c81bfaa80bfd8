"""What each knob with a start-up of its own saves of a step, beside what is expected of it before
it is tried (planner/search/gains.py)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from volano import Plan, Task
from volano.planner.cost_model import CostModel
from volano.planner.search.gains import autotune_gain, benchmark_gain, compile_gain
from volano.planner.task_profile import profile_task
from volano.training import measure_step_time

if TYPE_CHECKING:
    from gpu_stages import Stage

_KNOBS: dict[str, dict[str, Any]] = {
    "graph": {"graph": True},
    "convolutions benchmarked": {"conv_benchmark": True},
    "recomputed": {"recompute": "blocks"},
    "offloaded": {"offload": "all"},
}
_COMPILED: dict[str, dict[str, Any]] = {
    "compiled": {"compile": True},
    "blocks compiled": {"compile": True, "compile_mode": "blocks"},
    "compiled, graph": {"compile": True, "graph": True},
    "autotuned": {"compile": True, "compile_mode": "max-autotune"},
}


def each_knob(stage: Stage) -> None:
    """Each knob alone on top of bf16 and the fused update."""
    small = stage.tasks.small  # whose steps end before anything is compiled
    for make in (stage.tasks.gpt, stage.tasks.resnet):
        task = make(steps=40 if small else 2000)
        plan = stage.fused.pin(precision="bf16")
        if task.name == "resnet":
            plan = plan.pin(memory_format="channels_last")
        base = _measured(stage, task, "plain", plan, None)
        if base is None:
            continue
        _expected(stage, task, plan)
        for name, values in (_KNOBS if small else {**_KNOBS, **_COMPILED}).items():
            _measured(stage, task, name, plan.pin(**values), base)


def _measured(stage: Stage, task: Task, name: str, plan: Plan, base: float | None) -> float | None:
    """Writes the seconds of a step, and the share that it saves."""
    found = None
    with stage.results.check(f"{task.name} {name}", 60):
        times = measure_step_time(task, plan, seconds=0.2 if stage.tasks.small else 1.0)
        found = times.step
        stage.results.emit(
            f"{task.name} {name}", **dataclasses.asdict(times),
            saves=None if base is None else 1.0 - found / base,
        )  # fmt: skip
        stage.device.release_memory()
    return found


def _expected(stage: Stage, task: Task, plan: Plan) -> None:
    with stage.results.check(f"{task.name} expected", 30):
        cost_model = CostModel(task, profile_task(task, stage.device), budget=None)
        cost_model.is_asked = True
        stage.results.emit(
            f"{task.name} expected",
            compiled=compile_gain(cost_model, plan, is_cpu=stage.device.is_cpu),
            autotuned=autotune_gain(cost_model, plan),
            convolutions_benchmarked=benchmark_gain(cost_model, plan),
        )
