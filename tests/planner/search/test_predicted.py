"""Answers from predictions, before or without a race."""

import re
from types import SimpleNamespace

import pytest

from planner.searching import PLAIN, cache, make_task
from volano.plan.explanation import Candidate
from volano.plan.prediction import TimePrediction
from volano.planner import PlanRequest, find_plan
from volano.planner.search import search as planner_search
from volano.planner.search import timing
from volano.planner.search.candidates import CandidateSpace
from volano.planner.search.predicted import possible_gain, predicted_candidates
from volano.training import Observer

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache"]
SAFE, NARROW = PLAIN.pin(allocator="keep"), PLAIN.pin(precision="bf16")


class Notes(Observer):
    """What was heard, in order."""

    def __init__(self):
        self.heard = []

    def on_phase(self, text):
        self.heard.append(("phase", text))

    def on_explanation(self, explanation):
        self.heard.append(("explanation", explanation))

    def on_candidate(self, text):
        self.heard.append(("candidate", text))

    def of(self, kind):
        return [what for name, what in self.heard if name == kind]


def explain(task, **request):
    notes = Notes()
    asked = PlanRequest(
        device="cpu", forbid={"compile": True}, is_free=True, observer=notes, **request
    )
    return find_plan(task, asked).explanation, notes


def model_of(steps, *, verdict=lambda _: None):
    def time(plan):
        return None if steps[plan] is None else TimePrediction(step=steps[plan], startup=1.0)

    return SimpleNamespace(memory=lambda _: None, time=time, verdict=verdict, filling=lambda _: 0.0)


def test_the_first_of_equals_is_chosen_and_the_others_stand_beside_it():
    model = model_of({SAFE: 0.2, NARROW: 0.4, PLAIN: 0.2})
    chosen, *others = predicted_candidates(
        [SAFE, NARROW, PLAIN], model, 100, filling_steps=0, is_tight=False
    )
    assert (chosen.plan, chosen.status, chosen.total) == (SAFE, "chosen", 21.0)
    assert [(c.plan, c.status) for c in others] == [(PLAIN, "slower"), (NARROW, "slower")]
    assert others[1].reason == "1.95x the chosen one's time"


def test_where_memory_decides_what_is_not_known_does_not_fit():
    model = model_of(
        {SAFE: 0.2, NARROW: 0.1, PLAIN: None}, verdict={SAFE: "FITS", NARROW: None}.get
    )
    found = predicted_candidates([SAFE, NARROW, PLAIN], model, 100, filling_steps=0, is_tight=True)
    assert [c.status for c in found] == ["chosen", "memory", "untried"]
    assert found[0].plan == SAFE


def test_what_a_race_may_gain():
    space = CandidateSpace(base=PLAIN, options={}, refused=())

    def one(plan, total, status="slower"):
        return Candidate(plan=plan, status=status, reason="", total=total)

    assert possible_gain([one(SAFE, 50.0)], 100.0, space) == 0.0  # needs no measuring
    assert possible_gain([one(SAFE, 50.0), one(NARROW, 100.0)], 100.0, space) == 15.0
    assert possible_gain([one(NARROW, 10.0, "memory")], 100.0, space) == 0.0
    assert possible_gain([one(NARROW, 500.0)], 100.0, space) == 0.0


def test_without_a_race_nothing_runs(monkeypatch):
    monkeypatch.setattr(timing, "TimingRun", None)  # would fail
    found, notes = explain(make_task(), is_raced=False)
    assert found.origin == "predicted"
    assert all(c.measured is None for c in found.candidates)
    assert all(c.predicted is not None for c in found.candidates if c.plan.threads is None)
    assert found.seconds["plan"] == min(c.total for c in found.candidates if c.total is not None)
    assert notes.of("explanation") == []


@pytest.mark.parametrize("is_raced", [False, None])
def test_steps_that_were_timed_already_correct_what_is_predicted(is_raced, monkeypatch):
    monkeypatch.setattr(timing, "TimingRun", None)  # would fail
    timed = {SAFE.pin(feed="resident"): 7.0}
    found, _ = explain(make_task(duration="100st"), is_raced=is_raced, timed=timed)
    steps = {c.plan: c.predicted.step for c in found.candidates if c.predicted}
    assert steps[PLAIN.pin(feed="resident")] == pytest.approx(7.0)
    assert min(steps.values()) < 7.0


def test_a_race_that_does_not_pay_is_left_out_and_that_is_said(monkeypatch):
    ran, run = [], timing.TimingRun
    monkeypatch.setattr(timing, "TimingRun", lambda *args: ran.append(args[1]) or run(*args))
    found, _ = explain(make_task(duration="100st"), is_raced=None)
    assert found.origin == "predicted"
    # Some steps of plain eager, which sleeps for 4 ms, and of the safe choices correct the others.
    base = PLAIN.pin(feed="resident")
    assert ran == [base, base.pin(allocator="keep", optimizer="fused")]
    told = {c.plan: c.predicted for c in found.candidates if c.predicted}
    assert [told[plan].origin for plan in ran] == ["timed", "timed"]
    assert told[base].step > 0.004
    assert found.prediction_error is None
    assert re.match(r"no race: it would take about \d s, and could save 0 s", found.notices[-1])


@pytest.mark.parametrize(("is_raced", "steps"), [(None, 10**7), (True, 100)])
def test_predictions_come_first_and_each_candidate_as_it_ran(is_raced, steps, monkeypatch):
    monkeypatch.setattr(planner_search, "possible_gain", lambda *_: 1e6)
    found, notes = explain(make_task(duration=f"{steps}st"), is_raced=is_raced)
    (first,) = notes.of("explanation")
    kinds = [kind for kind, _ in notes.heard]
    assert kinds.index("explanation") < kinds.index("candidate")
    assert (first.origin, found.origin) == ("predicted", "raced")
    before = {c.plan: c.predicted for c in first.candidates if c.predicted}
    raced = [c for c in found.candidates if c.measured is not None and c.plan in before]
    assert len(raced) >= 3
    assert all(before[c.plan] == c.predicted for c in raced)
    # Those of plain eager and of the safe choices were corrected by their own steps.
    assert found.prediction_error["num_candidates"] == len(raced) - 2
    assert len(notes.of("candidate")) == sum(c.measured is not None for c in found.candidates)
    assert " ms a step, " in notes.of("candidate")[0]
    (said,) = [text for text in notes.of("phase") if text.startswith("racing")]
    assert said.endswith("at most 120 s" if is_raced else "at most 30 s")
