"""The stages of the accelerator's check, in the order of their value."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import volano
from gpu_knobs import each_knob
from gpu_results import Results
from gpu_tasks import GpuTasks, cross_entropy, perceptron, weights
from volano import Plan, Task
from volano.device import (
    Device,
    describe_machine,
    measure_kernels,
    measure_limits,
    num_cores,
    versions,
)
from volano.training import measure_step_time


class Notes(volano.Observer):
    """Keeps what a run says, and may ask it to stop."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.logs: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self._stop_at = stop_at

    def on_log(self, record: dict[str, Any]) -> None:
        self.logs.append(record)
        if self._stop_at is not None and record["step"] >= self._stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_notice(self, text: str) -> None:
        self.notices.append(text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What the stages work with."""

    device: Device
    tasks: GpuTasks
    results: Results

    @property
    def plan(self) -> Plan:
        return Plan.baseline(self.device.name)

    @property
    def fused(self) -> Plan:
        return self.plan.pin(optimizer="fused", feed="resident")

    def trained(self, task: Task, plan: Plan, notes: Notes | None = None) -> volano.Run:
        folder = Path(tempfile.mkdtemp()) / "run"
        return volano.train(task, plan=plan, out=folder, observer=notes or Notes())

    def peak(self) -> int | None:
        return self.device.memory().peak

    def reserved(self) -> int | None:
        """The bytes that the allocator has taken from the device, at most."""
        return None if self.device.is_cpu else torch.accelerator.max_memory_reserved()


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


# ---- what the machine is, and whether it computes


def machine(stage: Stage) -> None:
    device, results = stage.device, stage.results
    results.emit(
        "machine",
        **dataclasses.asdict(describe_machine(device)),
        versions=versions(),
        pins=device.can_pin,
        free_bytes=device.free_bytes(),
    )
    with results.check("capture before any backward pass"):
        from volano.planner.memory.predict import predict_memory

        target = "cpu" if device.is_cpu else "accelerator"
        found = predict_memory(stage.tasks.perceptron(), stage.plan, target=target)
        results.emit("capture before any backward pass", peak_bytes=found.memory.peak)
    with results.check("limits", 30):
        results.emit("limits", **dataclasses.asdict(measure_limits(device)))
    with results.check("kernels", 30):
        results.emit("kernels", **measure_kernels(device))
    with results.check("pages locked twice", 20):
        memory = torch.zeros(1 << 20, dtype=torch.uint8)
        locked = [device.lock_pages(memory) for _ in range(2)]
        # The error of the second time must not be met by the next kernel.
        total = (torch.ones(8, device=device.torch_device) + 1).sum().item()
        results.emit("pages locked twice", locked=locked, total=total)
        if locked[0]:
            device.unlock_pages(memory)


def arithmetic(stage: Stage) -> None:
    """Each kind of plan against the CPU's weights; precisions, non-finite numbers, bf16 models."""
    results, there = stage.results, stage.plan
    base = stage.tasks.perceptron(steps=30 if stage.tasks.small else 120)
    wanted = weights(stage.trained(base, Plan.baseline("cpu")))
    variants: dict[str, dict[str, Any]] = {
        "resident": {"feed": "resident"},
        "ring": {"feed": "ring"},
        "micro": {"micro_batch": 24},
        "fused": {"optimizer": "fused", "feed": "resident"},
        "foreach": {"optimizer": "foreach"},
        "tf32": {"precision": "tf32"},
        "bf16": {"precision": "bf16"},
        "fp16": {"precision": "fp16", "optimizer": "fused"},
    }
    for name, knobs in variants.items():
        if not stage.device.supports(knobs.get("precision", "fp32")):
            continue
        with results.check(f"train {name}", 40):
            run = stage.trained(base, there.pin(**knobs))
            results.emit(f"train {name}", difference=difference(weights(run), wanted))
    _unusual_types(stage, base)
    for optimizer in ("fused", "foreach"):
        with results.check(f"no number at step 20, {optimizer}", 40):
            results.emit(
                f"no number at step 20, {optimizer}",
                raised=_raised(stage, base, there.pin(optimizer=optimizer, feed="resident")),
            )
    with results.check("fp32 convolution", 20):
        place = stage.device.torch_device
        layer, images = nn.Conv2d(64, 64, 3, padding=1), torch.randn(8, 64, 32, 32)
        exact = F.conv2d(
            images.double(),
            layer.weight.double(),
            layer.bias.double(),
            padding=1,  # pyright: ignore
        )
        with stage.device.settings(precision="fp32"), torch.no_grad():
            found = layer.to(place)(images.to(place)).cpu().double()
        results.emit("fp32 convolution", error=difference(found, exact))


def _unusual_types(stage: Stage, base: Task) -> None:
    def narrow(model: nn.Module, batch: Any) -> torch.Tensor:
        return F.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])

    def half_loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(batch[0]).square().mean()

    cases = {
        "a model in bf16": ({"model": lambda: perceptron().bfloat16(), "objective": narrow}, {}),
        "a loss in bf16": ({"objective": half_loss}, {"precision": "bf16"}),
    }
    for name, (fields, knobs) in cases.items():
        with stage.results.check(name, 30):
            stage.trained(dataclasses.replace(base, **fields), stage.plan.pin(**knobs))
            stage.results.emit(name, ran=True)


