"""The race, with a stand-in for the child processes."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from volano.errors import ScriptError
from volano.record.format import ms_text
from volano.script.plan import ScriptPlan
from volano.script.search.candidates import PlanToTry
from volano.script.search.race import ScriptRace
from volano.script.watch.launch import WatchedRun
from volano.thread_waits import SHORT_SPIN_COUNT, SPIN_COUNT

WORKERS = ScriptPlan(num_workers=2)
LAST = ScriptPlan(memory_format="channels_last")
FUSED = ScriptPlan(fused=True)
TOGETHER = ScriptPlan(num_workers=2, memory_format="channels_last")


SHORT = ScriptPlan(spin_count=SHORT_SPIN_COUNT)


class Runner:
    """A runner of scripts that take as long as is said."""

    def __init__(
        self, folder, seconds, *, wrong=(), careless=(), failing=(), idle=(), first=1.0, peaks=None,
        **seen,
    ):  # fmt: skip
        self._folder, self._seconds, self._first, self._seen = folder, seconds, first, seen
        self._peaks = {} if peaks is None else peaks
        self._wrong, self._careless = wrong, careless
        self._failing, self._idle = failing, idle
        self.ran = []

    def run(self, plan, *, limits, seconds, is_reference=False):
        self.ran.append("float64" if is_reference else plan)
        if plan in self._failing:
            raise ScriptError("train.py must run by itself", got="exit code 1")
        path = self._folder / f"{len(self.ran)}.safetensors"
        value = 2.0 if plan in self._wrong else 1.0
        if plan in self._careless and not is_reference:
            value = 1.005
        save_file({"gradient.0.0": np.full(3, value, np.float32)}, path)
        record = {
            "losses": [1.0], "draws": "", "facts": {"threads": plan.threads or 2},
            "step_seconds": self._step_seconds(plan),
            "free_step_seconds": None, "deeds": [] if plan in self._idle else ["it"],
            "left": ["the script has its own"], "peak_bytes": self._peaks.get(plan, 2**30),
            **self._seen,
        }  # fmt: skip
        startup_seconds = self._first if len(self.ran) == 1 else 1.0
        return WatchedRun(record=record, gradients=path, startup_seconds=startup_seconds)

    def _step_seconds(self, plan):
        """Seconds of a step; of several, those of its runs in turn."""
        seconds = self._seconds.get(plan, 0.1)
        if isinstance(seconds, float):
            return seconds
        return seconds[min(self.ran.count(plan), len(seconds)) - 1]


def race(folder, seconds, plans, *, left=1e6, is_bound=False, **faults):
    runner, lines = Runner(folder, seconds, **faults), []
    base = runner.run(ScriptPlan(), limits={}, seconds=1)
    deadline = time.monotonic() + left
    found = ScriptRace(
        runner, base, deadline=deadline, is_bound=is_bound, steps=None, say=lines.append
    )
    return found, found.run([PlanToTry(plan, 0.5) for plan in plans]), runner, lines


def statuses(found):
    return {one.plan: one.status for one in found.candidates}


def test_the_winners_are_tried_together(tmp_path):
    seconds = {WORKERS: 0.05, LAST: 0.08, TOGETHER: 0.04}
    _, best, _, lines = race(tmp_path, seconds, [WORKERS, LAST, FUSED])
    assert best.plan == TOGETHER
    assert best.gain == pytest.approx(2.5)
    text = "\n".join(lines)
    assert "2.00 times as fast" in text
    assert "equal to the last bit" in text
    assert max(map(len, lines)) <= 80


def plan_of(*plans):
    return ScriptPlan(**{name: value for one in plans for name, value in one.settings().items()})


BF16, KEEP = ScriptPlan(precision="bf16"), ScriptPlan(allocator="keep")


@pytest.mark.parametrize(
    ("seconds", "plans"),
    [
        # All that is no slower alone gains beside the workers.
        ({LAST: 0.105, plan_of(WORKERS, BF16, LAST, KEEP): 0.03}, (WORKERS, BF16, LAST, KEEP)),
        # Not all of it, but one of them.
        ({LAST: 0.105, plan_of(WORKERS, BF16): 0.04}, (WORKERS, BF16)),
        # Two, one after the other.
        ({plan_of(WORKERS, BF16): 0.04, plan_of(WORKERS, BF16, KEEP): 0.03},
         (WORKERS, BF16, KEEP)),
        # What is slower alone is not tried.
        ({BF16: 0.12, plan_of(WORKERS, BF16): 0.01}, (WORKERS,)),
        # Nothing gains beside them.
        ({}, (WORKERS,)),
    ],
)  # fmt: skip
def test_what_gains_nothing_alone_is_tried_beside_the_fastest(tmp_path, seconds, plans):
    tried = [WORKERS, BF16, LAST, KEEP]
    found, best, runner, _ = race(tmp_path, {WORKERS: 0.05, **seconds}, tried)
    assert best.plan == plan_of(*plans)
    once = [plan for plan in runner.ran if plan not in (ScriptPlan(), best.plan)]
    assert len(once) == len(set(once))
    assert all(one.plan.threads is None or one.plan.settings().keys() == {"threads"}
               for one in found.candidates)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "faults", "plans"),
    [
        ({BF16: 0.13, LAST: 0.12}, {}, (WORKERS, BF16, LAST)),
        # What would have been struck, and is no faster alone, is run in float64 first.
        ({BF16: 0.13, LAST: 0.12}, {"careless": [LAST]}, (WORKERS, BF16, LAST)),
        ({BF16: 0.13, LAST: 0.12}, {"wrong": [LAST]}, (WORKERS,)),
        ({BF16: 0.13, LAST: 0.12}, {"wrong": [BF16]}, (WORKERS,)),
        ({BF16: 0.2, LAST: 0.12}, {}, (WORKERS,)),  # beyond hope
    ],
)
def test_a_narrow_type_and_channels_last_are_tried_together(tmp_path, seconds, faults, plans):
    seconds = {WORKERS: 0.05, plan_of(WORKERS, BF16, LAST): 0.03, **seconds}
    _, best, runner, _ = race(tmp_path, seconds, [WORKERS, BF16, LAST], **faults)
    assert best.plan == plan_of(*plans)
    assert runner.ran.count("float64") == (2 if "careless" in faults else len(faults))


def test_without_time_nothing_is_tried_beside_the_fastest(tmp_path, monkeypatch):
    found, _, runner, _ = race(tmp_path, {WORKERS: 0.05}, [])
    found._prepare_guard()
    for plan in (WORKERS, BF16):
        found._try(plan)
    monkeypatch.setattr(found, "_has_time", lambda num_children: num_children < 3)
    assert found._choose().plan == WORKERS
    assert plan_of(WORKERS, BF16) not in runner.ran


def test_what_computes_something_else_is_not_chosen_however_fast(tmp_path):
    found, best, _, lines = race(tmp_path, {WORKERS: 0.01}, [WORKERS], wrong=[WORKERS])
    assert best is None
    assert statuses(found)[WORKERS] == "struck"
    assert any("rejected: other numbers" in line for line in lines)


def test_what_would_be_struck_is_asked_of_float64_once(tmp_path):
    found, _, runner, _ = race(tmp_path, {}, [LAST, FUSED], wrong=[LAST, FUSED])
    assert runner.ran.count("float64") == 1
    assert statuses(found)[LAST] == statuses(found)[FUSED] == "struck"


@pytest.mark.parametrize(("seconds", "status", "runs"), [(0.05, "measured", 2), (0.1, "slower", 1)])
def test_what_is_faster_and_the_same_in_float64_is_sound(tmp_path, seconds, status, runs):
    found, _, runner, lines = race(tmp_path, {LAST: seconds}, [LAST], careless=[LAST])
    assert statuses(found)[LAST] == status
    assert any("no faster, and so not looked into" in line for line in lines) == (runs == 1)
    assert not any("rejected" in line for line in lines)
    assert runner.ran.count("float64") == runs  # what is not faster is not worth one


def test_what_was_proved_alone_is_not_run_in_float64_again_together(tmp_path):
    both = dataclasses.replace(LAST, allocator="keep")
    keep = ScriptPlan(allocator="keep")
    seconds = {LAST: 0.07, keep: 0.08, both: 0.05}
    _, best, runner, _ = race(tmp_path, seconds, [LAST, keep], careless=[LAST, both])
    assert best.plan == both
    assert runner.ran.count("float64") == 2  # of the script, and of channels_last


def test_noise_is_no_gain(tmp_path):
    _, best, runner, _ = race(tmp_path, {LAST: 0.099}, [LAST])
    assert best is None
    assert runner.ran.count(ScriptPlan()) == 3  # before, between and after


@pytest.mark.parametrize(("again", "gain"), [(0.06, 0.1 / 0.06), (0.11, None)])
def test_the_best_is_run_again_and_the_slower_run_counts(tmp_path, again, gain):
    found, best, runner, lines = race(tmp_path, {WORKERS: [0.05, again]}, [WORKERS])
    assert (best and best.gain) == (gain and pytest.approx(gain))
    assert best is None or best in found.candidates
    assert runner.ran[-2:] == [WORKERS, ScriptPlan()]
    assert f"      again {ms_text(again)}, the script {ms_text(0.1)}" in lines


def test_without_time_for_another_run_only_much_is_believed(tmp_path, monkeypatch):
    for seconds, plan in ((0.07, WORKERS), (0.09, None)):
        found, best, runner, _ = race(tmp_path, {WORKERS: seconds}, [])
        monkeypatch.setattr(found, "_has_time", lambda num_children: num_children != 2)
        found._prepare_guard()
        found._try(WORKERS)
        best = found._confirmed(1.03)
        assert (best and best.plan) == plan
        assert runner.ran.count(WORKERS) == 1


def test_what_does_not_last_makes_way_for_the_next(tmp_path):
    seconds = {WORKERS: [0.05, 0.2], LAST: 0.06, TOGETHER: 0.2}
    found, best, _, _ = race(tmp_path, seconds, [WORKERS, LAST])
    assert best.plan == LAST
    assert any(notice.startswith("num_workers=2 took 200 ms") for notice in found.notices)


def test_a_plan_that_takes_more_memory_says_so(tmp_path):
    _, _, _, lines = race(tmp_path, {}, [LAST], peaks={LAST: 3 * 2**30})
    assert sum("peak memory 3.00 GiB" in line for line in lines) == 1


def test_one_run_beside_something_else_hides_no_gain(tmp_path):
    seconds = {ScriptPlan(): [0.1, 0.8, 0.1], WORKERS: 0.05}
    found, best, _, _ = race(tmp_path, seconds, [WORKERS])
    assert best.plan == WORKERS
    assert best.gain == pytest.approx(2.0)
    assert found.base_seconds == 0.1


def test_what_may_be_chance_is_said_with_the_figures(tmp_path):
    seconds = {ScriptPlan(): [0.1, 0.3, 0.4], ScriptPlan(threads=1): 0.5, SHORT: 0.5, WORKERS: 0.15}
    found, best, _, _ = race(tmp_path, seconds, [WORKERS])
    assert best is None
    said = "num_workers=2 took 150 ms a step, and is not taken: the script as it is took 100 ms to "
    assert found.notices[-1].startswith(said + "400 ms in its 3 runs")


def test_threads_that_wait_for_one_without_a_core_wait_for_less_time(tmp_path, monkeypatch):
    monkeypatch.delenv(SPIN_COUNT, raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    both = dataclasses.replace(FUSED, spin_count=SHORT_SPIN_COUNT)
    seconds = {ScriptPlan(): 0.4, ScriptPlan(threads=1): 0.03, SHORT: 0.05, both: 0.04}
    found, best, _, _ = race(tmp_path, seconds, [FUSED])
    assert [one.plan for one in found.candidates] == [ScriptPlan(threads=1), SHORT, both]
    assert best.plan == both  # which stays fast if the others end; fewer threads would not
    assert found.notices[-1].startswith("threads=1 is not taken: other processes compute here")
    # Where they wait for nobody, or somebody has said how, it is not tried.
    found, _, _, _ = race(tmp_path, {ScriptPlan(threads=1): 0.15}, [FUSED])
    assert [one.plan for one in found.candidates] == [ScriptPlan(threads=1), FUSED]
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    found, _, _, _ = race(tmp_path, seconds, [FUSED])
    assert SHORT not in [one.plan for one in found.candidates]


def test_what_fails_or_changes_nothing_is_said(tmp_path):
    faults = {"failing": [LAST], "idle": [FUSED]}
    found, best, _, lines = race(tmp_path, {}, [LAST, FUSED], **faults)
    assert best is None
    assert statuses(found) == {ScriptPlan(threads=1): "measured", LAST: "failed", FUSED: "failed"}
    text = "\n".join(lines)
    assert "failed: train.py must run by itself; got exit code 1." in text
    assert "failed: the script has its own" in text


def test_the_time_is_kept_and_what_was_left_is_said(tmp_path):
    found, best, runner, _ = race(tmp_path, {}, [WORKERS, LAST], left=8)  # three runs take nine
    assert best is None
    assert len(runner.ran) == 1
    assert found.notices == ["no time was left to try plans: give `seconds` 30 or more"]


def test_a_script_that_begins_late_once_is_raced(tmp_path):
    _, best, runner, _ = race(tmp_path, {WORKERS: 0.05}, [WORKERS], left=100, first=60.0)
    assert best.plan == WORKERS
    assert runner.ran[:3] == [ScriptPlan(), ScriptPlan(), ScriptPlan(threads=1)]
    _, best, runner, _ = race(tmp_path, {}, [WORKERS], left=100, first=60.0, is_bound=True)
    assert (best, len(runner.ran)) == (None, 1)


def test_a_script_that_cannot_run_twice_is_explained_without_a_race(tmp_path):
    found, best, _, _ = race(tmp_path, {}, [WORKERS], failing=[ScriptPlan(threads=1)])
    assert best is None
    assert found.notices[0].startswith("it does not run a second time: train.py must run")


def test_a_script_that_sets_its_threads_or_ends_early_gains_nothing_by_chance(tmp_path):
    seen = {"status": "ended", "each_step_seconds": [0.05, 0.15] * 3}
    found, best, _, _ = race(tmp_path, {FUSED: 0.06}, [FUSED], **seen)
    assert best is None  # by chance, a step takes 0.1 +- 0.02 s
    assert statuses(found)[FUSED] == "measured"
    seen["facts"] = {"threads": 4}  # its own, whatever a plan says
    found, best, _, _ = race(tmp_path, {FUSED: 0.02}, [FUSED], **seen)
    assert best.plan == FUSED
    assert found.candidates[0].reason == "the script sets its number of threads itself"
