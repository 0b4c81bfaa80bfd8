"""Which candidates run, in which order, and when the race ends."""

import time

import pytest
import torch
from torch import nn

from planner.racing import race_of
from planner.searching import LONG, PLAIN, SlowIfNarrow, by_plan, cache, make_task, search
from training.graphs.recording_graph import recording
from volano.plan.explanation import Refusal
from volano.planner import PlanRequest, find_plan
from volano.planner.cost_model import CostModel
from volano.planner.search import timed_candidates
from volano.planner.search.batch_share import share_to_time
from volano.planner.search.fit_memory import Fit

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache", "recording"]
MIB = 2**20


def test_fewer_threads_are_tried_for_as_long_as_that_helps():
    by_threads = {None: 0.4, 4: 0.2, 2: 0.3}
    race = race_of(lambda plan: by_threads[plan.threads], threads=(None, 4, 2, 1))
    race.run()
    assert [plan.threads for plan in race.timings] == [None, 4, 2]
    assert race.ranking()[0].plan.threads == 4
    assert race.space.refused == (
        Refusal(knob="threads", value=1, reason="2 are no faster than more are"),
    )


def test_compiling_must_save_more_than_it_takes():
    race = race_of(lambda _: 0.01, compile=(False, True), duration="100st")
    race.run()
    assert not any(plan.compile for plan in race.timings)
    assert race.why_not_compiled == "it takes about 5 s and may save 0 s of this run"
    (refusal,) = race.space.refused
    assert (refusal.knob, refusal.value) == ("compile", True)
    race = race_of(lambda plan: 0.005 if plan.compile else 0.01, compile=(False, True))
    race.run()
    assert race.ranking()[0].plan.compile
    assert race.why_not_compiled is None


@pytest.mark.parametrize(
    ("left", "has_compiled", "is_tried"),
    [(9.0, True, True), (9.0, False, False), (6.0, True, False), (12.0, False, True)],
)
def test_nothing_is_compiled_for_which_there_may_be_no_time(left, has_compiled, is_tried):
    # 5 s are predicted; nothing is left for the guard beside 12 steps of 10 ms.
    race = race_of(lambda plan: 0.005 if plan.compile else 0.01, left=left, compile=(False, True))
    race._cost_model.has_compiled = has_compiled
    race.run()
    assert any(plan.compile for plan in race.timings) == is_tried
    if not is_tried:
        late = 6 if has_compiled else 10
        assert race.why_not_compiled.startswith(f"it takes about 5 s, perhaps {late}, and planning")


def test_the_next_is_not_compiled_if_the_first_was_no_faster():
    race = race_of(
        lambda plan: 0.1 if plan.precision == "fp32" and not plan.compile else 0.2,
        compile=(False, True),
        precision=("fp32", "bf16"),
    )
    race.run()
    assert len([plan for plan in race.timings if plan.compile]) == 1
    assert race.why_not_compiled == "another compiled candidate was no faster"
    assert race.space.refused == ()  # since one was compiled


def test_what_does_not_fit_does_not_run():
    ways = Fit(ways=({"micro_batch": 16}, {"micro_batch": 8}), needed=1, missing="")
    race = race_of(
        lambda plan: 0.1 if plan.micro_batch == 8 else 0.2,
        fits={"fp32": ways},
        threads=(None, 1),
        verdict=lambda plan: "NO" if plan.threads == 1 else "FITS",
    )
    race.run()
    assert [plan.micro_batch for plan in race.timings] == [16, 8]
    assert race.eager_plans() == [PLAIN.pin(micro_batch=8)]  # the faster way is that of all others


def test_a_narrow_type_that_is_slower_is_left():
    assert search(make_task(model=SlowIfNarrow)).plan.precision == "fp32"


@pytest.mark.parametrize(("narrow", "is_safe_run"), [(0.005, False), (0.02, True), (0.00999, True)])
def test_what_is_spent_is_spent(narrow, is_safe_run):
    # Nothing is left after the first candidate: only those without which there is no answer are
    # run, the safe choices among them where the narrow type is no faster, or gains less than its
    # check takes.
    race = race_of(
        lambda plan: narrow if plan.precision == "bf16" else 0.01, left=-1.0,
        precision=("fp32", "bf16"), memory_format=("contiguous", "channels_last"),
        allocator=("system", "keep"),
    )  # fmt: skip
    race.run()
    first = PLAIN.pin(precision="bf16", memory_format="channels_last", allocator="keep")
    assert [*race.timings] == [PLAIN, first, *[PLAIN.pin(allocator="keep")] * is_safe_run]