def _raised(stage: Stage, base: Task, plan: Plan) -> str | None:
    calls = 0

    def poisoned(model: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += model.training
        return cross_entropy(model, batch) * (float("nan") if calls == 20 else 1.0)

    try:
        stage.trained(dataclasses.replace(base, objective=poisoned), plan)
    except volano.VolanoError as error:
        return type(error).__name__
    return None


# ---- how fast


def speed(stage: Stage) -> None:
    """The planner's plan beside an expert's loop: autocast, fused, compiled, one graph."""
    from volano.planner import PlanRequest, find_plan

    for make in (stage.tasks.resnet, stage.tasks.gpt):
        task = make(steps=40 if stage.tasks.small else 2000)
        with stage.results.check(f"{task.name} planned", 150):
            started = time.perf_counter()
            found = find_plan(
                task, PlanRequest(device=stage.device.name, seconds=3000.0, recalls=False)
            )
            planning = time.perf_counter() - started
            step = measure_step_time(task, found.plan, seconds=1.0).step
            stage.results.emit(
                f"{task.name} planned", plan=found.plan.to_json(), step_seconds=step,
                planning_seconds=planning, reasons=found.reasons,
            )  # fmt: skip
            experts = _experts(stage, task)
            best = min(experts.values(), default=None)
            stage.results.emit(
                f"{task.name} beside the expert", experts=experts, step_seconds=step,
                planned_over_expert=None if best is None else best / step,
            )  # fmt: skip


def _experts(stage: Stage, task: Task) -> dict[str, float]:
    """Seconds of a step of loops that a person tunes by hand."""
    choices: dict[str, dict[str, Any]] = {"eager fp32": {"precision": "fp32"}, "bf16": {}}
    if not stage.tasks.small:
        choices["bf16, compiled"] = {"compiled": "default"}
    if not stage.device.is_cpu:
        choices["bf16, compiled, graphs"] = {"compiled": "reduce-overhead"}
    found = {}
    for name, options in choices.items():
        with stage.results.check(f"{task.name} expert {name}", 90):
            step = _expert_step(stage.device, task, **options)
            found[name] = _seconds_of(stage.device, step, 0.2 if stage.tasks.small else 1.0)
    return found


def _expert_step(
    device: Device, task: Task, *, precision: str = "bf16", compiled: str | None = None
) -> Callable[[], None]:
    from volano.data import first_batches

    torch.manual_seed(0)
    place = device.torch_device
    batch = device.move(first_batches(task)[0])
    model = task.model().to(place)
    if task.name == "resnet":
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = task.optimizer(model.parameters())
    for group in optimizer.param_groups:
        group["fused"] = device.has_fused(type(optimizer))

    def loss_of(batch: Any) -> Any:
        with device.autocast(precision):
            return task.objective(model, batch)

    run: Any = loss_of if compiled is None else torch.compile(loss_of, mode=compiled)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        run(batch).backward()
        if task.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), task.clip_norm)
        optimizer.step()

    return step


def _seconds_of(device: Device, step: Callable[[], None], seconds: float) -> float:
    """Median seconds of a step, over blocks that are waited for once each."""
    for _ in range(3):
        step()
    device.synchronize()
    start = time.perf_counter()
    step()
    device.synchronize()
    count = max(1, int(0.15 / max(time.perf_counter() - start, 1e-5)))
    blocks, end = [], time.perf_counter() + seconds
    while not blocks or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(count):
            step()
        device.synchronize()
        blocks.append((time.perf_counter() - start) / count)
    return statistics.median(blocks)


# ---- memory


