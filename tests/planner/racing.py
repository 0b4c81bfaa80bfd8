"""A race whose candidates have seconds that are known beforehand."""

from types import SimpleNamespace
from typing import Any

from planner.searching import LONG, PLAIN, make_task
from volano.device import Device
from volano.planner import PlanRequest
from volano.planner.search.candidates import CandidateSpace
from volano.planner.search.race import CandidateRace
from volano.planner.search.timing import Timing


class FakeRuns:
    """Candidates whose seconds a step are known beforehand; a candidate that isn't listed fails."""

    def __init__(self, steps):
        self.steps, self.timings = steps, {}

    @property
    def best(self):
        found = [one for one in self.timings.values() if one.step is not None]
        return min(found, key=lambda one: one.step, default=None)

    def run(self, plan, **_):
        if plan not in self.timings:
            self.timings[plan] = Timing(plan=plan, step=self.steps(plan), startup=5.0)
        return self.timings[plan]

    def final(self, _cost):
        pass

    def close(self):
        pass


OPTIONS: dict[str, Any] = {
    "allocator": ("system",),
    "optimizer": ("as_given",),
    "memory_format": ("contiguous",),
    "precision": ("fp32",),
    "compile": (False,),
    "threads": (None,),
    "graph": (False,),
    "compile_mode": ("whole",),
    "conv_benchmark": (False,),
    "prefix": ("computed",),
}


def race_of(steps, *, left=1e9, fits=None, verdict=None, predicted=None, **options):
    """A race without sessions; ``request`` and knobs are options."""
    race: Any = object.__new__(CandidateRace)
    race._request = options.pop("request", PlanRequest())
    race._task = make_task(duration=options.pop("duration", LONG))
    race.space = CandidateSpace(base=PLAIN, options={**OPTIONS, **options}, refused=())
    race._device = Device("cpu")
    race._fits, race._way, race.why_not_compiled = fits or {}, {}, None
    race.share, race.has_ended_early = 1.0, False
    race._seconds_each = 0.0
    race._cost_model = SimpleNamespace(
        time=predicted or (lambda _: None),
        expected=lambda plan: getattr((predicted or (lambda _: None))(plan), "step", None),
        learn=lambda *_: None, startup=lambda _: 5.0, capture=lambda _: None,
        learn_startup=lambda *_: None, has_compiled=False,
        verdict=verdict or (lambda _: None), is_asked=False,
    )  # fmt: skip
    race._time_budget = SimpleNamespace(
        run_seconds=None, total=left, left=left, left_in_all=left, note_gain=lambda _: None,
        note_reused=lambda _: None,
    )  # fmt: skip
    race._timing_runs = FakeRuns(steps)
    return race
