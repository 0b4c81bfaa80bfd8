"""Shows what Volano does on this machine: plain loops beside planned ones, in turn."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from volano.apps.kinds import APPLICATIONS
from volano.benchmark.rounds import StepGain, take_turns
from volano.benchmark.sides import OneByOne, PlainLoop, PlannedLoop, Together, changes_in_words
from volano.benchmark.tasks import NUM_MEMBERS, bare, embedded_task, pack_tasks
from volano.device import Device, describe_machine, versions
from volano.errors import UsageError, VolanoError
from volano.plan.format import MOST_MINUTES
from volano.running.references import load_task
from volano.task import Task

_clock = time.perf_counter
PACK = f"{NUM_MEMBERS} small nets"
# Of the whole time: a run as long as planning is for.
_RUN_SHARE = 0.6
_PROBE_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """The comparison of one task on one device.

    Attributes:
        task, device: what was compared, and where.
        plain_seconds, planned_seconds: medians of a step; of a step of all members for a pack.
        gain: how many times as fast a step is, over the rounds.
        planning_seconds: seconds of planning and of the start, compilation included.
        run_gain: how many times as fast a whole run is, those seconds counted.
        num_rounds: rounds of blocks in turn.
        plan: what differs from plain eager PyTorch.
    """

    task: str
    device: str
    plain_seconds: float
    planned_seconds: float
    gain: StepGain
    planning_seconds: float
    run_gain: float
    num_rounds: int
    plan: str


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """The comparisons, the length of a run for which plans were made, and what was left out."""

    rows: tuple[BenchRow, ...]
    run_seconds: float
    left_out: tuple[str, ...]
    machine: dict[str, Any]
    versions: dict[str, Any]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON values."""
        return asdict(self)


def bench(
    what: str | None = None,
    *,
    minutes: float = 5.0,
    device: str | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> BenchResult:
    """Compares plain loops with planned ones, and many plain loops with a pack. Let nothing else
    run meanwhile.

    Args:
        what: ``"module:task"``, a task of one's own; None is the three applications on their
            embedded samples, and a pack.
        minutes: the time for all of it. What does not fit is left out, and said.
        device: the device as torch writes it; None is the accelerator and the CPU beside it.
        on_progress: the function that hears what is done before it is.

    Raises:
        UsageError: ``minutes`` is not above 0, the device is not here, or ``what`` names no task.
    """
    if not 0 < minutes <= MOST_MINUTES:
        raise UsageError(
            f"`minutes` must be a number above 0, at most {MOST_MINUTES:,}", got=repr(minutes)
        )
    started, places = _clock(), _places(device)
    end, run_seconds = started + 60 * minutes, 60 * minutes * _RUN_SHARE
    jobs = [(name, place) for name in _names(what) for place in places]
    rows: list[BenchRow] = []
    left_out: list[str] = []
    for number, (name, place) in enumerate(jobs):
        now = _clock()
        label = f"{name} on {place.name}"
        if now >= end:
            left_out.append(f"{label}: no time was left")
            continue
        on_progress(f"{label}: plain and planned in turn")
        deadline = now + (end - now) / (len(jobs) - number)
        compare = _compare_pack if name == PACK else _compare
        try:
            rows.append(compare(name, place, deadline, run_seconds))
        except VolanoError as error:
            left_out.append(f"{label}: {error}")
    return BenchResult(
        rows=tuple(rows),
        run_seconds=run_seconds,
        left_out=tuple(left_out),
        machine=asdict(describe_machine(places[0])),
        versions=versions(),
        seconds=round(_clock() - started, 1),
    )


def _names(what: str | None) -> list[str]:
    if what is None:
        return [*APPLICATIONS, PACK]
    if ":" not in what:
        raise UsageError(
            "A task to compare must be named as module:task",
            got=repr(what),
            remedy="Leave it out for the applications",
        )
    load_task(what)
    return [what]


def _places(device: str | None) -> list[Device]:
    first = Device(device)
    return [first] if device is not None or first.is_cpu else [first, Device("cpu")]


@contextlib.contextmanager
def _task(name: str, num_steps: int) -> Iterator[Task]:
    if name in APPLICATIONS:
        with embedded_task(name, num_steps) as task:
            yield task
    else:
        yield bare(load_task(name), num_steps)


def _compare(name: str, place: Device, deadline: float, run_seconds: float) -> BenchRow:
    with _task(name, _PROBE_STEPS) as probe, contextlib.ExitStack() as stack:
        plain = PlainLoop(probe, place)
        stack.callback(plain.close)
        with plain.settled():
            plain.make(2)
            start = _clock()
            plain.make(2)
        num_steps = max(1, round(2 * run_seconds / max(_clock() - start, 1e-6)))
        planned = PlannedLoop(bare(probe, num_steps), place)
        stack.callback(planned.close)
        found = take_turns({"plain": plain, "planned": planned}, deadline=deadline, clock=_clock)
    before = planned.planning_seconds + planned.startup_seconds
    return _row(name, place, found, before, run_seconds, changes_in_words(planned.plan))


def _compare_pack(name: str, place: Device, deadline: float, run_seconds: float) -> BenchRow:
    tasks = pack_tasks(_PROBE_STEPS * _PROBE_STEPS)
    one_by_one = OneByOne(tasks, place)
    together = Together(tasks, place)
    with contextlib.closing(one_by_one):
        found = take_turns(
            {"plain": one_by_one, "planned": together}, deadline=deadline, clock=_clock
        )
    plan = f"one program: {together.pack.engine}"
    return _row(name, place, found, together.startup_seconds, run_seconds, plan)


def _row(
    name: str,
    place: Device,
    found: dict[str, list[float]],
    before: float,
    run_seconds: float,
    plan: str,
) -> BenchRow:
    plain, planned = (statistics.median(found[side]) for side in ("plain", "planned"))
    return BenchRow(
        task=name,
        device=place.name,
        plain_seconds=plain,
        planned_seconds=planned,
        gain=StepGain.of(found["plain"], found["planned"]),
        planning_seconds=before,
        run_gain=run_seconds / (before + run_seconds * planned / plain),
        num_rounds=len(found["plain"]),
        plan=plan,
    )