def memory(stage: Stage) -> None:
    """Predicted peaks beside measured ones, and beside what the allocator counts."""
    from volano.planner.memory.predict import measure, predict_memory

    plans = {"fp32": {}, "bf16": {"precision": "bf16"}}
    of_gpt = {
        "bf16 recompute": {"precision": "bf16", "recompute": "blocks"},
        "bf16 micro": {"precision": "bf16", "micro_batch": 1 if stage.tasks.small else 4},
    }
    for make, more in ((stage.tasks.gpt, of_gpt), (stage.tasks.resnet, {})):
        for name, knobs in {**plans, **more}.items():
            task, plan = make(), stage.fused.pin(**knobs)
            with stage.results.check(f"{task.name} {name}", 60):
                target = "cpu" if stage.device.is_cpu else "accelerator"
                predicted = predict_memory(task, plan, target=target).memory
                stage.device.release_memory()
                measured = measure(task, plan)
                stage.results.emit(
                    f"{task.name} {name}", predicted=predicted.peak, lower=predicted.lower,
                    upper=predicted.upper, measured=measured.peak, device_peak=stage.peak(),
                    device_reserved=stage.reserved(),
                    ratio=predicted.peak / max(1, measured.peak),
                )  # fmt: skip


def pressure(stage: Stage) -> None:
    """A budget that is kept to, planned and in the run."""
    task = stage.tasks.gpt(steps=5, batch=8 if stage.tasks.small else 64)
    budget = (1 if stage.tasks.small else 12) * 2**30
    with stage.results.check("a budget", 100):
        notes = Notes()
        run = volano.train(
            task, device=stage.device.name, budget=budget, observer=notes,
            out=Path(tempfile.mkdtemp()) / "run",
        )  # fmt: skip
        stage.results.emit(
            "a budget", plan=run.plan.to_json(), notices=notes.notices, budget=budget,
            device_peak=stage.peak(),
        )  # fmt: skip


# ---- packs, data, resuming, applications


def packs(stage: Stage) -> None:
    from volano.packing.member import Member
    from volano.packing.pack import Pack

    small = stage.tasks.small
    solo = measure_step_time(stage.tasks.perceptron(steps=20000), stage.fused, seconds=0.3).step
    for dropout in (0.0,) if small else (0.0, 0.1):
        for count in (8,) if small else (8, 32, 128):
            name = f"{count} members" + (", dropout" if dropout else "")
            with stage.results.check(name, 60):
                members = [
                    Member(
                        number=number,
                        task=stage.tasks.perceptron(
                            steps=20000, dropout=dropout, lr=1e-3 * (1 + number / count)
                        ),
                    )
                    for number in range(count)
                ]
                notices: list[str] = []
                pack = Pack(
                    members, device=stage.device.name, on_notice=notices.append,
                    engine="lowered" if small else None,
                )  # fmt: skip
                step = _pack_step(stage, pack)
                stage.results.emit(
                    name, engine=pack.engine, step_seconds=step, solo_seconds=solo,
                    times_solo=count * solo / step, notices=notices, refused=pack.refused,
                )  # fmt: skip
            with stage.results.check(f"{name}, each kernel launched", 60):
                plain = Pack(members, device=stage.device.name, engine="lowered", graph=False)
                stage.results.emit(
                    f"{name}, each kernel launched", step_seconds=_pack_step(stage, plain)
                )


def _pack_step(stage: Stage, pack: Any) -> float:
    """Seconds of a step of all members."""
    pack.advance(dict.fromkeys(pack.numbers, 20))
    steps = 40 if stage.tasks.small else 400
    start = time.perf_counter()
    pack.advance(dict.fromkeys(pack.numbers, 20 + steps))
    stage.device.synchronize()
    return (time.perf_counter() - start) / steps


class Slow(torch.utils.data.Dataset[Any]):
    """Examples that take a core some milliseconds each."""

    def __init__(self, milliseconds: float, side: int, count: int) -> None:
        self._milliseconds, self._side, self._count = milliseconds, side, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        end = time.perf_counter() + self._milliseconds / 1e3
        while time.perf_counter() < end:
            pass
        return torch.zeros(3, self._side, self._side, dtype=torch.uint8), index % 10


def _busy(stage: Stage, milliseconds: float) -> Callable[..., Any]:
    """An objective that keeps the device busy for about so long."""
    size = 128 if stage.device.is_cpu else 4096
    factor = torch.randn(size, size, device=stage.device.torch_device) / size
    product = _seconds_of(stage.device, lambda: factor @ factor, 0.1)  # pyright: ignore
    count = max(1, round(milliseconds / 1e3 / product))

    def objective(model: nn.Module, batch: Any) -> torch.Tensor:
        value = factor
        for _ in range(count):
            value = factor @ value
        return model(batch[0].float().mean((2, 3))).square().mean() + 0 * value.mean()

    return objective