@pytest.mark.parametrize(("left", "num_timed"), [(1.5, 4), (1.2, 2)])
def test_no_candidate_is_begun_that_leaves_the_guard_no_time(left, num_timed, monkeypatch):
    clock = iter(range(10**6))  # each candidate takes a second
    monkeypatch.setattr(timed_candidates.time, "perf_counter", lambda: float(next(clock)))
    race = race_of(
        lambda plan: 0.01, left=left, precision=("fp32", "bf16"),
        memory_format=("contiguous", "channels_last"),
    )  # fmt: skip
    race.run()  # three tenths are the guard's
    assert len(race.timings) == num_timed


@pytest.mark.parametrize(
    ("num_steps", "batch_size", "is_cpu", "share"),
    [
        (300, 64, True, 1.0), (300, 64, False, 1.0), (299, 64, True, 0.299), (299, 64, False, None),
        (100, 128, True, 0.1), (60, 64, True, 0.125), (40, 64, True, None), (19, 64, True, None),
    ],
)  # fmt: skip
def test_the_share_of_a_batch_that_tells(num_steps, batch_size, is_cpu, share):
    assert share_to_time(num_steps, batch_size, is_cpu=is_cpu) == share


@pytest.mark.parametrize(
    ("num_steps", "batch_size", "speed", "share"),
    [
        (248, 8, 1.0, None), (248, 8, 2.0, 1.0), (199, 8, 2.0, None), (101, 4, 7.0, 1.0),
        (99, 8, 7.0, None), (100, 16, 2.0, 0.5), (99, 16, 2.0, None), (60, 64, 0.2, 0.125),
        (40, 64, 7.0, None),
    ],
)  # fmt: skip
def test_a_fast_narrow_type_is_worth_timing_in_shorter_runs(num_steps, batch_size, speed, share):
    found = share_to_time(num_steps, batch_size, is_cpu=True, narrow_speed=speed)
    assert found == share


def test_a_model_that_does_not_compile(monkeypatch):
    def fails(*_):
        raise RuntimeError("cannot be compiled\nas more lines say")

    monkeypatch.setattr(torch, "compile", lambda _: fails)
    task = make_task(model=lambda: nn.Linear(64, 10), tolerance="rounding", duration=LONG)
    found = find_plan(task, PlanRequest(device="cpu", is_free=True, recalls=False))
    assert not found.plan.compile
    tried = [c for c in by_plan(found, compile=True) if c.status != "untried"]
    assert tried
    assert {c.status for c in tried} == {"failed"}
    assert all("\n" not in c.reason for c in tried)


def test_what_is_too_large_once_compiled_is_not_compiled(monkeypatch):
    """The verdict is the oracle's: here every compiled plan is too large."""
    monkeypatch.setattr(CostModel, "_is_looked_into", lambda _, plan: not plan.compile)
    monkeypatch.setattr(CostModel, "verdict", lambda _, plan: "NO" if plan.compile else "FITS")
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda *args, **_: compiled.append(args))
    asked = PlanRequest(device="cpu", budget=4000 * MIB, is_free=True, recalls=False)
    found = find_plan(make_task(duration="300st"), asked)
    assert not compiled
    assert not found.plan.compile
    assert {c.status for c in found.explanation.candidates if c.plan.compile} == {"memory"}
    assert [r.reason for r in found.explanation.refused if r.knob == "compile"][-1:] == [
        "compiled it does not fit the budget"
    ]


class SlowOnTheHost(nn.Module):
    """A net whose host is slow, as it is beside a GPU."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x):
        time.sleep(0.01)
        return self.inner(x)


def test_a_step_that_the_host_makes_slow_is_recorded(recording):
    found = search(make_task(model=SlowOnTheHost, tolerance="rounding"))
    assert found.plan.graph
    (candidate,) = by_plan(found, graph=True)
    assert candidate.status == "chosen"
    assert "error" in candidate.parity
    assert recording.num_replays > 10


def test_a_graph_that_computes_something_else_is_struck(recording, monkeypatch):
    monkeypatch.setattr(recording, "replay", lambda _: None)
    found = search(make_task(model=SlowOnTheHost, tolerance="rounding"))
    assert not found.plan.graph
    (candidate,) = by_plan(found, graph=True)
    assert candidate.status == "struck"


def test_what_cannot_be_recorded_loses_with_the_reason(recording):
    def reads(model, batch):
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * (1.0 if loss.item() > 0 else 2.0)

    found = search(make_task(model=SlowOnTheHost, objective=reads))
    assert not found.plan.graph
    (candidate,) = by_plan(found, graph=True)
    assert "cannot be recorded" in candidate.reason


def test_a_graph_is_not_tried_if_memory_is_short():
    fit = Fit(ways=({"micro_batch": 8},), needed=MIB, missing="")
    race = race_of(lambda plan: 1.0, fits={"fp32": fit}, graph=(False, True))
    race.run()
    assert race.timings
    assert not any(plan.graph for plan in race.timings)
    (refusal,) = race.space.refused
    assert refusal.knob == "graph"
    assert "memory is short" in refusal.reason