def feed(stage: Stage) -> None:
    """Workers for data of some speeds, and what a run says that it waited for."""
    from volano.data import choose_workers

    small = stage.tasks.small
    side, batch = (32, 16) if small else (224, 128)
    if not small:
        with stage.results.check("workers", 60):
            for milliseconds in (1.0, 4.0, 8.0):
                chosen = choose_workers(
                    Slow(milliseconds, side, 4096), None, 256, num_cores(), num_steps=20000,
                    cpu_trains=stage.device.is_cpu,
                )  # fmt: skip
                stage.results.emit(
                    "workers", milliseconds=milliseconds, workers=chosen.workers,
                    reason=chosen.reason,
                )  # fmt: skip
    cases = {"device-bound": (0.0, 20.0, 0), "data-bound": (0.5 if small else 2.0, 5.0, 1)}
    for name, (made, step, workers) in cases.items():
        with stage.results.check(name, 60):
            notes, steps = Notes(), 12 if small else 90
            task = Task(
                model=functools.partial(nn.Linear, 3, 1), objective=_busy(stage, step),
                data=Slow(made, side, 16 * batch), batch_size=batch, duration=f"{steps}st",
                optimizer=functools.partial(torch.optim.SGD, lr=1e-3),
            )  # fmt: skip
            stage.trained(task, stage.plan.pin(feed="ring", workers=workers), notes)
            shares = [line["data_wait_share"] for line in notes.logs][len(notes.logs) // 2 :]
            stage.results.emit(name, data_wait_share=statistics.median(shares))


def resume(stage: Stage, **knobs: Any) -> None:
    """Two equal runs, and one that was stopped: how far apart they are, and what a step takes."""
    small = stage.tasks.small
    for make, steps in ((stage.tasks.resnet, 120), (stage.tasks.gpt, 60)):
        task, plan = make(steps=steps // 12 if small else steps), stage.fused.pin(**knobs)
        with stage.results.check(task.name, 80):
            one, two = (weights(stage.trained(task, plan)) for _ in range(2))
            folder = Path(tempfile.mkdtemp()) / "run"
            half = Notes(stop_at=task.num_steps // 2)
            volano.train(task, plan=plan, out=folder, observer=half)
            stopped = weights(volano.resume(folder, task=task, observer=Notes()))
            equal, resumed = (float((one - other).abs().max()) for other in (two, stopped))
            stage.results.emit(
                task.name, two_equal_runs=equal, stopped_and_resumed=resumed,
                stopped_over_equal=1.0 if resumed <= equal else resumed / max(equal, 1e-12),
                step=measure_step_time(task, plan, seconds=0.1 if small else 0.5).step,
            )  # fmt: skip


def study(stage: Stage) -> None:
    """A study of 32 trials, in packs."""

    def build(trial: Any) -> Task:
        rate = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        steps = 20 if stage.tasks.small else 300
        return stage.tasks.perceptron(steps=steps, lr=rate, is_evaluated=True)

    with stage.results.check("study", 90):
        start = time.perf_counter()
        found = volano.explore(
            build, trials=4 if stage.tasks.small else 32, device=stage.device.name,
            out=Path(tempfile.mkdtemp()) / "study",
        )  # fmt: skip
        seconds = time.perf_counter() - start
        stage.results.emit("study", seconds=seconds, best=found.best.value)


def applications(stage: Stage) -> None:
    minutes = {"image": 0.25, "text": 0.5, "video": 0.6}
    for name, length in minutes.items():
        with stage.results.check(name, 90):
            notes, start = Notes(), time.perf_counter()
            run = volano.train(
                name, minutes=length, device=stage.device.name, observer=notes,
                out=Path(tempfile.mkdtemp()) / "run",
            )  # fmt: skip
            stage.results.emit(
                name, seconds=time.perf_counter() - start, metrics=run.metrics,
                plan=run.plan.to_json(), notices=notes.notices,
            )  # fmt: skip


STAGES: dict[str, tuple[Callable[[Stage], None], int]] = {
    "machine": (machine, 45),
    "arithmetic": (arithmetic, 110),
    "speed": (speed, 190),
    "memory": (memory, 60),
    "packs": (packs, 60),
    "pressure": (pressure, 70),
    "feed": (feed, 60),
    "resume": (resume, 60),
    "deterministic": (functools.partial(resume, deterministic=True), 60),
    "knobs": (each_knob, 240),
    "study": (study, 100),
    "applications": (applications, 150),
}
